//! Cases of nms.
