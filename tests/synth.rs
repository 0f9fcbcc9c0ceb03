//! Tests of `synth`.
