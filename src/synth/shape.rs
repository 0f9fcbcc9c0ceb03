//! What things are made of: convex parts with a surface, and where a ray meets them.

use nalgebra::{Isometry3, Point3, Translation3, UnitQuaternion, Vector3};
use parry3d::bounding_volume::Aabb;
use parry3d::math::Vec3;
use parry3d::query::{Ray, RayCast};
use parry3d::shape::{Ball, Capsule, Cuboid};

/// One convex piece of a body.
#[derive(Debug, Clone)]
pub struct Part {
    /// Its form, in its own frame.
    pub shape: Shape,
    /// Its place in the body.
    pub body_from_part: Isometry3<f64>,
    /// What a pulse meets there.
    pub surface: Surface,
    /// Share of the shots that it stops: 1 for a wall, less for a fence or spokes.
    pub opacity: f32,
}

/// The forms a ray can be cast against.
#[derive(Debug, Clone)]
pub enum Shape {
    /// Box.
    Cuboid(Cuboid),
    /// Tube with round ends.
    Capsule(Capsule),
    /// Ball.
    Ball(Ball),
    /// Anything bounded by planes.
    Convex(Convex),
    /// A ball of leaves; a ray gets `mean_free_path` deep into it on average.
    Foliage {
        /// Outline.
        ball: Ball,
        /// Metres.
        mean_free_path: f32,
    },
}

/// Intersection of half spaces `normal . p <= offset`; parry's own convex polyhedron casts rays iteratively, several times slower.
#[derive(Debug, Clone)]
pub struct Convex {
    planes: Vec<(Vec3, f32)>,
    bounds: Aabb,
}

/// How a surface answers a pulse.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Surface {
    /// Behaviour.
    pub kind: SurfaceKind,
    /// Strength of a return at normal incidence, in the raw intensity unit of the cloud.
    pub reflectivity: f32,
}

/// Behaviours of surfaces.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SurfaceKind {
    /// Scatters evenly.
    Matte,
    /// Upper part of a vehicle: windows on its sides above this height of the body, matte elsewhere.
    Glazed {
        /// Metres above the body's foot.
        belt_m: f32,
    },
    /// Wall with a grid of windows.
    Facade,
    /// Sends the pulse straight back: plates, signs.
    Retroreflector,
    /// Leaves: rough, pulses come back stretched.
    Leaves,
    /// Blades of grass: like leaves, but a surface.
    Grass,
}

impl Surface {
    /// Scatters evenly.
    pub fn matte(reflectivity: f64) -> Self {
        Self { kind: SurfaceKind::Matte, reflectivity: reflectivity as f32 }
    }

    /// Of another behaviour.
    pub fn of(kind: SurfaceKind, reflectivity: f64) -> Self {
        Self { kind, reflectivity: reflectivity as f32 }
    }
}

impl Part {
    /// Upright box from its centre and full size.
    pub fn block(center: [f64; 3], size: [f64; 3], surface: Surface) -> Self {
        let shape = Shape::Cuboid(Cuboid::new(vec3(size) * 0.5));
        Self { shape, body_from_part: Translation3::from(center).into(), surface, opacity: 1.0 }
    }

    /// Tube between two points.
    pub fn tube(from: [f64; 3], to: [f64; 3], radius: f64, surface: Surface) -> Self {
        let shape = Shape::Capsule(Capsule::new(vec3(from), vec3(to), radius as f32));
        Self { shape, body_from_part: Isometry3::identity(), surface, opacity: 1.0 }
    }

    /// Ball.
    pub fn ball(center: [f64; 3], radius: f64, surface: Surface) -> Self {
        let shape = Shape::Ball(Ball::new(radius as f32));
        Self { shape, body_from_part: Translation3::from(center).into(), surface, opacity: 1.0 }
    }

    /// Ball of leaves.
    pub fn foliage(center: [f64; 3], radius: f64, mean_free_path: f64, reflectivity: f64) -> Self {
        let shape = Shape::Foliage { ball: Ball::new(radius as f32), mean_free_path: mean_free_path as f32 };
        let surface = Surface::of(SurfaceKind::Leaves, reflectivity);
        Self { shape, body_from_part: Translation3::from(center).into(), surface, opacity: 1.0 }
    }

    /// Side view `profile` (convex, counter-clockwise (x, z) corners), `half_width` to both sides at the foot of the profile
    /// and narrowing by `taper` metres per metre of height.
    pub fn prism(profile: &[[f64; 2]], half_width: f64, taper: f64, surface: Surface) -> Self {
        let shape = Shape::Convex(Convex::prism(profile, half_width, taper));
        Self { shape, body_from_part: Isometry3::identity(), surface, opacity: 1.0 }
    }

    /// A wheel standing along x.
    pub fn wheel(center: [f64; 3], radius: f64, half_width: f64, surface: Surface) -> Self {
        let corners: Vec<[f64; 2]> = (0..10)
            .map(|k| {
                let (sin, cos) = (f64::from(k) * std::f64::consts::TAU / 10.0).sin_cos();
                [radius * cos, radius * sin]
            })
            .collect();
        Self { body_from_part: Translation3::from(center).into(), ..Self::prism(&corners, half_width, 0.0, surface) }
    }

    /// The same part turned about the body's z axis, then moved.
    pub fn placed(mut self, yaw: f64, offset: [f64; 3]) -> Self {
        self.body_from_part = upright(offset, yaw) * self.body_from_part;
        self
    }

    /// The same part, stopping only a share of the shots.
    pub fn see_through(mut self, opacity: f64) -> Self {
        self.opacity = opacity as f32;
        self
    }
}

/// A pose turned about z only.
pub fn upright(position: [f64; 3], yaw: f64) -> Isometry3<f64> {
    Isometry3::from_parts(Translation3::from(position), UnitQuaternion::from_axis_angle(&Vector3::z_axis(), yaw))
}

impl Shape {
    /// Distance along `ray` (unit direction, in the part's frame, origin outside) to the first hit nearer than `max`.
    ///
    /// `luck` in (0, 1) decides how deep into leaves the ray gets.
    #[inline]
    pub fn cast(&self, ray: &Ray, max: f32, luck: impl FnOnce() -> f32) -> Option<f32> {
        match self {
            Self::Cuboid(cuboid) => cuboid.cast_local_ray(ray, max, false),
            Self::Capsule(capsule) => capsule.cast_local_ray(ray, max, false),
            Self::Ball(ball) => ball.cast_local_ray(ray, max, false),
            Self::Convex(convex) => convex.cast(ray, max),
            Self::Foliage { ball, mean_free_path } => {
                let middle = -ray.origin.dot(ray.dir);
                let half_chord_squared = ball.radius * ball.radius - ray.point_at(middle).length_squared();
                if half_chord_squared <= 0.0 {
                    return None;
                }
                let half_chord = half_chord_squared.sqrt();
                let depth = -luck().ln() * mean_free_path;
                let toi = (middle - half_chord).max(0.0) + depth;
                (toi < max && toi < middle + half_chord).then_some(toi)
            }
        }
    }

    /// Outward normal where `ray` hit; against the ray for leaves, which have none.
    pub fn normal(&self, ray: &Ray) -> Vec3 {
        let normal_of = |hit: Option<parry3d::query::RayIntersection>| hit.map_or(-ray.dir, |hit| hit.normal);
        match self {
            Self::Cuboid(cuboid) => normal_of(cuboid.cast_local_ray_and_get_normal(ray, f32::MAX, false)),
            Self::Capsule(capsule) => normal_of(capsule.cast_local_ray_and_get_normal(ray, f32::MAX, false)),
            Self::Ball(ball) => normal_of(ball.cast_local_ray_and_get_normal(ray, f32::MAX, false)),
            Self::Convex(convex) => convex.normal(ray),
            Self::Foliage { .. } => -ray.dir,
        }
    }

    /// Bounding box in the part's frame.
    pub fn bounds(&self) -> Aabb {
        match self {
            Self::Cuboid(cuboid) => Aabb::new(-cuboid.half_extents, cuboid.half_extents),
            Self::Capsule(capsule) => capsule.local_aabb(),
            Self::Ball(ball) | Self::Foliage { ball, .. } => Aabb::new(Vec3::splat(-ball.radius), Vec3::splat(ball.radius)),
            Self::Convex(convex) => convex.bounds,
        }
    }
}

impl Convex {
    fn prism(profile: &[[f64; 2]], half_width: f64, taper: f64) -> Self {
        let low = profile.iter().fold(f64::INFINITY, |low, corner| low.min(corner[1]));
        let mut planes: Vec<(Vec3, f32)> = profile
            .iter()
            .zip(profile.iter().cycle().skip(1))
            .map(|(a, b)| plane(Vector3::new(b[1] - a[1], 0.0, a[0] - b[0]), Point3::new(a[0], 0.0, a[1])))
            .collect();
        for side in [-1.0, 1.0] {
            planes.push(plane(Vector3::new(0.0, side, taper), Point3::new(0.0, side * half_width, low)));
        }
        let corners = profile.iter().map(|corner| [corner[0], half_width, corner[1]]);
        let (mins, maxs) = corners.fold((Vec3::splat(f32::MAX), Vec3::splat(f32::MIN)), |(mins, maxs), corner| {
            let corner = vec3(corner);
            (mins.min(corner), maxs.max(corner))
        });
        Self { planes, bounds: Aabb::new(Vec3::new(mins.x, -maxs.y, mins.z), maxs) }
    }

    #[inline]
    fn cast(&self, ray: &Ray, max: f32) -> Option<f32> {
        let (mut enter, mut exit) = (0.0f32, max);
        for &(normal, offset) in &self.planes {
            let (speed, gap) = (normal.dot(ray.dir), offset - normal.dot(ray.origin));
            if speed < 0.0 {
                enter = enter.max(gap / speed);
            } else if speed > 0.0 {
                exit = exit.min(gap / speed);
            } else if gap < 0.0 {
                return None;
            }
            if enter > exit {
                return None;
            }
        }
        (enter > 0.0).then_some(enter)
    }

    fn normal(&self, ray: &Ray) -> Vec3 {
        let mut last = (f32::MIN, -ray.dir);
        for &(normal, offset) in &self.planes {
            let speed = normal.dot(ray.dir);
            if speed < 0.0 {
                let toi = (offset - normal.dot(ray.origin)) / speed;
                if toi > last.0 {
                    last = (toi, normal);
                }
            }
        }
        last.1
    }
}

fn plane(normal: Vector3<f64>, through: Point3<f64>) -> (Vec3, f32) {
    let normal = normal.normalize();
    (vec3([normal.x, normal.y, normal.z]), normal.dot(&through.coords) as f32)
}

/// Single precision: bodies are cast in the laser's frame, where it means a hundredth of a millimetre.
pub fn vec3(v: [f64; 3]) -> Vec3 {
    Vec3::new(v[0] as f32, v[1] as f32, v[2] as f32)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use parry3d::shape::ConvexPolyhedron;

    use super::super::random::Key;
    use super::*;

    #[test]
    fn convex_cast_matches_parry_polyhedron() {
        let profile = [[-2.0, 0.3], [1.9, 0.2], [2.1, 0.6], [1.0, 1.1], [-1.8, 1.0]];
        let (half_width, taper) = (0.9, 0.3);
        let convex = Convex::prism(&profile, half_width, taper);
        let corners: Vec<Vec3> = profile
            .iter()
            .flat_map(|c| [-1.0, 1.0].map(|side| vec3([c[0], side * (half_width - taper * (c[1] - 0.2)), c[1]])))
            .collect();
        let oracle = ConvexPolyhedron::from_convex_hull(&corners).unwrap();
        let mut n_hits = 0;
        for shot in 0..4000u64 {
            let draw = |salt: u64| Key::new(9).with(shot).with(salt).uniform() * 2.0 - 1.0;
            let origin = Vec3::new(draw(0), draw(1), draw(2)).normalize() * 8.0;
            let aim = Vec3::new(2.5 * draw(3), 1.2 * draw(4), 0.6 + 0.8 * draw(5));
            let ray = Ray::new(origin, (aim - origin).normalize());
            let expected = oracle.cast_local_ray_and_get_normal(&ray, 100.0, true);
            match (convex.cast(&ray, 100.0), expected) {
                (Some(toi), Some(expected)) => {
                    assert!((toi - expected.time_of_impact).abs() < 2e-3, "shot {shot}: {toi} and {expected:?}");
                    assert!(convex.planes.iter().all(|(n, d)| n.dot(ray.point_at(toi)) < d + 1e-4));
                    n_hits += 1;
                }
                (None, None) => {}
                // Rays along a silhouette edge may fall to either side.
                (got, expected) => {
                    let grazed = |t: f32| convex.planes.iter().filter(|(n, d)| (n.dot(ray.point_at(t)) - d).abs() < 2e-3).count();
                    let at = got.or(expected.map(|e| e.time_of_impact)).unwrap();
                    assert!(grazed(at) >= 2, "shot {shot}: {got:?} and {expected:?}");
                }
            }
        }
        assert!(n_hits > 800, "{n_hits} hits");
    }

    #[test]
    fn foliage_stops_the_expected_share() {
        let Part { shape, .. } = Part::foliage([0.0; 3], 1.0, 2.0, 0.1);
        let ray = Ray::new(Vec3::new(-5.0, 0.0, 0.0), Vec3::X);
        let hits: Vec<f32> = (0..4000).filter_map(|shot| shape.cast(&ray, 100.0, || Key::new(shot).uniform())).collect();
        let expected = 1.0 - (-1.0f32).exp();
        assert!((hits.len() as f32 / 4000.0 - expected).abs() < 0.03, "{}", hits.len());
        assert!(hits.iter().all(|toi| (4.0..=6.0).contains(toi)));
    }
}
