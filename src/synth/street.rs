//! The street: a gently curved line over rolling ground, with lanes, kerbs, pavements and side streets.
//!
//! World frame: x along the street on the whole, z up. Places are also named by (s, d): metres along the centre line and
//! metres to its left.

use nalgebra::{Isometry3, Matrix3, Rotation3, Translation3, UnitQuaternion, Vector3};

use super::random::Dice;
use super::shape::{Surface, SurfaceKind};

/// Steepest ground along any direction, kerbs aside: beams that climb faster never come down to it.
pub const MAX_SLOPE: f64 = 0.2;
const KERB_RAMP_M: f64 = 0.05;
const VERGE_WIDTH_M: f64 = 20.0;
const CROSSING_RAMP_M: f64 = 6.0;
const ARC_STEP_M: f64 = 0.5;

/// The ground and what is painted on it.
#[derive(Debug, Clone)]
pub struct Street {
    center: Spline,
    height: Spline,
    x_at_s: Vec<f64>,
    s_start: f64,
    /// Lanes in each direction.
    pub n_lanes: usize,
    /// Width of one lane.
    pub lane_m: f64,
    /// From the centre line to the kerb.
    pub half_road_m: f64,
    /// Width of the pavements.
    pub pavement_m: f64,
    kerb_m: f64,
    verge_rise_m: [f64; 2],
    /// Side streets.
    pub crossings: Vec<Crossing>,
    reflectivity: GroundReflectivity,
}

/// A side street, as wide as `2 * half_width_m`, crossing at a right angle.
#[derive(Debug, Clone, Copy)]
pub struct Crossing {
    /// Metres along the street.
    pub s: f64,
    x: f64,
    /// From its middle to its edge.
    pub half_width_m: f64,
}

#[derive(Debug, Clone, Copy)]
struct GroundReflectivity {
    asphalt: f64,
    paint: f64,
    pavement: f64,
    verge: f64,
}

impl Street {
    /// A street that reaches from `s_start` to at least `s_end`.
    pub fn new(dice: &mut Dice, s_start: f64, s_end: f64) -> Self {
        let (x_start, x_end) = (s_start - 60.0, s_end + 60.0);
        let bend = if dice.chance(0.4) { 0.0 } else { dice.between(1.0, 6.0) };
        let center = Spline::wander(dice, x_start, x_end, 40.0, 0.0, bend, 0.35);
        let grade = dice.between(-0.035, 0.035);
        let height = Spline::wander(dice, x_start, x_end, 40.0, grade, 0.35, 0.05);
        let n_lanes = if dice.chance(0.35) { 2 } else { 1 };
        let lane_m = dice.between(3.1, 3.6);
        let mut street = Self {
            center,
            height,
            x_at_s: Vec::new(),
            s_start,
            n_lanes,
            lane_m,
            half_road_m: n_lanes as f64 * lane_m + 1.5 + 2.3,
            pavement_m: dice.between(2.6, 4.5),
            kerb_m: dice.between(0.1, 0.16),
            verge_rise_m: [dice.between(-0.3, 0.6), dice.between(-0.3, 0.6)],
            crossings: Vec::new(),
            reflectivity: GroundReflectivity {
                asphalt: dice.between(0.06, 0.14),
                paint: dice.between(0.4, 0.9),
                pavement: dice.between(0.12, 0.25),
                verge: dice.between(0.2, 0.4),
            },
        };
        street.measure_arc(s_end);
        let mut s = s_start + dice.between(0.0, 90.0);
        while s < s_end {
            let half_width_m = dice.between(3.6, 6.0);
            street.crossings.push(Crossing { s, x: street.x_at(s), half_width_m });
            s += dice.between(70.0, 150.0);
        }
        street
    }

    fn measure_arc(&mut self, s_end: f64) {
        let mut x = self.s_start;
        let n_steps = ((s_end - self.s_start) / ARC_STEP_M).ceil() as usize + 2;
        self.x_at_s = (0..n_steps)
            .map(|_| {
                let here = x;
                x += ARC_STEP_M * self.along(x).1;
                here
            })
            .collect();
    }

    /// World x where the centre line is `s` metres long; clamped to the street's ends.
    fn x_at(&self, s: f64) -> f64 {
        let step = ((s - self.s_start) / ARC_STEP_M).clamp(0.0, (self.x_at_s.len() - 2) as f64);
        let idx = step as usize;
        let rest = step - idx as f64;
        self.x_at_s[idx] * (1.0 - rest) + self.x_at_s[idx + 1] * rest
    }

    /// Sine and cosine of the street's heading.
    fn along(&self, x: f64) -> (f64, f64) {
        let slope = self.center.at(x).1;
        let cos = 1.0 / (1.0 + slope * slope).sqrt();
        (slope * cos, cos)
    }

    /// World x, y and heading of the street at (s, d).
    pub fn place(&self, s: f64, d: f64) -> ([f64; 2], f64) {
        let x = self.x_at(s);
        let (sin, cos) = self.along(x);
        ([x - d * sin, self.center.at(x).0 + d * cos], sin.atan2(cos))
    }

    /// World x and metres left of the centre line of a world place.
    fn locate(&self, x: f64, y: f64) -> (f64, f64) {
        let (value, slope) = self.center.at(x);
        let foot_x = x + (y - value) * slope / (1.0 + slope * slope);
        let (value, slope) = self.center.at(foot_x);
        (foot_x, (y - value - (x - foot_x) * slope) / (1.0 + slope * slope).sqrt())
    }

    /// 0 away from side streets, 1 on them.
    fn on_crossing(&self, x: f64) -> f64 {
        let after = self.crossings.partition_point(|crossing| crossing.x < x);
        (self.crossings[after.saturating_sub(1)..].iter().take(2))
            .map(|crossing| 1.0 - smooth(((x - crossing.x).abs() - crossing.half_width_m) / CROSSING_RAMP_M))
            .fold(0.0, f64::max)
    }

    /// Height of the ground.
    pub fn height(&self, x: f64, y: f64) -> f64 {
        let (foot_x, d) = self.locate(x, y);
        let (base, outward) = (self.height.at(foot_x).0, d.abs() - self.half_road_m);
        let crown = -0.015 * d.abs().min(self.half_road_m);
        if outward <= -KERB_RAMP_M {
            return base + crown;
        }
        let kerb = self.kerb_m * smooth(outward / KERB_RAMP_M + 1.0);
        let verge = self.verge_rise_m[usize::from(d > 0.0)] * smooth((outward - self.pavement_m) / VERGE_WIDTH_M);
        base + crown + (kerb + verge) * (1.0 - self.on_crossing(foot_x))
    }

    /// What the ground is at a world place, and its normal, kerbs and verges aside.
    pub fn surface(&self, x: f64, y: f64) -> (Surface, Vector3<f64>) {
        let (foot_x, d) = self.locate(x, y);
        (self.paint(foot_x, d), self.up(foot_x))
    }

    /// Normal of the road.
    fn up(&self, foot_x: f64) -> Vector3<f64> {
        let (sin, cos) = self.along(foot_x);
        let grade = self.height.at(foot_x).1 * cos;
        Vector3::new(-grade * cos, -grade * sin, 1.0).normalize()
    }

    fn paint(&self, foot_x: f64, d: f64) -> Surface {
        let outward = d.abs() - self.half_road_m;
        let colours = &self.reflectivity;
        if outward > 0.0 && self.on_crossing(foot_x) < 0.9 {
            return if outward < self.pavement_m {
                Surface::matte(colours.pavement)
            } else {
                Surface::of(SurfaceKind::Grass, colours.verge)
            };
        }
        let lane_line = d.abs() / self.lane_m;
        let line_idx = lane_line.round();
        let near_line = (lane_line - line_idx).abs() * self.lane_m < 0.08 && line_idx <= self.n_lanes as f64;
        let solid = line_idx == self.n_lanes as f64 || line_idx == 0.0;
        let painted = near_line && (solid || foot_x.rem_euclid(9.0) < 3.0);
        Surface::matte(if painted { colours.paint } else { colours.asphalt })
    }

    /// A body standing on the ground at a world place, tilted with the grade of the street.
    pub fn standing(&self, [x, y]: [f64; 2], yaw: f64) -> Isometry3<f64> {
        let up = self.up(self.locate(x, y).0);
        let left = up.cross(&Vector3::new(yaw.cos(), yaw.sin(), 0.0)).normalize();
        let rotation = Rotation3::from_matrix_unchecked(Matrix3::from_columns(&[left.cross(&up), left, up]));
        let translation = Translation3::new(x, y, self.height(x, y));
        Isometry3::from_parts(translation, UnitQuaternion::from_rotation_matrix(&rotation))
    }
}

/// Unit steep-free step from 0 (at 0 and below) to 1 (at 1 and above).
fn smooth(t: f64) -> f64 {
    let t = t.clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// Uniform cubic B-spline: smooth to the second derivative, a handful of multiplications anywhere.
#[derive(Debug, Clone)]
struct Spline {
    start: f64,
    step: f64,
    control: Vec<f64>,
}

impl Spline {
    /// A wandering line with mean slope `slope`, bending by up to `bend` metres per knot and never steeper than `slope` ± `max_slope`.
    fn wander(dice: &mut Dice, start: f64, end: f64, step: f64, slope: f64, bend: f64, max_slope: f64) -> Self {
        let (mut value, mut deviation) = (0.0, 0.0);
        let control = (0..((end - start) / step).ceil() as usize + 4)
            .map(|_| {
                let here = value;
                deviation = (0.9 * deviation + dice.between(-bend, bend) / step).clamp(-max_slope, max_slope);
                value += step * (slope + deviation);
                here
            })
            .collect();
        Self { start, step, control }
    }

    /// Value and slope; beyond its ends the spline goes on from the last knots.
    fn at(&self, x: f64) -> (f64, f64) {
        let knot = ((x - self.start) / self.step).clamp(0.0, (self.control.len() - 4) as f64 + 0.999_999);
        let idx = knot as usize;
        let t = knot - idx as f64;
        let [a, b, c, d] = [self.control[idx], self.control[idx + 1], self.control[idx + 2], self.control[idx + 3]];
        let (bend, slope) = (a - 2.0 * b + c, c - a);
        let rise = d - 3.0 * c + 3.0 * b - a;
        let value = (a + 4.0 * b + c + t * (3.0 * slope + t * (3.0 * bend + t * rise))) / 6.0;
        let derivative = (3.0 * slope + t * (6.0 * bend + 3.0 * t * rise)) / (6.0 * self.step);
        (value, derivative)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spline_slope_is_its_derivative() {
        let spline = Spline::wander(&mut Dice::new(4, 4), -50.0, 300.0, 40.0, 0.02, 5.0, 0.4);
        for k in 0..600 {
            let x = -45.0 + f64::from(k) * 0.55;
            let numeric = (spline.at(x + 1e-4).0 - spline.at(x - 1e-4).0) / 2e-4;
            assert!((numeric - spline.at(x).1).abs() < 1e-5, "at {x}");
        }
    }

    #[test]
    fn street_ground_is_never_steeper_than_stated() {
        for seed in 0..6 {
            let street = Street::new(&mut Dice::new(seed, 0), -100.0, 200.0);
            for k in 0..20_000u32 {
                let (x, y) = (-80.0 + 0.0131 * f64::from(k), -45.0 + f64::from(k % 977) * 0.0921);
                let outward = street.locate(x, y).1.abs() - street.half_road_m;
                if outward.abs() < 2.0 * KERB_RAMP_M {
                    continue;
                }
                for (dx, dy) in [(0.01, 0.0), (0.0, 0.01), (0.007, 0.007), (0.007, -0.007)] {
                    let slope = (street.height(x + dx, y + dy) - street.height(x, y)).abs() / f64::hypot(dx, dy);
                    assert!(slope < MAX_SLOPE, "slope {slope} at {x} {y} of seed {seed}");
                }
            }
        }
    }

    #[test]
    fn street_place_and_locate_agree() {
        let street = Street::new(&mut Dice::new(5, 1), -100.0, 200.0);
        for (s, d) in [(0.0, 0.0), (37.0, 4.0), (120.0, -12.0), (150.0, 25.0)] {
            let ([x, y], _) = street.place(s, d);
            let (foot_x, found) = street.locate(x, y);
            assert!((found - d).abs() < 0.15 && (foot_x - street.x_at(s)).abs() < 0.5, "{d} became {found}");
        }
    }
}
