//! OpenPCDet and SparseKD checkpoints to model directories.
