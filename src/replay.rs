//! A bag through the pipeline, and everything people look at afterwards.
