//! Whether boxes lie on the points: when a simple change of the labels makes them hold many more, that change is what is wrong.
//!
//! Every change keeps the volume of the boxes, so that none catches points by being larger, and only points above ground count, so
//! that none does by lying on the road.

use std::f64::consts::{FRAC_PI_2, PI};

use super::scene::Scene;
use super::{Finding, Frames, Severity, percent, share};
use crate::data::Sample;
use crate::geometry::iou::iou3d;
use crate::geometry::{Box3d, wrap_angle};

/// Boxes of a frame that are looked at: the nearest, which have the most points.
const MAX_BOXES_PER_FRAME: usize = 25;
const MAX_RANGE_M: f64 = 60.0;
/// A box has a say in a comparison when both versions together hold this many points.
const MIN_POINTS: usize = 5;
/// Comparisons of fewer boxes prove nothing.
const MIN_BOXES: usize = 5;
/// Mean over boxes of (points after - points before) / (points after + points before) from which a change counts, if it makes as
/// large a share of the boxes better. Boxes that lie on their points only lose by any change.
const MIN_GAIN: f64 = 0.1;
const MIN_SHARE_BETTER: f64 = 0.7;
/// From here on the labels cannot be meant like that; a second change must reach it to be told of.
const LARGE_GAIN: f64 = 0.2;
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
    apply: Box<Apply>,
}

/// The boxes of a frame that are looked at, as they are after the changes found so far.
struct View<'a> {
    sample: &'a Sample,
    scene: Scene,
    boxes: Vec<Box3d>,
    /// Points above ground in each of them.
    counts: Vec<usize>,
}

/// Every check of this file.
pub fn check(frames: &Frames, findings: &mut Vec<Finding>) {
    let mut views: Vec<View<'_>> = frames.samples.iter().filter_map(view).collect();
    let n_boxes: usize = views.iter().map(|view| view.boxes.len()).sum();
    let before = held(&views);
    let mut found: Vec<(Change, f64)> = Vec::new();
    while found.len() < MAX_CHANGES {
        let changes = changes(&views);
        let gains = changes.iter().map(|change| gain(&views, change));
        let best = gains.enumerate().filter_map(|(index, gain)| Some((index, gain?))).max_by(|a, b| a.1.total_cmp(&b.1));
        let needed = if found.is_empty() { MIN_GAIN } else { LARGE_GAIN };
        let Some((index, gain)) = best.filter(|(_, gain)| *gain > needed) else { break };
        let change = changes.into_iter().nth(index);
        let Some(change) = change else { break };
        for view in &mut views {
            view.boxes = view.boxes.iter().map(|b| (change.apply)(view.sample, b)).collect();
            view.counts = view.boxes.iter().map(|b| view.scene.count_above_ground(b)).collect();
        }
        found.push((change, gain));
    }
    let Some((_, gain)) = found.first() else { return };
    let severity = if *gain > LARGE_GAIN { Severity::Error } else { Severity::Warning };
    let after = held(&views);
    let what: Vec<&str> = found.iter().map(|(change, _)| change.what.as_str()).collect();
    let measured = format!(
        "the boxes do not lie on the points: {} of {n_boxes} hold 5 points above ground or more, {} together; after {} it is {}, {} points",
        percent(before[0], n_boxes),
        before[1],
        what.join(", then "),
        percent(after[0], n_boxes),
        after[1]
    );
    let advice: Vec<&str> = found.iter().map(|(change, _)| change.advice.as_str()).collect();
    findings.push(Finding::new(severity, "alignment", measured, advice.join("; then ")));
}

fn view(sample: &Sample) -> Option<View<'_>> {
    let labels = sample.labels.as_ref()?;
    let mut boxes: Vec<Box3d> =
        labels.iter().map(|label| label.box3d).filter(|b| b.to_row().iter().all(|v| v.is_finite())).collect();
    boxes.sort_by(|a, b| a.range().total_cmp(&b.range()));
    boxes.truncate(MAX_BOXES_PER_FRAME);
    if boxes.is_empty() {
        return None;
    }
    let scene = Scene::new(&sample.cloud);
    let counts = boxes.iter().map(|b| scene.count_above_ground(b)).collect();
    Some(View { sample, scene, boxes, counts })
}

/// Boxes with enough points, and the points of all.
fn held(views: &[View<'_>]) -> [usize; 2] {
    let counts = views.iter().flat_map(|view| &view.counts);
    counts.fold([0, 0], |[n_boxes, n_points], n| [n_boxes + usize::from(*n >= MIN_POINTS), n_points + n])
}

/// How much more boxes hold after a change, -1 to 1, over those that it moves; `None` where too few can be compared, or too few
/// get better.
fn gain(views: &[View<'_>], change: &Change) -> Option<f64> {
    let mut gains = Vec::new();
    for view in views {
        for (before, &n_before) in view.boxes.iter().zip(&view.counts) {
            let after = (change.apply)(view.sample, before);
            if is_same(before, &after) || (before.range() > MAX_RANGE_M && after.range() > MAX_RANGE_M) {
                continue;
            }
            let n_after = view.scene.count_above_ground(&after);
            if n_before + n_after >= MIN_POINTS {
                gains.push((n_after as f64 - n_before as f64) / (n_after + n_before) as f64);
            }
        }
    }
    let n_better = gains.iter().filter(|gain| **gain > 0.0).count();
    let enough = gains.len() >= MIN_BOXES && share(n_better, gains.len()) > MIN_SHARE_BETTER;
    enough.then(|| gains.iter().sum::<f64>() / gains.len() as f64)
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
        changes.push(Change { what: what.to_owned(), advice: advice.to_owned(), apply: Box::new(apply) });
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
    add("taking yaw for degrees", "multiply yaw by pi/180", |_, b| Box3d { yaw: b.yaw.to_radians(), ..*b });
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
                apply: Box::new(move |_, b| moved(b, by)),
            });
        }
    }
    changes
}

/// A quarter turn and swapped sides are the same box; which one is wrong shows in the sizes.
fn quarter_turn(views: &[View<'_>]) -> (&'static str, &'static str) {
    let long = views.iter().flat_map(|view| &view.boxes).filter(|b| b.size[0] > 1.5 * b.size[1]).count();
    let broad = views.iter().flat_map(|view| &view.boxes).filter(|b| b.size[1] > 1.5 * b.size[0]).count();
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
