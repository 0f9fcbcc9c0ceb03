//! The live detector node: ROS command line and parameters in, detections, markers, report and diagnostics out.
//!
//! The middleware is behind [`crate::transport`]; the numbers come from [`crate::pipeline`]. What is here decides names,
//! parameters, when a frame is processed, and what is said about it.

pub mod names;

pub mod remap;

pub mod param_value;

pub mod args;

pub mod output;

pub mod param_rule;

pub mod params;

pub mod config;

pub mod health;

pub mod logging;

pub mod error;

mod throttle;

mod frame;

mod inference;

pub mod run;
