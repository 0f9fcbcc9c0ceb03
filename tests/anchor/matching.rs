//! Matching against the rule written out over all anchors and all boxes, and what follows from it.

use std::collections::BTreeMap;
use std::f32::consts::PI;

use pivotal::model::anchors::{Anchors, decode, encode, limit_period};
use pivotal::train::anchor_targets::{AnchorTargets, BACKGROUND, IGNORED, match_anchors, nearest_bev_iou};
use pivotal::train::targets::TrueBox;

use super::{anchors, numbers};

/// Labels and boxes of the anchors that are to find one, by looking at every pair.
fn plain(frame: &[TrueBox], anchors: &Anchors) -> (Vec<i8>, BTreeMap<usize, TrueBox>) {
    let (mut labels, mut found) = (vec![BACKGROUND; anchors.len()], BTreeMap::new());
    for class_idx in 0..3 {
        let boxes: Vec<&TrueBox> = frame.iter().filter(|b| b.class_idx == class_idx).collect();
        let of_class = (0..anchors.len()).filter(|a| anchors.kinds[a % anchors.kinds.len()].class_idx == class_idx);
        let table: Vec<(usize, Vec<f32>)> =
            of_class.map(|a| (a, boxes.iter().map(|b| nearest_bev_iou(&anchors.row(a), &b.row)).collect())).collect();
        let highest: Vec<f32> = (0..boxes.len()).map(|b| table.iter().map(|(_, ious)| ious[b]).fold(0.0, f32::max)).collect();
        for (anchor, ious) in &table {
            let kind = &anchors.kinds[anchor % anchors.kinds.len()];
            let best = ious.iter().copied().fold(0.0, f32::max);
            let forced = ious.iter().zip(&highest).any(|(iou, highest)| *highest > 0.0 && iou == highest);
            if forced || best >= kind.matched_iou {
                let owner = ious.iter().position(|iou| *iou == best).unwrap();
                labels[*anchor] = class_idx as i8 + 1;
                found.insert(*anchor, *boxes[owner]);
            } else if best >= kind.unmatched_iou {
                labels[*anchor] = IGNORED;
            }
        }
    }
    (labels, found)
}

/// Objects of all classes and headings: some far too long, some beyond the border, some in one place.
fn street(seed: u64, n: usize) -> Vec<TrueBox> {
    let mut next = numbers(seed);
    let sizes = [[4.6f32, 2.0, 1.7], [0.9, 0.8, 1.7], [1.8, 0.8, 1.7]];
    let mut boxes: Vec<TrueBox> = (0..n)
        .map(|_| {
            let class_idx = (next() * 3.0) as usize;
            let [l, w, h] = sizes[class_idx].map(|edge| edge * (0.7 + next()));
            let long = if next() < 0.2 { 2.5 } else { 1.0 };
            let row = [30.0 * next() - 15.0, 20.0 * next() - 10.0, next(), l * long, w, h, 12.0 * next() - 6.0];
            TrueBox { row, class_idx }
        })
        .collect();
    boxes.extend(boxes.first().copied());
    boxes
}

fn labels(targets: &AnchorTargets) -> Vec<i8> {
    Vec::try_from(targets.labels.view([-1])).unwrap()
}

#[test]
fn matching_near_boxes_is_that_of_all_pairs() {
    let anchors = anchors(0.5);
    let mut n_ignored = 0;
    for seed in 0..12 {
        let frame = street(seed, 1 + 4 * seed as usize);
        let (expected, found) = plain(&frame, &anchors);
        let targets = match_anchors(std::slice::from_ref(&frame), &anchors);
        assert_eq!(labels(&targets), expected, "seed {seed}");
        let positive = Vec::<i64>::try_from(&targets.positive).unwrap();
        assert_eq!(positive, found.keys().map(|anchor| *anchor as i64).collect::<Vec<_>>(), "seed {seed}");
        let codes = Vec::<f32>::try_from(targets.boxes.view([-1])).unwrap();
        let expected: Vec<f32> = found.iter().flat_map(|(anchor, b)| encode(&b.row, &anchors.row(*anchor))).collect();
        assert_eq!(codes, expected, "seed {seed}");
        n_ignored += labels(&targets).iter().filter(|label| **label == IGNORED).count();
    }
    assert!(n_ignored > 50, "only {n_ignored} anchors were ignored: too few near misses to prove anything");
}

#[test]
fn labels_do_not_depend_on_the_order_of_the_boxes() {
    let anchors = anchors(0.5);
    let frame = street(5, 30);
    let mut turned = frame.clone();
    turned.reverse();
    assert_eq!(labels(&match_anchors(&[frame], &anchors)), labels(&match_anchors(&[turned], &anchors)));
}

#[test]
fn frames_are_matched_alone_and_weighted_by_their_own_positives() {
    let anchors = anchors(0.5);
    let frames = [street(1, 5), Vec::new(), street(2, 20)];
    let all = match_anchors(&frames, &anchors);
    let alone: Vec<AnchorTargets> = frames.iter().map(|frame| match_anchors(std::slice::from_ref(frame), &anchors)).collect();
    assert_eq!(labels(&all), alone.iter().flat_map(labels).collect::<Vec<_>>());
    let counts: Vec<i64> = alone.iter().map(|targets| targets.positive.size()[0]).collect();
    assert_eq!(counts[1], 0);
    let weights = Vec::<f32>::try_from(&all.frame_weights).unwrap();
    assert_eq!(weights, counts.iter().map(|n| 1.0 / (*n).max(1) as f32).collect::<Vec<_>>());
    let of_anchors = Vec::<f32>::try_from(&all.weights).unwrap();
    let expected: Vec<f32> = counts.iter().zip(weights).flat_map(|(n, weight)| vec![weight; *n as usize]).collect();
    assert_eq!(of_anchors, expected);
    let positive = Vec::<i64>::try_from(&all.positive).unwrap();
    assert!(positive.iter().skip(counts[0] as usize).all(|idx| *idx >= 2 * anchors.len() as i64));
}

#[test]
fn frames_without_a_box_that_can_be_matched_are_background() {
    let anchors = anchors(0.5);
    let car = TrueBox { row: [0.0, 0.0, 1.0, 4.6, 2.0, 1.7, 0.0], class_idx: 0 };
    let with = |idx: usize, value: f32| {
        let mut bad = car;
        bad.row[idx] = value;
        bad
    };
    for frame in [
        vec![],
        vec![with(0, f32::NAN)],
        vec![with(3, 0.0)],
        vec![with(4, -2.0)],
        vec![with(6, f32::INFINITY)],
        vec![with(0, 500.0)],
    ] {
        let targets = match_anchors(std::slice::from_ref(&frame), &anchors);
        assert!(labels(&targets).iter().all(|label| *label == BACKGROUND), "{frame:?}");
        assert_eq!(targets.boxes.size(), [0, 7], "{frame:?}");
        assert_eq!(Vec::<f32>::try_from(&targets.frame_weights).unwrap(), [1.0], "{frame:?}");
    }
}

#[test]
fn a_box_that_no_anchor_fits_still_has_its_best_ones() {
    let anchors = anchors(0.8);
    // A lorry: 0.55 of it is out of reach of a car's anchor, wherever it stands.
    let lorry = TrueBox { row: [0.3, 0.2, 1.5, 16.0, 2.6, 3.0, 0.1], class_idx: 0 };
    let targets = match_anchors(&[vec![lorry]], &anchors);
    let positive = Vec::<i64>::try_from(&targets.positive).unwrap();
    let overlap = |anchor: i64| nearest_bev_iou(&anchors.row(anchor as usize), &lorry.row);
    assert!(!positive.is_empty() && positive.iter().all(|anchor| overlap(*anchor) < 0.55 && overlap(*anchor) > 0.2));
    assert!(positive.iter().all(|anchor| overlap(*anchor) == overlap(positive[0])));
}

#[test]
#[should_panic(expected = "class Some(3) of 3")]
fn a_class_without_anchors_panics() {
    let stranger = TrueBox { row: [0.0, 0.0, 1.0, 4.6, 2.0, 1.7, 0.0], class_idx: 3 };
    match_anchors(&[vec![stranger]], &anchors(0.8));
}

#[test]
fn boxes_come_back_from_their_code_and_direction() {
    let anchors = anchors(2.0);
    let mut next = numbers(9);
    for (idx, b) in street(3, 200).into_iter().enumerate() {
        let anchor = anchors.row((next() * anchors.len() as f32) as usize);
        let code = encode(&b.row, &anchor);
        let mut row = decode(&code, &anchor);
        for (ours, truth) in row.iter().zip(b.row) {
            assert!((ours - truth).abs() < 1e-5 * truth.abs().max(1.0), "box {idx}: {ours} for {truth}");
        }
        // The head learns the heading up to half a turn; the sector tells the rest.
        row[6] += PI;
        let heading = anchors.directions.heading_in(anchors.directions.bin_of(b.row[6]), row[6]);
        let off = limit_period(heading - b.row[6], 0.5, 2.0 * PI);
        assert!(off.abs() < 1e-5, "box {idx}: heading {heading} for {}", b.row[6]);
    }
}

#[test]
fn anchors_reach_from_border_to_border_and_are_numbered_by_row_column_class_heading() {
    let anchors = anchors(0.5);
    assert_eq!((anchors.xs[0], anchors.ys[0]), (-12.0, -8.0));
    assert!((anchors.xs[47] - 12.0).abs() < 1e-5 && (anchors.ys[31] - 8.0).abs() < 1e-5);
    assert!(anchors.xs.windows(2).all(|pair| pair[0] < pair[1]));
    let row = anchors.row((3 * 48 + 7) * 6 + 5);
    assert_eq!(row, [anchors.xs[7], anchors.ys[3], 0.89, 1.78, 0.84, 1.78, 1.57]);
    let tensor = anchors.to_tensor();
    assert_eq!(tensor.size(), [32, 48, 6, 7]);
    assert_eq!(Vec::<f32>::try_from(tensor.get(3).get(7).get(5)).unwrap(), row);
}
