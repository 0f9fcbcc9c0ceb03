//! Whether boxes lie on the points: when a simple change of the labels makes them hold many more, that change is what is wrong.
//!
//! Every change keeps the volume of the boxes, so that none catches points by being larger, and only points above ground count, so
//! that none does by lying on the road. A sensor sees the near faces of things and neighbours stand close, so a single box may gain
//! by a change that is wrong; a change counts when what the boxes gain together is more than chance among so few would give.

use std::f64::consts::{FRAC_PI_2, PI};

use super::boxes::LARGEST_YAW_RAD;
use super::scene::Scene;
use super::{Finding, Frames, Severity, counted, percent};
use crate::data::Sample;
use crate::data::statistics::spread;
use crate::geometry::iou::iou3d;
use crate::geometry::{Box3d, wrap_angle};

/// Boxes of a frame that are looked at. They are spread over its labels: those that seem the nearest are not, in a wrong frame.
const MAX_BOXES_PER_FRAME: usize = 50;
/// Points of a box that lies on its object.
const MIN_POINTS: usize = 5;
/// A box has a say in a comparison when so many points are in one version of it and not in the other. Points in both tell nothing:
/// somebody who walks fills the middle of their box, whichever way it is turned.
const MIN_TELLING_POINTS: usize = 5;
/// Points won less points lost are put against all that tell, or against this share of all points of the box where fewer tell: a
/// change that touches its edge says little.
const TELLING_SHARE: f64 = 0.5;
/// Comparisons of fewer boxes prove nothing.
const MIN_BOXES: usize = 4;
/// Mean gain from which a change counts. Boxes that lie on their points only lose by any change.
const MIN_GAIN: f64 = 0.1;
/// From here on the labels cannot be meant like that; a second change must reach it to be told of.
const LARGE_GAIN: f64 = 0.2;
/// Standard errors by which a mean gain must exceed zero, and the least standard deviation of gains that is believed: few boxes
/// agree by chance.
const STANDARD_ERRORS: f64 = 2.0;
const MIN_DEVIATION: f64 = 0.5;
/// Changes whose mean gains differ by less cannot be told apart.
const SAME_GAIN: f64 = 0.05;
/// Changes that are wrong at the same time.
const MAX_CHANGES: usize = 3;
/// Largest offset tried along each axis, and the steps up to it along x, y and z: heights tell more exactly.
const OFFSETS_M: f64 = 4.0;
const OFFSET_STEPS_M: [f64; 3] = [0.25, 0.25, 0.1];
/// A box that a change leaves that much in its place says nothing about the change.
const SAME_IOU: f64 = 0.75;

/// A box of a frame as it is after a change.
type Apply = dyn Fn(&Sample, &Box3d) -> Box3d;

/// Something that labels may need.
struct Change {
    what: String,
    advice: String,
    /// A shift, of which there are many alike.
    is_offset: bool,
    apply: Box<Apply>,
}

/// What boxes gain by a change: -1 when all of them lose all their points, 1 when all of them held none before.
#[derive(Clone, Copy)]
struct Gain {
    mean: f64,
    /// The mean may be off by this much.
    margin: f64,
}

/// The boxes of a frame that are looked at, as they are after the changes found so far.
struct View<'a> {
    sample: &'a Sample,
    scene: Scene,
    boxes: Vec<Held>,
}

/// A box and the points above ground in it.
struct Held {
    box3d: Box3d,
    points: Vec<[f32; 3]>,
}

/// Every check of this file.
pub fn check(frames: &Frames, findings: &mut Vec<Finding>) {
    let mut views: Vec<View<'_>> = frames.samples.iter().filter_map(view).collect();
    let n_boxes: usize = views.iter().map(|view| view.boxes.len()).sum();
    let before = held(&views);
    let (mut what, mut advice) = (Vec::new(), Vec::new());
    let mut first_gain = None;
    while what.len() < MAX_CHANGES {
        let needed = if what.is_empty() { MIN_GAIN } else { LARGE_GAIN };
        let mut effects = effects(&views, needed).into_iter();
        let Some((change, gain)) = effects.next() else { break };
        let is_alike = |other: &(Change, Gain)| !other.0.is_offset && gain.mean - other.1.mean < SAME_GAIN;
        let alike: Vec<String> = effects.filter(is_alike).map(|(other, _)| other.advice).collect();
        advice.push(match alike.is_empty() {
            true => change.advice,
            false => format!("{} (or, which these frames cannot tell from it: {})", change.advice, alike.join("; or ")),
        });
        for view in &mut views {
            let changed = |held: &Held| Held::new((change.apply)(view.sample, &held.box3d), &view.scene);
            view.boxes = view.boxes.iter().map(changed).collect();
        }
        what.push(change.what);
        first_gain.get_or_insert(gain.mean);
    }
    let Some(gain) = first_gain else { return };
    let severity = if gain > LARGE_GAIN { Severity::Error } else { Severity::Warning };
    let after = held(&views);
    let measured = format!(
        "the boxes do not lie on the points: {} of {} hold {MIN_POINTS} points above ground or more, {} points together; after {} it is {} \
         and {} points",
        percent(before[0], n_boxes),
        counted(n_boxes, "box"),
        before[1],
        what.join(", then "),
        percent(after[0], n_boxes),
        after[1]
    );
    findings.push(Finding::new(severity, "alignment", measured, advice.join("; then ")));
}

fn view(sample: &Sample) -> Option<View<'_>> {
    let labels = sample.labels.as_ref()?;
    let boxes: Vec<Box3d> = labels.iter().map(|label| label.box3d).filter(|b| b.to_row().iter().all(|v| v.is_finite())).collect();
    if boxes.is_empty() {
        return None;
    }
    let scene = Scene::new(&sample.cloud);
    let boxes = spread(boxes.len(), MAX_BOXES_PER_FRAME).into_iter().map(|index| Held::new(boxes[index], &scene)).collect();
    Some(View { sample, scene, boxes })
}

impl Held {
    fn new(box3d: Box3d, scene: &Scene) -> Self {
        Self { box3d, points: scene.above_ground(&box3d).copied().collect() }
    }

    /// What this box gains by becoming another one, and the weight of its word; `None` if it cannot tell.
    fn gain(&self, after: &Box3d, scene: &Scene) -> Option<(f64, f64)> {
        let n_both = self.points.iter().filter(|point| after.contains(point.map(f64::from))).count();
        let n_lost = self.points.len() - n_both;
        let n_won = scene.above_ground(after).count().saturating_sub(n_both);
        let n_telling = n_lost + n_won;
        let whole = (n_telling as f64).max(TELLING_SHARE * (n_telling + n_both) as f64);
        (n_telling >= MIN_TELLING_POINTS).then(|| ((n_won as f64 - n_lost as f64) / whole, (n_telling as f64).sqrt()))
    }
}

/// Boxes with enough points, and the points of all.
fn held(views: &[View<'_>]) -> [usize; 2] {
    let counts = views.iter().flat_map(|view| &view.boxes).map(|held| held.points.len());
    counts.fold([0, 0], |[n_boxes, n_points], n| [n_boxes + usize::from(n >= MIN_POINTS), n_points + n])
}

/// Changes that are sure to gain and gain more than `needed`, the surest first.
fn effects(views: &[View<'_>], needed: f64) -> Vec<(Change, Gain)> {
    let with_gain = |change: Change| {
        let gain = gain(views, &change)?;
        Some((change, gain))
    };
    let mut effects: Vec<(Change, Gain)> = changes(views).into_iter().filter_map(with_gain).collect();
    effects.retain(|(_, gain)| gain.mean > needed && gain.least() > 0.0);
    effects.sort_by(|a, b| b.1.least().total_cmp(&a.1.least()));
    effects
}

/// Over the boxes that a change moves; `None` where too few can tell.
fn gain(views: &[View<'_>], change: &Change) -> Option<Gain> {
    let mut gains = Vec::new();
    for view in views {
        for held in &view.boxes {
            let after = (change.apply)(view.sample, &held.box3d);
            if !is_same(&held.box3d, &after) {
                gains.extend(held.gain(&after, &view.scene));
            }
        }
    }
    (gains.len() >= MIN_BOXES).then(|| Gain::of(&gains))
}

impl Gain {
    /// The weighted mean of gains with their weights, of which there are at least two.
    fn of(gains: &[(f64, f64)]) -> Self {
        let weight: f64 = gains.iter().map(|(_, weight)| weight).sum();
        let mean = gains.iter().map(|(gain, weight)| gain * weight).sum::<f64>() / weight;
        // So many gains of equal weight would say as much.
        let n = weight * weight / gains.iter().map(|(_, weight)| weight * weight).sum::<f64>();
        let spread = gains.iter().map(|(gain, weight)| weight * (gain - mean).powi(2)).sum::<f64>() / weight;
        let deviation = (spread * n / (n - 1.0)).sqrt().max(MIN_DEVIATION);
        Self { mean, margin: STANDARD_ERRORS * deviation / n.sqrt() }
    }

    fn least(self) -> f64 {
        self.mean - self.margin
    }
}

fn is_same(a: &Box3d, b: &Box3d) -> bool {
    let near =
        (0..3).all(|axis| (a.center[axis] - b.center[axis]).abs() < a.size.iter().chain(&b.size).fold(0.0, |m, v| v.max(m)));
    near && iou3d(a, b) > SAME_IOU
}

/// Everything that is tried.
fn changes(views: &[View<'_>]) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut add = |what: &str, advice: &str, apply: fn(&Sample, &Box3d) -> Box3d| {
        let (what, advice) = (what.to_owned(), advice.to_owned());
        changes.push(Change { what, advice, is_offset: false, apply: Box::new(apply) });
    };
    let (what, advice) = quarter_turn(views);
    add(what, advice, |_, b| Box3d { yaw: b.yaw + FRAC_PI_2, ..*b });
    add("changing the sign of yaw", "negate yaw: it counts counter-clockwise from +x, seen from above", |_, b| Box3d {
        yaw: -b.yaw,
        ..*b
    });
    add(
        "turning yaw to -yaw - 90 degrees",
        "take -yaw - pi/2: this yaw is that of a camera's frame (KITTI's rotation_y)",
        |_, b| Box3d { yaw: -b.yaw - FRAC_PI_2, ..*b },
    );
    // Yaws within a turn are no degrees; taken for them, all boxes would lie along x, as most do on a road.
    if boxes(views).any(|b| b.yaw.abs() > LARGEST_YAW_RAD) {
        add("taking yaw for degrees", "multiply yaw by pi/180", |_, b| Box3d { yaw: b.yaw.to_radians(), ..*b });
    }
    add(
        "raising boxes by half their height",
        "add height/2 to z: these are the feet of the boxes, centres are needed",
        |_, b| moved(b, [0.0, 0.0, b.size[2] / 2.0]),
    );
    add(
        "lowering boxes by half their height",
        "subtract height/2 from z: these are the tops of the boxes, centres are needed",
        |_, b| moved(b, [0.0, 0.0, -b.size[2] / 2.0]),
    );
    add("reading sizes as height, width, length", "swap length and height: sizes are length, width, height", |_, b| {
        permuted(b, [2, 1, 0])
    });
    add("reading sizes as width, height, length", "write sizes as length, width, height", |_, b| permuted(b, [2, 0, 1]));
    add("reading sizes as length, height, width", "swap width and height: sizes are length, width, height", |_, b| {
        permuted(b, [0, 2, 1])
    });
    add("swapping x and y", "swap x and y of the centres, and take pi/2 - yaw", |_, b| {
        placed(b, [b.center[1], b.center[0]], FRAC_PI_2 - b.yaw)
    });
    add("turning labels by 90 degrees", "turn the labels by +90 degrees about z: (x, y) becomes (-y, x), yaw + pi/2", |_, b| {
        placed(b, [-b.center[1], b.center[0]], b.yaw + FRAC_PI_2)
    });
    add("turning labels by -90 degrees", "turn the labels by -90 degrees about z: (x, y) becomes (y, -x), yaw - pi/2", |_, b| {
        placed(b, [b.center[1], -b.center[0]], b.yaw - FRAC_PI_2)
    });
    add("turning labels by 180 degrees", "turn the labels by 180 degrees about z: (x, y) becomes (-x, -y), yaw + pi", |_, b| {
        placed(b, [-b.center[0], -b.center[1]], b.yaw + PI)
    });
    add("mirroring labels left to right", "negate y and yaw of the labels: y points to the left", |_, b| {
        placed(b, [b.center[0], -b.center[1]], -b.yaw)
    });
    add("mirroring labels front to back", "negate x and take pi - yaw: x points forward", |_, b| {
        placed(b, [-b.center[0], b.center[1]], PI - b.yaw)
    });
    add(
        "taking labels from a camera's frame",
        "the labels are in a camera's frame (x right, y down, z forward): take (z, -x, -y) and -yaw - pi/2, with the calibration's offset",
        |_, b| Box3d { center: [b.center[2], -b.center[0], -b.center[1]], size: b.size, yaw: wrap_angle(-b.yaw - FRAC_PI_2) },
    );
    add(
        "taking labels from the world's frame into the cloud's",
        "the labels are in the world's frame: transform them into the cloud's frame (the inverse of its pose), or `target_frame=` of theirs",
        from_world,
    );
    for (axis, name) in ["x", "y", "z"].into_iter().enumerate() {
        let steps = (OFFSETS_M / OFFSET_STEPS_M[axis]).round() as i32;
        for step in (-steps..=steps).filter(|step| *step != 0) {
            let offset_m = f64::from(step) * OFFSET_STEPS_M[axis];
            let mut by = [0.0; 3];
            by[axis] = offset_m;
            changes.push(Change {
                what: format!("moving labels by {offset_m:+.2} m along {name}"),
                advice: format!(
                    "add {offset_m:+.2} m to {name} of the labels, or bring both into one frame (`target_frame=`): label and cloud \
                     frames are that far apart, as a sensor is from the vehicle's origin"
                ),
                is_offset: true,
                apply: Box::new(move |_, b| moved(b, by)),
            });
        }
    }
    changes
}

fn boxes<'a>(views: &'a [View<'_>]) -> impl Iterator<Item = &'a Box3d> {
    views.iter().flat_map(|view| &view.boxes).map(|held| &held.box3d)
}

/// A quarter turn and swapped sides are the same box; which one is wrong shows in the sizes.
fn quarter_turn(views: &[View<'_>]) -> (&'static str, &'static str) {
    let long = boxes(views).filter(|b| b.size[0] > 1.5 * b.size[1]).count();
    let broad = boxes(views).filter(|b| b.size[1] > 1.5 * b.size[0]).count();
    if broad > long {
        ("swapping length and width", "swap length and width: the length lies along the heading")
    } else {
        (
            "turning yaw by 90 degrees",
            "add pi/2 or -pi/2 to yaw (the front decides which): yaw 0 lies along +x, counter-clockwise",
        )
    }
}

fn moved(b: &Box3d, by: [f64; 3]) -> Box3d {
    Box3d { center: std::array::from_fn(|axis| b.center[axis] + by[axis]), ..*b }
}

fn placed(b: &Box3d, [x, y]: [f64; 2], yaw: f64) -> Box3d {
    Box3d { center: [x, y, b.center[2]], size: b.size, yaw: wrap_angle(yaw) }
}

fn permuted(b: &Box3d, order: [usize; 3]) -> Box3d {
    Box3d { size: order.map(|axis| b.size[axis]), ..*b }
}

fn from_world(sample: &Sample, b: &Box3d) -> Box3d {
    let Some(world_from_cloud) = sample.world_from_cloud else { return *b };
    let cloud_from_world = world_from_cloud.inverse();
    let center = cloud_from_world * nalgebra::Point3::from(b.center);
    let ahead = cloud_from_world.rotation * nalgebra::Vector3::new(b.yaw.cos(), b.yaw.sin(), 0.0);
    Box3d { center: [center.x, center.y, center.z], size: b.size, yaw: ahead.y.atan2(ahead.x) }
}
