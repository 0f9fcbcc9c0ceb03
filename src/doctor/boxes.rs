//! Boxes by themselves: sizes by class, angles, emptiness, repetition.

use std::collections::BTreeMap;

use super::{Finding, Frames, Severity, Subject, counted, percent, scene::Scene, share};
use crate::geometry::Box3d;
use crate::geometry::iou::bev_iou;

/// Median length, width, height in metres between which a class is taken for what its name says, by the model's class.
const PLAUSIBLE_M: [(&str, [[f64; 2]; 3]); 3] = [
    ("Vehicle", [[3.0, 10.0], [1.3, 3.3], [1.2, 3.8]]),
    ("Pedestrian", [[0.25, 1.5], [0.25, 1.5], [1.2, 2.3]]),
    ("Cyclist", [[1.1, 3.0], [0.35, 1.3], [1.0, 2.4]]),
];
/// Orders in which others write the three sizes, as indices into what was read, and in words.
const ORDERS: [([usize; 3], &str); 6] = [
    ([0, 1, 2], "length, width, height"),
    ([1, 0, 2], "width, length, height"),
    ([2, 1, 0], "height, width, length"),
    ([2, 0, 1], "width, height, length"),
    ([0, 2, 1], "length, height, width"),
    ([1, 2, 0], "height, length, width"),
];
/// Factors to metres, and what the sizes then are in.
const UNITS: [(f64, &str); 5] =
    [(1.0, "metres"), (2.0, "metres, halved"), (0.01, "centimetres"), (0.001, "millimetres"), (0.3048, "feet")];
/// Yaws beyond one turn and a little are hardly radians.
pub(super) const LARGEST_YAW_RAD: f64 = 6.5;
/// Shares of boxes without a point.
const EMPTY_WARNING: f64 = 0.35;
const EMPTY_ERROR: f64 = 0.7;
/// Boxes of one class that overlap by more are the same object twice.
const SAME_OBJECT_IOU: f64 = 0.7;
/// Share of boxes that are there twice.
const MANY_REPEATED: f64 = 0.02;
/// Fewer labels have no median.
const MIN_LABELS: usize = 3;

/// Every check of this file.
pub fn check(subject: &Subject<'_>, frames: &Frames, findings: &mut Vec<Finding>) {
    sizes(subject, frames, findings);
    angles(frames, findings);
    empty(frames, findings);
    repeated(frames, findings);
}

fn sizes(subject: &Subject<'_>, frames: &Frames, findings: &mut Vec<Finding>) {
    let labels = || frames.samples.iter().flat_map(|sample| sample.labels.iter().flatten());
    let without_size: Vec<_> = labels().filter(|label| label.box3d.size.iter().any(|size| *size <= 0.0)).collect();
    if let Some(first) = without_size.first() {
        let measured = format!(
            "{} with a size of 0 or less, the first is a `{}` of {:?} m",
            counted(without_size.len(), "label"),
            first.class,
            first.box3d.size
        );
        let advice = "mend or leave out these labels; training cannot take the logarithm of their sizes".to_owned();
        findings.push(Finding::new(Severity::Error, "box-without-size", measured, advice));
    }
    for (class, statistics) in &frames.statistics.classes {
        let model_class = subject.model_class(class);
        let Some((_, plausible)) = PLAUSIBLE_M.iter().find(|(name, _)| Some(*name) == model_class) else { continue };
        let medians = [statistics.length_m.p50, statistics.width_m.p50, statistics.height_m.p50];
        let fits = |order: &[usize; 3], factor: f64| {
            (0..3).all(|axis| (plausible[axis][0]..=plausible[axis][1]).contains(&(medians[order[axis]] * factor)))
        };
        if statistics.n < MIN_LABELS || fits(&ORDERS[0].0, 1.0) {
            continue;
        }
        let mut readings = UNITS.iter().flat_map(|unit| ORDERS.iter().map(move |order| (unit, order)));
        let reading = readings.find(|((factor, _), (order, _))| fits(order, *factor));
        let measured = format!(
            "`{class}` has a median length, width and height of {:.2} x {:.2} x {:.2} m ({}), which is no {}",
            medians[0],
            medians[1],
            medians[2],
            counted(statistics.n, "label"),
            model_class.unwrap_or(class)
        );
        let advice = match reading {
            Some(((_, unit), (_, order))) => format!(
                "the sizes fit when read as {order} in {unit}; write length (along the heading), width, height in metres, in full"
            ),
            None => "check what this name stands for, and that sizes are length (along the heading), width, height in metres"
                .to_owned(),
        };
        findings.push(Finding::new(Severity::Error, "sizes", measured, advice));
    }
}

fn angles(frames: &Frames, findings: &mut Vec<Finding>) {
    let yaws: Vec<f64> =
        frames.samples.iter().flat_map(|sample| sample.labels.iter().flatten()).map(|label| label.box3d.yaw).collect();
    let beyond = yaws.iter().filter(|yaw| yaw.abs() > LARGEST_YAW_RAD && yaw.is_finite()).count();
    if beyond > 0 {
        let largest = yaws.iter().filter(|yaw| yaw.is_finite()).fold(0.0f64, |largest, yaw| largest.max(yaw.abs()));
        let measured = format!("{beyond} of {} yaws are beyond a full turn, the largest is {largest:.1}", yaws.len());
        let advice = "these look like degrees: multiply by pi/180".to_owned();
        findings.push(Finding::new(Severity::Error, "yaw-unit", measured, advice));
    }
}

fn empty(frames: &Frames, findings: &mut Vec<Finding>) {
    let mut of_class: BTreeMap<&str, [usize; 2]> = BTreeMap::new();
    for sample in &frames.samples {
        let Some(labels) = sample.labels.as_ref().filter(|labels| !labels.is_empty()) else { continue };
        let scene = Scene::new(&sample.cloud);
        for label in labels {
            let [n_empty, n] = of_class.entry(&label.class).or_default();
            *n += 1;
            *n_empty += usize::from(scene.count(&label.box3d) == 0);
        }
    }
    let (n_empty, n) = of_class.values().fold((0, 0), |(n_empty, n), [more_empty, more]| (n_empty + more_empty, n + more));
    let empty = share(n_empty, n);
    if empty > EMPTY_WARNING {
        let severity = if empty > EMPTY_ERROR { Severity::Error } else { Severity::Warning };
        let by_class: Vec<String> =
            of_class.iter().map(|(class, [n_empty, n])| format!("{class} {}", percent(*n_empty, *n))).collect();
        let measured = format!("{} of {} hold no point ({})", percent(n_empty, n), counted(n, "box"), by_class.join(", "));
        let advice =
            "see `alignment`, if it is there; else these objects were not seen by this sensor: leave their labels out, a \
                      network cannot learn what no point shows"
                .to_owned();
        findings.push(Finding::new(severity, "empty-boxes", measured, advice));
    }
}

fn repeated(frames: &Frames, findings: &mut Vec<Finding>) {
    let (mut n, mut n_repeated) = (0, 0);
    let mut example = None;
    for sample in &frames.samples {
        let labels: Vec<_> = sample.labels.iter().flatten().filter(|label| is_sound(&label.box3d)).collect();
        n += labels.len();
        for (index, label) in labels.iter().enumerate() {
            let near = |other: &Box3d| {
                (0..2).all(|axis| {
                    (other.center[axis] - label.box3d.center[axis]).abs() < label.box3d.size[0].max(label.box3d.size[1])
                })
            };
            let twin = labels[..index].iter().find(|other| {
                other.class == label.class && near(&other.box3d) && bev_iou(&other.box3d, &label.box3d) > SAME_OBJECT_IOU
            });
            if twin.is_some() {
                n_repeated += 1;
                example.get_or_insert_with(|| format!("a `{}` of {} at {:.1?} m", label.class, sample.id, label.box3d.center));
            }
        }
    }
    if let (Some(example), true) = (example, share(n_repeated, n) > MANY_REPEATED) {
        let measured = format!("{n_repeated} of {n} labels lie on another one of their class, for instance {example}");
        let advice = "leave out repeated labels: each pulls the same cell its own way".to_owned();
        findings.push(Finding::new(Severity::Warning, "repeated-labels", measured, advice));
    }
}

fn is_sound(box3d: &Box3d) -> bool {
    box3d.to_row().iter().all(|value| value.is_finite()) && box3d.size.iter().all(|size| *size > 0.0)
}
