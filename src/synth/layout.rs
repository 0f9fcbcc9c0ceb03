//! Puts things along the street, band by band.
//!
//! Each band (lanes, bicycle strip, parking, kerb side of the pavement, walkers, fronts, plots) is filled by walking along
//! it, so that nothing stands in anything else.

use std::f64::consts::PI;

use super::motion::{Flow, Track, WINDOW_M};
use super::plots;
use super::random::Dice;
use super::scenery;
use super::shape::Part;
use super::street::Street;
use super::vehicle::VehicleKind;
use super::world::Actor;

/// Temper of a street: shares between 0 and 1.
pub struct Temper {
    /// Rows of buildings rather than yards.
    pub built_up: f64,
    /// Share of the kerb that is parked full.
    pub parking: f64,
    /// People and traffic.
    pub busy: f64,
    /// Trees and parks.
    pub green: f64,
}

/// Everything on a street between `s_start` and `s_end`.
pub fn people_street(dice: &mut Dice, street: &Street, ego_lane: usize, ego_flow: &Flow, s_start: f64, s_end: f64) -> Vec<Actor> {
    let temper = Temper {
        built_up: dice.between(0.0, 1.0),
        parking: dice.between(0.1, 0.95),
        busy: dice.between(0.2, 1.0),
        green: dice.between(0.0, 1.0),
    };
    let mut builder = Builder { dice, street, s_start, s_end, actors: Vec::new() };
    for side in [-1.0, 1.0] {
        builder.park_along(side, &temper);
        builder.furnish_pavement(side, &temper);
        plots::fill(&mut builder, side, &temper);
        builder.walk(side, &temper);
        builder.cycle(side, &temper);
    }
    builder.drive(ego_lane, ego_flow, &temper);
    builder.side_streets(&temper);
    builder.actors
}

/// The street so far.
pub struct Builder<'a> {
    /// Chance.
    pub dice: &'a mut Dice,
    /// The ground.
    pub street: &'a Street,
    /// Metres along the street where it begins.
    pub s_start: f64,
    /// Metres along the street where it ends.
    pub s_end: f64,
    actors: Vec<Actor>,
}

impl Builder<'_> {
    fn near_crossing(&self, s: f64, margin: f64) -> bool {
        self.street.crossings.iter().any(|crossing| (s - crossing.s).abs() < crossing.half_width_m + margin)
    }

    /// Standing at (s, d), turned from the street's direction by `turn`.
    fn stand(&self, s: f64, d: f64, turn: f64) -> Track {
        let (place, yaw) = self.street.place(s, d);
        Track::Fixed(self.street.standing(place, yaw + turn))
    }

    /// Scenery at (s, d), its y axis away from the street.
    pub fn put(&mut self, s: f64, d: f64, parts: Vec<Part>) {
        let track = self.stand(s, d, if d > 0.0 { 0.0 } else { PI });
        self.actors.push(Actor::rigid(None, parts, track));
    }

    /// A parked vehicle, turned from the street's direction by `turn`.
    pub fn put_vehicle(&mut self, s: f64, d: f64, turn: f64) {
        let kind = VehicleKind::parked(self.dice);
        let track = self.stand(s, d, turn);
        self.actors.push(Actor::vehicle(self.dice, kind, track));
    }

    /// Somebody who stands about.
    pub fn put_pedestrian(&mut self, s: f64, d: f64) {
        let turn = self.dice.between(-PI, PI);
        let track = self.stand(s, d, turn);
        self.actors.push(Actor::pedestrian(self.dice, track));
    }

    fn park_along(&mut self, side: f64, temper: &Temper) {
        let mut s = self.s_start + self.dice.between(0.0, 6.0);
        while s < self.s_end {
            if self.near_crossing(s, 8.0) || !self.dice.chance(temper.parking) {
                s += self.dice.between(4.0, 9.0);
                continue;
            }
            let along = if side < 0.0 || self.dice.chance(0.1) { 0.0 } else { PI };
            let turn = along + self.dice.around(0.0, 0.03);
            let d = side * (self.street.half_road_m - 1.2 + self.dice.around(0.0, 0.08));
            self.put_vehicle(s + 3.0, d, turn);
            if self.dice.chance(0.06) {
                let along = s + self.dice.between(1.0, 5.0);
                self.put_pedestrian(along, d - side * 1.6);
            }
            s += self.dice.between(6.6, 8.2);
        }
    }

    fn furnish_pavement(&mut self, side: f64, temper: &Temper) {
        let mut s = self.s_start + self.dice.between(0.0, 10.0);
        while s < self.s_end {
            if !self.near_crossing(s, 1.5) {
                let d = side * (self.street.half_road_m + 0.6);
                match self.dice.weighted(&[1.0, 1.2 * temper.green, 1.0, 0.5 * temper.busy]) {
                    0 => {
                        let parts = scenery::pole(self.dice);
                        self.put(s, d, parts);
                    }
                    1 => {
                        let parts = scenery::tree(self.dice);
                        self.put(s, d, parts);
                    }
                    2 => {
                        let parts = scenery::furniture(self.dice);
                        self.put(s, d, parts);
                    }
                    _ => self.put_pedestrian(s, d),
                }
            }
            s += self.dice.between(7.0, 14.0);
        }
        let mut s = self.s_start + self.dice.between(0.0, 20.0);
        while s < self.s_end {
            if !self.near_crossing(s, 2.0) {
                let d = side * (self.street.half_road_m + self.street.pavement_m - 0.3);
                if self.dice.chance(0.5 + 0.4 * temper.busy) {
                    self.put_pedestrian(s, d);
                } else {
                    let parts = scenery::furniture(self.dice);
                    self.put(s, d, parts);
                }
            }
            s += self.dice.between(14.0, 40.0);
        }
    }

    fn walk(&mut self, side: f64, temper: &Temper) {
        let n_slots = ((self.street.pavement_m - 2.2) / 0.9) as usize + 1;
        for slot in 0..n_slots {
            let d = side * (self.street.half_road_m + 1.3 + 0.9 * slot as f64);
            let (mean, swing) = (self.dice.between(0.8, 1.7), self.dice.between(0.0, 0.3));
            let flow = Flow::new(self.dice, mean, swing);
            let direction = self.dice.sign();
            let n_people = self.dice.below((9.0 * temper.busy) as usize + 2);
            self.spread(n_people, 0.0, |dice, s| Actor::pedestrian(dice, Track::Along { s, d, direction, flow }));
        }
    }

    fn cycle(&mut self, side: f64, temper: &Temper) {
        let d = side * (self.street.half_road_m - 2.3 - 0.75);
        let (mean, swing) = (self.dice.between(2.5, 7.0), self.dice.between(0.0, 0.5));
        let flow = Flow::new(self.dice, mean, swing);
        let n_cyclists = self.dice.below(2 + (6.0 * temper.busy) as usize);
        self.spread(n_cyclists, 0.0, |dice, s| Actor::cyclist(dice, Track::Along { s, d, direction: -side, flow }));
    }

    /// Puts `n` actors into the window around the ego vehicle, at least 60 % of their mean distance apart, the first and
    /// last `clear` metres from the ego vehicle.
    fn spread(&mut self, n: usize, clear: f64, mut make: impl FnMut(&mut Dice, f64) -> Actor) {
        let gap = (2.0 * WINDOW_M - 2.0 * clear) / n.max(1) as f64;
        let first = if clear > 0.0 { clear } else { self.dice.between(0.0, gap) };
        for idx in 0..n {
            let s = first + gap * (idx as f64 + self.dice.between(0.0, 0.4));
            let actor = make(self.dice, s);
            self.actors.push(actor);
        }
    }

    fn drive(&mut self, ego_lane: usize, ego_flow: &Flow, temper: &Temper) {
        for lane in 0..self.street.n_lanes {
            for direction in [1.0, -1.0] {
                let d = -direction * (lane as f64 + 0.5) * self.street.lane_m;
                let with_ego = direction > 0.0 && lane == ego_lane;
                let (mean, swing) = (self.dice.between(3.0, 14.0), self.dice.between(0.0, 1.0));
                let flow = if with_ego { *ego_flow } else { Flow::new(self.dice, mean, swing) };
                let n_vehicles = self.dice.below(2 + (9.0 * temper.busy) as usize);
                self.spread(n_vehicles, if with_ego { 12.0 } else { 0.0 }, |dice, s| {
                    let kind = VehicleKind::any(dice);
                    let d = d + dice.around(0.0, 0.12);
                    Actor::vehicle(dice, kind, Track::Along { s, d, direction, flow })
                });
            }
        }
    }

    fn side_streets(&mut self, temper: &Temper) {
        for crossing in self.street.crossings.clone() {
            for side in [-1.0, 1.0] {
                let mouth = self.street.half_road_m + self.street.pavement_m;
                let place = |street: &Street, out: f64, along: f64| {
                    let ([x, y], yaw) = street.place(crossing.s, side * out);
                    ([x + along * yaw.cos(), y + along * yaw.sin()], yaw)
                };
                let lane = 0.42 * crossing.half_width_m;
                let mut out = mouth + 4.0;
                for _ in 0..self.dice.below(4) {
                    let (from, yaw) = place(self.street, out, -side * lane);
                    let track =
                        Track::Line { from, yaw: yaw - side * PI / 2.0 + self.dice.around(0.0, 0.04), flow: Flow::still() };
                    let kind = VehicleKind::parked(self.dice);
                    self.actors.push(Actor::vehicle(self.dice, kind, track));
                    out += self.dice.between(7.0, 11.0);
                }
                if self.dice.chance(0.5 * temper.busy) {
                    let start = mouth + self.dice.between(0.0, 30.0);
                    let (from, yaw) = place(self.street, start, side * lane);
                    let mean = self.dice.between(2.0, 8.0);
                    let flow = Flow::new(self.dice, mean, 0.3);
                    let kind = VehicleKind::any(self.dice);
                    self.actors.push(Actor::vehicle(self.dice, kind, Track::Line { from, yaw: yaw + side * PI / 2.0, flow }));
                }
                for edge in [-1.0, 1.0] {
                    for _ in 0..self.dice.below(3) {
                        let (from, yaw) =
                            place(self.street, mouth + self.dice.between(0.0, 40.0), edge * (crossing.half_width_m + 0.9));
                        let turn = self.dice.sign() * PI / 2.0;
                        let mean = self.dice.between(0.0, 1.6);
                        let flow = Flow::new(self.dice, mean, 0.2);
                        self.actors.push(Actor::pedestrian(self.dice, Track::Line { from, yaw: yaw + turn, flow }));
                    }
                }
            }
        }
    }
}
