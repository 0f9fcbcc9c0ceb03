//! Cases of peaks.
