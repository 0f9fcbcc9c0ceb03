//! The node: parameters, frames over the in-process transport, the real binary.

mod foreign;
mod frames;
mod lifecycle;
mod live;
mod managed;
mod more_outputs;
mod params;
mod process;
mod rig;
