//! Bag replay and its pictures.

mod bags;
mod pictures;
mod recorded;
mod scenes;
