//! Frames as they come: unreadable, empty, broken numbers, repeated, out of order, unlabelled.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::{Finding, Frames, Severity, Subject, counted, percent, share};
use crate::cloud::columns::ColumnMap;
use crate::cloud::{Feature, PointCloud};

/// More points at the very place of an earlier point of the frame than this share are no coincidence.
const MANY_REPEATED: f64 = 0.2;

/// Every check of this file.
pub fn check(subject: &Subject<'_>, frames: &Frames, findings: &mut Vec<Finding>) {
    unreadable(frames, findings);
    of_source(subject, findings);
    empty(frames, findings);
    not_finite(frames, findings);
    repeated(frames, findings);
    stamps(frames, findings);
    unlabelled(frames, findings);
    columns(subject, frames, findings);
}

fn unreadable(frames: &Frames, findings: &mut Vec<Finding>) {
    if let Some((id, reason)) = frames.unreadable.first() {
        let total = frames.samples.len() + frames.unreadable.len();
        let measured =
            format!("{} of {} cannot be read, the first is {id}: {reason}", frames.unreadable.len(), counted(total, "frame"));
        let advice =
            "mend or leave out these recordings (`except=DRIVE` behind the source); training skips nothing silently".to_owned();
        findings.push(Finding::new(Severity::Error, "unreadable-frames", measured, advice));
    }
}

fn of_source(subject: &Subject<'_>, findings: &mut Vec<Finding>) {
    for finding in subject.source.findings() {
        let advice = "`trainer inspect SOURCE` shows the drive; what is counted here is left out of training".to_owned();
        findings.push(Finding::new(Severity::Warning, "source", finding.to_string(), advice));
    }
}

fn empty(frames: &Frames, findings: &mut Vec<Finding>) {
    let empty: Vec<_> = frames.samples.iter().filter(|sample| sample.cloud.n_points() == 0).collect();
    let Some(first) = empty.first() else { return };
    let labelled = empty.iter().filter(|sample| sample.labels.as_ref().is_some_and(|labels| !labels.is_empty())).count();
    let measured = format!(
        "{} of {} frames have no point, {labelled} of them have labels; the first is {}",
        empty.len(),
        frames.samples.len(),
        first.id
    );
    let advice = "labels without a cloud teach nothing; check the cloud's topic (`topic=`) and the label window".to_owned();
    findings.push(Finding::new(Severity::Error, "labels-without-cloud", measured, advice));
}

fn not_finite(frames: &Frames, findings: &mut Vec<Finding>) {
    let bad_points = |cloud: &PointCloud| cloud.rows().filter(|row| row.iter().any(|value| !value.is_finite())).count();
    let mut n_points = 0;
    let mut bad_labels = Vec::new();
    for sample in &frames.samples {
        n_points += bad_points(&sample.cloud);
        for (label_idx, label) in sample.labels.iter().flatten().enumerate() {
            if label.box3d.to_row().iter().any(|value| !value.is_finite()) {
                bad_labels.push(format!("label {label_idx} of {}", sample.id));
            }
        }
    }
    if n_points > 0 {
        let measured = format!("{} with a NaN or infinite value", counted(n_points, "point"));
        let advice = "leave them out where the recording is made or converted; one of them makes the loss NaN".to_owned();
        findings.push(Finding::new(Severity::Error, "non-finite-points", measured, advice));
    }
    if let Some(first) = bad_labels.first() {
        let measured = format!("{} with a NaN or infinite value, the first is {first}", counted(bad_labels.len(), "label"));
        let advice = "mend or leave out these labels; one of them makes the loss NaN".to_owned();
        findings.push(Finding::new(Severity::Error, "non-finite-labels", measured, advice));
    }
}

fn repeated(frames: &Frames, findings: &mut Vec<Finding>) {
    let mut seen: BTreeMap<u64, usize> = BTreeMap::new();
    let mut pairs = Vec::new();
    let (mut n_points, mut n_repeated) = (0, 0);
    for (index, sample) in frames.samples.iter().enumerate() {
        if sample.cloud.n_points() == 0 {
            continue;
        }
        if let Some(earlier) = seen.insert(hash(sample.cloud.points.iter().map(|value| value.to_bits())), index) {
            pairs.push((earlier, index));
        }
        let mut places: Vec<[u32; 3]> =
            sample.cloud.rows().map(|row| [row[0].to_bits(), row[1].to_bits(), row[2].to_bits()]).collect();
        n_points += places.len();
        places.sort_unstable();
        n_repeated += places.windows(2).filter(|pair| pair[0] == pair[1]).count();
    }
    if let Some(&(first, second)) = pairs.first() {
        let ids = (&frames.samples[first].id, &frames.samples[second].id);
        let measured = format!(
            "{} of {} clouds repeat another one, for instance {} and {}",
            pairs.len(),
            frames.samples.len(),
            ids.0,
            ids.1
        );
        let advice = "leave repeated frames out; if one is in validation, its score is no validation".to_owned();
        findings.push(Finding::new(Severity::Warning, "repeated-clouds", measured, advice));
    }
    if share(n_repeated, n_points) > MANY_REPEATED {
        let measured = format!("{} of the points lie exactly on another point of their frame", percent(n_repeated, n_points));
        let advice = "the recording holds points twice, or fills shots without an echo; leave such points out".to_owned();
        findings.push(Finding::new(Severity::Warning, "repeated-points", measured, advice));
    }
}

fn hash(values: impl Iterator<Item = u32>) -> u64 {
    let mut hasher = DefaultHasher::new();
    values.for_each(|value| value.hash(&mut hasher));
    hasher.finish()
}

fn stamps(frames: &Frames, findings: &mut Vec<Finding>) {
    let in_drive = frames.samples.windows(2).filter(|pair| pair[0].id.drive == pair[1].id.drive);
    let back: Vec<_> =
        in_drive.filter(|pair| pair[0].id.frame < pair[1].id.frame && pair[1].cloud.stamp < pair[0].cloud.stamp).collect();
    if let Some(pair) = back.first() {
        let [earlier, later] =
            [&pair[0], &pair[1]].map(|sample| format!("{} at {:.3} s", sample.id, sample.cloud.stamp.seconds()));
        let measured =
            format!("{} a later frame has an earlier stamp, for instance {earlier}, then {later}", counted(back.len(), "time"));
        let advice =
            "labels are matched by stamp: record with the sensor's clock, or split the drive where its clock jumps".to_owned();
        findings.push(Finding::new(Severity::Warning, "stamps", measured, advice));
    }
}

fn unlabelled(frames: &Frames, findings: &mut Vec<Finding>) {
    let unlabelled: Vec<_> = frames.samples.iter().filter(|sample| sample.labels.is_none()).collect();
    let Some(first) = unlabelled.first() else { return };
    let all = unlabelled.len() == frames.samples.len();
    let measured = format!("{} of {} frames have no labels, the first is {}", unlabelled.len(), frames.samples.len(), first.id);
    let advice = if all {
        "name the labels (`label_topic=` or `label_file=` behind the source); without any, only distillation from a teacher's dump can learn"
    } else {
        "frames without labels are skipped in training; widen `label_window_ms=` if labels and clouds have different stamps"
    };
    let severity = if all { Severity::Error } else { Severity::Warning };
    findings.push(Finding::new(severity, "unlabelled-frames", measured, advice.to_owned()));
}

fn columns(subject: &Subject<'_>, frames: &Frames, findings: &mut Vec<Finding>) {
    let Some(sample) = frames.samples.first() else { return };
    let input = &subject.spec.input;
    if let Err(error) = ColumnMap::new(&sample.cloud.features, input) {
        let advice = "add the column to input.fill_absent of the spec with a constant, or take it out of input.features; if the \
                      sensor sends it under another name, `fields=COLUMN:NAME` behind the source";
        findings.push(Finding::new(Severity::Error, "missing-column", error.to_string(), advice.to_owned()));
    } else if input.features.contains(&Feature::Intensity) && !sample.cloud.features.contains(&Feature::Intensity) {
        let measured = "the clouds have no intensity; the model is fed a constant in its place".to_owned();
        let advice = "if the sensor sends intensity under another name, `fields=intensity:NAME` behind the source".to_owned();
        findings.push(Finding::new(Severity::Warning, "missing-column", measured, advice));
    }
}
