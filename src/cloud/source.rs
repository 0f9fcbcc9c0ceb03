//! Which field of a cloud feeds which column of the network's input, and what its values mean.

use std::fmt::Write;

use super::layout::{CloudLayout, Column, Scalar, scalar_column};
use super::{CloudError, Feature, IntensityMode};

/// The names under which drivers send a feature; the first one present wins.
///
/// An Ouster cloud has `intensity` and `reflectivity`; the first is what networks are trained on.
///
/// # Source
/// Field tables of the ROS 2 drivers of Velodyne (`time`), Ouster (`t`; `signal` in its native profile), Hesai and RoboSense
/// (`timestamp`), Livox (`timestamp`; `offset_time` after conversion), Seyond (`elongation`), Aeva (`reflectivity`,
/// `time_offset_ns`), SICK (`i`, `t`, `ts`), Autoware's nebula (`time_stamp`), and of converters of KITTI (`i`), SemanticKITTI
/// (`remission`) and Argoverse 2 (`offset_ns`).
pub(super) fn field_names(feature: Feature) -> &'static [&'static str] {
    match feature {
        Feature::X => &["x"],
        Feature::Y => &["y"],
        Feature::Z => &["z"],
        Feature::Intensity => &["intensity", "intensities", "i", "reflectivity", "reflectance", "remission", "signal"],
        Feature::Elongation => &["elongation"],
        Feature::TimeOffset => &[
            "time_offset",
            "offset_time",
            "timeOffset",
            "time_offset_ns",
            "offset_ns",
            "t",
            "time",
            "ts",
            "time_stamp",
            "timestamp",
        ],
    }
}

/// Where a column of the network's input comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Source {
    /// Read from the points and taken as it is.
    Field(Column),
    /// Read from the points and turned into seconds since the cloud's stamp.
    Time { offset: usize, encoding: TimeEncoding },
    /// The sensor does not have it.
    Constant(f32),
}

/// What the numbers of a time field mean. Drivers agree on it by datatype, whatever the field is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TimeEncoding {
    /// INT32, nanoseconds since the stamp.
    NanosI32,
    /// UINT32, nanoseconds since the stamp.
    NanosU32,
    /// FLOAT32, seconds since the stamp.
    SecondsF32,
    /// FLOAT64, see [`nearest_offset_s`].
    NearestF64,
}

/// The source of `feature`: the field named by the user, else the first known name, else the constant.
///
/// # Errors
/// [`CloudError::MissingFeature`] when there is none of them, [`CloudError::FieldDatatype`] and
/// [`CloudError::FieldCount`] for a field that does not serve.
pub(super) fn find(
    layout: &CloudLayout,
    feature: Feature,
    named: Option<&str>,
    fill: Option<f32>,
) -> Result<(Source, Option<String>), CloudError> {
    let candidates = named.as_slice();
    let candidates = if candidates.is_empty() { field_names(feature) } else { candidates };
    let Some(field) = candidates.iter().find_map(|name| layout.field(name)) else {
        return match fill {
            // A name given by the user that is not there is a mistake, not a sensor without the column.
            Some(constant) if named.is_none() => Ok((Source::Constant(constant), None)),
            _ => Err(CloudError::MissingFeature { feature, tried: candidates.join(", "), present: layout.names() }),
        };
    };
    let column = scalar_column(field)?;
    let refused = |expected| {
        let got = column.scalar.name().to_owned();
        Err(CloudError::FieldDatatype { field: field.name.clone(), got, expected })
    };
    let source = match (feature, column.scalar) {
        (Feature::X | Feature::Y | Feature::Z, Scalar::F32 | Scalar::F64) => Source::Field(column),
        (Feature::X | Feature::Y | Feature::Z, _) => return refused("FLOAT32 or FLOAT64"),
        (Feature::Intensity | Feature::Elongation, _) => Source::Field(column),
        (Feature::TimeOffset, scalar) => {
            let encoding = match scalar {
                Scalar::I32 => TimeEncoding::NanosI32,
                Scalar::U32 => TimeEncoding::NanosU32,
                Scalar::F32 => TimeEncoding::SecondsF32,
                Scalar::F64 => TimeEncoding::NearestF64,
                _ => return refused("INT32, UINT32, FLOAT32 or FLOAT64"),
            };
            Source::Time { offset: column.offset, encoding }
        }
    };
    Ok((source, Some(field.name.clone())))
}

/// Nanoseconds to seconds.
pub(super) const SECONDS_PER_NANO: f64 = 1e-9;

/// A FLOAT64 time beyond this is in nanoseconds: as seconds it would be 30 000 years.
const LARGEST_SECONDS: f64 = 1e12;

/// Seconds since the stamp for a FLOAT64 time, which drivers send as seconds since the stamp, seconds since the epoch
/// (Hesai, RoboSense) or nanoseconds since the epoch (Livox). The last is told by its size, the other two by which puts the
/// point nearer to the stamp; that works in simulated time too, whose epoch is near, once it is a few sweeps old.
pub(super) fn nearest_offset_s(value: f64, stamp_s: f64) -> f64 {
    let since_epoch_s = if value.abs() > LARGEST_SECONDS { value * SECONDS_PER_NANO } else { value };
    let offset_s = since_epoch_s - stamp_s;
    if offset_s.abs() < value.abs() { offset_s } else { value }
}

/// One paragraph about a new layout: every field, what it is used as, and what is filled.
pub(super) fn describe(
    layout: &CloudLayout,
    point_step: usize,
    used: &[(Feature, Source, Option<String>)],
    intensity: IntensityMode,
) -> String {
    let order = if layout.is_bigendian() { "big" } else { "little" };
    let mut text = format!("points of {point_step} bytes, {order}-endian:");
    for field in layout.fields() {
        let datatype = Scalar::from_datatype(field.datatype).map_or("of unknown datatype", Scalar::name);
        let _ = write!(text, " {} {datatype} at {}", field.name, field.offset);
        if field.count > 1 {
            let _ = write!(text, " x {}", field.count);
        }
        for (feature, source, name) in used {
            if name.as_deref() == Some(field.name.as_str()) {
                let _ = write!(text, " as {feature} ({})", meaning(*feature, *source, intensity));
            }
        }
        text.push(';');
    }
    for (feature, source, _) in used {
        if let Source::Constant(constant) = source {
            let _ = write!(text, " {feature} filled with {constant};");
        }
    }
    text.pop();
    text
}

fn meaning(feature: Feature, source: Source, intensity: IntensityMode) -> String {
    match (source, feature) {
        (Source::Time { encoding, .. }, _) => match encoding {
            TimeEncoding::NanosI32 | TimeEncoding::NanosU32 => "nanoseconds since the stamp".to_owned(),
            TimeEncoding::SecondsF32 => "seconds since the stamp".to_owned(),
            TimeEncoding::NearestF64 => {
                "seconds, or nanoseconds where huge, since the stamp or the epoch, whichever is nearer".to_owned()
            }
        },
        (_, Feature::X | Feature::Y | Feature::Z) => "metres".to_owned(),
        (_, Feature::Intensity) => match intensity {
            IntensityMode::Raw => "raw".to_owned(),
            IntensityMode::Tanh => "tanh".to_owned(),
            IntensityMode::Scale(factor) => format!("times {factor}"),
            IntensityMode::ScaleTanh(factor) => format!("tanh of {factor} times it"),
        },
        (_, Feature::Elongation | Feature::TimeOffset) => "unscaled".to_owned(),
    }
}
