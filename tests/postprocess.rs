//! Tests of `postprocess`.
