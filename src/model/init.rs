//! Weights made from names and a seed: for tests, golden parity and demos without a trained student.
