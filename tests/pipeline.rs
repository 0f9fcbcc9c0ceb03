//! Voxelisers against each other, fused against plain networks, and the pipeline's promises.

use pivotal::cloud::{Feature, PointCloud};
use pivotal::model::init::{HeadMultipliers, hash_weights};
use pivotal::model::layers::Mode;
use pivotal::model::net::Net;
use pivotal::model::params::{Params, Weights};
use pivotal::model::pillar_vfe::PaddedVoxels;
use pivotal::model::spec::{BackboneSpec, ModelSpec, NetworkSpec};
use pivotal::model::{expected_params, fused::FusedNet};
use pivotal::pipeline::{Pipeline, PipelineError, PipelineOptions, Precision, boxes_from_maps};
use pivotal::time::Stamp;
use pivotal::voxel::{Grid, VoxelCaps, VoxelCounts, Voxelizer, voxelize_by_sort, voxelize_on_device};
use proptest::prelude::*;
use tch::{Device, Kind, Tensor};

fn grid() -> Grid {
    Grid::new([-4.0, -3.0, -2.0, 4.0, 3.0, 2.0], [0.5, 0.5, 4.0])
}

/// Coordinates on cell borders, just off them, and anywhere around the grid.
fn coordinate() -> impl Strategy<Value = f32> {
    let border = (-12i32..=12).prop_map(|half_cells| half_cells as f32 * 0.5);
    prop_oneof![
        -6.0f32..6.0,
        border.clone(),
        border.clone().prop_map(|x| f32::from_bits(x.to_bits().wrapping_add(1))),
        border.prop_map(|x| if x == 0.0 { x } else { f32::from_bits(x.to_bits() - 1) }),
    ]
}

fn caps() -> impl Strategy<Value = VoxelCaps> {
    (proptest::option::of(1usize..6), proptest::option::of(1usize..40))
        .prop_map(|(max_points_per_voxel, max_voxels)| VoxelCaps { max_points_per_voxel, max_voxels })
}

fn conserved(counts: VoxelCounts) -> bool {
    counts.received == counts.out_of_range + counts.in_voxels + counts.over_point_cap + counts.in_dropped_voxels
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn voxelisers_conserve_points_and_agree(
        rows in prop::collection::vec((coordinate(), coordinate(), coordinate(), 0.0f32..1.0), 0..400),
        caps in caps(),
    ) {
        let points: Vec<f32> = rows.iter().flat_map(|(x, y, z, i)| [*x, *y, *z, *i]).collect();
        let mut voxelizer = Voxelizer::new(grid(), caps);
        let plain = voxelizer.voxelize(&points, 4);
        prop_assert!(conserved(plain.counts), "{:?}", plain.counts);
        prop_assert_eq!(plain.counts.in_voxels, plain.num_points.iter().sum::<i32>() as usize);

        let on_cpu = voxelize_on_device(&mut voxelizer, &points, 4, Device::Cpu).unwrap();
        let by_sort = voxelize_by_sort(&grid(), caps, &Tensor::from_slice(&points).view([-1, 4])).unwrap();
        prop_assert_eq!(&on_cpu.counts, &plain.counts);
        prop_assert_eq!(&by_sort.counts, &plain.counts);
        prop_assert_eq!(&by_sort.points, &on_cpu.points);
        prop_assert_eq!(&by_sort.point_index, &on_cpu.point_index);
        prop_assert_eq!(&by_sort.voxel_of_point, &on_cpu.voxel_of_point);
        prop_assert_eq!(&by_sort.coords, &on_cpu.coords);
        prop_assert_eq!(&by_sort.num_points, &on_cpu.num_points);
    }

    #[test]
    fn pillar_contents_without_caps_ignore_point_order(
        rows in prop::collection::vec((coordinate(), coordinate()), 1..200),
        seed in any::<u64>(),
    ) {
        let dynamic = VoxelCaps { max_points_per_voxel: None, max_voxels: None };
        let contents = |rows: &[(f32, f32)]| {
            let points: Vec<f32> = rows.iter().flat_map(|(x, y)| [*x, *y, 0.0]).collect();
            let pillars = Voxelizer::new(grid(), dynamic).voxelize(&points, 3);
            let mut start = 0;
            let mut cells: Vec<_> = pillars.coords.iter().zip(&pillars.num_points).map(|(cell, n)| {
                let range = start..start + *n as usize;
                start = range.end;
                let mut members: Vec<_> =
                    pillars.point_index[range].iter().map(|i| (rows[*i as usize].0.to_bits(), rows[*i as usize].1.to_bits())).collect();
                members.sort_unstable();
                (*cell, members)
            }).collect();
            cells.sort();
            cells
        };
        let mut shuffled = rows.clone();
        let n = shuffled.len();
        for i in 0..n {
            shuffled.swap(i, (seed as usize).wrapping_mul(i + 7).wrapping_add(i * i) % n);
        }
        prop_assert_eq!(contents(&rows), contents(&shuffled));
    }
}

/// A spec of an asymmetric range small enough to run in milliseconds.
pub fn small_spec(name: &str) -> ModelSpec {
    let mut spec = ModelSpec::builtin(name).unwrap();
    let [vx, vy] = [0, 1].map(|axis| spec.grid.voxel_size[axis] * spec.network.stride() as f32);
    spec.grid.range = [-8.0 * vx, -12.0 * vy, -2.0, 24.0 * vx, 12.0 * vy, 4.0];
    spec
}

fn weights(spec: &ModelSpec) -> Weights {
    hash_weights(&expected_params(spec), 7, &HeadMultipliers { hm_weight: 0.3 })
}

/// Rings of points around the sensor: dense pillars near it, sparse ones far away.
pub fn rings(n: usize) -> PointCloud {
    let points = (0..n).flat_map(|i| {
        let (ring, angle) = (1.0 + (i % 24) as f32 * 0.6, i as f32 * 0.0173);
        [ring * angle.cos(), ring * angle.sin(), (i % 7) as f32 * 0.3 - 1.0, (i % 11) as f32 * 0.09, 0.1]
    });
    PointCloud {
        stamp: Stamp { nanos: 5 },
        frame_id: "lidar".to_owned(),
        features: vec![Feature::X, Feature::Y, Feature::Z, Feature::Intensity, Feature::Elongation],
        points: points.collect(),
    }
}

fn options(precision: Precision) -> PipelineOptions {
    PipelineOptions { device: "cpu".to_owned(), precision }
}

#[test]
fn fused_network_equals_plain_network_for_every_built_in_spec_hard_capped_and_dynamic() {
    let cloud = rings(6000);
    for name in ModelSpec::builtin_names() {
        for cap in [Some(5), None] {
            let mut spec = small_spec(name);
            spec.grid.max_points_per_voxel = cap;
            let weights = weights(&spec);
            let pillars =
                voxelize_on_device(&mut Voxelizer::new(spec.grid(), spec.caps()), &cloud.points, 5, Device::Cpu).unwrap();
            let plain = Net::new(&Params::load(&weights, Device::Cpu), &spec);
            let fused = FusedNet::new(&plain, &spec.grid(), cap, Kind::Float);
            let features = fused.voxel_features(&pillars);
            let shared = fused.head.shared(&fused.backbone(&fused.map_of(&pillars)));
            let padded = PaddedVoxels::from_clouds(&[pillars], cap);
            let trace = plain.forward(&padded, Mode::Eval);
            let off = |ours: &Tensor, theirs: &Tensor| {
                (ours - theirs).abs().max().double_value(&[]) / theirs.abs().max().double_value(&[])
            };
            assert!(off(&features, trace.voxel_features()) < 1e-5, "{name} {cap:?}: voxel features");
            assert!(off(&shared, &trace.head.shared) < 2e-5, "{name} {cap:?}: shared map");
            assert!(off(&fused.head.heat_map(&shared), &trace.head.heat_map.squeeze_dim(0)) < 2e-5, "{name} {cap:?}: heat map");
            // Every cell, so that all borders and corners are among them.
            let (_, _, h, w) = shared.size4().unwrap();
            let cells = Tensor::arange(h * w, (Kind::Int64, Device::Cpu));
            let at = fused.head.regression_at(&shared, &cells.divide_scalar_mode(w, "floor"), &cells.remainder(w));
            let maps = trace.head.regression.view([8, h * w]).transpose(0, 1);
            assert!(off(&at, &maps) < 2e-5, "{name} {cap:?}: regression at cells");
        }
    }
}

#[test]
fn process_equals_plain_network_and_repeats_itself() {
    let spec = small_spec("cp-pillar-v0.64-xxs");
    let weights = weights(&spec);
    let cloud = rings(6000);
    let mut pipeline = Pipeline::new(spec.clone(), &weights, &options(Precision::F32)).unwrap();
    let first = pipeline.process(&cloud).unwrap();
    assert!(!first.detections.is_empty(), "the test needs boxes to compare");

    let pillars = voxelize_on_device(&mut Voxelizer::new(spec.grid(), spec.caps()), &cloud.points, 5, Device::Cpu).unwrap();
    let plain = Net::new(&Params::load(&weights, Device::Cpu), &spec);
    let trace = plain.forward(&PaddedVoxels::from_clouds(&[pillars], spec.grid.max_points_per_voxel), Mode::Eval);
    let boxes = boxes_from_maps(&trace.head, &spec).unwrap();
    assert_eq!(first.n_candidates, boxes.decoded.len());
    assert_eq!(first.detections.len(), boxes.kept.len());
    for (ours, theirs) in first.detections.iter().zip(&boxes.kept) {
        assert!((ours.score - theirs.score).abs() < 1e-5 && ours.class_idx == theirs.class_idx, "{ours:?} {theirs:?}");
    }

    // Another cloud in between must leave no trace.
    pipeline.process(&rings(100)).unwrap();
    let again = pipeline.process(&cloud).unwrap();
    assert_eq!(first.detections, again.detections);
    assert_eq!(first.max_scores, again.max_scores);
    let fresh = Pipeline::new(spec, &weights, &options(Precision::F32)).unwrap().process(&cloud).unwrap();
    assert_eq!(first.detections, fresh.detections);
}

#[test]
fn bf16_scores_stay_near_f32() {
    let spec = small_spec("cp-pillar-v0.64-xxs");
    let weights = weights(&spec);
    let run = |precision| Pipeline::new(spec.clone(), &weights, &options(precision)).unwrap().process(&rings(6000)).unwrap();
    let (full, half) = (run(Precision::F32), run(Precision::Bf16));
    for (full, half) in full.max_scores.iter().zip(&half.max_scores) {
        assert!((full - half).abs() < 0.05, "{full} {half}");
    }
}

#[test]
fn cloud_without_points_in_range_gives_no_boxes_and_counts_them() {
    let spec = small_spec("cp-pillar-v0.64-xxs");
    let mut pipeline = Pipeline::new(spec.clone(), &weights(&spec), &options(Precision::F32)).unwrap();
    let mut cloud = rings(0);
    assert!(pipeline.process(&cloud).unwrap().detections.is_empty());
    cloud.points = vec![500.0, 0.0, 0.0, 0.0, 0.0];
    let output = pipeline.process(&cloud).unwrap();
    assert!(output.detections.is_empty() && output.voxels.out_of_range == 1 && output.max_scores == [0.0; 3]);
}

#[test]
fn cloud_with_other_columns_is_refused_with_both_lists() {
    let spec = small_spec("cp-pillar-v0.64-xxs");
    let mut pipeline = Pipeline::new(spec.clone(), &weights(&spec), &options(Precision::F32)).unwrap();
    let mut cloud = rings(10);
    cloud.features.pop();
    let error = pipeline.process(&cloud).unwrap_err();
    assert!(matches!(error, PipelineError::Columns { .. }));
    assert!(error.to_string().contains("[X, Y, Z, Intensity], the model takes [X, Y, Z, Intensity, Elongation]"), "{error}");
}

#[test]
fn weights_of_another_spec_are_refused_with_every_difference() {
    let spec = small_spec("cp-pillar-v0.64");
    let mut wrong = weights(&small_spec("cp-pillar-v0.64-xxs"));
    wrong.remove("vfe.pfn_layers.0.linear.weight");
    wrong.insert("extra".to_owned(), Tensor::zeros([1], (Kind::Float, Device::Cpu)));
    let message = Pipeline::new(spec, &wrong, &options(Precision::F32)).unwrap_err().to_string();
    for part in [
        "missing `vfe.pfn_layers.0.linear.weight` [32, 11]",
        "`backbone_2d.blocks.0.1.weight` has shape [16, 32, 3, 3], the spec needs [64, 64, 3, 3]",
        "unexpected `extra`",
    ] {
        assert!(message.contains(part), "{part} not in {message}");
    }
}

/// The spec of a backbone of `n` blocks with equal strides that upsample to the first map as far as i64 goes.
fn strided(n: usize, stride: i64) -> ModelSpec {
    let mut spec = ModelSpec::builtin("cp-pillar-v0.64-xxs").unwrap();
    let NetworkSpec::Pillar(pillar) = &mut spec.network else { panic!("a pillar spec") };
    pillar.backbone_2d = BackboneSpec {
        layer_nums: vec![0; n],
        strides: vec![stride; n],
        filters: vec![8; n],
        upsample_strides: (1..=n as u32).map(|power| stride.saturating_pow(power)).collect(),
        upsample_filters: vec![8; n],
    };
    spec
}

/// 21 strides of 8 multiply to more than i64 holds; 22 give 0, by which no count of cells can be divided.
#[test]
fn strides_whose_product_overflows_are_refused() {
    for (n, stride, expected) in [
        (5, 8, vec!["[8, 8, 8, 8, 8]: the product of the strides is at most 8192"]),
        (9, 1, vec!["backbone_2d = 9: at most 8 blocks"]),
        (21, 8, vec!["backbone_2d = 21: at most 8 blocks", "the product of the strides is at most 8192"]),
        (22, 8, vec!["backbone_2d = 22: at most 8 blocks", "the product of the strides is at most 8192"]),
        (64, i64::MAX, vec!["backbone_2d = 9223372036854775807: strides are 1 to 8"]),
        (3, i64::MIN, vec!["backbone_2d = -9223372036854775808: strides are 1 to 8"]),
    ] {
        let text = strided(n, stride).to_yaml().unwrap();
        let message = ModelSpec::from_yaml(&text, "bad.yaml").unwrap_err().to_string();
        for part in expected {
            assert!(message.contains(part), "{n} strides of {stride}: {message}");
        }
    }
    assert_eq!(strided(3, 2).check("good.yaml").map_err(|error| error.to_string()), Ok(()));
    assert_eq!(strided(8, 1).check("good.yaml").map_err(|error| error.to_string()), Ok(()));
}

#[test]
fn specs_that_break_rules_are_refused_with_every_rule() {
    let good = ModelSpec::builtin("cp-pillar-v0.64-xxs").unwrap();
    let text = good.to_yaml().unwrap();
    assert_eq!(ModelSpec::from_yaml(&text, "again").unwrap(), good);
    let cases: [(&str, &str, &str); 18] = [
        ("format: 1", "format: 2", "format = 2: this build reads format 1"),
        ("max_peaks: 500", "max_peaks: 0", "postprocess.max_peaks = 0: 1 to 4096"),
        ("score_threshold: 0.1", "score_threshold: 1.5", "score_threshold = 1.5: 0 <= score < 1"),
        ("iou: 0.7", "iou: -1.0", "postprocess.nms.iou = -1.0: 0 to 2"),
        ("head_channels: 16", "head_channels: 0", "head_channels = 0: channels are 1 to 4096"),
        ("max_points_per_voxel: 50", "max_points_per_voxel: 0", "max_points_per_voxel = Some(0): 1 to 2147483647"),
        (
            "max_points_per_voxel: 50",
            "max_points_per_voxel: 2147483648",
            "max_points_per_voxel = Some(2147483648): 1 to 2147483647",
        ),
        ("max_voxels: 150000", "max_voxels: 0", "max_voxels = Some(0): 1 to 2147483647"),
        ("max_voxels: 150000", "max_voxels: 9223372036854775808", "max_voxels = Some(9223372036854775808): 1 to 2147483647"),
        ("0.64", "1.0e-38", "must divide the range along x into 1 to 8192 whole cells, gives 1484"),
        ("-74.24", "-3.4e38", "must divide the range along x into 1 to 8192 whole cells, gives 5312"),
        (
            "head_channels: 16",
            "head_channels: 9223372036854775807",
            "head_channels = 9223372036854775807: channels are 1 to 4096",
        ),
        ("max_voxels: 150000", "max_voxel: 150000", "max_voxel"),
        ("head_channels: 16", "head_channels: many", "head_channels"),
        ("- Cyclist", "- Vehicle", "classes = [\"Vehicle\", \"Pedestrian\", \"Vehicle\"]: names must differ"),
        ("- intensity", "- x", "input.features = [X, Y, Z, X, Elongation]: columns must differ"),
        ("tanh", "cube", "cube"),
        ("0.64", "0.65", "must divide the range along x into 1 to 8192 whole cells, gives 228.4308"),
    ];
    for (from, to, expected) in cases {
        assert!(text.contains(from), "`{from}` is not in the spec:\n{text}");
        let message = ModelSpec::from_yaml(&text.replace(from, to), "bad.yaml").unwrap_err().to_string();
        assert!(message.starts_with("bad.yaml: ") && message.contains(expected), "`{to}`: {message}");
    }
    let two = text.replace("max_peaks: 500", "max_peaks: 0").replace("format: 1", "format: 3");
    let message = ModelSpec::from_yaml(&two, "bad.yaml").unwrap_err().to_string();
    assert!(message.contains("format = 3") && message.contains("max_peaks = 0"), "{message}");
    let message = ModelSpec::builtin("cp-pillar-v9").unwrap_err().to_string();
    assert!(message.contains("no built-in spec is called `cp-pillar-v9`; there are: cp-pillar,"), "{message}");
}
