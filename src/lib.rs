//! pivotal: distilled LiDAR detection for ROS 2.
//!
//! A cloud goes through the stages below from top to bottom; the node, the bag replay, the trainer and the benchmarks
//! all call the same [`pipeline`]. ARCHITECTURE.md is the map with the reasons.
//!
//! # Shape legend
//!
//! Used by every doc comment: B batch, N points, D point features, P pillars, T points kept per pillar, C channels,
//! H x W rows (y) x columns (x) of the bird's-eye map, K classes, M boxes or peaks, G true boxes.
//!
//! # Units and frames
//!
//! SI units. Body axes x forward, y left, z up; yaw counter-clockwise from +x in radians (REP 103). Boxes live in the frame
//! of the cloud they were found in. Stamps are nanoseconds ([`time::Stamp`]).

pub mod time;

pub mod geometry;

pub mod cloud;

pub mod voxel;

pub mod sparse;

pub mod model;

pub mod postprocess;

pub mod pipeline;

pub mod device;

pub mod msgs;

pub mod bag;

pub mod transport;

pub mod node;

pub mod replay;

pub mod play;

pub mod viz;

pub mod synth;

pub mod import;

pub mod data;

pub mod train;

pub mod profile;

pub mod doctor;

pub mod distill;

pub mod parity;

pub mod eval;
