//! The detection metric: official numbers, the fast version against the plain one, bad input.

mod assignment;
mod files;
mod official;
mod overlaps;
mod twins;
