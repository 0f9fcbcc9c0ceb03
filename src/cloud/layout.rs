//! `sensor_msgs/PointCloud2` bytes to [`super::PointCloud`].
