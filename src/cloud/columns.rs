//! A cloud's own columns to those of one network: what [`super::decode`] does to messages, for clouds that keep the sensor's raw
//! values.

use super::{CloudError, Feature, InputSpec, IntensityMode, PointCloud};

/// How each column of a network follows from the columns of a cloud.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnMap {
    columns: Vec<Column>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Column {
    /// Taken as it is.
    Of(usize),
    /// The intensity, raw.
    Intensity(usize, IntensityMode),
    /// The sensor does not have it.
    Constant(f32),
}

impl ColumnMap {
    /// From clouds with the columns `present` to those of `input`. A filled column is not changed by the intensity mode.
    ///
    /// # Errors
    /// [`CloudError::MissingFeature`] for a column that is not present and that `input` does not fill.
    pub fn new(present: &[Feature], input: &InputSpec) -> Result<Self, CloudError> {
        let column_of = |&feature: &Feature| {
            let at = present.iter().position(|&other| other == feature);
            match (at, input.fill_absent.get(&feature)) {
                (Some(at), _) if feature == Feature::Intensity => Ok(Column::Intensity(at, input.intensity)),
                (Some(at), _) => Ok(Column::Of(at)),
                (None, Some(&constant)) => Ok(Column::Constant(constant)),
                (None, None) => {
                    let present = present.iter().map(|feature| feature.name()).collect::<Vec<_>>().join(", ");
                    Err(CloudError::MissingFeature { feature, tried: feature.name().to_owned(), present })
                }
            }
        };
        Ok(Self { columns: input.features.iter().map(column_of).collect::<Result<_, _>>()? })
    }

    /// Columns of the network (D).
    pub fn n_columns(&self) -> usize {
        self.columns.len()
    }

    /// Appends a point of the cloud to `out`, unless a value is not finite before or after the intensity mode; returns whether it
    /// did.
    pub fn push(&self, point: &[f32], out: &mut Vec<f32>) -> bool {
        let start = out.len();
        let mut finite = true;
        out.extend(self.columns.iter().map(|column| {
            let value = match *column {
                Column::Of(at) => point[at],
                Column::Intensity(at, mode) => mode.apply_finite(point[at]),
                Column::Constant(constant) => constant,
            };
            finite &= value.is_finite();
            value
        }));
        if !finite {
            out.truncate(start);
        }
        finite
    }
}

/// The cloud as the network takes it: columns picked, absent ones filled, intensity mode applied.
///
/// # Errors
/// [`CloudError::MissingFeature`] for a column that the cloud lacks and `input` does not fill.
pub fn for_network(cloud: &PointCloud, input: &InputSpec) -> Result<PointCloud, CloudError> {
    let map = ColumnMap::new(&cloud.features, input)?;
    let mut points = Vec::with_capacity(cloud.n_points() * map.n_columns());
    for row in cloud.rows() {
        map.push(row, &mut points);
    }
    Ok(PointCloud { stamp: cloud.stamp, frame_id: cloud.frame_id.clone(), features: input.features.clone(), points })
}
