//! The one integration crate: each further one would link libtorch again.
#![allow(clippy::unwrap_used)]

mod anchor;
mod augment;
mod bag;
mod cache;
mod cloud;
mod distill;
mod docs;
mod doctor;
mod eval;
mod import;
mod messages;
mod models;
mod msgs;
mod node;
mod parity;
mod pipeline;
mod play;
mod postprocess;
mod profile;
mod replay;
mod ros_package;
mod sources;
mod sparse;
mod support;
mod synth;
mod tidy;
mod train_parts;
mod training;
mod transport;
mod waymo;
