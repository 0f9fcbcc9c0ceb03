//! Waymo readers against what the official package reads.

mod damage;
mod expected;
mod npz;
mod tables;
