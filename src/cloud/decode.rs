//! `sensor_msgs/PointCloud2` to [`PointCloud`], one decoder per sensor.

use std::collections::BTreeMap;

use super::layout::{CloudLayout, Column, Extent, Scalar};
use super::source::{self, SECONDS_PER_NANO, Source, TimeEncoding, nearest_offset_s};
use super::{CloudError, Feature, InputSpec, IntensityMode, PointCloud};
use crate::msgs::sensor_msgs::PointCloud2Ref;
use crate::time::Stamp;

/// Points read at once, column after column: few enough to stay in the first-level cache.
const BLOCK: usize = 512;

/// The columns that a message has under any known name, in the order of [`Feature`], and why a column with a known name
/// cannot be used.
///
/// # Errors
/// Every [`CloudError`] about the layout, and one about x, y, z, without which there is no cloud.
pub fn columns_present(
    message: &PointCloud2Ref<'_>,
    field_names: &BTreeMap<Feature, String>,
) -> Result<(Vec<Feature>, Vec<CloudError>), CloudError> {
    let layout = CloudLayout::resolve(message)?;
    let (mut present, mut unusable) = (Vec::new(), Vec::new());
    for feature in Feature::ALL {
        let named = field_names.get(&feature).map(String::as_str);
        match source::find(&layout, feature, named, None) {
            Ok(_) => present.push(feature),
            Err(fault) if matches!(feature, Feature::X | Feature::Y | Feature::Z) || named.is_some() => return Err(fault),
            Err(CloudError::MissingFeature { .. }) => {}
            Err(fault) => unusable.push(fault),
        }
    }
    Ok((present, unusable))
}

/// Where one sensor differs from what the model's spec and the known field names say.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SensorOverrides {
    /// The field that holds a feature, instead of the names drivers are known to use.
    pub field_names: BTreeMap<Feature, String>,
    /// Instead of the spec's intensity mode.
    pub intensity: Option<IntensityMode>,
}

/// What was met on the way through one message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DecodeReport {
    /// Points in the message. `received - non_finite` are in the cloud.
    pub received: usize,
    /// Points left out because a coordinate or another column was NaN or infinite, in the message or as f32.
    pub non_finite: usize,
    /// Columns that hold the spec's constant because the sensor does not have them.
    pub filled: Vec<Feature>,
    /// A description of the layout, when it is not that of the message before; log it.
    pub layout_changed: Option<String>,
}

/// Turns the messages of one sensor into clouds with the columns of one model.
#[derive(Debug, Clone)]
pub struct CloudDecoder {
    features: Vec<Feature>,
    intensity: IntensityMode,
    fill_absent: BTreeMap<Feature, f32>,
    field_names: BTreeMap<Feature, String>,
    current: Option<Resolved>,
}

/// A layout and the sources of the columns in it.
#[derive(Debug, Clone)]
struct Resolved {
    layout: CloudLayout,
    sources: Vec<Source>,
    filled: Vec<Feature>,
}

impl CloudDecoder {
    /// # Errors
    /// [`CloudError::Setting`] for columns that do not begin with x, y, z or repeat one, constants for coordinates, or
    /// numbers that are not finite.
    pub fn new(input: &InputSpec, sensor: &SensorOverrides) -> Result<Self, CloudError> {
        let setting = |key: String, value: String, rule| Err(CloudError::Setting { key, value, rule });
        let features = &input.features;
        if !features.starts_with(&[Feature::X, Feature::Y, Feature::Z]) {
            return setting("features".to_owned(), format!("{features:?}"), "must begin with x, y, z");
        }
        if let Some(repeated) = (1..features.len()).find(|&at| features[..at].contains(&features[at])) {
            return setting("features".to_owned(), features[repeated].to_string(), "must not name a column twice");
        }
        for (&feature, &constant) in &input.fill_absent {
            let key = format!("fill_absent.{feature}");
            if matches!(feature, Feature::X | Feature::Y | Feature::Z) {
                return setting(key, constant.to_string(), "coordinates cannot be filled");
            }
            if !constant.is_finite() {
                return setting(key, constant.to_string(), "must be finite");
            }
        }
        let intensity = sensor.intensity.unwrap_or(input.intensity);
        if let IntensityMode::Scale(factor) | IntensityMode::ScaleTanh(factor) = intensity
            && !factor.is_finite()
        {
            return setting("intensity".to_owned(), factor.to_string(), "the factor must be finite");
        }
        Ok(Self {
            features: features.clone(),
            intensity,
            fill_absent: input.fill_absent.clone(),
            field_names: sensor.field_names.clone(),
            current: None,
        })
    }

    /// Reads `message` into `out`, whose buffers are reused. Nothing is allocated per point, and nothing at all once
    /// `out` is large enough and the layout known, save the list of filled columns.
    ///
    /// # Units and frame
    /// Metres in the message's frame. Times are seconds since its stamp: INT32 and UINT32 are read as nanoseconds since the
    /// stamp, FLOAT32 as seconds since the stamp, FLOAT64 as seconds since the stamp or the epoch, whichever puts the point
    /// nearer to the stamp, or as nanoseconds since the epoch when it is too large for seconds. A filled column is not
    /// changed by the intensity mode.
    ///
    /// # Errors
    /// Every [`CloudError`] that names a message's fault; `out` is then as it was.
    pub fn decode(&mut self, message: &PointCloud2Ref<'_>, out: &mut PointCloud) -> Result<DecodeReport, CloudError> {
        let extent = Extent::of(message)?;
        let mut layout_changed = None;
        let resolved = match &self.current {
            Some(known) if known.layout.describes(message) => known,
            _ => {
                let (resolved, description) = self.resolve(message)?;
                layout_changed = Some(description);
                self.current.insert(resolved)
            }
        };
        let stamp = Stamp::from(message.header.stamp);
        out.stamp = stamp;
        out.frame_id.clone_from(&message.header.frame_id);
        out.features.clone_from(&self.features);

        let n_columns = self.features.len();
        let intensity = match self.features.iter().position(|&feature| feature == Feature::Intensity) {
            Some(column) if !matches!(resolved.sources[column], Source::Constant(_)) => Some((column, self.intensity)),
            _ => None,
        };
        out.points.resize(extent.n_points() * n_columns, 0.0);
        let mut kept = 0;
        for row in extent.rows(message.data) {
            for bytes in row.chunks(BLOCK * extent.point_step) {
                let n_points = bytes.len() / extent.point_step;
                let block = &mut out.points[kept * n_columns..][..n_points * n_columns];
                for (column, &source) in resolved.sources.iter().enumerate() {
                    let mut destination = Strided { block, n_columns, column };
                    destination.read(source, bytes, extent.point_step, message.is_bigendian, stamp.seconds());
                }
                kept += keep_finite(block, n_columns, intensity);
            }
        }
        out.points.truncate(kept * n_columns);

        Ok(DecodeReport {
            received: extent.n_points(),
            non_finite: extent.n_points() - kept,
            filled: resolved.filled.clone(),
            layout_changed,
        })
    }

    /// Finds the sources of all columns and describes the layout.
    fn resolve(&self, message: &PointCloud2Ref<'_>) -> Result<(Resolved, String), CloudError> {
        let layout = CloudLayout::resolve(message)?;
        let mut used = Vec::with_capacity(self.features.len());
        for &feature in &self.features {
            let named = self.field_names.get(&feature).map(String::as_str);
            let (source, name) = source::find(&layout, feature, named, self.fill_absent.get(&feature).copied())?;
            used.push((feature, source, name));
        }
        let description = source::describe(&layout, message.point_step as usize, &used, self.intensity);
        let filled = used.iter().filter(|(_, _, name)| name.is_none()).map(|(feature, ..)| *feature).collect();
        let sources = used.iter().map(|(_, source, _)| *source).collect();
        Ok((Resolved { layout, sources, filled }, description))
    }
}

/// One column of a row-major block.
struct Strided<'a> {
    block: &'a mut [f32],
    n_columns: usize,
    column: usize,
}

impl Strided<'_> {
    /// Fills the column from points of `point_step` bytes each.
    fn read(&mut self, source: Source, bytes: &[u8], point_step: usize, is_bigendian: bool, stamp_s: f64) {
        macro_rules! read {
            ($number:ty, $at:expr, $to_f32:expr) => {
                if is_bigendian {
                    self.convert(bytes, point_step, $at, |value| $to_f32(<$number>::from_be_bytes(value)))
                } else {
                    self.convert(bytes, point_step, $at, |value| $to_f32(<$number>::from_le_bytes(value)))
                }
            };
        }
        match source {
            Source::Constant(constant) => self.convert(bytes, point_step, 0, |_: [u8; 0]| constant),
            Source::Field(Column { offset, scalar }) => match scalar {
                Scalar::I8 => read!(i8, offset, f32::from),
                Scalar::U8 => read!(u8, offset, f32::from),
                Scalar::I16 => read!(i16, offset, f32::from),
                Scalar::U16 => read!(u16, offset, f32::from),
                Scalar::I32 => read!(i32, offset, |value| value as f32),
                Scalar::U32 => read!(u32, offset, |value| value as f32),
                Scalar::F32 => read!(f32, offset, |value| value),
                Scalar::F64 => read!(f64, offset, |value| value as f32),
            },
            Source::Time { offset, encoding } => match encoding {
                TimeEncoding::NanosI32 => read!(i32, offset, |value| (f64::from(value) * SECONDS_PER_NANO) as f32),
                TimeEncoding::NanosU32 => read!(u32, offset, |value| (f64::from(value) * SECONDS_PER_NANO) as f32),
                TimeEncoding::SecondsF32 => read!(f32, offset, |value| value),
                TimeEncoding::NearestF64 => read!(f64, offset, |value| nearest_offset_s(value, stamp_s) as f32),
            },
        }
    }

    /// `to_f32` of the `SIZE` bytes at `offset` of every point. Offsets were checked against the step, so no point is
    /// ever too short.
    fn convert<const SIZE: usize>(&mut self, bytes: &[u8], point_step: usize, offset: usize, to_f32: impl Fn([u8; SIZE]) -> f32) {
        let points = bytes.get(offset..).unwrap_or_default().chunks(point_step);
        for (row, point) in self.block.chunks_exact_mut(self.n_columns).zip(points) {
            if let Some(value) = point.first_chunk() {
                row[self.column] = to_f32(*value);
            }
        }
    }
}

/// Moves the rows whose values are all finite, before and after the intensity mode, to the front of `block` in their
/// order; returns how many.
fn keep_finite(block: &mut [f32], n_columns: usize, intensity: Option<(usize, IntensityMode)>) -> usize {
    let mut kept = 0;
    for row in 0..block.len() / n_columns {
        let start = row * n_columns;
        if let Some((column, mode)) = intensity {
            block[start + column] = mode.apply_finite(block[start + column]);
        }
        let mut finite = true;
        for column in 0..n_columns {
            let value = block[start + column];
            block[kept * n_columns + column] = value;
            finite &= value.is_finite();
        }
        kept += usize::from(finite);
    }
    kept
}
