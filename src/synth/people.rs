//! Bodies of pedestrians and cyclists: tubes and balls that swing with the distance travelled.
//!
//! Body frame: x forward, y left, z up from the ground.

use std::f64::consts::TAU;

use super::random::Dice;
use super::shape::{Part, Surface};

/// What stays the same of a person over a drive.
#[derive(Debug, Clone, Copy)]
pub struct Person {
    /// Length, width and height of the label: it holds the whole stride.
    pub size: [f64; 3],
    girth: f64,
    cloth: f64,
    phase: f64,
    backpack: bool,
}

impl Person {
    /// An adult, or one in six times a child.
    pub fn any(dice: &mut Dice) -> Self {
        let child = dice.chance(0.16);
        let height = if child { dice.around(1.22, 0.12) } else { dice.around(1.73, 0.085) };
        let scale = height / 1.73;
        Self {
            size: [dice.around(0.92, 0.05) * scale.max(0.8), dice.around(0.86, 0.04) * scale.max(0.8), height],
            girth: dice.around(1.0, 0.12),
            cloth: dice.between(0.04, 0.3),
            phase: dice.between(0.0, TAU),
            backpack: dice.chance(0.25),
        }
    }

    /// A rider with the bicycle.
    pub fn cyclist(dice: &mut Dice) -> Self {
        let size = [dice.around(1.8, 0.06), dice.around(0.8, 0.06), dice.around(1.75, 0.06)];
        Self { size, backpack: dice.chance(0.3), ..Self::any(dice) }
    }

    /// On foot, `travelled_m` into the walk; `speed_mps` sets the length of the stride.
    pub fn on_foot(&self, travelled_m: f64, speed_mps: f64) -> Vec<Part> {
        let unit = self.size[2] / 1.73;
        let stride = (0.3 * (speed_mps / 1.3).min(1.0)).max(0.03);
        let swing = stride * unit * (travelled_m * TAU / (1.4 * unit) + self.phase).sin();
        let (cloth, skin) = (Surface::matte(self.cloth), Surface::matte(0.2));
        let tube = |from: [f64; 3], to: [f64; 3], radius: f64, surface| {
            Part::tube(from.map(|v| v * unit), to.map(|v| v * unit), radius * unit, surface)
        };
        let step = swing / unit;
        let mut parts = Vec::with_capacity(9);
        for (side, lead) in [(1.0, step), (-1.0, -step)] {
            parts.push(tube([0.0, side * 0.09, 0.88], [lead, side * 0.1, 0.09], 0.08, cloth));
            parts.push(tube([0.0, side * 0.2, 1.36], [-lead * 0.8, side * 0.26, 0.88], 0.055, cloth));
        }
        parts.push(tube([0.0, 0.0, 0.95], [0.0, 0.0, 1.34], 0.15 * self.girth, cloth));
        parts.push(tube([0.0, -0.12, 1.37], [0.0, 0.12, 1.37], 0.085, cloth));
        parts.push(Part::ball([0.02, 0.0, 1.61 * unit], 0.115 * unit, skin));
        if self.backpack {
            let center = [-0.2 * unit, 0.0, 1.2 * unit];
            parts.push(Part::block(center, [0.16 * unit, 0.3 * unit, 0.42 * unit], Surface::matte(0.5 * self.cloth)));
        }
        parts
    }

    /// On a bicycle, pedalling.
    pub fn on_bicycle(&self, travelled_m: f64) -> Vec<Part> {
        let [along, across, up] = [self.size[0] / 1.8, self.size[1] / 0.8, self.size[2] / 1.75];
        let at = |v: [f64; 3]| [v[0] * along, v[1] * across, v[2] * up];
        let (cloth, skin) = (Surface::matte(self.cloth), Surface::matte(0.2));
        let mut parts = bicycle(along);
        let turn = travelled_m * TAU / 5.0 + self.phase;
        for (side, angle) in [(1.0, turn), (-1.0, turn + TAU / 2.0)] {
            let pedal = [0.02 + 0.16 * angle.cos(), side * 0.12, 0.3 + 0.16 * angle.sin()];
            let knee = [0.2 + 0.05 * angle.cos(), side * 0.13, 0.72 + 0.1 * angle.sin()];
            parts.push(Part::tube(at([-0.18, side * 0.1, 0.97]), at(knee), 0.085, cloth));
            parts.push(Part::tube(at(knee), at(pedal), 0.06, cloth));
            parts.push(Part::tube(at([0.14, side * 0.18, 1.38]), at([0.4, side * 0.26, 1.03]), 0.05, cloth));
        }
        parts.push(Part::tube(at([-0.16, 0.0, 1.02]), at([0.12, 0.0, 1.38]), 0.15 * self.girth, cloth));
        parts.push(Part::ball(at([0.24, 0.0, 1.62]), 0.12, skin));
        if self.backpack {
            parts.push(Part::ball(at([-0.12, 0.0, 1.35]), 0.17, Surface::matte(0.5 * self.cloth)));
        }
        parts
    }
}

/// A bicycle without a rider; `scale` stretches its wheelbase.
pub fn bicycle(scale: f64) -> Vec<Part> {
    let metal = Surface::matte(0.25);
    let spokes = |x: f64| Part::wheel([x * scale, 0.0, 0.33], 0.33, 0.02, metal).see_through(0.45);
    let tube = |from: [f64; 3], to: [f64; 3]| {
        Part::tube([from[0] * scale, from[1], from[2]], [to[0] * scale, to[1], to[2]], 0.025, metal)
    };
    vec![
        spokes(-0.53),
        spokes(0.53),
        tube([-0.53, 0.0, 0.33], [0.0, 0.0, 0.3]),
        tube([0.0, 0.0, 0.3], [-0.2, 0.0, 0.9]),
        tube([-0.14, 0.0, 0.75], [0.4, 0.0, 0.85]),
        tube([0.53, 0.0, 0.33], [0.38, 0.0, 1.0]),
        tube([0.4, -0.28, 1.02], [0.4, 0.28, 1.02]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_stay_inside_their_labels() {
        let mut dice = Dice::new(21, 0);
        for _ in 0..100 {
            let (walker, rider) = (Person::any(&mut dice), Person::cyclist(&mut dice));
            for step in 0..10 {
                let travelled = 0.17 * f64::from(step);
                for (person, parts) in [(walker, walker.on_foot(travelled, 1.4)), (rider, rider.on_bicycle(travelled))] {
                    for part in parts {
                        let (bounds, shift) = (part.shape.bounds(), part.body_from_part.translation.vector);
                        for axis in 0..3 {
                            let (low, high) = (bounds.mins[axis] + shift[axis] as f32, bounds.maxs[axis] + shift[axis] as f32);
                            let (floor, roof) = if axis == 2 {
                                (0.0, person.size[2])
                            } else {
                                (-0.5 * person.size[axis], 0.5 * person.size[axis])
                            };
                            let inside = low >= floor as f32 - 0.02 && high <= roof as f32 + 0.02;
                            assert!(inside, "axis {axis}: {low}..{high} outside {floor}..{roof} of {person:?}");
                        }
                    }
                }
            }
        }
    }
}
