//! What was written comes back.

use pivotal::cloud::{Feature, PointCloud};
use pivotal::data::cache::{self, CacheSettings, Precision};
use pivotal::data::{Sample, SampleId, Source, waymo};

use super::{Made, sample, settings, write};
use crate::support::shared;

#[test]
fn frames_in_single_precision_come_back_to_the_last_bit() {
    let folder = tempfile::tempdir().unwrap();
    let source = Made::new(30);
    let written = write(&source, folder.path()).unwrap();
    assert_eq!((written.n_frames, written.n_resumed, written.left_out.len()), (30, 0, 0));
    let cache = cache::open(folder.path()).unwrap();
    assert_eq!(cache.len(), 30);
    for index in (0..30).rev() {
        assert_eq!(cache.id(index), source.id(index));
        assert_eq!(cache.load(7, index).unwrap(), source.load(0, index).unwrap(), "frame {index}");
    }
}

#[test]
fn real_frames_come_back_and_a_cache_of_a_cache_is_the_same() {
    let source = waymo::open(&shared("data/waymo/semireal_nuscenes.tfrecord")).unwrap();
    for precision in [Precision::F32, Precision::F16] {
        let folder = tempfile::tempdir().unwrap();
        let [first, second] = ["first", "second"].map(|name| folder.path().join(name));
        cache::write(&source, &first, &settings(precision), &|_| {}).unwrap();
        let cache = cache::open(&first).unwrap();
        cache::write(&cache, &second, &settings(precision), &|_| {}).unwrap();
        let (direct, once, twice) =
            (source.load(0, 0).unwrap(), cache.load(0, 0).unwrap(), cache::open(&second).unwrap().load(0, 0).unwrap());
        assert!(once == twice, "{precision:?}");
        assert_eq!(once.labels, direct.labels);
        assert_eq!(once.in_no_label_zone, direct.in_no_label_zone);
        match precision {
            Precision::F32 => assert!(once == direct),
            Precision::F16 => check_halved(&direct.cloud, &once.cloud, 75.0, 0.002),
        }
    }
}

/// Every coordinate within `bound_m` where the axis reaches `extent_m` at most; the other columns as f16 has them.
fn check_halved(direct: &PointCloud, stored: &PointCloud, extent_m: f32, bound_m: f32) {
    assert_eq!((stored.n_points(), &stored.features), (direct.n_points(), &direct.features));
    let mut worst_m = 0.0_f32;
    for (row, expected) in stored.rows().zip(direct.rows()) {
        for (axis, (value, expected)) in row.iter().zip(expected).enumerate() {
            if axis < 3 {
                assert!(expected.abs() <= extent_m + 53.0);
                worst_m = worst_m.max((value - expected).abs());
            } else {
                assert!(
                    (value - expected).abs() <= expected.abs().max(6.2e-5) * 2.0_f32.powi(-11),
                    "{value}, expected {expected}"
                );
            }
        }
    }
    assert!(worst_m > 0.0 && worst_m <= bound_m, "{worst_m} m");
}

/// Frames of which one axis reaches so far.
fn ramp(extent_m: f32) -> Sample {
    let id = SampleId { drive: "ramp".to_owned(), frame: 0 };
    let points = (0..=20_000).flat_map(|idx| [(idx as f32 / 20_000.0 * 2.0 - 1.0) * extent_m, 0.0, -2.0, 1e9]);
    let features = vec![Feature::X, Feature::Y, Feature::Z, Feature::Intensity];
    let template = sample(id, 0);
    let cloud = PointCloud { features, points: points.collect(), ..template.cloud };
    Sample { cloud, labels: None, in_no_label_zone: Vec::new(), ..template }
}

#[derive(Debug)]
struct One(Sample);

impl Source for One {
    fn len(&self) -> usize {
        1
    }

    fn id(&self, _index: usize) -> SampleId {
        self.0.id.clone()
    }

    fn load(&self, _epoch: u64, _index: usize) -> Result<Sample, pivotal::data::DataError> {
        Ok(self.0.clone())
    }

    fn fingerprint(&self) -> pivotal::data::Fingerprint {
        Made::new(1).fingerprint()
    }
}

#[test]
fn coordinates_in_16_bits_are_off_by_half_a_step_and_intensities_saturate() {
    // 32 767 steps of a power of two reach just short of 32, 64, 128 and 256 m.
    for (extent_m, step_m) in [
        (23.04, 1.0 / 1024.0),
        (31.9, 1.0 / 1024.0),
        (60.0, 1.0 / 512.0),
        (75.2, 1.0 / 256.0),
        (120.0, 1.0 / 256.0),
        (250.0, 1.0 / 128.0),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let direct = ramp(extent_m);
        cache::write(&One(direct.clone()), folder.path(), &settings(Precision::F16), &|_| {}).unwrap();
        let stored = cache::open(folder.path()).unwrap().load(0, 0).unwrap().cloud;
        let errors = stored.rows().zip(direct.cloud.rows()).map(|(row, expected)| (row[0] - expected[0]).abs());
        let worst_m = errors.fold(0.0, f32::max);
        assert!(worst_m <= step_m / 2.0 * 1.001 && worst_m > step_m / 4.0, "{extent_m} m: {worst_m} m, step {step_m} m");
        assert!(stored.rows().all(|row| row[1] == 0.0 && row[2] == -2.0 && row[3] == 65_504.0));
    }
}

#[test]
fn points_outside_a_range_go_with_their_flags_and_labels_at_the_border_are_counted_anew() {
    let mut whole = sample(SampleId { drive: "d".to_owned(), frame: 0 }, 0);
    let columns = vec![Feature::X, Feature::Y, Feature::Z];
    let rows = [[0.0, 0.0, 0.0], [9.9, 0.0, 0.5], [10.1, 0.0, 0.5], [0.0, -10.1, 0.0], [0.0, 0.0, 3.1], [-10.0, 10.0, 3.0]];
    whole.cloud = PointCloud { features: columns, points: rows.concat(), ..whole.cloud };
    whole.in_no_label_zone = vec![false, true, true, false, true, false];
    let template = sample(SampleId { drive: "d".to_owned(), frame: 0 }, 4).labels.unwrap()[1].clone();
    let label = |x: f64, n_points: u32| {
        let box3d = pivotal::geometry::Box3d::from_row([x, 0.0, 0.5, 2.0, 1.0, 2.0, 0.0]);
        pivotal::data::Label { box3d, n_points: Some(n_points), ..template.clone() }
    };
    whole.labels = Some(vec![label(0.0, 50), label(10.0, 60), label(10.8, 70), label(11.1, 80)]);
    let settings = CacheSettings { range_m: Some([-10.0, -10.0, -1.0, 10.0, 10.0, 3.0]), ..settings(Precision::F32) };
    let folder = tempfile::tempdir().unwrap();
    cache::write(&One(whole), folder.path(), &settings, &|_| {}).unwrap();
    let kept = cache::open(folder.path()).unwrap().load(0, 0).unwrap();
    assert_eq!(kept.cloud.points, [rows[0], rows[1], rows[5]].concat());
    assert_eq!(kept.in_no_label_zone, [false, true, false]);
    let labels: Vec<_> = kept.labels.unwrap().iter().map(|label| (label.box3d.center[0], label.n_points)).collect();
    assert_eq!(labels, [(0.0, Some(50)), (10.0, Some(1)), (10.8, Some(1))]);
}
