//! Training data: augmentation, the ground-truth database, preparation, batches, the loader.

mod database;
mod loading;
mod preparing;
mod sampling;
mod scene;
mod steps;
