//! What the centre head should say about a frame: a bump per object in its class's heat map, and the box at the object's cell
//! (sparsekd-spec section 2.5).

use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use super::{SettingError, rule};
use crate::voxel::Grid;

/// Values of a regression target: offset in cells (2), z in metres, log of length, width, height in metres (3), cos and sin of yaw.
pub const CODE_SIZE: usize = 8;

/// One labelled object in the arithmetic of the reference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrueBox {
    /// `[x, y, z, dx, dy, dz, heading]` in metres and radians, in the frame of the points.
    pub row: [f32; 7],
    /// Index into the spec's classes, from 0.
    pub class_idx: usize,
}

/// How wide the bumps are and how many objects count.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TargetSettings {
    /// A box moved by the radius still overlaps the true one by this; 0.1.
    pub gaussian_overlap: f64,
    /// Least radius of a bump in cells; 2.
    pub min_radius: i64,
    /// Boxes of a frame beyond this many are left out, in list order; 500.
    pub max_objects: usize,
}

impl Default for TargetSettings {
    fn default() -> Self {
        Self { gaussian_overlap: 0.1, min_radius: 2, max_objects: 500 }
    }
}

impl TargetSettings {
    /// Checks every rule that types cannot hold.
    ///
    /// # Errors
    /// The first setting that breaks a rule.
    pub fn check(&self) -> Result<(), SettingError> {
        let Self { gaussian_overlap, min_radius, max_objects } = self;
        rule(*gaussian_overlap > 0.0 && *gaussian_overlap < 1.0, "gaussian_overlap", gaussian_overlap, "0 < overlap < 1")?;
        rule((0..=1000).contains(min_radius), "min_radius", min_radius, "0 to 1000 cells")?;
        rule((1..=100_000).contains(max_objects), "max_objects", max_objects, "1 to 100000")
    }
}

/// Targets of a batch.
///
/// # Shapes
/// M is the number of boxes of the fullest frame. The rows of a frame follow its boxes; those past its last box, and those of boxes
/// that were left out, are zeros with mask 0.
#[derive(Debug)]
pub struct Targets {
    /// `[B, K, H, W]` f32 in [0, 1]; exactly 1 at each object's cell.
    pub heat_map: Tensor,
    /// `[B, M, 8]` f32, as [`CODE_SIZE`] says.
    pub boxes: Tensor,
    /// `[B, M]` i64: row-major number of the object's cell.
    pub index: Tensor,
    /// `[B, M]` f32: 1 where there is an object.
    pub mask: Tensor,
}

impl Targets {
    /// The same on a device.
    pub fn to_device(&self, device: Device) -> Self {
        Self {
            heat_map: self.heat_map.to_device(device),
            boxes: self.boxes.to_device(device),
            index: self.index.to_device(device),
            mask: self.mask.to_device(device),
        }
    }
}

/// Draws the targets of a batch, on the CPU.
///
/// `stride` is the number of cells of the grid along one edge of a cell of the head's map. Boxes without a positive length and width or
/// with a value that is not finite are left out; centres outside the map are moved onto its border, as in the reference.
///
/// # Panics
/// When a box has a class of `n_classes` or more.
pub fn draw_targets(boxes: &[Vec<TrueBox>], grid: &Grid, stride: usize, n_classes: usize, settings: &TargetSettings) -> Targets {
    let map = MapGeometry::new(grid, stride);
    let [w, h] = map.size;
    let n_rows = boxes.iter().map(|frame| frame.len().min(settings.max_objects)).max().unwrap_or(0);
    let mut heat_map = vec![0f32; boxes.len() * n_classes * h * w];
    let mut codes = vec![0f32; boxes.len() * n_rows * CODE_SIZE];
    let mut index = vec![0i64; boxes.len() * n_rows];
    let mut mask = vec![0f32; boxes.len() * n_rows];
    for (frame_idx, frame) in boxes.iter().enumerate() {
        for (box_idx, true_box) in frame.iter().take(settings.max_objects).enumerate() {
            let Some(object) = map.place(&true_box.row, settings) else { continue };
            assert!(true_box.class_idx < n_classes, "class {} of {n_classes}", true_box.class_idx);
            let plane = (frame_idx * n_classes + true_box.class_idx) * h * w;
            draw_gaussian(&mut heat_map[plane..plane + h * w], map.size, object.cell, object.radius);
            let row = frame_idx * n_rows + box_idx;
            codes[row * CODE_SIZE..(row + 1) * CODE_SIZE].copy_from_slice(&object.code);
            index[row] = (object.cell[1] * w + object.cell[0]) as i64;
            mask[row] = 1.0;
        }
    }
    let [b, k, h, w, m] = [boxes.len(), n_classes, h, w, n_rows].map(|n| n as i64);
    Targets {
        heat_map: Tensor::from_slice(&heat_map).view([b, k, h, w]),
        boxes: Tensor::from_slice(&codes).view([b, m, CODE_SIZE as i64]),
        index: Tensor::from_slice(&index).view([b, m]),
        mask: Tensor::from_slice(&mask).view([b, m]),
    }
}

/// The head's map over the ground.
struct MapGeometry<'a> {
    grid: &'a Grid,
    stride: f32,
    /// Cells along x and y: W, H.
    size: [usize; 2],
}

/// Where an object lies on the map.
struct Placed {
    /// Along x and y.
    cell: [usize; 2],
    radius: i64,
    code: [f32; CODE_SIZE],
}

impl<'a> MapGeometry<'a> {
    fn new(grid: &'a Grid, stride: usize) -> Self {
        let stride = stride.max(1);
        Self { grid, stride: stride as f32, size: [grid.shape[0] / stride, grid.shape[1] / stride] }
    }

    /// All in f32 and in the reference's order of operations, so that cells and radii agree exactly.
    fn place(&self, row: &[f32; 7], settings: &TargetSettings) -> Option<Placed> {
        let [x, y, z, dx, dy, dz, heading] = *row;
        let cells = |length_m: f32, axis: usize| length_m / self.grid.voxel_size[axis] / self.stride;
        let extent = [cells(dx, 0), cells(dy, 1)];
        let drawable = row.iter().all(|value| value.is_finite()) && extent.iter().all(|cells| *cells > 0.0);
        if !drawable || self.size.contains(&0) {
            return None;
        }
        let position: [f32; 2] = std::array::from_fn(|axis| {
            cells([x, y][axis] - self.grid.range_min[axis], axis).clamp(0.0, self.size[axis] as f32 - 0.5)
        });
        let cell = position.map(|p| p as usize);
        let offset: [f32; 2] = std::array::from_fn(|axis| position[axis] - cell[axis] as f32);
        let radius = gaussian_radius(extent[0], extent[1], settings.gaussian_overlap) as i32;
        Some(Placed {
            cell,
            radius: i64::from(radius).max(settings.min_radius),
            code: [offset[0], offset[1], z, dx.ln(), dy.ln(), dz.ln(), heading.cos(), heading.sin()],
        })
    }
}

/// How far, in cells, a box of that length and width (in cells) may be moved and still overlap itself by `overlap`; the reference's
/// historical formula, in f32.
///
/// # Source
/// sparsekd-spec section 2.5: the least of three quadratics' larger roots, all divided by 2 rather than by twice their leading
/// coefficient.
pub fn gaussian_radius(length: f32, width: f32, overlap: f64) -> f32 {
    let sum = length + width;
    let area = width * length;
    let root = |b: f32, four_a_c: f32| (b + (b * b - four_a_c).sqrt()) / 2.0;
    let inside_and_outside = root(sum, 4.0 * (area * (1.0 - overlap) as f32 / (1.0 + overlap) as f32));
    let inside = root(2.0 * sum, 16.0 * ((1.0 - overlap) as f32 * width * length));
    let outside = root((-2.0 * overlap) as f32 * sum, (16.0 * overlap) as f32 * ((overlap - 1.0) as f32 * width * length));
    inside_and_outside.min(inside).min(outside)
}

/// Raises a map to a bump of deviation (2 radius + 1) / 6 around a cell, where it is lower. Only the bump's square is touched.
///
/// The reference also zeroes values below the f64 epsilon of the peak; with this deviation none is below e^-9.
///
/// # Shapes
/// - `map`: `[H, W]` row-major; `size`: W, H; `cell`: column, row
pub fn draw_gaussian(map: &mut [f32], size: [usize; 2], cell: [usize; 2], radius: i64) {
    let [w, h] = size;
    let radius = usize::try_from(radius).unwrap_or(0);
    let deviation = (2.0 * radius as f64 + 1.0) / 6.0;
    let span = |axis: usize| {
        let first = cell[axis].saturating_sub(radius);
        first..cell[axis].saturating_add(radius).saturating_add(1).min(size[axis])
    };
    let squared = |a: usize, b: usize| (a.abs_diff(b) as f64).powi(2);
    debug_assert_eq!(map.len(), w * h);
    for row in span(1) {
        for col in span(0) {
            let squared_distance = squared(row, cell[1]) + squared(col, cell[0]);
            let value = (-squared_distance / (2.0 * deviation * deviation)).exp() as f32;
            let at = &mut map[row * w + col];
            *at = at.max(value);
        }
    }
}
