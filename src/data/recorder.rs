//! Frames of other data sets into a bag with the topics that bags of synthetic drives have.

use std::collections::BTreeMap;
use std::path::Path;

use nalgebra::Isometry3;

use super::labels::message_of_labels;
use super::{DataError, Label};
use crate::bag::{BagError, BagWriter, OfferedQos, TopicId, WriterOptions};
use crate::geometry::Box3d;
use crate::msgs::geometry_msgs::{Quaternion, Transform, TransformStamped, Vector3};
use crate::msgs::sensor_msgs::{PointCloud2, PointField};
use crate::msgs::std_msgs::Header;
use crate::msgs::tf2_msgs::TFMessage;
use crate::msgs::vision_msgs::Detection3DArray;
use crate::msgs::{Message, cdr};
use crate::synth::record::{CLOUD_TOPIC, LABEL_TOPIC};
use crate::time::Stamp;

/// Largest file of points that is read: what one message may hold.
pub(super) const MAX_POINT_BYTES: u64 = crate::bag::MAX_MESSAGE_BYTES;

/// What a conversion wrote and left out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Converted {
    /// Clouds written.
    pub n_frames: usize,
    /// Their points.
    pub n_points: u64,
    /// Labels written, by class.
    pub n_labels: BTreeMap<String, usize>,
    /// Objects of the source that are no labels, by class.
    pub n_not_labels: BTreeMap<String, usize>,
    /// Points inside the labels; a point in two labels counts twice.
    pub n_points_inside: u64,
    /// Frames that could not be converted, and why.
    pub faults: Vec<String>,
}

impl Converted {
    /// Counts a frame that was written.
    pub(super) fn add<const N: usize>(&mut self, rows: &[[f32; N]], labels: &[Label]) {
        self.n_frames += 1;
        self.n_points += rows.len() as u64;
        for label in labels {
            *self.n_labels.entry(label.class.clone()).or_default() += 1;
            self.n_points_inside += u64::from(points_inside(&label.box3d, rows.iter().map(<[f32; N]>::as_slice)));
        }
    }
}

/// A bag of labelled clouds being written.
pub(super) struct Recorder {
    bag: BagWriter,
    clouds: TopicId,
    labels: TopicId,
    /// `/tf` and `/tf_static`, once there is something to say on them.
    tf: Option<[TopicId; 2]>,
}

impl Recorder {
    pub fn create(folder: &Path) -> Result<Self, BagError> {
        let mut bag = BagWriter::create(folder, &WriterOptions::default())?;
        let clouds = bag.add_topic(CLOUD_TOPIC, PointCloud2::TYPE, OfferedQos::SENSOR)?;
        let labels = bag.add_topic(LABEL_TOPIC, Detection3DArray::TYPE, OfferedQos::RELIABLE)?;
        Ok(Self { bag, clouds, labels, tf: None })
    }

    /// Poses of each child in its parent; the first one does not move.
    pub fn poses(&mut self, stamp: Stamp, fixed: Edge<'_>, moving: Edge<'_>) -> Result<(), BagError> {
        let [on_tf, on_static] = match self.tf {
            Some(topics) => topics,
            None => {
                let moving = self.bag.add_topic("/tf", TFMessage::TYPE, OfferedQos::RELIABLE)?;
                let fixed = self.bag.add_topic("/tf_static", TFMessage::TYPE, OfferedQos::LATCHED)?;
                *self.tf.insert([moving, fixed])
            }
        };
        for (topic, edge) in [(on_static, fixed), (on_tf, moving)] {
            self.bag.write(topic, stamp.nanos, &cdr::to_bytes(&TFMessage { transforms: vec![edge.stamped(stamp)] }))?;
        }
        Ok(())
    }

    /// One cloud and, where somebody labelled it, its labels.
    pub fn frame(&mut self, cloud: &PointCloud2, labels: Option<&[Label]>) -> Result<(), BagError> {
        let nanos = Stamp::from(cloud.header.stamp).nanos;
        self.bag.write(self.clouds, nanos, &cdr::to_bytes(cloud))?;
        if let Some(labels) = labels {
            self.bag.write(self.labels, nanos, &cdr::to_bytes(&message_of_labels(labels, &cloud.header)))?;
        }
        Ok(())
    }

    pub fn finish(self) -> Result<(), BagError> {
        self.bag.finish()
    }
}

/// A frame's pose in another.
pub(super) struct Edge<'a> {
    pub parent: &'a str,
    pub child: &'a str,
    pub parent_from_child: Isometry3<f64>,
}

impl Edge<'_> {
    fn stamped(&self, stamp: Stamp) -> TransformStamped {
        let (shift, turn) = (self.parent_from_child.translation.vector, self.parent_from_child.rotation);
        TransformStamped {
            header: Header::new(stamp, self.parent),
            child_frame_id: self.child.to_owned(),
            transform: Transform {
                translation: Vector3 { x: shift.x, y: shift.y, z: shift.z },
                rotation: Quaternion { x: turn.i, y: turn.j, z: turn.k, w: turn.w },
            },
        }
    }
}

/// A cloud of x, y, z, intensity and, where rows have a fifth column, `ring` as u16.
pub(super) fn cloud_message<const N: usize>(header: Header, rows: &[[f32; N]]) -> PointCloud2 {
    let names = ["x", "y", "z", "intensity"];
    let mut fields: Vec<PointField> =
        names.iter().zip(0..).map(|(name, column)| PointField::scalar(name, 4 * column, PointField::FLOAT32)).collect();
    let has_ring = N > names.len();
    if has_ring {
        fields.push(PointField::scalar("ring", 16, PointField::UINT16));
    }
    let mut data = Vec::with_capacity(rows.len() * 20);
    for row in rows {
        data.extend(row.iter().take(4).flat_map(|value| value.to_le_bytes()));
        if let Some(ring) = row.get(4) {
            data.extend((*ring as u16).to_le_bytes());
            data.extend([0; 2]);
        }
    }
    PointCloud2 {
        header,
        height: 1,
        width: rows.len() as u32,
        fields,
        is_bigendian: false,
        point_step: if has_ring { 20 } else { 16 },
        row_step: data.len() as u32,
        data,
        is_dense: rows.as_flattened().iter().all(|value| value.is_finite()),
    }
}

/// A file of little-endian f32 rows.
///
/// # Errors
/// When it cannot be read, is too large, or ends inside a row.
pub(super) fn read_rows<const N: usize>(path: &Path) -> Result<Vec<[f32; N]>, DataError> {
    let io_error = |source| DataError::Io { path: path.display().to_string(), source };
    let format = |reason| DataError::Format { path: path.display().to_string(), place: "file".to_owned(), reason };
    let n_bytes = std::fs::metadata(path).map_err(io_error)?.len();
    if n_bytes > MAX_POINT_BYTES {
        return Err(format(format!("{n_bytes} bytes, expected at most {MAX_POINT_BYTES}")));
    }
    let bytes = std::fs::read(path).map_err(io_error)?;
    if bytes.len() % (4 * N) != 0 {
        return Err(format(format!("{} bytes, expected rows of {N} f32 with {} bytes", bytes.len(), 4 * N)));
    }
    let (values, _) = bytes.as_chunks::<4>();
    let (rows, _) = values.as_chunks::<N>();
    Ok(rows.iter().map(|row| row.map(f32::from_le_bytes)).collect())
}

/// Points inside a box or on its surface, whatever other boxes hold them too.
pub(super) fn points_inside<'a>(box3d: &Box3d, rows: impl Iterator<Item = &'a [f32]>) -> u32 {
    let [x, y, _] = box3d.center.map(|at| at as f32);
    // A centimetre for the rounding; `contains` decides.
    let reach = 0.5 * box3d.size[0].hypot(box3d.size[1]) as f32 + 0.01;
    let is_near = |row: &&[f32]| (row[0] - x).abs() <= reach && (row[1] - y).abs() <= reach;
    rows.filter(is_near).filter(|row| box3d.contains([f64::from(row[0]), f64::from(row[1]), f64::from(row[2])])).count() as u32
}
