//! Batches and the threads that make them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use pivotal::data::augment::AugmentConfig;
use pivotal::data::batch::{Batch, BatchBuilder, BatchCounts, VoxelPlan, Voxelization};
use pivotal::data::loader::{Loader, LoaderConfig, LoaderError, Order, Span};
use pivotal::data::prepare::{Augmenter, Preparation, PrepareCounts, TrainingFrame, prepare};
use pivotal::model::pillar_vfe::PaddedVoxels;
use pivotal::model::spec::ModelSpec;
use pivotal::voxel::{Grid, VoxelCaps, Voxelizer, voxelize_on_device};
use tch::Device;

use super::scene::{FIRST, Frame, Frames, classes, evaluation, grid, id, input, sample, street};

const SHUFFLED: Order = Order::Shuffled { seed: 11 };

fn preparation() -> Arc<Preparation> {
    let augmenter = Augmenter::new(&AugmentConfig::default(), &classes(), &input()).unwrap();
    Arc::new(Preparation { augmenter: Some(augmenter), ..evaluation() })
}

fn plan() -> VoxelPlan {
    let caps = VoxelCaps { max_points_per_voxel: Some(3), max_voxels: Some(150) };
    let fine = Grid::new([-20.48, -20.48, -2.0, 20.48, 20.48, 4.0], [0.32, 0.32, 6.0]);
    let teacher = Voxelization { grid: fine, caps: VoxelCaps { max_points_per_voxel: None, max_voxels: None } };
    VoxelPlan { n_features: 5, student: Voxelization { grid: grid(), caps }, teacher: Some(teacher) }
}

fn config(batch_size: usize, n_workers: usize) -> LoaderConfig {
    LoaderConfig { batch_size, n_workers, n_batches_ahead: 3, max_unreadable_share: 0.5, ..LoaderConfig::default() }
}

fn start(source: &Arc<Frames>, config: &LoaderConfig, order: Order, span: (u64, u64, u64)) -> Result<Loader, LoaderError> {
    let span = Span { first_epoch: span.0, first_step: span.1, end_epoch: span.2 };
    Loader::start(Arc::clone(source) as _, preparation(), plan(), config, order, span)
}

fn batches(source: &Arc<Frames>, config: &LoaderConfig, order: Order, span: (u64, u64, u64)) -> Vec<Batch> {
    start(source, config, order, span).unwrap().collect::<Result<_, _>>().unwrap()
}

fn pillar_bytes(pillars: &PaddedVoxels) -> (Vec<i64>, Vec<u32>, Vec<i64>, Vec<i64>) {
    let voxels = Vec::<f32>::try_from(pillars.voxels.flatten(0, -1)).unwrap();
    let coords = Vec::<i64>::try_from(pillars.coords.flatten(0, -1)).unwrap();
    let num_points = Vec::<i64>::try_from(&pillars.num_points).unwrap();
    (pillars.voxels.size(), voxels.into_iter().map(f32::to_bits).collect(), coords, num_points)
}

/// Everything in a batch, for comparing.
fn content(batch: &Batch) -> String {
    let Batch { epoch, step, ids, boxes, student, teacher, counts, unreadable } = batch;
    let teacher = teacher.as_ref().map(pillar_bytes);
    format!("{epoch} {step} {ids:?} {boxes:?} {:?} {teacher:?} {counts:?} {unreadable:?}", pillar_bytes(student))
}

#[test]
fn batches_are_the_same_with_any_number_of_threads() {
    let mut frames = Frames::streets(11).frames;
    frames[4] = Frame::Unreadable;
    let source = Arc::new(Frames::new(frames));
    let expected: Vec<String> = batches(&source, &config(2, 1), SHUFFLED, (0, 0, 3)).iter().map(content).collect();
    assert_eq!(expected.len(), 18);
    for n_workers in [2, 5] {
        let config = LoaderConfig { n_batches_ahead: n_workers, ..config(2, n_workers) };
        let got: Vec<String> = batches(&source, &config, SHUFFLED, (0, 0, 3)).iter().map(content).collect();
        assert!(got == expected, "{n_workers} threads give other batches");
    }
    assert!(expected[0] != expected[6], "every epoch has its own order and changes");
}

#[test]
fn a_run_goes_on_from_any_step() {
    let source = Arc::new(Frames::streets(7));
    let all: Vec<String> = batches(&source, &config(2, 2), SHUFFLED, (0, 0, 3)).iter().map(content).collect();
    for (epoch, step) in [(0, 1), (1, 0), (1, 3), (2, 3)] {
        let rest: Vec<String> = batches(&source, &config(2, 2), SHUFFLED, (epoch, step, 3)).iter().map(content).collect();
        assert!(rest == all[(epoch * 4 + step) as usize..], "from epoch {epoch}, step {step}");
    }
    assert!(batches(&source, &config(2, 2), SHUFFLED, (3, 0, 3)).is_empty());
}

#[test]
fn an_epoch_has_every_frame_once_in_an_order_of_its_own() {
    let source = Arc::new(Frames::streets(7));
    let orders: Vec<Vec<u64>> = (0..3)
        .map(|epoch| {
            let epoch = batches(&source, &config(3, 2), SHUFFLED, (epoch, 0, epoch + 1));
            assert_eq!(epoch.iter().map(|batch| batch.ids.len()).collect::<Vec<_>>(), [3, 3, 1]);
            epoch.iter().flat_map(|batch| batch.ids.iter().map(|id| id.frame)).collect()
        })
        .collect();
    for order in &orders {
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..7).collect::<Vec<_>>());
    }
    assert!(orders[0] != orders[1] && orders[1] != orders[2]);
    let other_seed = batches(&source, &config(7, 1), Order::Shuffled { seed: 12 }, (0, 0, 1));
    assert_ne!(other_seed[0].ids.iter().map(|id| id.frame).collect::<Vec<_>>(), orders[0]);

    let whole_only = LoaderConfig { keep_partial_batch: false, ..config(3, 2) };
    assert_eq!(batches(&source, &whole_only, SHUFFLED, (0, 0, 1)).len(), 2);
}

#[test]
fn what_a_frame_becomes_does_not_depend_on_the_order_of_the_run() {
    let source = Arc::new(Frames::streets(6));
    let boxes_of = |order: Order| {
        let mut frames: Vec<_> = batches(&source, &config(2, 2), order, (1, 0, 2))
            .into_iter()
            .flat_map(|batch| batch.ids.into_iter().zip(batch.boxes))
            .collect();
        frames.sort_by_key(|(id, _)| id.frame);
        frames
    };
    let expected = boxes_of(SHUFFLED);
    assert_eq!(boxes_of(Order::Shuffled { seed: 99 }), expected);
    assert_eq!(boxes_of(Order::Stored), expected);
}

#[test]
fn unusable_frames_are_replaced_counted_and_reported() {
    let mut frames = Frames::streets(10).frames;
    frames[3] = Frame::Unreadable;
    frames[6] = Frame::good(sample(6, &[[0.0; 4]], None));
    let source = Arc::new(Frames::new(frames));
    let epoch = batches(&source, &config(5, 2), SHUFFLED, (0, 0, 1));
    let ids: Vec<u64> = epoch.iter().flat_map(|batch| &batch.ids).map(|id| id.frame).collect();
    assert_eq!(ids.len(), 10, "every place is filled");
    assert!(!ids.contains(&3) && !ids.contains(&6), "{ids:?}");
    let unreadable: Vec<_> = epoch.iter().flat_map(|batch| &batch.unreadable).collect();
    assert!(unreadable.iter().all(|frame| frame.id == id(3) && frame.reason == "street: frame 3: is torn"), "{unreadable:?}");
    assert!(!unreadable.is_empty());
    let mut counts = BatchCounts::default();
    for batch in &epoch {
        counts += &batch.counts;
    }
    assert!(counts.prepare.frames_unlabelled >= 1);
    assert_eq!(counts.prepare.frames - counts.prepare.frames_unlabelled, 10);
    assert_eq!(counts.prepare.points_kept, counts.student.received as u64);
    assert_eq!(counts.student.received, counts.teacher.received);
    assert!(counts.student.over_point_cap > 0 && counts.student.dropped_voxels > 0, "{counts:?}");

    let stored = batches(&source, &config(5, 2), Order::Stored, (0, 0, 1));
    let ids: Vec<u64> = stored.iter().flat_map(|batch| &batch.ids).map(|id| id.frame).collect();
    assert_eq!(ids, [0, 1, 2, 4, 5, 7, 8, 9], "left out, not replaced");
}

#[test]
fn too_many_unreadable_frames_end_the_run_at_the_same_step() {
    let mut frames = Frames::streets(20).frames;
    for broken in [2, 9, 13] {
        frames[broken] = Frame::Unreadable;
    }
    let source = Arc::new(Frames::new(frames));
    let ends = [1, 4].map(|n_workers| {
        let config = LoaderConfig { max_unreadable_share: 0.1, ..config(2, n_workers) };
        let mut loader = start(&source, &config, SHUFFLED, (0, 0, 5)).unwrap();
        let n_good = loader.by_ref().take_while(Result::is_ok).count();
        assert!(loader.next().is_none(), "nothing comes after an error");
        n_good
    });
    assert_eq!(ends[0], ends[1]);
    let config = LoaderConfig { max_unreadable_share: 0.1, ..config(2, 1) };
    let error = start(&source, &config, SHUFFLED, (0, 0, 5)).unwrap().find_map(Result::err).unwrap().to_string();
    assert!(
        error.starts_with("epoch 0: 3 of 20 frames are unreadable, more than max_unreadable_share = 0.1; first: "),
        "{error}"
    );
    assert!(error.contains("is torn"), "{error}");
}

#[test]
fn sources_with_nothing_to_learn_from_end_with_the_reasons() {
    let mut strange = street(0);
    for label in strange.labels.as_mut().unwrap() {
        label.class = "car".to_owned();
    }
    let cases = [
        (Frame::good(strange), "labels of classes that are not mapped: 202 car"),
        (Frame::good(sample(0, &[[0.0; 4]], None)), "101 without labels"),
        (Frame::Unreadable, "last unreadable: street/0: street: frame 0: is torn"),
    ];
    for (frame, expected) in cases {
        let config = LoaderConfig { max_unreadable_share: 1.0, ..config(1, 1) };
        let source = Arc::new(Frames::new(vec![frame]));
        let error = start(&source, &config, SHUFFLED, (0, 0, 1)).unwrap().next().unwrap().unwrap_err().to_string();
        assert!(error.contains("in place of street/0 101 frames were tried") && error.contains(expected), "{error}");
    }
}

#[test]
fn a_panic_in_a_thread_is_an_error_of_its_step() {
    let mut frames = Frames::streets(6).frames;
    frames[3] = Frame::Panics;
    let source = Arc::new(Frames::new(frames));
    for n_workers in [1, 3] {
        let mut loader = start(&source, &config(1, n_workers), Order::Stored, (0, 0, 1)).unwrap();
        assert_eq!(loader.by_ref().take(3).filter(Result::is_ok).count(), 3);
        let error = loader.next().unwrap().unwrap_err().to_string();
        assert_eq!(error, "epoch 0, step 3: the loader failed: frame 3 bites");
        assert!(loader.next().is_none());
    }
}

#[test]
fn dropping_the_loader_ends_its_threads_which_never_run_far_ahead() {
    let source = Arc::new(Frames::streets(40));
    let mut loader = start(&source, &config(2, 3), SHUFFLED, (0, 0, 1000)).unwrap();
    assert!(loader.by_ref().take(2).all(|batch| batch.is_ok()));
    drop(loader);
    // Two batches taken, three ahead, two frames each.
    let n_loaded = source.n_loaded.load(Ordering::Relaxed);
    assert!(n_loaded <= 2 * (2 + 3), "{n_loaded} frames were loaded");
    assert_eq!(Arc::strong_count(&source), 1, "a thread is still there");
}

#[test]
fn impossible_loaders_are_refused() {
    let refused = |n_frames: u64, config: &LoaderConfig, span| {
        start(&Arc::new(Frames::streets(n_frames)), config, SHUFFLED, span).unwrap_err().to_string()
    };
    assert_eq!(refused(4, &config(2, 1), (0, 2, 1)), "step 2 was asked for, an epoch has steps 0 to 1");
    assert_eq!(refused(0, &config(2, 1), (0, 0, 1)), "streets has 0 frames: not one batch of 2");
    let whole_only = LoaderConfig { keep_partial_batch: false, ..config(4, 1) };
    assert_eq!(refused(3, &whole_only, (0, 0, 1)), "streets has 3 frames: not one batch of 4");
    assert_eq!(refused(3, &config(0, 1), (0, 0, 1)), "batch_size = 0: 1 to 1024");
    assert!(serde_saphyr::from_str::<LoaderConfig>("workers: 3").is_err());
}

fn frames(n: u64) -> Vec<TrainingFrame> {
    (0..n).map(|frame| prepare(&street(frame), FIRST, &evaluation()).unwrap().frame.unwrap()).collect()
}

#[test]
fn padded_pillars_equal_those_made_by_tensor_operations() {
    let dynamic = VoxelCaps { max_points_per_voxel: None, max_voxels: None };
    for caps in [plan().student.caps, dynamic] {
        let own = Voxelization { grid: grid(), caps };
        let plan = VoxelPlan { student: own, ..plan() };
        let mut frames = frames(3);
        frames[1].points.clear(); // a cloud without a point, between others
        let clouds: Vec<_> = frames
            .iter()
            .map(|frame| voxelize_on_device(&mut Voxelizer::new(grid(), caps), &frame.points, 5, Device::Cpu).unwrap())
            .collect();
        let expected = PaddedVoxels::from_clouds(&clouds, caps.max_points_per_voxel);
        let batch = BatchBuilder::new(&plan).build(frames, PrepareCounts::default()).unwrap();
        assert!(pillar_bytes(&batch.student) == pillar_bytes(&expected), "{caps:?}");
        assert_eq!(batch.student.padding_takes_part, expected.padding_takes_part);
        assert_eq!((batch.student.batch_size, expected.batch_size), (3, 3));
    }
    let none = BatchBuilder::new(&plan()).build(Vec::new(), PrepareCounts::default()).unwrap();
    assert_eq!(none.student.voxels.size(), [0, 3, 5]);
}

#[test]
fn teacher_takes_the_same_points_on_the_students_range() {
    let spec = |name: &str| ModelSpec::builtin(name).unwrap();
    // sparsekd-spec section 5.2.
    for (student, cells) in [("cp-pillar-v0.4", 460), ("cp-pillar-v0.48", 468), ("cp-pillar-v0.64", 464)] {
        let plan = VoxelPlan::new(&spec(student), Some(&spec("cp-pillar"))).unwrap();
        let teacher = plan.teacher.unwrap();
        assert_eq!(teacher.grid.shape, [cells, cells, 1], "{student}");
        assert_eq!(teacher.grid.range_max, plan.student.grid.range_max);
        assert_eq!(teacher.caps.max_points_per_voxel, Some(20));
    }
    let shared = VoxelPlan::new(&spec("cp-pillar-v0.64-xs"), Some(&spec("cp-pillar-v0.64"))).unwrap();
    assert_eq!(shared.teacher, None, "equal cells are voxelised once");
    assert_eq!(VoxelPlan::new(&spec("cp-pillar"), None).unwrap().teacher, None);

    let mut raw = spec("cp-pillar-v0.4");
    raw.input.intensity = pivotal::cloud::IntensityMode::Raw;
    let error = VoxelPlan::new(&raw, Some(&spec("cp-pillar"))).unwrap_err().to_string();
    assert!(error.contains("teacher `cp-pillar` takes x, y, z, intensity, elongation with intensity Tanh"), "{error}");
    let mut odd = spec("cp-pillar-v0.4");
    odd.grid.range = [-10.0, -10.0, -2.0, 10.0, 10.0, 4.0];
    let error = VoxelPlan::new(&odd, Some(&spec("cp-pillar"))).unwrap_err().to_string();
    assert!(error.contains("along x is 62.5000 cells of teacher `cp-pillar`"), "{error}");
}
