//! What a user types, and what of it is refused with which words.

use std::collections::BTreeSet;

use pivotal::cloud::Feature;
use pivotal::data::{DataConfig, SourceConfig, is_val_drive, open, option_table};
use pivotal::synth::DriveConfig;
use pivotal::synth::record::write_bag;
use pivotal::synth::sensor::SensorKind;

use super::{Entry, T0_NS, cloud, load_all, write_bag as write_made};

#[test]
fn synthetic_drives_equal_the_bags_made_of_them() {
    let folder = tempfile::tempdir().unwrap();
    for drive in 0..2 {
        let config = DriveConfig::new(5, drive, 2, SensorKind::Spinning16);
        write_bag(&config, &folder.path().join(format!("drive_{drive}")), &mut |_| {}).unwrap();
    }
    let bags = open(folder.path().to_str().unwrap()).unwrap();
    let direct = open("synth:seed=5,drives=2,frames=2,sensor=spinning16").unwrap();
    assert_eq!((bags.len(), direct.len()), (4, 4));
    assert_eq!(bags.findings(), []);
    assert_eq!(bags.id(3).to_string(), "drive_1/1");
    assert_eq!(direct.id(3).to_string(), "synth5-spinning16-0001/1");
    // Out of order, as training asks.
    for index in [3, 0, 2, 1] {
        let (bag, made) = (bags.load(0, index).unwrap(), direct.load(7, index).unwrap());
        assert_eq!(bag.cloud.features, [made.cloud.features.as_slice(), &[Feature::TimeOffset]].concat());
        assert_eq!((bag.cloud.stamp, &bag.cloud.frame_id), (made.cloud.stamp, &made.cloud.frame_id));
        assert!(bag.cloud.rows().map(|row| &row[..5]).eq(made.cloud.rows()), "{index}");
        let (found, wanted) = (bag.labels.unwrap(), made.labels.unwrap());
        assert_eq!(found.len(), wanted.len());
        assert!(!wanted.is_empty());
        for (found, mut wanted) in found.into_iter().zip(wanted) {
            assert!((found.box3d.yaw - wanted.box3d.yaw).abs() < 1e-12);
            wanted.box3d.yaw = found.box3d.yaw;
            assert_eq!(found, wanted);
        }
        let (found, wanted) = (bag.world_from_cloud.unwrap(), made.world_from_cloud.unwrap());
        assert!((found.to_homogeneous() - wanted.to_homogeneous()).amax() < 1e-9);
    }
}

#[test]
fn samples_are_other_streets_in_every_epoch_and_the_same_when_asked_again() {
    let source = open("synth:seed=3,samples=2,sensor=spinning16").unwrap();
    assert_eq!((source.len(), source.id(1).to_string().as_str()), (2, "synth3-spinning16-samples/1"));
    let load = |epoch, index| source.load(epoch, index).unwrap().cloud.points;
    assert_eq!(load(0, 1), load(0, 1));
    assert_ne!(load(0, 1), load(1, 1));
    assert_ne!(load(0, 0), load(0, 1));
}

#[test]
fn splits_are_by_drive_disjoint_and_keep_drives_when_others_are_added() {
    let ids = |text: &str| {
        let source = open(text).unwrap();
        (0..source.len()).map(|index| source.id(index)).collect::<BTreeSet<_>>()
    };
    let drives = |text: &str| ids(text).into_iter().map(|id| id.drive).collect::<BTreeSet<_>>();
    let all = ids("synth:drives=20,frames=2");
    let (train, val) = (ids("synth:drives=20,frames=2,split=train"), ids("synth:drives=20,frames=2,split=val"));
    assert!(train.is_disjoint(&val) && train.union(&val).cloned().collect::<BTreeSet<_>>() == all);
    let [few, many] = ["synth:drives=20,frames=2,split=val", "synth:drives=80,frames=2,split=val"].map(drives);
    assert!(few.is_subset(&many) && few.len() < many.len(), "{few:?} {many:?}");
    let n_val = (0..10_000).filter(|drive| is_val_drive(&format!("drive {drive}"), 0.2)).count();
    assert!((1_900..2_100).contains(&n_val), "{n_val} of 10000 drives at 0.2");

    let second = drives("synth:drives=3,frames=2,only=synth1-spinning64-0001");
    assert_eq!(second.into_iter().collect::<Vec<_>>(), ["synth1-spinning64-0001"]);
    assert_eq!(drives("synth:drives=3,frames=2,except=synth1-spinning64-0001").len(), 2);
    let thinned = ids("synth:drives=2,frames=5,every=2");
    assert_eq!(thinned.iter().map(|id| id.frame).collect::<Vec<_>>(), [0, 2, 4, 0, 2, 4]);
    let list = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(list.path(), "synth1-spinning64-0002\n\nsynth1-spinning64-0000\n").unwrap();
    assert_eq!(drives(&format!("synth:drives=3,frames=2,only=@{}", list.path().display())).len(), 2);
}

#[test]
fn joined_sources_keep_their_order_and_rename_classes() {
    let text = "synth:drives=1,frames=2,sensor=spinning16,classes=Vehicle:car/Pedestrian:; synth:seed=2,drives=1,frames=1,sensor=spinning16";
    let source = open(text).unwrap();
    let ids: Vec<String> = (0..source.len()).map(|index| source.id(index).to_string()).collect();
    assert_eq!(ids, ["synth1-spinning16-0000/0", "synth1-spinning16-0000/1", "synth2-spinning16-0000/0"]);
    let classes = |index: usize| {
        let labels = source.load(0, index).unwrap().labels.unwrap();
        labels.into_iter().map(|label| label.class).collect::<BTreeSet<_>>()
    };
    let first: BTreeSet<String> = classes(0).union(&classes(1)).cloned().collect();
    assert!(first.contains("car") && !first.contains("Vehicle") && !first.contains("Pedestrian"), "{first:?}");
    assert!(classes(2).contains("Vehicle"));
    let prefixed = open("synth:frames=1;synth:frames=1,prefix=b-").unwrap();
    assert_eq!(prefixed.id(1).drive, "b-synth1-spinning64-0000");
}

#[test]
fn yaml_says_the_same_as_text() {
    let text = "/data/a,b,split=train,topic=/points,classes=car:Vehicle,columns=x/y/z;synth:seed=2,samples=9,two_returns=true";
    let yaml = "
- {source: \"/data/a,b\", split: train, topic: /points, classes: {car: Vehicle}, columns: [x, y, z]}
- \"synth:seed=2,samples=9,two_returns=true\"
";
    let parsed = DataConfig::parse(text).unwrap();
    assert_eq!(parsed.0[0].source, "/data/a,b");
    assert_eq!(serde_saphyr::from_str::<DataConfig>(yaml).unwrap(), parsed);
    let written = serde_saphyr::to_string(&parsed).unwrap();
    assert_eq!(serde_saphyr::from_str::<DataConfig>(&written).unwrap(), parsed, "{written}");
    assert_eq!(serde_saphyr::from_str::<DataConfig>("synth:seed=2").unwrap(), DataConfig::parse("synth:seed=2").unwrap());
    let fault = serde_saphyr::from_str::<DataConfig>("- {source: synth, sed: 2}").unwrap_err().to_string();
    assert!(fault.contains("sed"), "{fault}");
}

#[test]
fn option_table_lists_every_setting_and_no_other() {
    let full = SourceConfig::parse(
        "p,split=val,val_fraction=0.5,only=a,except=b,every=2,prefix=p,classes=a:b,topic=t,labels=auto,label_topic=t,\
         label_file=f,label_window_ms=1,target_frame=f,world_frame=w,columns=x,fields=intensity:i,intensity_scale=2,\
         seed=1,drives=1,frames=1,samples=1,sensor=waymo5,rate_hz=5,two_returns=true",
    )
    .unwrap();
    let full = serde_json::json!(full);
    let set: BTreeSet<&str> = full.as_object().unwrap().keys().map(String::as_str).collect();
    let table = option_table();
    let listed: BTreeSet<&str> = table.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(listed, set);
    let fault = serde_saphyr::from_str::<SourceConfig>("{source: a, nothing: 1}").unwrap_err().to_string();
    let fields: BTreeSet<&str> = table.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert!(fields.iter().all(|name| fault.contains(name)), "{fault}");
}

#[test]
fn what_is_no_source_is_refused_with_what_would_be() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    for name in ["empty", "kitti/velodyne", "two/a", "two/b"] {
        std::fs::create_dir_all(path(name)).unwrap();
    }
    std::fs::write(path("text.txt"), "hello").unwrap();
    let cases = [
        (String::new(), "it is empty; expected a path, or synth:"),
        (" ; ".to_owned(), "it is empty"),
        (",seed=1".to_owned(), "it is empty"),
        (path("nowhere"), "No such file"),
        (path("empty"), "expected a bag, a folder of bags, Waymo"),
        (path("text.txt"), "not a storage file of rosbag2"),
        (path("kitti"), "`trainer convert kitti` makes bags of it"),
        ("synth:sed=1".to_owned(), "there is no `sed` for any source; there is split, val_fraction, only,"),
        ("synth:topic=/a".to_owned(), "there is no `topic` for synthetic drives; there is split, "),
        ("synth:seed=x".to_owned(), "seed = x: expected a number"),
        ("synth:seed=1.5".to_owned(), "seed = 1.5: "),
        ("synth:seed=1,seed=2".to_owned(), "seed = 2: it is given twice"),
        ("synth:two_returns=yes".to_owned(), "two_returns = yes: expected true or false"),
        ("synth:sensor=spinning8".to_owned(), "sensor = spinning8: unknown variant"),
        ("synth:frames=0".to_owned(), "n_frames is 0, a drive has 1 to"),
        ("synth:rate_hz=0.01".to_owned(), "rate_hz is 0.01"),
        ("synth:drives=0".to_owned(), "drives = 0: expected 1 to 1000000"),
        ("synth:samples=0".to_owned(), "samples = 0: expected 1 or more"),
        ("synth:samples=5,drives=2".to_owned(), "samples = 5: expected not together with drives or frames"),
        ("synth:samples=5,split=val".to_owned(), "another seed validates"),
        ("synth:classes=car".to_owned(), "classes = car: expected NAME:OTHER, got `car`"),
        ("synth:every=0".to_owned(), "every = 0: expected 1 or more"),
        ("synth:split=test".to_owned(), "split = test: unknown variant `test`, expected `train` or `val`"),
        ("synth:val_fraction=0.1".to_owned(), "only together with split"),
        ("synth:split=val,val_fraction=1".to_owned(), "val_fraction = 1.0: expected above 0 and below 1"),
        (
            "synth:drives=2,split=val,val_fraction=0.0001".to_owned(),
            "leaves no drive for val; choose drives with only=… and except=…, or another val_fraction; drives: \
             synth1-spinning64-0000, synth1-spinning64-0001",
        ),
        ("synth:only=other".to_owned(), "there is no drive `other`; drives: synth1-spinning64-0000"),
        ("synth:except=synth1-spinning64-0000".to_owned(), "no drive is left; drives: synth1-spinning64-0000"),
        ("synth:only=@/nowhere".to_owned(), "only = @/nowhere: No such file"),
        (
            "synth:frames=1;synth:frames=2".to_owned(),
            "drive `synth1-spinning64-0000` is in `synth:seed=1,frames=1` and in `synth:seed=1,frames=2`; give one of them a prefix",
        ),
    ];
    for (text, expected) in cases {
        let message = open(&text).unwrap_err().to_string();
        assert!(message.contains(expected), "`{text}` gave: {message}\nexpected: {expected}");
    }
}

#[test]
fn fingerprints_change_with_what_frames_are_made_from() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, n_clouds: i64| {
        let path = folder.path().join(name).join("drive");
        let clouds: Vec<Entry> =
            (0..n_clouds).map(|idx| Entry::Cloud(cloud(T0_NS + idx * 1_000_000, "lidar", &[[1.0, 2.0, 3.0, 4.0]]))).collect();
        write_made(&path, &clouds);
        path.display().to_string()
    };
    let (first, longer) = (write("first", 2), write("longer", 3));
    let bag = |text: &str| open(text).unwrap().fingerprint().sha256;
    let mut seen = BTreeSet::new();
    for text in [
        first.as_str(),
        &longer,
        &format!("{first},every=2"),
        &format!("{first},intensity_scale=0.5"),
        &format!("{first},classes=a:b"),
        "synth:frames=2,sensor=spinning16",
        "synth:frames=3,sensor=spinning16",
        "synth:seed=2,frames=2,sensor=spinning16",
        "synth:samples=2,sensor=spinning16",
    ] {
        assert_eq!(bag(text), bag(text), "{text}");
        assert!(seen.insert(bag(text)), "{text} has the fingerprint of another");
    }
    assert_eq!(load_all(open(&format!("{first},every=2")).unwrap().as_ref()).len(), 1);
}
