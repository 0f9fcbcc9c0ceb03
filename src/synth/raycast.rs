//! Which surface every shot of a laser meets first, and what stands behind it.
//!
//! Parts are drawn into the range image nearest first: each is cast only against the shots inside its angular window that
//! nothing nearer has stopped, so a shot meets a handful of parts, not a tree of them. The ground is marched.

use nalgebra::{Isometry3, Point3, Vector3};
use parry3d::math::{Mat3, Vec3};
use parry3d::query::Ray;
use rayon::prelude::*;

use super::motion::State;
use super::random::Key;
use super::sensor::LaserSpec;
use super::shape::{Part, Surface, vec3};
use super::street::{MAX_SLOPE, Street};
use super::window::Window;

/// Columns that one task casts; fixed, so that results do not depend on the number of threads.
const CHUNK_COLUMNS: usize = 32;
/// Ground nearer than this to a shot counts as hit.
const GROUND_TOLERANCE_M: f64 = 0.002;
/// The ground has no hump shorter than this that a beam could step over.
const MAX_GROUND_STEP_M: f64 = 4.0;

/// A part somewhere in the world.
pub struct Placed<'a> {
    /// The part.
    pub part: &'a Part,
    /// Its pose.
    pub world_from_part: Isometry3<f64>,
    /// World z of the foot of its body.
    pub foot_z: f64,
}

impl<'a> Placed<'a> {
    /// The parts of a body that stands somewhere.
    pub fn body(parts: &'a [Part], state: &State) -> impl Iterator<Item = Self> + use<'a> {
        let world_from_body = state.world_from_body;
        parts.iter().map(move |part| Self {
            part,
            world_from_part: world_from_body * part.body_from_part,
            foot_z: world_from_body.translation.z,
        })
    }
}

/// What a shot met, in the laser's frame.
#[derive(Debug, Clone, Copy)]
pub struct Hit {
    /// Distance.
    pub range_m: f32,
    /// Cosine of the angle between the shot and the normal.
    pub cos_incidence: f32,
    /// What it met.
    pub surface: Surface,
    /// Height of the hit above the foot of its body; 0 on the ground.
    pub height_m: f32,
    /// World place along the facade of the hit part.
    pub along_m: f32,
    /// Whether the surface faces upwards.
    pub on_top: bool,
    /// Share of the shot it stops on average.
    pub opacity: f32,
}

/// One shot.
#[derive(Debug, Clone, Copy)]
pub struct Shot {
    /// Beam, 0 the highest.
    pub row: usize,
    /// Position in the sweep.
    pub column: usize,
    /// Unit direction in the laser's frame.
    pub dir: Vec3,
    /// First surface.
    pub first: Hit,
    /// What comes after the first surface, for lasers that report it.
    pub second: Option<Hit>,
}

/// A part as one laser sees it.
struct Target<'a> {
    placed: &'a Placed<'a>,
    id: u32,
    first_column: usize,
    n_columns: usize,
    rows: std::ops::Range<usize>,
    min_range: f32,
    part_from_laser: Mat3,
    origin: Vec3,
}

impl Target<'_> {
    /// The columns from `begin` to before `end` in which it may be seen; its window may wrap around the sweep.
    fn columns_within(&self, begin: usize, end: usize, n_total: usize) -> impl Iterator<Item = usize> + use<> {
        let last = self.first_column + self.n_columns;
        let plain = begin.max(self.first_column)..end.min(last);
        let wrapped = begin..end.min(last.saturating_sub(n_total));
        plain.chain(wrapped)
    }
}

const NONE: u32 = u32::MAX;
const GROUND: u32 = u32::MAX - 1;

#[derive(Clone, Copy)]
struct Depth {
    range: f32,
    target: u32,
}

/// Casts every shot of a laser and keeps those that meet something, column by column.
///
/// Equal input gives equal output on any number of threads.
pub fn cast(
    laser: &LaserSpec,
    world_from_laser: &Isometry3<f64>,
    street: &Street,
    placed: &[Placed],
    two_returns: bool,
    key: Key,
) -> Vec<Shot> {
    let laser_from_world = world_from_laser.inverse();
    let mut targets: Vec<Target> =
        placed.iter().enumerate().filter_map(|(id, placed)| target(laser, &laser_from_world, placed, id as u32)).collect();
    targets.sort_by(|a, b| a.min_range.total_cmp(&b.min_range).then(a.id.cmp(&b.id)));
    let beams: Vec<(f64, f64)> = laser.elevations_rad.iter().map(|elevation| elevation.sin_cos()).collect();
    let caster = Caster { laser, world_from_laser, street, targets: &targets, beams: &beams, two_returns, key };
    let chunks: Vec<Vec<Shot>> = (0..laser.n_columns.div_ceil(CHUNK_COLUMNS))
        .into_par_iter()
        .map(|chunk| caster.chunk(chunk * CHUNK_COLUMNS, laser.n_columns.min((chunk + 1) * CHUNK_COLUMNS)))
        .collect();
    chunks.concat()
}

/// Azimuth of the middle of a column; the sweep is clockwise, from the left edge of the span to its right edge.
pub fn column_azimuth(laser: &LaserSpec, column: usize) -> f64 {
    laser.span_rad * (0.5 - (column as f64 + 0.5) / laser.n_columns as f64)
}

struct Caster<'a> {
    laser: &'a LaserSpec,
    world_from_laser: &'a Isometry3<f64>,
    street: &'a Street,
    targets: &'a [Target<'a>],
    beams: &'a [(f64, f64)],
    two_returns: bool,
    key: Key,
}

impl Caster<'_> {
    fn chunk(&self, begin: usize, end: usize) -> Vec<Shot> {
        let n_rows = self.beams.len();
        let max_range = self.laser.max_range_m as f32;
        let empty = Depth { range: max_range, target: NONE };
        let mut depths = vec![[empty; 2]; (end - begin) * n_rows];
        let mut dirs = Vec::with_capacity(depths.len());
        for column in begin..end {
            let (sin_az, cos_az) = column_azimuth(self.laser, column).sin_cos();
            let column_dirs = self.beams.iter().map(|&(sin, cos)| Vector3::new(cos * cos_az, cos * sin_az, sin));
            dirs.extend(column_dirs.clone().map(|dir| vec3([dir.x, dir.y, dir.z])));
            self.ground(&mut depths[(column - begin) * n_rows..][..n_rows], column_dirs);
        }
        for (target_idx, target) in self.targets.iter().enumerate() {
            for column in target.columns_within(begin, end, self.laser.n_columns) {
                for row in target.rows.clone() {
                    let pixel = (column - begin) * n_rows + row;
                    let depth = &mut depths[pixel];
                    let limit = if self.two_returns { depth[1].range } else { depth[0].range };
                    if limit <= target.min_range {
                        continue;
                    }
                    let Some(range) = self.hit(target, dirs[pixel], limit, column * n_rows + row) else { continue };
                    let found = Depth { range, target: target_idx as u32 };
                    if range < depth[0].range {
                        *depth = [found, depth[0]];
                    } else if range < depth[1].range {
                        depth[1] = found;
                    }
                }
            }
        }
        let mut shots = Vec::with_capacity(depths.len());
        for (pixel, (depth, &dir)) in depths.iter().zip(&dirs).enumerate() {
            let (column, row) = (begin + pixel / n_rows, pixel % n_rows);
            if let Some(first) = self.describe(depth[0], dir) {
                let second = if self.two_returns { self.describe(depth[1], dir) } else { None };
                shots.push(Shot { row, column, dir, first, second });
            }
        }
        shots
    }

    fn hit(&self, target: &Target, dir: Vec3, limit: f32, shot: usize) -> Option<f32> {
        let ray = Ray::new(target.origin, target.part_from_laser * dir);
        let luck = || self.key.with(shot as u64).with(u64::from(target.id));
        let range = target.placed.part.shape.cast(&ray, limit, || luck().uniform())?;
        let opacity = target.placed.part.opacity;
        let stopped = opacity >= 1.0 || luck().with(1).uniform() < opacity;
        (stopped && range > self.laser.min_range_m as f32).then_some(range)
    }

    /// Follows the beams of one column down to the ground, lowest first: where the ground hid one beam, a higher beam
    /// cannot meet it nearer.
    fn ground(&self, depths: &mut [[Depth; 2]], dirs: impl DoubleEndedIterator<Item = Vector3<f64>> + ExactSizeIterator) {
        let max_range = self.laser.max_range_m;
        let (mut known, mut slope) = (0.0, 0.0);
        for (depth, dir) in depths.iter_mut().zip(dirs).rev() {
            let dir = self.world_from_laser.rotation * dir;
            if dir.z > MAX_SLOPE * dir.x.hypot(dir.y) {
                break;
            }
            let Some(range) = self.ground_range(&dir, 0.98 * known, &mut slope) else { break };
            known = range;
            if range > self.laser.min_range_m && range < max_range {
                *depth = [Depth { range: range as f32, target: GROUND }, depth[1]];
            }
        }
    }

    /// Distance at which a beam comes down to the ground beyond `start`, where it is still above it; `None` beyond the
    /// laser's range. `slope` is the rise of the ground per metre of beam where the last one came down.
    fn ground_range(&self, dir: &Vector3<f64>, start: f64, slope: &mut f64) -> Option<f64> {
        let origin = self.world_from_laser.translation.vector;
        let gap_at = |range: f64| {
            let at = origin + dir * range;
            at.z - self.street.height(at.x, at.y)
        };
        let (mut above, mut gap_above) = (start, gap_at(start));
        let (mut below, mut gap_below) = loop {
            if gap_above < GROUND_TOLERANCE_M {
                return Some(above);
            }
            if above > self.laser.max_range_m {
                return None;
            }
            let closing = *slope - dir.z;
            let step = if closing * MAX_GROUND_STEP_M > gap_above { gap_above / closing } else { MAX_GROUND_STEP_M };
            let range = above + step.max(0.01);
            let gap = gap_at(range);
            *slope = (gap_above - gap) / (range - above) + dir.z;
            if gap < 0.0 {
                break (range, gap);
            }
            (above, gap_above) = (range, gap);
        };
        while below - above > 1e-3 {
            let range = (above + (below - above) * gap_above / (gap_above - gap_below))
                .clamp(above + 0.1 * (below - above), below - 0.1 * (below - above));
            let gap = gap_at(range);
            if gap.abs() < GROUND_TOLERANCE_M {
                return Some(range);
            }
            if gap > 0.0 { (above, gap_above) = (range, gap) } else { (below, gap_below) = (range, gap) }
        }
        Some(above)
    }

    fn describe(&self, depth: Depth, dir: Vec3) -> Option<Hit> {
        if depth.target == NONE {
            return None;
        }
        if depth.target == GROUND {
            let at = self.world_from_laser * Point3::from(Vector3::from((dir * depth.range).to_array().map(f64::from)));
            let dir = self.world_from_laser.rotation * Vector3::from(dir.to_array().map(f64::from));
            let (surface, normal) = self.street.surface(at.x, at.y);
            return Some(Hit {
                range_m: depth.range,
                cos_incidence: dir.dot(&normal).abs() as f32,
                surface,
                height_m: 0.0,
                along_m: 0.0,
                on_top: true,
                opacity: 1.0,
            });
        }
        let target = self.targets.get(depth.target as usize)?;
        let part = target.placed.part;
        let ray = Ray::new(target.origin, target.part_from_laser * dir);
        let normal = part.shape.normal(&ray);
        let at = Point3::from(Vector3::from(ray.point_at(depth.range).to_array().map(f64::from)));
        let world_z = (target.placed.world_from_part * at).z;
        Some(Hit {
            range_m: depth.range,
            cos_incidence: ray.dir.dot(normal).abs(),
            surface: part.surface,
            height_m: (world_z - target.placed.foot_z) as f32,
            along_m: (at.x + at.y) as f32,
            on_top: normal.z > 0.7,
            opacity: part.opacity,
        })
    }
}

/// The part with its window in the range image; `None` when it lies outside of the laser's reach.
fn target<'a>(laser: &LaserSpec, laser_from_world: &Isometry3<f64>, placed: &'a Placed<'a>, id: u32) -> Option<Target<'a>> {
    let laser_from_part = laser_from_world * placed.world_from_part;
    let rotation = laser_from_part.rotation.to_rotation_matrix();
    let columns: [Vec3; 3] = [0, 1, 2].map(|axis: usize| {
        let axis = rotation.matrix().column(axis);
        vec3([axis[0], axis[1], axis[2]])
    });
    let laser_from_part_axes = Mat3::from_cols(columns[0], columns[1], columns[2]);
    let shift = vec3(laser_from_part.translation.vector.into());
    let bounds = placed.part.shape.bounds();
    let (middle, half) = (laser_from_part_axes * bounds.center() + shift, bounds.half_extents());
    if middle.length() - half.length() > laser.max_range_m as f32 {
        return None;
    }
    let window = Window::of(middle, [columns[0] * half.x, columns[1] * half.y, columns[2] * half.z]);
    if window.min_range > laser.max_range_m as f32 {
        return None;
    }
    let (first_column, n_columns) = window.columns(laser)?;
    let rows = window.rows(&laser.elevations_rad);
    if rows.is_empty() {
        return None;
    }
    let part_from_laser = laser_from_part_axes.transpose();
    let origin = part_from_laser * -shift;
    Some(Target { placed, id, first_column, n_columns, rows, min_range: window.min_range, part_from_laser, origin })
}

#[cfg(test)]
mod tests {
    use super::super::random::Dice;
    use super::super::sensor::SensorKind;
    use super::super::shape::upright;
    use super::super::world::World;
    use super::*;

    fn roof() -> LaserSpec {
        LaserSpec { n_columns: 300, ..SensorKind::Waymo5.lasers().swap_remove(0) }
    }

    #[test]
    fn bare_ground_is_hit_where_the_street_says_it_is() {
        for seed in 0..3 {
            let street = Street::new(&mut Dice::new(seed, 1), -110.0, 110.0);
            let ([x, y], yaw) = street.place(0.0, -2.0);
            let world_from_laser = street.standing([x, y], yaw) * upright([1.43, 0.0, 2.184], 0.0);
            let shots = cast(&roof(), &world_from_laser, &street, &[], false, Key::new(1));
            // 39 beams look down steeply enough to come down on a level road within 75 m.
            assert!((37 * 300..=42 * 300).contains(&shots.len()), "{} shots", shots.len());
            let mut n_on_face = 0;
            for shot in &shots {
                let at = Vector3::from((shot.dir * shot.first.range_m).to_array().map(f64::from));
                let at = world_from_laser * Point3::from(at);
                let miss = at.z - street.height(at.x, at.y);
                if miss.abs() > 0.005 {
                    // On the face of a kerb a millimetre across is a centimetre of height.
                    let away = 0.01 * Vector3::new(at.x - x, at.y - y, 0.0).normalize();
                    let (near, far) = (street.height(at.x - away.x, at.y - away.y), street.height(at.x + away.x, at.y + away.y));
                    assert!((near.min(far) - 0.005..near.max(far) + 0.005).contains(&at.z), "{miss} m off at {at}");
                    n_on_face += 1;
                }
            }
            assert!(n_on_face * 50 < shots.len(), "{n_on_face} of {}", shots.len());
        }
    }

    #[test]
    fn wall_hides_what_stands_behind_it() {
        let street = Street::new(&mut Dice::new(2, 1), -110.0, 110.0);
        let ([x, y], yaw) = street.place(0.0, -2.0);
        let world_from_ego = street.standing([x, y], yaw);
        let world_from_laser = world_from_ego * upright([1.43, 0.0, 2.184], 0.0);
        let part = |center, size, reflectivity| Part::block(center, size, Surface::matte(reflectivity));
        let car = part([20.0, 0.0, 0.8], [4.5, 2.0, 1.6], 0.2);
        let cases = [
            ("alone", vec![], true),
            ("behind a wall", vec![part([10.0, 0.0, 1.5], [0.2, 6.0, 5.0], 0.1)], false),
            ("beside a wall", vec![part([10.0, 8.0, 1.5], [0.2, 6.0, 5.0], 0.1)], true),
            ("before a wall", vec![part([30.0, 0.0, 1.5], [0.2, 20.0, 5.0], 0.1)], true),
            ("behind a low wall", vec![part([10.0, 0.0, 0.3], [0.2, 6.0, 0.6], 0.1)], true),
        ];
        for (name, mut parts, seen) in cases {
            parts.push(car.clone());
            let placed: Vec<Placed> = parts
                .iter()
                .map(|part| Placed { part, world_from_part: world_from_ego * part.body_from_part, foot_z: 0.0 })
                .collect();
            let shots = cast(&roof(), &world_from_laser, &street, &placed, false, Key::new(1));
            let n_on_car = shots.iter().filter(|shot| shot.first.surface == car.surface).count();
            assert_eq!(n_on_car > 20, seen, "{name}: {n_on_car}");
            assert!(seen || n_on_car == 0, "{name}: {n_on_car}");
        }
    }

    /// The windows must lose nothing that casting every shot at every part would find.
    #[test]
    fn windowed_cast_matches_exhaustive_cast() {
        let world = World::new(&mut Dice::new(77, 3), 1.0);
        let ([x, y], yaw) = world.street.place(0.0, world.ego_d);
        let world_from_ego = world.street.standing([x, y], yaw);
        let states: Vec<_> = world.actors.iter().map(|actor| (actor, actor.state(&world.street, 0.0, 0.0))).collect();
        let bodies: Vec<_> = states.iter().map(|(actor, state)| (actor.parts(state), state)).collect();
        let placed: Vec<Placed> = bodies.iter().flat_map(|(parts, state)| Placed::body(parts, state)).collect();
        for mut laser in SensorKind::Waymo5.lasers() {
            laser.n_columns = laser.n_columns.min(240) / 4;
            let mount = upright(laser.mount_m, laser.mount_yaw_rad);
            let world_from_laser = world_from_ego * mount;
            let key = Key::new(5);
            let shots = cast(&laser, &world_from_laser, &world.street, &placed, false, key);
            let n_rows = laser.elevations_rad.len();
            let mut found = vec![f32::MAX; n_rows * laser.n_columns];
            for shot in &shots {
                found[shot.column * n_rows + shot.row] = shot.first.range_m;
            }
            let laser_from_world = world_from_laser.inverse();
            let local: Vec<_> = placed.iter().map(|placed| (laser_from_world * placed.world_from_part).inverse()).collect();
            let mut n_parts_hit = 0;
            for (pixel, &found) in found.iter().enumerate() {
                let (sin_az, cos_az) = column_azimuth(&laser, pixel / n_rows).sin_cos();
                let (sin, cos) = laser.elevations_rad[pixel % n_rows].sin_cos();
                let dir = Vector3::new(cos * cos_az, cos * sin_az, sin);
                let mut nearest = f32::MAX;
                for (id, (placed, part_from_laser)) in placed.iter().zip(&local).enumerate() {
                    let origin = vec3(part_from_laser.translation.vector.into());
                    let ray = Ray::new(origin, vec3((part_from_laser.rotation * dir).into()));
                    let luck = || key.with(pixel as u64).with(id as u64);
                    if let Some(range) = placed.part.shape.cast(&ray, laser.max_range_m as f32, || luck().uniform()) {
                        let stopped = placed.part.opacity >= 1.0 || luck().with(1).uniform() < placed.part.opacity;
                        if stopped && range > laser.min_range_m as f32 {
                            nearest = nearest.min(range);
                        }
                    }
                }
                // Nearer than everything means the ground; farther would mean a part was lost.
                assert!(found <= nearest + 0.02, "{} pixel {pixel}: found {found}, nearest part {nearest}", laser.name);
                n_parts_hit += usize::from((found - nearest).abs() < 0.02);
            }
            assert!(n_parts_hit * 20 > shots.len(), "{}: {n_parts_hit} of {}", laser.name, shots.len());
        }
    }
}
