//! The node: parameters, frames over the in-process transport, the real binary.

mod foreign;
mod frames;
mod lifecycle;
mod params;
mod process;
mod rig;
