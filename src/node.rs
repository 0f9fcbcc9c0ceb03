//! The live detector node.
