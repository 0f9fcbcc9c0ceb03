//! What several tests need.

pub mod allocations;

use std::path::PathBuf;

use pivotal::msgs::sensor_msgs::{PointCloud2, PointCloud2Ref};

/// A path under the shared reference data: `$PIVOTAL_SHARED`, or `../shared` beside the repository.
///
/// # Panics
/// When it is not there: a test that needs it must fail loudly, never pass by skipping.
pub fn shared(path: &str) -> PathBuf {
    let root = std::env::var_os("PIVOTAL_SHARED")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let full = root.join(path);
    assert!(
        full.exists(),
        "reference data {} is missing; set PIVOTAL_SHARED to the folder that holds golden/ and data/",
        full.display()
    );
    full
}

/// The same cloud as the decoder takes it.
pub fn borrowed(cloud: &PointCloud2) -> PointCloud2Ref<'_> {
    let PointCloud2 { header, height, width, fields, is_bigendian, point_step, row_step, data, is_dense } = cloud;
    PointCloud2 {
        header: header.clone(),
        height: *height,
        width: *width,
        fields: fields.clone(),
        is_bigendian: *is_bigendian,
        point_step: *point_step,
        row_step: *row_step,
        data,
        is_dense: *is_dense,
    }
}
