//! The reference's own numbers: rotated overlaps, kept indices, decoded and final boxes.

use std::collections::HashMap;
use std::path::Path;

use pivotal::geometry::Box3d;
use pivotal::geometry::iou::{self, reference};
use pivotal::model::spec::{NmsSpec, PostprocessSpec};
use pivotal::postprocess::{Detection, decode_boxes, suppress, top_peaks};
use pivotal::voxel::Grid;
use tch::Tensor;

use crate::support::shared;

const CENTER_MODELS: [&str; 8] = [
    "cp-pillar",
    "cp-pillar-v0.4",
    "cp-pillar-v0.48",
    "cp-pillar-v0.64",
    "cp-voxel",
    "cp-voxel-s",
    "cp-voxel-xs",
    "cp-voxel-xxs",
];

struct Tensors(HashMap<String, Tensor>);

impl Tensors {
    fn read(path: &Path) -> Self {
        Self(Tensor::read_safetensors(path).unwrap().into_iter().collect())
    }

    fn get(&self, name: &str) -> &Tensor {
        self.0.get(name).unwrap_or_else(|| panic!("no tensor `{name}`"))
    }

    fn f64s(&self, name: &str) -> Vec<f64> {
        Vec::try_from(self.get(name).to_kind(tch::Kind::Double).reshape([-1])).unwrap()
    }

    fn f32s(&self, name: &str) -> Vec<f32> {
        Vec::try_from(self.get(name).reshape([-1])).unwrap()
    }

    fn boxes(&self, name: &str) -> Vec<Box3d> {
        self.f64s(name).chunks_exact(7).map(|row| Box3d::from_row(row.try_into().unwrap())).collect()
    }

    /// `eval/decode` or `eval/final` of one sample; labels count from 1 there.
    fn detections(&self, stage: &str, sample: usize) -> Vec<Detection> {
        let boxes = self.boxes(&format!("eval/{stage}.{sample}.pred_boxes"));
        let scores = self.f32s(&format!("eval/{stage}.{sample}.pred_scores"));
        let labels = self.f64s(&format!("eval/{stage}.{sample}.pred_labels"));
        boxes
            .into_iter()
            .zip(scores)
            .zip(labels)
            .map(|((box3d, score), label)| Detection { box3d, score, class_idx: label as usize - 1 })
            .collect()
    }
}

fn paper_nms(max_before: usize) -> NmsSpec {
    NmsSpec::Rotated { iou: 0.7, max_before, max_after: 500 }
}

fn paper_spec(score_threshold: f32, center_limit: [f32; 6]) -> PostprocessSpec {
    PostprocessSpec {
        max_peaks: 500,
        score_threshold,
        class_score_thresholds: Default::default(),
        distance_score_thresholds: Vec::new(),
        center_limit,
        nms: paper_nms(4096),
    }
}

/// Largest difference of all pairs, with the pair.
fn worst(boxes: &[Box3d], expected: &[f64], value: impl Fn(&Box3d, &Box3d) -> f64) -> (f64, usize, usize) {
    let mut worst = (0.0, 0, 0);
    for (row, a) in boxes.iter().enumerate() {
        for (col, b) in boxes.iter().enumerate() {
            let difference = (value(a, b) - expected[row * boxes.len() + col]).abs();
            if difference > worst.0 || difference.is_nan() {
                worst = (difference, row, col);
            }
        }
    }
    worst
}

#[test]
fn overlaps_of_golden_boxes_equal_the_reference() {
    let golden = Tensors::read(&shared("golden/components/boxes.safetensors"));
    let boxes = golden.boxes("boxes");
    assert_eq!(boxes.len(), 220);
    // The reference works in f32, which costs it up to 1e-5; its README accepts 1e-4. Its exact clipper is f64 rounded to f32.
    type Case = (&'static str, fn(&Box3d, &Box3d) -> f64, f64);
    let cases: [Case; 4] = [
        ("bev_overlap", reference::bev_overlap, 2e-5),
        ("bev_iou", reference::bev_iou, 2e-5),
        ("iou3d", reference::iou3d, 2e-5),
        ("bev_overlap_exact_geometry", iou::bev_overlap, 1e-6),
    ];
    for (name, value, tolerance) in cases {
        let (difference, row, col) = worst(&boxes, &golden.f64s(name), value);
        assert!(difference <= tolerance, "{name}: {difference:e} at boxes {row} and {col}");
    }
}

#[test]
fn footprints_of_golden_boxes_equal_the_reference() {
    let golden = Tensors::read(&shared("golden/components/boxes.safetensors"));
    let corners = golden.f64s("corners_3d");
    // The reference starts front left, too, but runs clockwise.
    const REFERENCE_CORNER: [usize; 4] = [0, 3, 2, 1];
    for (box3d, expected) in golden.boxes("boxes").iter().zip(corners.chunks_exact(24)) {
        for (corner, reference_corner) in box3d.footprint().into_iter().zip(REFERENCE_CORNER) {
            for axis in 0..2 {
                assert!((corner[axis] - expected[3 * reference_corner + axis]).abs() < 2e-6, "{box3d:?} {corner:?} {expected:?}");
            }
        }
    }
}

#[test]
fn suppression_of_golden_boxes_keeps_the_reference_indices() {
    let golden = Tensors::read(&shared("golden/components/boxes.safetensors"));
    let candidates: Vec<Detection> = golden
        .boxes("boxes")
        .into_iter()
        .zip(golden.f32s("scores"))
        .enumerate()
        .map(|(idx, (box3d, score))| Detection { box3d, score, class_idx: idx })
        .collect();
    let mut n_lists = 0;
    for name in golden.0.keys().filter(|name| name.starts_with("nms_keep_thr")) {
        let (threshold, max_before) = match name["nms_keep_thr".len()..].split_once("_pre") {
            Some((threshold, before)) => (threshold, before.parse().unwrap()),
            None => (&name["nms_keep_thr".len()..], 4096),
        };
        let spec = NmsSpec::Rotated { iou: threshold.parse().unwrap(), max_before, max_after: 4096 };
        let kept: Vec<f64> = suppress(candidates.clone(), &spec).iter().map(|kept| kept.class_idx as f64).collect();
        assert_eq!(kept, golden.f64s(name), "{name}");
        n_lists += 1;
    }
    assert_eq!(n_lists, 12);
}

#[test]
fn suppression_of_decoded_boxes_gives_the_final_boxes_of_every_center_model() {
    for model in CENTER_MODELS {
        let golden = Tensors::read(&shared(&format!("golden/models/{model}.safetensors")));
        for sample in 0..2 {
            let kept = suppress(golden.detections("decode", sample), &paper_nms(4096));
            let expected = golden.detections("final", sample);
            assert_eq!(kept.len(), expected.len(), "{model} sample {sample}");
            for (rank, (kept, expected)) in kept.iter().zip(&expected).enumerate() {
                assert_eq!(kept, expected, "{model} sample {sample} box {rank}");
            }
        }
    }
}

#[test]
fn decoding_of_head_maps_gives_the_decoded_boxes_of_every_pillar_model() {
    for model in CENTER_MODELS.iter().filter(|model| model.starts_with("cp-pillar")) {
        let golden = Tensors::read(&shared(&format!("golden/models/{model}.safetensors")));
        let facts: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(shared(&format!("golden/models/{model}.json"))).unwrap()).unwrap();
        let numbers = |key: &str| facts[key].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect::<Vec<_>>();
        let range: [f32; 6] = numbers("point_cloud_range").try_into().unwrap();
        let grid = Grid::new(range, numbers("voxel_size").try_into().unwrap());
        let classes = ["Vehicle", "Pedestrian", "Cyclist"].map(String::from);
        let spec = paper_spec(0.1, [-80.0, -80.0, -10.0, 80.0, 80.0, 10.0]);
        for sample in 0..2 {
            let map = |name: &str| golden.get(&format!("eval/head/{name}")).get(sample as i64);
            let peaks = top_peaks(&map("hm"), spec.max_peaks).unwrap();
            let maps = Tensor::cat(&["center", "center_z", "dim", "rot"].map(map), 0);
            let cells = &peaks.row * maps.size()[2] + &peaks.col;
            let regression = maps.flatten(1, 2).index_select(1, &cells).transpose(0, 1);
            let decoded = decode_boxes(&peaks, &regression, &grid, 1, &classes, &spec).unwrap();
            assert_eq!(decoded.n_non_finite, 0);
            let expected = golden.detections("decode", sample);
            assert_eq!(decoded.detections.len(), expected.len(), "{model} sample {sample}");
            for (got, expected) in decoded.detections.iter().zip(&expected) {
                assert_eq!(got.class_idx, expected.class_idx, "{model} sample {sample}");
                assert!((got.score - expected.score).abs() <= 2e-7, "{model}: {got:?} {expected:?}");
                for (value, expected) in got.box3d.to_row().iter().zip(expected.box3d.to_row()) {
                    // The last bits of f32: exp and atan2 of two mathematics libraries.
                    assert!((value - expected).abs() <= 1e-6 * expected.abs().max(1.0), "{model}: {got:?} {expected}");
                }
            }
        }
    }
}
