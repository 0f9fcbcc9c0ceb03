//! Rotated bird's-eye and 3-D intersection over union.
//!
//! Two rules exist because two questions exist:
//!
//! * The functions of this module are **exact geometry**: how much two boxes overlap. Matching with true boxes uses them, as does
//!   every other figure about overlap that is reported.
//! * [`mod@reference`] is the overlap of the paper's code, which counts corners up to 1 cm outside the other box as inside.
//!   Suppression decides by it, so that the boxes that survive are the paper's, and so does the pasting of objects into training
//!   frames about free places; nothing else does.
//!
//! A box overlaps nothing, itself included, when a side is zero, negative or not finite, or when it reaches beyond 1e100 m
//! (where areas would overflow). Results are never NaN.

pub mod reference;

use super::Box3d;
use super::box3d::rectangle;

/// Beyond this, products of sizes could overflow.
const MAX_COORDINATE_M: f64 = 1e100;

/// Widens every rejection test by more than its own rounding, so that no test can reject what the full computation keeps.
const ROUNDING_SLACK: f64 = 1.0 + 1e-9;

/// Headings this close to a multiple of a quarter turn are that multiple: f64 holds neither pi nor sums of angles exactly.
const QUARTER_TURN_TOLERANCE_RAD: f64 = 1e-14;

/// Four clips of a quadrilateral: a clip turns n vertices into n + 1, or 1.5 n where rounding bent the outline.
const MAX_CLIPPED_VERTICES: usize = 20;

/// The bird's-eye rectangle of a box with what every overlap test needs, made once per box.
#[derive(Debug, Clone, Copy)]
pub struct Footprint {
    center: [f64; 2],
    half_size: [f64; 2],
    yaw: f64,
    sin: f64,
    cos: f64,
    /// Half extents along the world's axes.
    half_extent: [f64; 2],
    area: f64,
}

impl Footprint {
    /// Of a box; its heights play no part.
    pub fn new(b: &Box3d) -> Self {
        let (sin, cos) = sin_cos(b.yaw);
        let half_size = [b.size[0] / 2.0, b.size[1] / 2.0];
        let half_extent =
            [half_size[0] * cos.abs() + half_size[1] * sin.abs(), half_size[0] * sin.abs() + half_size[1] * cos.abs()];
        Self { center: [b.center[0], b.center[1]], half_size, yaw: b.yaw, sin, cos, half_extent, area: b.size[0] * b.size[1] }
    }

    /// Square metres.
    pub fn area(&self) -> f64 {
        self.area
    }

    /// The centre and the relative heading of `other` in the frame whose x axis runs along this box: (x, y, sin, cos).
    fn relative(&self, other: &Self) -> (f64, f64, f64, f64) {
        let (dx, dy) = (other.center[0] - self.center[0], other.center[1] - self.center[1]);
        let sin = other.sin * self.cos - other.cos * self.sin;
        let cos = other.cos * self.cos + other.sin * self.sin;
        (dx * self.cos + dy * self.sin, dy * self.cos - dx * self.sin, sin, cos)
    }

    fn is_measurable(&self) -> bool {
        let reach = self.half_size[0] + self.half_size[1];
        self.half_size.iter().all(|&half| half >= 0.0)
            && self.center.iter().all(|&c| c.abs() + reach < MAX_COORDINATE_M)
            && self.yaw.is_finite()
    }

    /// Whether the world-aligned bounds of both, each grown by `margin_m`, meet. False means that the boxes are apart.
    fn bounds_meet(&self, other: &Self, margin_m: f64) -> bool {
        (0..2).all(|axis| {
            let reach = self.half_extent[axis] + other.half_extent[axis] + 2.0 * margin_m;
            (self.center[axis] - other.center[axis]).abs() <= reach * ROUNDING_SLACK
        })
    }
}

/// Area in square metres that two footprints share.
pub fn bev_overlap(a: &Box3d, b: &Box3d) -> f64 {
    footprint_overlap(&Footprint::new(a), &Footprint::new(b))
}

/// Shared area over joint area, in [0, 1].
pub fn bev_iou(a: &Box3d, b: &Box3d) -> f64 {
    let (a, b) = (Footprint::new(a), Footprint::new(b));
    ratio(footprint_overlap(&a, &b), a.area, b.area)
}

/// Shared volume over joint volume of upright boxes, in [0, 1].
pub fn iou3d(a: &Box3d, b: &Box3d) -> f64 {
    let (flat_a, flat_b) = (Footprint::new(a), Footprint::new(b));
    let shared = footprint_overlap(&flat_a, &flat_b) * height_overlap(a, b);
    ratio(shared, flat_a.area * a.size[2], flat_b.area * b.size[2])
}

/// [`bev_overlap`] of prepared footprints.
pub fn footprint_overlap(a: &Footprint, b: &Footprint) -> f64 {
    let measurable = a.is_measurable() && b.is_measurable() && a.area > 0.0 && b.area > 0.0;
    if measurable && a.bounds_meet(b, 0.0) { clipped_area(a, b) } else { 0.0 }
}

/// Metres of height that two boxes share. Written by the distance of the middles, so that equal boxes share all of it.
fn height_overlap(a: &Box3d, b: &Box3d) -> f64 {
    let (height_a, height_b) = (a.size[2], b.size[2]);
    let apart = (a.center[2] - b.center[2]).abs();
    let reach = height_a / 2.0 + height_b / 2.0 - apart;
    if reach > 0.0 && reach < MAX_COORDINATE_M { reach.min(height_a).min(height_b).max(0.0) } else { 0.0 }
}

fn ratio(shared: f64, whole_a: f64, whole_b: f64) -> f64 {
    if shared > 0.0 { (shared / (whole_a + whole_b - shared)).clamp(0.0, 1.0) } else { 0.0 }
}

/// Clips the smaller rectangle at the four sides of the larger one, in the frame of the larger one: its sides are then lines of
/// constant x or y, and coordinates are no larger than they need be. The choice also makes the result symmetric to the last bit.
fn clipped_area(a: &Footprint, b: &Footprint) -> f64 {
    let rank = |f: &Footprint| [f.half_size[0] + f.half_size[1], f.half_size[0], f.yaw, f.center[0], f.center[1]];
    let a_is_larger = rank(a).iter().zip(rank(b)).map(|(x, y)| x.total_cmp(&y)).find(|o| o.is_ne()).is_none_or(|o| o.is_gt());
    let (frame, subject) = if a_is_larger { (a, b) } else { (b, a) };

    let (x, y, ..) = frame.relative(subject);
    let mut outline = Outline::default();
    for corner in rectangle([x, y], subject.half_size, sin_cos(subject.yaw - frame.yaw)) {
        outline.push(corner);
    }
    for axis in 0..2 {
        for sign in [1.0, -1.0] {
            outline = outline.clipped(axis, sign, frame.half_size[axis]);
        }
    }
    outline.area().min(a.area).min(b.area)
}

/// Sine and cosine, with multiples of a quarter turn made exact.
fn sin_cos(angle_rad: f64) -> (f64, f64) {
    match angle_rad.sin_cos() {
        (sin, cos) if sin.abs() < QUARTER_TURN_TOLERANCE_RAD => (0.0, cos.signum()),
        (sin, cos) if cos.abs() < QUARTER_TURN_TOLERANCE_RAD => (sin.signum(), 0.0),
        general => general,
    }
}

/// A convex polygon under clipping.
#[derive(Clone, Copy, Default)]
struct Outline {
    vertices: [[f64; 2]; MAX_CLIPPED_VERTICES],
    len: usize,
}

impl Outline {
    fn push(&mut self, vertex: [f64; 2]) {
        self.vertices[self.len] = vertex;
        self.len += 1;
    }

    /// The part where `sign * coordinate <= limit`. New vertices lie on the limit exactly.
    fn clipped(&self, axis: usize, sign: f64, limit: f64) -> Self {
        let mut kept = Self::default();
        let vertices = &self.vertices[..self.len];
        let Some(mut from) = vertices.last().copied() else { return kept };
        let mut from_excess = sign * from[axis] - limit;
        for &to in vertices {
            let to_excess = sign * to[axis] - limit;
            if (from_excess > 0.0) != (to_excess > 0.0) {
                let share = from_excess / (from_excess - to_excess);
                let mut vertex = [from[0] + share * (to[0] - from[0]), from[1] + share * (to[1] - from[1])];
                vertex[axis] = sign * limit;
                kept.push(vertex);
            }
            if to_excess <= 0.0 {
                kept.push(to);
            }
            (from, from_excess) = (to, to_excess);
        }
        kept
    }

    fn area(&self) -> f64 {
        fan_area(&self.vertices[..self.len])
    }
}

/// Area of a polygon as a fan of triangles from its first vertex, whichever way round it runs.
fn fan_area(vertices: &[[f64; 2]]) -> f64 {
    let Some((first, rest)) = vertices.split_first() else { return 0.0 };
    let doubled: f64 = rest
        .windows(2)
        .map(|pair| {
            let (p, q) = (from_to(*first, pair[0]), from_to(*first, pair[1]));
            p[0] * q[1] - p[1] * q[0]
        })
        .sum();
    doubled.abs() / 2.0
}

fn from_to(from: [f64; 2], to: [f64; 2]) -> [f64; 2] {
    [to[0] - from[0], to[1] - from[1]]
}
