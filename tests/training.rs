//! The training run: configuration, checkpoints, log, folder, and the program that ties them together.

mod by_heart;
mod checkpoint;
mod config;
mod dumping;
mod log;
mod program;
mod run_folder;
