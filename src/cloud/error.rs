//! Why a cloud is not decoded.

use super::Feature;

/// A cloud that contradicts itself or lacks what the model takes, or a setting that cannot be met.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CloudError {
    /// More points than any sensor sends.
    #[error("height {height} * width {width} = {points} points, the limit is {limit}")]
    TooManyPoints {
        /// Rows.
        height: u32,
        /// Points per row.
        width: u32,
        /// Their product.
        points: u64,
        /// The limit.
        limit: u64,
    },
    /// More columns than any sensor sends.
    #[error("fields: {got} of them, the limit is {limit}")]
    TooManyFields {
        /// Number of fields.
        got: usize,
        /// The limit.
        limit: usize,
    },
    /// The points of a row do not fit into the row.
    #[error("row_step {row_step} is less than width {width} * point_step {point_step} = {needed}")]
    RowStep {
        /// Bytes per row as declared.
        row_step: u32,
        /// Points per row.
        width: u32,
        /// Bytes per point.
        point_step: u32,
        /// Bytes that the points of a row take.
        needed: u64,
    },
    /// The data are shorter or longer than their description.
    #[error("data has {got} bytes, height {height} * row_step {row_step} = {expected}")]
    DataLength {
        /// Length of the data.
        got: usize,
        /// Rows.
        height: u32,
        /// Bytes per row.
        row_step: u32,
        /// Their product.
        expected: u64,
    },
    /// A field reaches beyond its point.
    #[error("field `{field}`: offset {offset} + {size} bytes ends beyond point_step {point_step}")]
    FieldPastStep {
        /// Name of the field.
        field: String,
        /// Where it begins in a point.
        offset: u32,
        /// Its size in bytes, all elements.
        size: u64,
        /// Bytes per point.
        point_step: u32,
    },
    /// Two fields of one name: which one is meant cannot be known.
    #[error("field `{field}` is declared twice, at offsets {first} and {second}")]
    DuplicateField {
        /// The name.
        field: String,
        /// Offset of the first.
        first: u32,
        /// Offset of the second.
        second: u32,
    },
    /// A field that is needed has a datatype that does not serve.
    #[error("field `{field}` has datatype {got}, expected {expected}")]
    FieldDatatype {
        /// Name of the field.
        field: String,
        /// The datatype found, by name where it has one.
        got: String,
        /// The datatypes that serve.
        expected: &'static str,
    },
    /// A field that is needed holds several values per point.
    #[error("field `{field}` has count {got}, expected 1")]
    FieldCount {
        /// Name of the field.
        field: String,
        /// Its count.
        got: u32,
    },
    /// The model takes a column that the cloud does not have.
    #[error("no field for {feature}: looked for {tried}; the cloud has {present}")]
    MissingFeature {
        /// What the model takes.
        feature: Feature,
        /// Names looked for.
        tried: String,
        /// Names there are.
        present: String,
    },
    /// A field asked for by name is not in the cloud.
    #[error("no field `{field}`; the cloud has {present}")]
    MissingField {
        /// The name.
        field: String,
        /// Names there are.
        present: String,
    },
    /// A layout was used on a message of another layout.
    #[error("the message has {got}, the layout was made for {expected}")]
    OtherLayout {
        /// Fields and step of the layout.
        expected: String,
        /// Fields and step of the message.
        got: String,
    },
    /// A setting of the decoder breaks a rule.
    #[error("{key} = {value}: {rule}")]
    Setting {
        /// Name of the setting.
        key: String,
        /// Its value.
        value: String,
        /// The rule.
        rule: &'static str,
    },
}
