//! Tests of `bag`.
