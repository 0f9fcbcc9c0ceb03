//! The data as a whole: drives on both sides of a split, and whether there is enough to learn from.

use std::collections::{BTreeMap, BTreeSet};

use super::{Finding, Frames, Severity, Subject, counted};
use crate::data::Source;

/// Steps of the optimiser below which a detector from scratch stays blind.
const FEW_STEPS: u64 = 1000;
/// Different frames below which a run learns them by heart.
const FEW_FRAMES: usize = 200;
/// Labels of a class in the whole data below which it is hardly learnt.
const FEW_OBJECTS: f64 = 200.0;

/// Every check of this file.
pub fn check(subject: &Subject<'_>, frames: &Frames, findings: &mut Vec<Finding>) {
    let n_frames = subject.source.len();
    if n_frames == 0 {
        let advice = "check the path and the split; `trainer inspect SOURCE` lists the drives".to_owned();
        findings.push(Finding::new(Severity::Error, "no-frames", "the source has no frame".to_owned(), advice));
        return;
    }
    split(subject, findings);
    if n_frames < FEW_FRAMES {
        let measured = format!("{}, of {}", counted(n_frames, "frame"), counted(drives(subject.source).len(), "drive"));
        let advice =
            "add drives; `trainer synth` makes some to begin with, and weights can be gone on with (distill inheritance)"
                .to_owned();
        findings.push(Finding::new(Severity::Warning, "few-frames", measured, advice));
    }
    if let Some(schedule) = subject.schedule {
        let steps = (n_frames as u64).div_ceil(schedule.batch_size.max(1) as u64) * schedule.epochs;
        if steps < FEW_STEPS {
            let measured = format!(
                "{}, {} and batches of {} make {}",
                counted(n_frames, "frame"),
                counted(schedule.epochs as usize, "epoch"),
                schedule.batch_size,
                counted(steps as usize, "step")
            );
            let advice = format!("raise epochs to {} or more, or add data", schedule.epochs * FEW_STEPS.div_ceil(steps.max(1)));
            findings.push(Finding::new(Severity::Warning, "few-steps", measured, advice));
        }
    }
    objects(subject, frames, findings);
}

fn drives(source: &dyn Source) -> BTreeSet<String> {
    (0..source.len()).map(|index| source.id(index).drive).collect()
}

fn split(subject: &Subject<'_>, findings: &mut Vec<Finding>) {
    let Some(validation) = subject.validation else { return };
    let (train, val) = (drives(subject.source), drives(validation));
    let both: Vec<&String> = train.intersection(&val).collect();
    if let Some(first) = both.first() {
        let measured = format!(
            "{} of {} of the validation are trained on too, for instance {first}",
            both.len(),
            counted(val.len(), "drive")
        );
        let advice =
            "split by drive: `split=train` behind the one source and `split=val` behind the other; frames of one drive are \
                      nearly the same, so the score would say nothing"
                .to_owned();
        findings.push(Finding::new(Severity::Error, "split", measured, advice));
    }
}

fn objects(subject: &Subject<'_>, frames: &Frames, findings: &mut Vec<Finding>) {
    let labelled = frames.samples.iter().filter_map(|sample| sample.labels.as_ref());
    let n_labelled = labelled.clone().count();
    if n_labelled == 0 {
        return;
    }
    let mut n_of: BTreeMap<&str, usize> = BTreeMap::new();
    for class in labelled.flatten().filter_map(|label| subject.model_class(&label.class)) {
        *n_of.entry(class).or_default() += 1;
    }
    let n_frames = subject.source.len();
    let expected = n_of.into_iter().map(|(class, n)| (class, n as f64 * n_frames as f64 / n_labelled as f64));
    let few: Vec<String> = expected.filter(|(_, n)| *n < FEW_OBJECTS).map(|(class, n)| format!("{n:.0} `{class}`")).collect();
    if !few.is_empty() {
        let about = if n_labelled < n_frames { "about " } else { "" };
        let measured = format!(
            "{about}{} in all of {}, by the labels of {n_labelled}; a class is hardly learnt from fewer than {FEW_OBJECTS}",
            few.join(", "),
            counted(n_frames, "frame")
        );
        let advice = "add drives with such objects, or paste some with `trainer convert gt-database` and augment.gt_sampling";
        findings.push(Finding::new(Severity::Warning, "few-objects", measured, advice.to_owned()));
    }
}
