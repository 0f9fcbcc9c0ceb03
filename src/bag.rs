//! rosbag2 recordings: sqlite3 and mcap, split, zstd in every mode.
