//! Cases of overlap.
