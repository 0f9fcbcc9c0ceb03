//! Maps to boxes: thresholds, order, what is not finite.

use pivotal::model::anchor_head::AnchorMaps;
use pivotal::model::anchors::{Anchors, decode};
use pivotal::model::spec::{DistanceThreshold, NmsSpec, PostprocessSpec};
use pivotal::postprocess::{Decoded, PostprocessError, decode_anchors};
use tch::{Device, Kind, Tensor};

use super::{anchors, classes, numbers};

fn spec() -> PostprocessSpec {
    PostprocessSpec {
        max_peaks: 500,
        score_threshold: 0.5,
        class_score_thresholds: Default::default(),
        distance_score_thresholds: Vec::new(),
        center_limit: [-100.0, -100.0, -100.0, 100.0, 100.0, 100.0],
        nms: NmsSpec::Rotated { iou: 0.7, max_before: 4096, max_after: 500 },
    }
}

/// Maps that find nothing: 8 rows, 12 columns.
fn empty() -> AnchorMaps {
    let map = |channels: i64, value: f64| Tensor::full([1, channels, 8, 12], value, (Kind::Float, Device::Cpu));
    AnchorMaps { cls: map(18, -10.0), boxes: map(42, 0.0), direction: map(12, 0.0) }
}

/// Sets one value; channels are counted inside the anchor.
fn set(map: &Tensor, anchor: usize, channel: i64, value: f64) {
    let channels = map.size()[1] / 6;
    let (cell, kind) = ((anchor / 6) as i64, (anchor % 6) as i64);
    let _ = map.get(0).get(kind * channels + channel).get(cell / 12).get(cell % 12).fill_(value);
}

fn found(maps: &AnchorMaps, spec: &PostprocessSpec) -> Decoded {
    decode_anchors(maps, &anchors(2.0), &classes(), spec).unwrap()
}

/// Score, class and box of all anchors, in the stated order, without any shortcut.
fn plain(maps: &AnchorMaps, anchors: &Anchors, threshold: f32) -> Vec<(f32, usize, [f32; 7])> {
    let rows = |map: &Tensor, n: i64| {
        let rows = map.view([6, n, 8, 12]).permute([2, 3, 0, 1]).reshape([-1]);
        Vec::<f32>::try_from(rows).unwrap()
    };
    let (cls, codes, directions) = (rows(&maps.cls, 3), rows(&maps.boxes, 7), rows(&maps.direction, 2));
    let mut all: Vec<(f32, usize, usize)> = (0..anchors.len())
        .map(|anchor| {
            let logits = &cls[3 * anchor..3 * anchor + 3];
            let logit = logits.iter().copied().fold(f32::MIN, f32::max);
            (logit, logits.iter().position(|l| *l == logit).unwrap(), anchor)
        })
        .collect();
    all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
    let score = |logit: f32| (1.0 / (1.0 + (-f64::from(logit)).exp())) as f32;
    all.into_iter()
        .filter(|(logit, ..)| score(*logit) >= threshold)
        .map(|(logit, class_idx, anchor)| {
            let code: [f32; 7] = codes[7 * anchor..7 * anchor + 7].try_into().unwrap();
            let mut row = decode(&code, &anchors.row(anchor));
            let bin = usize::from(directions[2 * anchor + 1] > directions[2 * anchor]);
            row[6] = anchors.directions.heading_in(bin, row[6]);
            (score(logit), class_idx, row)
        })
        .collect()
}

#[test]
fn decoding_candidates_is_decoding_everything() {
    let mut next = numbers(3);
    let mut map = |channels: i64, low: f32, step: f32| {
        // Few different values, so that many are equal.
        let values: Vec<f32> = (0..channels * 96).map(|_| low + step * (next() * 12.0).floor()).collect();
        Tensor::from_slice(&values).view([1, channels, 8, 12])
    };
    let maps = AnchorMaps { cls: map(18, -4.0, 0.5), boxes: map(42, -0.3, 0.05), direction: map(12, -1.0, 0.2) };
    for threshold in [0.0, 0.1, 0.5, 0.7, 0.9] {
        let spec = PostprocessSpec { score_threshold: threshold, ..spec() };
        let ours: Vec<_> = found(&maps, &spec).detections.iter().map(|d| (d.score, d.class_idx, d.box3d.to_row())).collect();
        let expected = plain(&maps, &anchors(2.0), threshold);
        assert_eq!(ours, expected.into_iter().map(|(s, c, row)| (s, c, row.map(f64::from))).collect::<Vec<_>>(), "{threshold}");
    }
}

#[test]
fn scores_at_a_threshold_are_kept_and_each_class_and_distance_has_its_own() {
    let anchors = anchors(2.0);
    let maps = empty();
    let (near, far) = ((4 * 12 + 6) * 6, 5); // at the middle, in the corner
    set(&maps.cls, near, 0, 0.0); // a score of 0.5
    set(&maps.cls, far, 2, 2.0); // 0.88
    let classes_found = |spec: &PostprocessSpec| found(&maps, spec).detections.iter().map(|d| d.class_idx).collect::<Vec<_>>();
    assert_eq!(classes_found(&spec()), [2, 0]);
    let above = f32::from_bits(0.5f32.to_bits() + 1);
    assert_eq!(classes_found(&PostprocessSpec { score_threshold: above, ..spec() }), [2]);
    let of_class =
        |class: &str, score: f32| PostprocessSpec { class_score_thresholds: [(class.to_owned(), score)].into(), ..spec() };
    assert_eq!(classes_found(&of_class("Cyclist", 0.9)), [0]);
    assert_eq!(classes_found(&PostprocessSpec { score_threshold: 0.9, ..of_class("Vehicle", 0.5) }), [0]);
    let at_distance = |from_m: f32, score: f32| PostprocessSpec {
        distance_score_thresholds: vec![DistanceThreshold { from_m, score }],
        ..spec()
    };
    assert_eq!(classes_found(&at_distance(0.0, 0.5)), [2, 0]);
    assert_eq!(classes_found(&at_distance(10.0, 0.9)), [0]);
    let limit = PostprocessSpec { center_limit: [-5.0, -5.0, -5.0, 5.0, 5.0, 5.0], ..spec() };
    assert_eq!(classes_found(&limit), [0]);
    let kept = &found(&maps, &limit).detections[0];
    let row = anchors.row(near).map(f64::from);
    assert_eq!(kept.box3d.to_row()[..6], row[..6]);
}

#[test]
fn what_is_not_finite_is_counted_and_dropped() {
    let maps = empty();
    set(&maps.cls, 0, 0, 3.0);
    set(&maps.cls, 100, 1, f64::NAN);
    set(&maps.cls, 200, 1, 3.0);
    set(&maps.boxes, 200, 3, 1000.0); // its exponential is not finite
    set(&maps.cls, 300, 1, 3.0);
    set(&maps.direction, 300, 0, f64::NAN);
    set(&maps.boxes, 400, 0, f64::NAN); // far below the threshold
    let decoded = found(&maps, &spec());
    assert_eq!((decoded.detections.len(), decoded.n_non_finite), (1, 3));
}

#[test]
fn maps_of_another_shape_are_refused_by_name() {
    let maps = AnchorMaps { direction: empty().boxes, ..empty() };
    match decode_anchors(&maps, &anchors(2.0), &classes(), &spec()) {
        Err(PostprocessError::Shape { tensor, expected, got }) => {
            assert_eq!((tensor, expected.as_str(), got.as_slice()), ("directions", "[1, 12, 8, 12]", [1, 42, 8, 12].as_slice()));
        }
        other => panic!("{other:?}"),
    }
    assert!(decode_anchors(&empty(), &anchors(1.0), &classes(), &spec()).is_err());
}

#[test]
fn maps_in_half_precision_find_the_same_anchors() {
    let maps = empty();
    for (anchor, logit) in [(7, 1.0), (300, 2.0), (571, 3.0)] {
        set(&maps.cls, anchor, 1, logit);
    }
    let half = |map: &Tensor| map.to_kind(Kind::BFloat16);
    let halved = AnchorMaps { cls: half(&maps.cls), boxes: half(&maps.boxes), direction: half(&maps.direction) };
    let found_all = found(&maps, &spec());
    assert_eq!(found_all.detections.len(), 3);
    assert_eq!(found(&halved, &spec()), found_all);
}
