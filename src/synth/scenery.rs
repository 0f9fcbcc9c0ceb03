//! Everything that is not an object to find: buildings, trees, poles, and things that look like objects but are not.
//!
//! Body frame: x along the street, y away from it, z up from the ground; the origin is the foot of the thing.

use super::random::Dice;
use super::shape::{Part, Surface, SurfaceKind};

/// A building `width` long and `depth` deep whose front stands on y = 0.
pub fn building(dice: &mut Dice, width: f64, depth: f64) -> Vec<Part> {
    let height = if dice.chance(0.5) { dice.between(4.0, 8.0) } else { dice.between(8.0, 22.0) };
    let wall = Surface::of(SurfaceKind::Facade, dice.between(0.1, 0.3));
    let stone = Surface::matte(dice.between(0.1, 0.3));
    let mut parts = vec![Part::block([0.0, 0.5 * depth, 0.5 * height - 0.5], [width, depth, height + 1.0], wall)];
    if dice.chance(0.5) {
        let (bay, reach) = (dice.between(2.0, 0.4 * width + 2.0), dice.between(0.4, 1.2));
        let along = dice.between(-0.5, 0.5) * (width - bay).max(0.0);
        parts.push(Part::block([along, -0.5 * reach, 0.4 * height - 0.5], [bay, reach, 0.8 * height + 1.0], wall));
    }
    if dice.chance(0.4) {
        let along = dice.between(-0.3, 0.3) * width;
        parts.push(Part::block([along, -0.6, 2.9], [dice.between(1.5, 5.0), 1.2, 0.15], stone));
    }
    if dice.chance(0.4) {
        let along = dice.between(-0.3, 0.3) * width;
        for step in 0..3 {
            let z = 0.15 * f64::from(step);
            parts.push(Part::block([along, -0.75 + 0.3 * f64::from(step), z], [1.6, 0.5, 0.3], stone));
        }
    }
    if dice.chance(0.5) {
        let along = dice.between(-0.3, 0.3) * width;
        for storey in 1..(height / 3.0) as i32 {
            parts.push(Part::block([along, -0.5, 3.0 * f64::from(storey) + 0.4], [2.6, 1.0, 1.0], stone));
        }
    }
    parts
}

/// A tree with a trunk and a crown of leaf balls, broad or pointed.
pub fn tree(dice: &mut Dice) -> Vec<Part> {
    let trunk_m = dice.between(1.6, 3.2);
    let radius = dice.between(0.08, 0.28);
    let lean = [dice.around(0.0, 0.15), dice.around(0.0, 0.15)];
    let top = [lean[0], lean[1], trunk_m + 1.0];
    let mut parts = vec![Part::tube([0.0, 0.0, -0.3], top, radius, Surface::matte(0.15))];
    let crown = dice.between(1.0, 2.6);
    let path = dice.between(0.5, 1.6);
    let leaf = dice.between(0.12, 0.35);
    if dice.chance(0.75) {
        for _ in 0..dice.below(5) + 5 {
            let center = [0, 1, 2].map(|axis: usize| dice.around([lean[0], lean[1], trunk_m + crown][axis], 0.45 * crown));
            parts.push(Part::foliage(center, dice.between(0.35, 0.7) * crown, path, leaf));
        }
    } else {
        for layer in 0..6 {
            let share = f64::from(layer) / 6.0;
            parts.push(Part::foliage([lean[0], lean[1], 1.2 + 4.5 * share], 1.5 * (1.0 - share) + 0.2, 0.6 * path, leaf));
        }
    }
    parts
}

/// A bush, or a hedge when `length` is large.
pub fn bush(dice: &mut Dice, length: f64) -> Vec<Part> {
    let height = dice.between(0.5, 1.6);
    let leaf = dice.between(0.12, 0.35);
    (0..(length / 0.6) as i32 + 1)
        .map(|k| {
            let center = [0.6 * f64::from(k) - 0.5 * length, dice.around(0.0, 0.1), dice.between(0.35, 0.55) * height];
            Part::foliage(center, 0.5 * height * dice.between(0.8, 1.1), 0.25, leaf)
        })
        .collect()
}

/// A fence of this length: boards, pickets, wire mesh, or a low wall.
pub fn fence(dice: &mut Dice, length: f64) -> Vec<Part> {
    let (height, opacity) = match dice.below(4) {
        0 => (dice.between(1.5, 2.0), 1.0),
        1 => (dice.between(0.9, 1.2), 0.55),
        2 => (dice.between(1.5, 2.4), 0.25),
        _ => (dice.between(0.4, 0.9), 1.0),
    };
    let surface = Surface::matte(dice.between(0.08, 0.3));
    let mut parts = vec![Part::block([0.0, 0.0, 0.5 * height], [length, 0.08, height], surface).see_through(opacity)];
    if opacity < 1.0 {
        for k in 0..(length / 2.5) as i32 + 1 {
            let x = 2.5 * f64::from(k) - 0.5 * length;
            parts.push(Part::tube([x, 0.0, 0.0], [x, 0.0, height], 0.04, surface));
        }
    }
    parts
}

/// A lamp post, a traffic sign, or traffic lights on a pole.
pub fn pole(dice: &mut Dice) -> Vec<Part> {
    let metal = Surface::matte(dice.between(0.1, 0.3));
    match dice.below(3) {
        0 => {
            let height = dice.between(5.0, 9.0);
            vec![
                Part::tube([0.0, 0.0, 0.0], [0.0, 0.0, height], dice.between(0.06, 0.12), metal),
                Part::tube([0.0, 0.0, height], [0.0, -1.8, height + 0.2], 0.05, metal),
                Part::block([0.0, -1.9, height + 0.15], [0.25, 0.6, 0.12], metal),
            ]
        }
        1 => {
            let sign = Surface::of(SurfaceKind::Retroreflector, dice.between(1.5, 12.0));
            let z = dice.between(2.1, 2.6);
            let face = if dice.chance(0.7) { [0.03, 0.6, 0.6] } else { [0.03, 0.45, 0.75] };
            vec![Part::tube([0.0; 3], [0.0, 0.0, z + 0.35], 0.035, metal), Part::block([-0.05, 0.0, z], face, sign)]
        }
        _ => vec![
            Part::tube([0.0; 3], [0.0, 0.0, 3.4], 0.07, metal),
            Part::block([0.0, 0.0, 3.0], [0.3, 0.3, 0.95], Surface::matte(0.06)),
            Part::block([0.12, 0.0, 1.1], [0.1, 0.16, 0.2], Surface::matte(0.2)),
        ],
    }
}

/// Street furniture: shapes and sizes near those of people, cyclists and cars.
pub fn furniture(dice: &mut Dice) -> Vec<Part> {
    let surface = Surface::matte(dice.between(0.05, 0.3));
    let post = |height: f64, radius: f64| Part::tube([0.0, 0.0, radius], [0.0, 0.0, height - radius], radius, surface);
    match dice.below(12) {
        // Litter bin.
        0 => vec![Part::block([0.0, 0.0, 0.55], [0.5, 0.5, 1.1], surface)],
        // Wheeled bins in a row.
        1 => (0..dice.below(3) + 1)
            .map(|k| {
                let turn = dice.around(0.0, 0.2);
                Part::block([0.0, 0.0, 0.53], [0.55, 0.6, 1.06], surface).placed(turn, [0.75 * k as f64, 0.0, 0.0])
            })
            .collect(),
        // Bench.
        2 => vec![
            Part::block([0.0, 0.0, 0.44], [1.7, 0.45, 0.06], surface),
            Part::block([0.0, 0.24, 0.7], [1.7, 0.05, 0.42], surface).see_through(0.7),
            Part::block([-0.7, 0.0, 0.22], [0.08, 0.4, 0.44], surface),
            Part::block([0.7, 0.0, 0.22], [0.08, 0.4, 0.44], surface),
        ],
        // Mailbox on a post.
        3 => vec![post(1.0, 0.06), Part::block([0.0, 0.0, 1.2], [0.4, 0.35, 0.5], surface)],
        // Bollards.
        4 => (0..dice.below(4) + 2).map(|k| post(0.95, 0.08).placed(0.0, [1.4 * k as f64, 0.0, 0.0])).collect(),
        // Hydrant.
        5 => vec![post(0.75, 0.14), Part::tube([0.0, -0.2, 0.5], [0.0, 0.2, 0.5], 0.08, surface)],
        // Switch cabinet.
        6 => vec![Part::block([0.0, 0.0, 0.65], [dice.between(0.6, 1.4), 0.45, 1.3], surface)],
        // Advertising column.
        7 => vec![Part::tube([0.0, 0.0, 0.3], [0.0, 0.0, 2.3], 0.55, surface)],
        // Parked bicycles without riders.
        8 => (0..dice.below(4) + 1)
            .flat_map(|k| {
                let turn = 1.2 + dice.around(0.0, 0.15);
                super::people::bicycle(0.97).into_iter().map(move |part| part.placed(turn, [0.7 * k as f64, 0.0, 0.0]))
            })
            .collect(),
        // Traffic cones: a ball on a foot of planes would be finer than the beams.
        9 => (0..dice.below(4) + 1)
            .map(|k| {
                let profile = [[-0.18, 0.0], [0.18, 0.0], [0.03, 0.75], [-0.03, 0.75]];
                Part::prism(&profile, 0.18, 0.2, Surface::matte(0.35)).placed(0.0, [1.8 * k as f64, 0.0, 0.0])
            })
            .collect(),
        // Parking meter or slim board, as tall as a person.
        10 => vec![post(1.2, 0.05), Part::block([0.0, 0.0, 1.4], [0.25, 0.25, 0.45], surface)],
        // Board on feet.
        _ => {
            vec![Part::block([0.0, 0.0, 0.9], [0.6, 0.08, 1.5], surface), Part::block([0.0, 0.0, 0.08], [0.6, 0.5, 0.1], surface)]
        }
    }
}

/// Bulky things the size of cars: skips, dumpsters, shelters, heaps, market stalls.
pub fn bulky(dice: &mut Dice) -> Vec<Part> {
    let surface = Surface::matte(dice.between(0.05, 0.3));
    match dice.below(5) {
        // Skip with sloped ends.
        0 => vec![Part::prism(&[[-1.3, 0.05], [1.3, 0.05], [1.9, 1.45], [-1.9, 1.45]], 0.9, 0.0, surface)],
        // Dumpster.
        1 => vec![
            Part::block([0.0, 0.0, 0.75], [1.9, 1.2, 1.1], surface),
            Part::prism(&[[-0.95, 1.3], [0.95, 1.3], [0.95, 1.42], [-0.95, 1.42]], 0.6, 2.0, surface),
        ],
        // Bus shelter: glass that mostly lets the pulse through.
        2 => vec![
            Part::block([0.0, 0.6, 1.2], [3.6, 0.05, 2.0], surface).see_through(0.3),
            Part::block([1.8, 0.0, 1.2], [0.05, 1.2, 2.0], surface).see_through(0.3),
            Part::block([0.0, 0.0, 2.4], [3.8, 1.4, 0.12], surface),
            Part::tube([-1.8, 0.6, 0.0], [-1.8, 0.6, 2.4], 0.05, surface),
            Part::block([0.0, 0.35, 0.45], [2.4, 0.35, 0.06], surface),
        ],
        // Heap of building material.
        3 => vec![Part::prism(&[[-1.4, 0.0], [1.4, 0.0], [0.3, 0.95], [-0.4, 0.95]], 1.1, 0.9, surface)],
        // Market stall.
        _ => vec![
            Part::block([0.0, 0.0, 0.45], [2.4, 1.2, 0.9], surface),
            Part::prism(&[[-1.5, 2.1], [1.5, 2.1], [0.1, 2.8], [-0.1, 2.8]], 1.1, 0.0, Surface::matte(0.3)),
            Part::tube([-1.3, 0.9, 0.0], [-1.3, 0.9, 2.1], 0.03, surface),
            Part::tube([1.3, 0.9, 0.0], [1.3, 0.9, 2.1], 0.03, surface),
        ],
    }
}
