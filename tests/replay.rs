//! Bag replay and its pictures.

mod pictures;
