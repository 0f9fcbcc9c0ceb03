//! What lies beyond the pavement: rows of buildings, parking lots, parks, yards.

use std::f64::consts::PI;

use super::layout::{Builder, Temper};
use super::scenery;

/// Half the width of what keeps clear of a side street.
const CLEARANCE_M: f64 = 2.5;
const DRIVEWAY_M: f64 = 4.0;

/// A stretch of ground along the street.
struct Plot {
    s: f64,
    width: f64,
    side: f64,
    front: f64,
}

impl Plot {
    /// Metres left of the centre line, `out` metres into the plot.
    fn d(&self, out: f64) -> f64 {
        self.side * (self.front + out)
    }

    fn middle(&self) -> f64 {
        self.s + 0.5 * self.width
    }
}

/// Fills one side of the street with plots, leaving the side streets free.
pub fn fill(builder: &mut Builder, side: f64, temper: &Temper) {
    let front = builder.street.half_road_m + builder.street.pavement_m + 0.4;
    let mut s = builder.s_start;
    while s < builder.s_end {
        let next = builder.street.crossings.iter().find(|crossing| crossing.s + crossing.half_width_m + CLEARANCE_M > s);
        let (free, beyond) = next.map_or((f64::INFINITY, s), |crossing| {
            let clear = crossing.half_width_m + CLEARANCE_M;
            (crossing.s - clear - s, crossing.s + clear)
        });
        if free < 6.0 {
            s = beyond + 0.01;
            continue;
        }
        let shares = [2.5 * temper.built_up + 0.3, 1.2, 0.5 * temper.green + 0.2, 2.0 * (1.0 - temper.built_up)];
        let kind = builder.dice.weighted(&shares);
        let (narrow, wide) = [(9.0, 26.0), (14.0, 32.0), (15.0, 40.0), (13.0, 22.0)][kind];
        let plot = Plot { s, width: builder.dice.between(narrow, wide).min(free), side, front };
        s += plot.width;
        match kind {
            0 => {
                house(builder, &plot);
                if builder.dice.chance(0.5) {
                    s += builder.dice.between(0.5, 6.0);
                }
            }
            1 => parking_lot(builder, &plot),
            2 => park(builder, &plot),
            _ => yard(builder, &plot),
        }
    }
}

/// A place in the plot, between `near` and `far` metres in.
fn anywhere(builder: &mut Builder, plot: &Plot, near: f64, far: f64) -> (f64, f64) {
    let s = plot.s + builder.dice.between(2.0, plot.width - 2.0);
    (s, plot.d(builder.dice.between(near, far)))
}

fn house(builder: &mut Builder, plot: &Plot) {
    let (setback, depth) = (builder.dice.between(0.0, 3.0), builder.dice.between(8.0, 16.0));
    let parts = scenery::building(builder.dice, plot.width, depth);
    builder.put(plot.middle(), plot.d(1.3 + setback), parts);
}

fn parking_lot(builder: &mut Builder, plot: &Plot) {
    let slant = if builder.dice.chance(0.3) { builder.dice.between(-0.5, 0.5) } else { 0.0 };
    let full = builder.dice.between(0.3, 0.95);
    for row in 0..builder.dice.below(3) + 1 {
        for space in 0..((plot.width - 3.0) / 3.0) as usize {
            if builder.dice.chance(full) {
                let turn = builder.dice.sign() * PI / 2.0 + slant + builder.dice.around(0.0, 0.04);
                builder.put_vehicle(plot.s + 2.5 + 3.0 * space as f64, plot.d([3.4, 14.9, 20.9][row]), turn);
            }
        }
    }
    for _ in 0..builder.dice.below(3) {
        let (s, d) = anywhere(builder, plot, 7.2, 9.2);
        builder.put_pedestrian(s, d);
    }
    if builder.dice.chance(0.4) {
        let parts = scenery::fence(builder.dice, plot.width - 1.0);
        builder.put(plot.middle(), plot.d(25.0), parts);
    }
    if builder.dice.chance(0.5) {
        let parts = scenery::bulky(builder.dice);
        let (s, d) = anywhere(builder, plot, 27.0, 29.0);
        builder.put(s, d, parts);
    }
}

fn park(builder: &mut Builder, plot: &Plot) {
    for _ in 0..(plot.width / 5.0) as usize {
        let parts = scenery::tree(builder.dice);
        let (s, d) = anywhere(builder, plot, 4.0, 25.0);
        builder.put(s, d, parts);
    }
    for _ in 0..(plot.width / 10.0) as usize {
        let length = builder.dice.between(0.5, 4.0);
        let parts = scenery::bush(builder.dice, length);
        let (s, d) = anywhere(builder, plot, 1.0, 20.0);
        builder.put(s, d, parts);
    }
    if builder.dice.chance(0.7) {
        let parts = scenery::bulky(builder.dice);
        let (s, d) = anywhere(builder, plot, 2.5, 3.0);
        builder.put(s, d, parts);
    }
    for _ in 0..builder.dice.below(5) {
        let (s, d) = anywhere(builder, plot, 4.5, 14.0);
        builder.put_pedestrian(s, d);
    }
}

/// A house behind a lawn, with a driveway at the plot's near end.
fn yard(builder: &mut Builder, plot: &Plot) {
    let lawn = plot.width - DRIVEWAY_M - 0.5;
    let lawn_s = plot.s + DRIVEWAY_M + 0.5 * lawn;
    if builder.dice.chance(0.65) {
        let turn = builder.dice.sign() * PI / 2.0 + builder.dice.around(0.0, 0.04);
        let out = builder.dice.between(3.5, 8.0);
        builder.put_vehicle(plot.s + 0.5 * DRIVEWAY_M, plot.d(out), turn);
    }
    if lawn < 5.0 {
        return;
    }
    if builder.dice.chance(0.6) {
        let parts = if builder.dice.chance(0.5) { scenery::fence(builder.dice, lawn) } else { scenery::bush(builder.dice, lawn) };
        builder.put(lawn_s, plot.d(0.3), parts);
    }
    let (setback, depth) = (builder.dice.between(6.8, 10.3), builder.dice.between(8.0, 12.0));
    let parts = scenery::building(builder.dice, lawn - 1.0, depth);
    builder.put(lawn_s, plot.d(setback), parts);
    if builder.dice.chance(0.6) {
        let parts = scenery::tree(builder.dice);
        builder.put(lawn_s - 0.3 * lawn, plot.d(2.6), parts);
    }
    if builder.dice.chance(0.4) {
        let parts = scenery::furniture(builder.dice);
        builder.put(lawn_s, plot.d(2.6), parts);
    }
    if builder.dice.chance(0.35) {
        builder.put_pedestrian(lawn_s + 0.3 * lawn, plot.d(2.6));
    }
}
