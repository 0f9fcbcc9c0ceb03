//! The detection metric: official numbers, the fast version against the plain one, bad input; models over sources.

mod assignment;
mod averages;
mod files;
mod models;
mod official;
mod overlaps;
mod twins;
