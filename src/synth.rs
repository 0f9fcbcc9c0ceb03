//! Synthetic LiDAR drives.
