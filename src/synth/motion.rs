//! How things move: closed forms of time, so that any frame can be asked for without the ones before it.

use std::f64::consts::PI;

use nalgebra::Isometry3;

use super::random::Dice;
use super::street::Street;

/// Half the length of street that is peopled around the ego vehicle. What leaves at one end comes in at the other as
/// somebody new, beyond every sensor's range.
pub const WINDOW_M: f64 = 118.0;

/// Speed that swings about its mean: `mean * (1 + swing * sin(omega t + phase))`, never backwards.
#[derive(Debug, Clone, Copy)]
pub struct Flow {
    mean_mps: f64,
    swing: f64,
    omega: f64,
    phase: f64,
}

impl Flow {
    /// Around this mean; `swing` up to 1 means full stops.
    pub fn new(dice: &mut Dice, mean_mps: f64, swing: f64) -> Self {
        Self { mean_mps, swing: swing.clamp(0.0, 1.0), omega: dice.between(0.15, 0.6), phase: dice.between(0.0, 2.0 * PI) }
    }

    /// Standing still.
    pub fn still() -> Self {
        Self { mean_mps: 0.0, swing: 0.0, omega: 1.0, phase: 0.0 }
    }

    /// Metres covered since t = 0.
    pub fn distance(&self, t: f64) -> f64 {
        let swung = (self.phase.cos() - (self.omega * t + self.phase).cos()) / self.omega;
        self.mean_mps * (t + self.swing * swung)
    }

    /// Metres per second.
    pub fn speed(&self, t: f64) -> f64 {
        self.mean_mps * (1.0 + self.swing * (self.omega * t + self.phase).sin())
    }
}

/// A way through the world.
#[derive(Debug, Clone)]
pub enum Track {
    /// Stays.
    Fixed(Isometry3<f64>),
    /// Follows the street `d` metres left of its centre line, towards +s or -s, wrapping about the ego vehicle.
    Along {
        /// Place at t = 0.
        s: f64,
        /// Metres left of the centre line.
        d: f64,
        /// 1 or -1.
        direction: f64,
        /// Speed.
        flow: Flow,
    },
    /// Straight over the ground.
    Line {
        /// World place at t = 0.
        from: [f64; 2],
        /// World heading.
        yaw: f64,
        /// Speed.
        flow: Flow,
    },
}

/// Where something is at an instant.
#[derive(Debug, Clone, Copy)]
pub struct State {
    /// Pose of the foot of the body.
    pub world_from_body: Isometry3<f64>,
    /// World heading of the motion.
    pub heading: f64,
    /// Metres per second along the heading.
    pub speed_mps: f64,
    /// Metres travelled, for the swing of limbs.
    pub travelled_m: f64,
    /// How often it left the window around the ego vehicle; each time it comes back as somebody else.
    pub lap: i64,
}

impl Track {
    /// At time `t`, with the ego vehicle `ego_s` metres along the street.
    pub fn at(&self, street: &Street, t: f64, ego_s: f64) -> State {
        match self {
            Self::Fixed(pose) => State { world_from_body: *pose, heading: 0.0, speed_mps: 0.0, travelled_m: 0.0, lap: 0 },
            Self::Along { s, d, direction, flow } => {
                let travelled_m = flow.distance(t);
                let ahead = s + direction * travelled_m - ego_s + WINDOW_M;
                let (place, yaw) = street.place(ego_s - WINDOW_M + ahead.rem_euclid(2.0 * WINDOW_M), *d);
                let heading = if *direction < 0.0 { yaw + PI } else { yaw };
                let lap = ahead.div_euclid(2.0 * WINDOW_M) as i64;
                State { world_from_body: street.standing(place, heading), heading, speed_mps: flow.speed(t), travelled_m, lap }
            }
            Self::Line { from, yaw, flow } => {
                let travelled_m = flow.distance(t);
                let place = [from[0] + travelled_m * yaw.cos(), from[1] + travelled_m * yaw.sin()];
                let world_from_body = street.standing(place, *yaw);
                State { world_from_body, heading: *yaw, speed_mps: flow.speed(t), travelled_m, lap: 0 }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flow_speed_is_the_derivative_of_distance() {
        let flow = Flow::new(&mut Dice::new(1, 1), 9.0, 0.8);
        for k in 0..100 {
            let t = f64::from(k) * 0.2;
            let numeric = (flow.distance(t + 1e-4) - flow.distance(t - 1e-4)) / 2e-4;
            assert!((numeric - flow.speed(t)).abs() < 1e-5);
            assert!(flow.speed(t) >= 0.0);
        }
    }
}
