//! What the bytes of a `sensor_msgs/PointCloud2` mean: extent, columns, byte order. Everything a sender can get wrong is
//! checked here, before a single point is read.

use std::collections::HashMap;

use super::CloudError;
use crate::msgs::sensor_msgs::{PointCloud2Ref, PointField};

/// Points per message; a 128-beam sensor with two returns sends half a million, a whole map of several hours less.
pub const MAX_POINTS: u64 = 20_000_000;

/// Columns per point; sensors send about a dozen.
pub const MAX_FIELDS: usize = 256;

/// Type of a column's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the names say the type
pub enum Scalar {
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    F32,
    F64,
}

impl Scalar {
    /// From the constant in `sensor_msgs/PointField`; `None` for a number that has no meaning.
    pub fn from_datatype(datatype: u8) -> Option<Self> {
        Some(match datatype {
            PointField::INT8 => Scalar::I8,
            PointField::UINT8 => Scalar::U8,
            PointField::INT16 => Scalar::I16,
            PointField::UINT16 => Scalar::U16,
            PointField::INT32 => Scalar::I32,
            PointField::UINT32 => Scalar::U32,
            PointField::FLOAT32 => Scalar::F32,
            PointField::FLOAT64 => Scalar::F64,
            _ => return None,
        })
    }

    /// Bytes of one value.
    pub fn size(self) -> usize {
        match self {
            Scalar::I8 | Scalar::U8 => 1,
            Scalar::I16 | Scalar::U16 => 2,
            Scalar::I32 | Scalar::U32 | Scalar::F32 => 4,
            Scalar::F64 => 8,
        }
    }

    /// ROS's name.
    pub fn name(self) -> &'static str {
        match self {
            Scalar::I8 => "INT8",
            Scalar::U8 => "UINT8",
            Scalar::I16 => "INT16",
            Scalar::U16 => "UINT16",
            Scalar::I32 => "INT32",
            Scalar::U32 => "UINT32",
            Scalar::F32 => "FLOAT32",
            Scalar::F64 => "FLOAT64",
        }
    }
}

/// Where a column's values are in a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Column {
    /// Bytes from the start of a point; any alignment.
    pub offset: usize,
    pub scalar: Scalar,
}

/// The checked size of one message: `height` rows of `width` points lie within its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    pub height: usize,
    pub width: usize,
    pub point_step: usize,
    pub row_step: usize,
}

impl Extent {
    /// # Errors
    /// [`CloudError::TooManyPoints`], [`CloudError::RowStep`], [`CloudError::DataLength`].
    pub fn of(message: &PointCloud2Ref<'_>) -> Result<Self, CloudError> {
        let &PointCloud2Ref { height, width, point_step, row_step, data, .. } = message;
        let points = u64::from(height) * u64::from(width);
        if points > MAX_POINTS {
            return Err(CloudError::TooManyPoints { height, width, points, limit: MAX_POINTS });
        }
        let needed = u64::from(width) * u64::from(point_step);
        if u64::from(row_step) < needed {
            return Err(CloudError::RowStep { row_step, width, point_step, needed });
        }
        let expected = u64::from(height) * u64::from(row_step);
        if data.len() as u64 != expected {
            return Err(CloudError::DataLength { got: data.len(), height, row_step, expected });
        }
        Ok(Self { height: height as usize, width: width as usize, point_step: point_step as usize, row_step: row_step as usize })
    }

    pub fn n_points(self) -> usize {
        self.height * self.width
    }

    /// The bytes of each row's points, without the padding at its end. None when there are no points.
    pub fn rows(self, data: &[u8]) -> impl Iterator<Item = &[u8]> {
        let height = if self.width == 0 { 0 } else { self.height };
        (0..height).filter_map(move |row| data.get(row * self.row_step..)?.get(..self.width * self.point_step))
    }
}

/// The columns of a point, checked: no name twice, every field inside its point. A sensor keeps its layout from message to
/// message while the number of points changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudLayout {
    fields: Vec<PointField>,
    point_step: u32,
    is_bigendian: bool,
}

impl CloudLayout {
    /// The layout of `message`.
    ///
    /// Fields of unknown datatype are let be as long as nobody asks for their values. A `count` of 0 is read as 1, as PCL
    /// does, because early drivers left it unset.
    ///
    /// # Errors
    /// [`CloudError::TooManyFields`], [`CloudError::DuplicateField`], [`CloudError::FieldPastStep`].
    pub fn resolve(message: &PointCloud2Ref<'_>) -> Result<Self, CloudError> {
        let &PointCloud2Ref { ref fields, point_step, is_bigendian, .. } = message;
        if fields.len() > MAX_FIELDS {
            return Err(CloudError::TooManyFields { got: fields.len(), limit: MAX_FIELDS });
        }
        let mut offsets = HashMap::with_capacity(fields.len());
        for PointField { name, offset, datatype, count } in fields {
            if let Some(first) = offsets.insert(name, *offset) {
                return Err(CloudError::DuplicateField { field: name.clone(), first, second: *offset });
            }
            let size = Scalar::from_datatype(*datatype).map_or(0, Scalar::size) as u64 * u64::from((*count).max(1));
            if u64::from(*offset) + size > u64::from(point_step) {
                return Err(CloudError::FieldPastStep { field: name.clone(), offset: *offset, size, point_step });
            }
        }
        Ok(Self { fields: fields.clone(), point_step, is_bigendian })
    }

    /// Whether `message` has this layout.
    pub fn describes(&self, message: &PointCloud2Ref<'_>) -> bool {
        self.point_step == message.point_step && self.is_bigendian == message.is_bigendian && self.fields == message.fields
    }

    /// All fields, as declared.
    pub fn fields(&self) -> &[PointField] {
        &self.fields
    }

    /// Whether the values are big-endian.
    pub fn is_bigendian(&self) -> bool {
        self.is_bigendian
    }

    /// The values of one field for every point, row after row, non-finite ones included. For tests and tools: it
    /// allocates, and reads any datatype.
    ///
    /// # Errors
    /// The same as [`resolve`](Self::resolve) for another message's layout, [`CloudError::MissingField`],
    /// [`CloudError::FieldDatatype`], [`CloudError::FieldCount`], or a message whose extent is wrong.
    pub fn values(&self, message: &PointCloud2Ref<'_>, field_name: &str) -> Result<Vec<f64>, CloudError> {
        if !self.describes(message) {
            let got = format!("point_step {} and {}", message.point_step, names(&message.fields));
            return Err(CloudError::OtherLayout {
                expected: format!("point_step {} and {}", self.point_step, self.names()),
                got,
            });
        }
        let extent = Extent::of(message)?;
        let field = self
            .field(field_name)
            .ok_or_else(|| CloudError::MissingField { field: field_name.to_owned(), present: self.names() })?;
        let column = scalar_column(field)?;
        let points = extent.rows(message.data).flat_map(|row| row.chunks_exact(extent.point_step));
        Ok(points.filter_map(|point| value(point.get(column.offset..)?, column.scalar, self.is_bigendian)).collect())
    }

    pub(super) fn field(&self, name: &str) -> Option<&PointField> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// The names of the fields, for messages to people.
    pub(super) fn names(&self) -> String {
        names(&self.fields)
    }
}

/// The place of a field that holds one value of a known type.
///
/// # Errors
/// [`CloudError::FieldDatatype`], [`CloudError::FieldCount`].
pub(super) fn scalar_column(field: &PointField) -> Result<Column, CloudError> {
    let scalar = Scalar::from_datatype(field.datatype).ok_or_else(|| CloudError::FieldDatatype {
        field: field.name.clone(),
        got: field.datatype.to_string(),
        expected: "1 (INT8) to 8 (FLOAT64)",
    })?;
    if field.count > 1 {
        return Err(CloudError::FieldCount { field: field.name.clone(), got: field.count });
    }
    Ok(Column { offset: field.offset as usize, scalar })
}

fn names(fields: &[PointField]) -> String {
    if fields.is_empty() {
        return "no fields".to_owned();
    }
    fields.iter().map(|field| field.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// The value at the start of `bytes`, exactly; `None` when they are too few.
fn value(bytes: &[u8], scalar: Scalar, is_bigendian: bool) -> Option<f64> {
    macro_rules! read {
        ($number:ty) => {{
            let bytes = *bytes.first_chunk()?;
            f64::from(if is_bigendian { <$number>::from_be_bytes(bytes) } else { <$number>::from_le_bytes(bytes) })
        }};
    }
    Some(match scalar {
        Scalar::I8 => read!(i8),
        Scalar::U8 => read!(u8),
        Scalar::I16 => read!(i16),
        Scalar::U16 => read!(u16),
        Scalar::I32 => read!(i32),
        Scalar::U32 => read!(u32),
        Scalar::F32 => read!(f32),
        Scalar::F64 => read!(f64),
    })
}
