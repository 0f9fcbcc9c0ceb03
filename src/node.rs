//! The live detector node: ROS command line and parameters in, detections, markers, report and diagnostics out.
//!
//! The middleware is behind [`crate::transport`]; the numbers come from [`crate::pipeline`]. What is here decides names,
//! parameters, when a frame is processed, and what is said about it.
//!
//! A command line becomes [`args::RosArgs`], then [`names::NodeNames`] and [`config::ResolvedParams`]; [`run::run`] takes both.

pub mod args;

pub mod remap;

pub mod names;

pub mod param_value;

pub mod param_rule;

pub mod params;

pub mod config;

pub mod live;

pub mod param_services;

pub mod error;

pub mod logging;

pub mod rosout;

mod lifecycle;

pub mod autoware;

pub mod timings;

pub mod check;

pub mod run;

mod inference;

mod frame;

pub mod output;

pub mod health;
