//! Bodies of vehicles: a few convex parts each, so that hoods, roofs, windows, wheels and cargo beds show in the points.
//!
//! Body frame: x forward, y left, z up from the ground, origin under the middle.

use super::random::Dice;
use super::shape::{Part, Surface, SurfaceKind};

/// Kinds of vehicles on the street.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VehicleKind {
    /// Three boxes.
    Sedan,
    /// High, with a steep tail.
    Suv,
    /// Short, with a steep tail.
    Hatchback,
    /// Cabin and open bed.
    Pickup,
    /// One box with a sloping nose.
    Van,
    /// Cabin and cargo box.
    Truck,
    /// Long and tall.
    Bus,
}

/// Parts and the length, width and height they fill.
pub struct Body {
    /// In the body frame.
    pub parts: Vec<Part>,
    /// Metres.
    pub size: [f64; 3],
}

const KINDS: [(VehicleKind, f64); 7] = [
    (VehicleKind::Sedan, 0.36),
    (VehicleKind::Suv, 0.32),
    (VehicleKind::Hatchback, 0.14),
    (VehicleKind::Pickup, 0.08),
    (VehicleKind::Van, 0.06),
    (VehicleKind::Truck, 0.025),
    (VehicleKind::Bus, 0.015),
];

impl VehicleKind {
    /// As often as on real streets.
    pub fn any(dice: &mut Dice) -> Self {
        KINDS[dice.weighted(&KINDS.map(|(_, share)| share))].0
    }

    /// One that fits a parking space.
    pub fn parked(dice: &mut Dice) -> Self {
        KINDS[dice.weighted(&KINDS[..5].iter().map(|(_, share)| *share).collect::<Vec<_>>())].0
    }

    /// Mean and spread of length, width with mirrors, and height.
    fn size(self, dice: &mut Dice) -> [f64; 3] {
        let table = match self {
            Self::Sedan => [(4.65, 0.22), (2.03, 0.06), (1.47, 0.05)],
            Self::Suv => [(4.65, 0.24), (2.1, 0.07), (1.75, 0.08)],
            Self::Hatchback => [(4.1, 0.2), (1.98, 0.06), (1.52, 0.05)],
            Self::Pickup => [(5.5, 0.25), (2.2, 0.07), (1.88, 0.07)],
            Self::Van => [(5.4, 0.4), (2.25, 0.08), (2.3, 0.25)],
            Self::Truck => [(7.6, 0.9), (2.55, 0.1), (3.2, 0.25)],
            Self::Bus => [(11.6, 0.7), (2.85, 0.08), (3.2, 0.12)],
        };
        table.map(|(mean, deviation)| dice.around(mean, deviation))
    }
}

/// A vehicle of this kind, of its own size and paint.
pub fn vehicle(dice: &mut Dice, kind: VehicleKind) -> Body {
    let size = kind.size(dice);
    let [length, width, height] = size;
    // Dark paint barely reflects at the laser's wavelength, light paint well; both are common.
    let shade = if dice.chance(0.35) { dice.between(0.02, 0.06) } else { dice.between(0.08, 0.3) };
    let paint = Surface::matte(shade);
    let belt = |share: f64| Surface::of(SurfaceKind::Glazed { belt_m: (share * height) as f32 }, shade);
    let scaled = |profile: &[[f64; 2]]| profile.iter().map(|c| [c[0] * length, c[1] * height]).collect::<Vec<_>>();
    let half = 0.46 * width;
    let mut parts = Vec::new();
    match kind {
        VehicleKind::Sedan => {
            let body = [[-0.5, 0.2], [0.48, 0.16], [0.5, 0.3], [0.49, 0.47], [0.22, 0.59], [-0.36, 0.64], [-0.49, 0.6]];
            let cabin = [[-0.4, 0.6], [0.22, 0.58], [0.04, 0.97], [-0.03, 1.0], [-0.2, 1.0], [-0.27, 0.97]];
            parts.push(Part::prism(&scaled(&body), half, 0.02, paint));
            parts.push(Part::prism(&scaled(&cabin), 0.95 * half, 0.28, belt(0.62)));
        }
        VehicleKind::Suv | VehicleKind::Hatchback => {
            let body = [[-0.5, 0.22], [0.48, 0.18], [0.5, 0.32], [0.49, 0.5], [0.24, 0.59], [-0.49, 0.62]];
            let cabin = [[-0.49, 0.58], [0.24, 0.57], [0.08, 0.97], [0.0, 1.0], [-0.38, 1.0], [-0.45, 0.96]];
            parts.push(Part::prism(&scaled(&body), half, 0.02, paint));
            parts.push(Part::prism(&scaled(&cabin), 0.96 * half, 0.2, belt(0.62)));
        }
        VehicleKind::Pickup => {
            let body = [[-0.5, 0.26], [0.48, 0.24], [0.5, 0.36], [0.49, 0.5], [0.25, 0.57], [-0.5, 0.46]];
            let cabin = [[-0.13, 0.48], [0.25, 0.55], [0.13, 0.97], [0.07, 1.0], [-0.06, 1.0], [-0.11, 0.97]];
            parts.push(Part::prism(&scaled(&body), half, 0.0, paint));
            parts.push(Part::prism(&scaled(&cabin), 0.94 * half, 0.2, belt(0.62)));
            let rail_z = 0.55 * height;
            for side in [-1.0, 1.0] {
                let center = [-0.31 * length, side * (half - 0.05), rail_z];
                parts.push(Part::block(center, [0.36 * length, 0.1, 0.24 * height], paint));
            }
            parts.push(Part::block([-0.49 * length, 0.0, rail_z], [0.02 * length, 2.0 * half, 0.24 * height], paint));
        }
        VehicleKind::Van => {
            let nose = [0.5, 0.26];
            let body = [[-0.5, 0.12], [0.47, 0.1], nose, [0.48, 0.46], [0.42, 0.55], [0.29, 0.97], [0.25, 1.0], [-0.48, 1.0]];
            let glass_from = if dice.chance(0.5) { 0.55 } else { 2.0 };
            parts.push(Part::prism(&scaled(&body), half, 0.03, belt(glass_from)));
        }
        VehicleKind::Truck => {
            let cabin = [[0.27, 0.14], [0.49, 0.14], [0.5, 0.35], [0.46, 0.74], [0.44, 0.78], [0.27, 0.78]];
            parts.push(Part::prism(&scaled(&cabin), 0.94 * half, 0.02, belt(0.48)));
            let cargo = [0.75 * length, 2.0 * half, 0.7 * height];
            parts.push(Part::block([-0.125 * length, 0.0, 0.65 * height], cargo, Surface::matte(dice.between(0.15, 0.4))));
            parts.push(Part::block([0.0, 0.0, 0.22 * height], [0.9 * length, 0.5 * width, 0.16 * height], Surface::matte(0.04)));
        }
        VehicleKind::Bus => {
            let body = [[-0.5, 0.1], [0.5, 0.1], [0.5, 0.45], [0.485, 0.96], [0.47, 1.0], [-0.49, 1.0], [-0.5, 0.96]];
            parts.push(Part::prism(&scaled(&body), half, 0.01, belt(0.38)));
        }
    }
    wheels(&mut parts, kind, size);
    furnish(&mut parts, size);
    Body { parts, size }
}

fn wheels(parts: &mut Vec<Part>, kind: VehicleKind, [length, width, _]: [f64; 3]) {
    let (radius, front, rear) = match kind {
        VehicleKind::Truck => (0.46, 0.38, -0.28),
        VehicleKind::Bus => (0.48, 0.27, -0.26),
        VehicleKind::Pickup => (0.39, 0.32, -0.31),
        VehicleKind::Suv | VehicleKind::Van => (0.36, 0.31, -0.3),
        VehicleKind::Sedan | VehicleKind::Hatchback => (0.33, 0.31, -0.29),
    };
    for along in [front, rear] {
        for side in [-1.0, 1.0] {
            let center = [along * length, side * (0.465 * width - 0.11), radius];
            parts.push(Part::wheel(center, radius, 0.11, Surface::matte(0.05)));
        }
    }
}

/// Mirrors, plates and lamps: little area, but what makes a front a front.
fn furnish(parts: &mut Vec<Part>, [length, width, height]: [f64; 3]) {
    let bright = |reflectivity| Surface::of(SurfaceKind::Retroreflector, reflectivity);
    for side in [-1.0, 1.0] {
        let mirror = [0.19 * length, side * 0.48 * width, 0.62 * height];
        parts.push(Part::block(mirror, [0.16, 0.04 * width, 0.14], Surface::matte(0.1)));
        parts.push(Part::block([-0.497 * length, side * 0.36 * width, 0.42 * height], [0.02, 0.22, 0.12], bright(1.4)));
        parts.push(Part::block([0.492 * length, side * 0.34 * width, 0.36 * height], [0.02, 0.26, 0.1], bright(0.8)));
    }
    parts.push(Part::block([-0.499 * length, 0.0, 0.32 * height], [0.01, 0.5, 0.12], bright(4.0)));
}

#[cfg(test)]
mod tests {
    use super::super::shape::Shape;
    use super::*;

    #[test]
    fn vehicle_parts_lie_in_the_size_they_state() {
        let mut dice = Dice::new(11, 0);
        for (kind, _) in KINDS {
            for _ in 0..20 {
                let body = vehicle(&mut dice, kind);
                for part in &body.parts {
                    let bounds = part.shape.bounds();
                    for (axis, half) in [0.5 * body.size[0], 0.5 * body.size[1]].into_iter().enumerate() {
                        let shift = part.body_from_part.translation.vector[axis] as f32;
                        assert!(bounds.maxs[axis] + shift <= half as f32 + 0.01, "{kind:?} {:?}", part.shape);
                        assert!(bounds.mins[axis] + shift >= -half as f32 - 0.01, "{kind:?} {:?}", part.shape);
                    }
                    let lift = part.body_from_part.translation.z as f32;
                    assert!(bounds.mins.z + lift >= -0.01 && bounds.maxs.z + lift <= body.size[2] as f32 + 0.01, "{kind:?}");
                }
                assert!(body.parts.iter().any(|part| matches!(part.shape, Shape::Convex(_))));
            }
        }
    }

    #[test]
    fn vehicle_sizes_average_like_waymo() {
        let mut dice = Dice::new(12, 0);
        let sizes: Vec<[f64; 3]> = (0..2000)
            .map(|_| {
                let kind = VehicleKind::any(&mut dice);
                vehicle(&mut dice, kind).size
            })
            .collect();
        for (axis, (expected, tolerance)) in [(4.7, 0.35), (2.1, 0.1), (1.7, 0.12)].into_iter().enumerate() {
            let mean = sizes.iter().map(|size| size[axis]).sum::<f64>() / sizes.len() as f64;
            assert!((mean - expected).abs() < tolerance, "axis {axis}: {mean}");
        }
    }
}
