//! Who and what is on the street of one drive.

use std::borrow::Cow;

use nalgebra::{Point3, Vector3};

use super::ObjectClass;
use super::layout;
use super::motion::{Flow, State, Track, WINDOW_M};
use super::people::Person;
use super::random::Dice;
use super::shape::Part;
use super::street::Street;
use super::vehicle::{VehicleKind, vehicle};

/// Something that can be hit.
#[derive(Debug, Clone)]
pub struct Actor {
    /// What a detector should find, if it should.
    pub object: Option<Object>,
    figure: Figure,
    track: Track,
    /// Circle about the origin of the body that holds it.
    pub radius_m: f64,
}

/// What the label says that does not change over a drive.
#[derive(Debug, Clone, Copy)]
pub struct Object {
    /// Class.
    pub class: ObjectClass,
    /// Length, width, height.
    pub size_m: [f64; 3],
}

#[derive(Debug, Clone)]
enum Figure {
    Rigid(Vec<Part>),
    OnFoot(Person),
    OnBicycle(Person),
}

impl Actor {
    /// Parts that do not move against each other.
    pub fn rigid(object: Option<Object>, parts: Vec<Part>, track: Track) -> Self {
        let radius_m = parts.iter().map(reach).fold(0.0, f64::max);
        Self { object, figure: Figure::Rigid(parts), track, radius_m }
    }

    /// A vehicle of its own size.
    pub fn vehicle(dice: &mut Dice, kind: VehicleKind, track: Track) -> Self {
        let body = vehicle(dice, kind);
        Self::rigid(Some(Object { class: ObjectClass::Vehicle, size_m: body.size }), body.parts, track)
    }

    /// Somebody on foot.
    pub fn pedestrian(dice: &mut Dice, track: Track) -> Self {
        let person = Person::any(dice);
        let object = Some(Object { class: ObjectClass::Pedestrian, size_m: person.size });
        Self { object, figure: Figure::OnFoot(person), track, radius_m: 1.0 }
    }

    /// Somebody on a bicycle.
    pub fn cyclist(dice: &mut Dice, track: Track) -> Self {
        let person = Person::cyclist(dice);
        let object = Some(Object { class: ObjectClass::Cyclist, size_m: person.size });
        Self { object, figure: Figure::OnBicycle(person), track, radius_m: 1.5 }
    }

    /// Place and motion at time `t`.
    pub fn state(&self, street: &Street, t: f64, ego_s: f64) -> State {
        self.track.at(street, t, ego_s)
    }

    /// The body at that state.
    pub fn parts(&self, state: &State) -> Cow<'_, [Part]> {
        match &self.figure {
            Figure::Rigid(parts) => Cow::Borrowed(parts),
            Figure::OnFoot(person) => Cow::Owned(person.on_foot(state.travelled_m, state.speed_mps)),
            Figure::OnBicycle(person) => Cow::Owned(person.on_bicycle(state.travelled_m)),
        }
    }
}

/// Farthest that a part reaches from the body's z axis.
fn reach(part: &Part) -> f64 {
    let bounds = part.shape.bounds();
    let center = part.body_from_part * Point3::from(Vector3::from(bounds.center().to_array().map(f64::from)));
    center.x.hypot(center.y) + f64::from(bounds.half_extents().length())
}

/// A street with everything on it.
#[derive(Debug, Clone)]
pub struct World {
    /// The ground.
    pub street: Street,
    /// Everything on it.
    pub actors: Vec<Actor>,
    /// Motion of the ego vehicle.
    pub ego_flow: Flow,
    /// Metres left of the centre line.
    pub ego_d: f64,
}

impl World {
    /// The world of one drive, long enough for `duration_s`.
    pub fn new(dice: &mut Dice, duration_s: f64) -> Self {
        let mean_mps = if dice.chance(0.15) { dice.between(0.0, 2.0) } else { dice.between(4.0, 14.0) };
        let swing = dice.between(0.0, 1.0);
        let ego_flow = Flow::new(dice, mean_mps, swing);
        let (s_start, s_end) = (-WINDOW_M - 20.0, ego_flow.distance(duration_s) + WINDOW_M + 20.0);
        let street = Street::new(dice, s_start, s_end);
        let ego_lane = dice.below(street.n_lanes);
        let ego_d = -(ego_lane as f64 + 0.5) * street.lane_m;
        let actors = layout::people_street(dice, &street, ego_lane, &ego_flow, s_start, s_end);
        Self { street, actors, ego_flow, ego_d }
    }
}
