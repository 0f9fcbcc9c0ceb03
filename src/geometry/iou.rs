//! Rotated bird's-eye and 3-D intersection over union.
