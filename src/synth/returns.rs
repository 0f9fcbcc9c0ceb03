//! From what a shot met to what the sensor reports: lost shots, noisy ranges, intensity, elongation, second returns.
//!
//! The numbers are set so that the raw intensity of a street has its median near 0.1, 99 % below 2 and single returns of
//! tens (plates, signs), and elongation its median near 0.03 with a tail up to 1.49: the shape of Waymo's distributions,
//! for which `tanh(intensity)` is a sensible input.

use super::random::Key;
use super::raycast::{Hit, Shot};
use super::sensor::LaserSpec;
use super::shape::SurfaceKind;

/// Shortest distance behind the first surface at which a second pulse can be told apart.
const PULSE_SEPARATION_M: f32 = 0.6;
const MAX_ELONGATION: f32 = 1.493;
const GLASS_REFLECTIVITY: f32 = 0.03;

/// One measurement.
#[derive(Debug, Clone, Copy)]
pub struct Return {
    /// Metres.
    pub range_m: f32,
    /// Raw, positive.
    pub intensity: f32,
    /// Unscaled, as Waymo's sensors report it.
    pub elongation: f32,
}

/// What the sensor reports for a shot: nothing, one return, or two.
pub fn measure(laser: &LaserSpec, shot: &Shot, key: Key) -> [Option<Return>; 2] {
    let first = answer(laser, &shot.first, 1.0, key.with(1));
    let second = shot.second.filter(|second| {
        let apart = second.range_m - shot.first.range_m > PULSE_SEPARATION_M;
        apart && key.with(2).uniform() < leakage(&shot.first, key.with(1))
    });
    [first, second.and_then(|hit| answer(laser, &hit, 0.5, key.with(3)))]
}

/// Probability that enough of the pulse goes on behind a hit.
fn leakage(hit: &Hit, key: Key) -> f32 {
    match hit.surface.kind {
        SurfaceKind::Leaves => 0.4,
        _ if hit.opacity < 1.0 => 0.6,
        _ if is_glass(hit, key) => 0.3,
        // Pulses are a hand wide: some straddle an edge.
        _ => 0.03,
    }
}

/// Whether this shot met a window of the surface.
fn is_glass(hit: &Hit, key: Key) -> bool {
    match hit.surface.kind {
        SurfaceKind::Glazed { belt_m } => !hit.on_top && hit.height_m > belt_m && key.with(10).uniform() < 0.75,
        SurfaceKind::Facade => {
            let (storey, bay) = (hit.height_m.rem_euclid(3.0), hit.along_m.rem_euclid(2.4));
            !hit.on_top && (0.9..2.4).contains(&storey) && (0.6..1.8).contains(&bay)
        }
        _ => false,
    }
}

/// `strength` is the share of the pulse that reached the hit.
fn answer(laser: &LaserSpec, hit: &Hit, strength: f32, key: Key) -> Option<Return> {
    let glass = is_glass(hit, key);
    let rough = matches!(hit.surface.kind, SurfaceKind::Leaves | SurfaceKind::Grass);
    let cos = if rough { 0.25 + 0.75 * key.with(11).uniform() } else { hit.cos_incidence };
    let reflectivity = strength * if glass { GLASS_REFLECTIVITY } else { hit.surface.reflectivity };
    let nearness = 50.0 / hit.range_m.max(1.0);
    let signal = reflectivity * cos * nearness * nearness;
    let seen = signal / (signal + laser.dropout.half_signal as f32);
    let through = if glass { 0.45 } else { 1.0 };
    if key.with(12).uniform() >= (1.0 - laser.dropout.floor as f32) * seen * through {
        return None;
    }
    let speckle = if hit.surface.kind == SurfaceKind::Retroreflector { 0.7 } else { 0.25 };
    let fade = 1.0 / (1.0 + (hit.range_m / 80.0).powi(2));
    let intensity = reflectivity * (0.3 + 0.7 * cos) * fade * (speckle * key.with(13).normal()).exp();
    let stretch = 0.04 * (1.0 + 1.5 * (1.0 - cos)) + if rough { 0.25 } else { 0.0 };
    let elongation = (-key.with(15).uniform().ln() * stretch - 0.01).clamp(0.0, MAX_ELONGATION);
    let sigma = laser.range_sigma_m as f32 + if hit.surface.kind == SurfaceKind::Grass { 0.03 } else { 0.0 };
    let range_m = hit.range_m + sigma * key.with(17).normal().clamp(-4.0, 4.0);
    let reported = f64::from(range_m) >= laser.min_range_m && f64::from(range_m) <= laser.max_range_m;
    reported.then_some(Return { range_m, intensity, elongation })
}

#[cfg(test)]
mod tests {
    use super::super::sensor::SensorKind;
    use super::super::shape::Surface;
    use super::*;

    fn share_returned(surface: Surface, range_m: f32, cos_incidence: f32) -> f64 {
        let laser = &SensorKind::Waymo5.lasers()[0];
        let hit = Hit { range_m, cos_incidence, surface, height_m: 1.0, along_m: 0.0, on_top: false, opacity: 1.0 };
        let n_returned = (0..4000).filter(|&shot| answer(laser, &hit, 1.0, Key::new(shot)).is_some()).count();
        n_returned as f64 / 4000.0
    }

    #[test]
    fn returned_share_falls_with_range_slant_and_darkness() {
        let (dark, light) = (Surface::matte(0.04), Surface::matte(0.3));
        let cases = [
            ("near wall", share_returned(light, 10.0, 1.0), 0.95..1.0),
            ("far wall", share_returned(light, 70.0, 1.0), 0.93..1.0),
            ("near asphalt", share_returned(dark, 8.0, 0.27), 0.9..1.0),
            ("far asphalt", share_returned(dark, 60.0, 0.036), 0.05..0.5),
        ];
        for (name, share, expected) in cases {
            assert!(expected.contains(&share), "{name}: {share}");
        }
    }

    #[test]
    fn measure_second_return_needs_separation_and_leakage() {
        let laser = &SensorKind::Waymo5.lasers()[0];
        let hit = |kind, range_m| Hit {
            range_m,
            cos_incidence: 0.9,
            surface: Surface::of(kind, 0.3),
            height_m: 1.0,
            along_m: 0.0,
            on_top: false,
            opacity: 1.0,
        };
        let share = |first: SurfaceKind, second_range: f32| {
            let shot = Shot {
                row: 0,
                column: 0,
                dir: parry3d::math::Vec3::X,
                first: hit(first, 10.0),
                second: Some(hit(SurfaceKind::Matte, second_range)),
            };
            (0..2000).filter(|&k| measure(laser, &shot, Key::new(k))[1].is_some()).count()
        };
        assert_eq!(share(SurfaceKind::Leaves, 10.3), 0);
        assert!((600..900).contains(&share(SurfaceKind::Leaves, 12.0)));
        assert!(share(SurfaceKind::Matte, 12.0) < 120);
    }
}
