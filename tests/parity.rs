//! Tests of `parity`.
