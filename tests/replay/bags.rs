//! Whole replays of small bags: what is written, that it repeats, and what damage does.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use pivotal::bag::{BagReader, BagWriter, OfferedQos, WriterOptions};
use pivotal::msgs::pivotal_msgs::FrameReport;
use pivotal::msgs::vision_msgs::{Detection3D, Detection3DArray};
use pivotal::msgs::visualization_msgs::MarkerArray;
use pivotal::msgs::{Message, cdr};
use pivotal::replay::record::{DetectedFrame, FrameOutcome, FrameRecord};
use pivotal::replay::{MARKERS_TOPIC, ModelInfo, OBJECTS_TOPIC, PictureOptions, REPORT_TOPIC, ReplayOptions};

use super::scenes::{PERIOD_NS, START_NS, TOPIC, cloud, clouds, options, replay, small_pipeline, write_bag};

fn records(out: &Path) -> Vec<FrameRecord> {
    let text = std::fs::read_to_string(out.join("detections.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn detected(record: &FrameRecord) -> &DetectedFrame {
    match &record.outcome {
        FrameOutcome::Detections(frame) => frame,
        FrameOutcome::Malformed { error } => panic!("cloud {}: {error}", record.index),
    }
}

/// Messages of one type in a written bag, with their log times.
fn messages<T: Message>(bag: &Path, topic: &str) -> Vec<(i64, T)> {
    let bag = BagReader::open(bag).unwrap();
    let wanted = bag.messages(|info| info.name == topic && info.type_name == T::TYPE.ros);
    wanted.map(|message| message.unwrap()).map(|message| (message.log_time_ns, cdr::from_bytes(&message.data).unwrap())).collect()
}

/// All files below a folder with their contents.
fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(root).unwrap().display().to_string(), std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

#[test]
fn replay_twice_gives_the_same_bytes_save_for_the_times() {
    let folder = tempfile::tempdir().unwrap();
    let bag = folder.path().join("bag");
    write_bag(&bag, &clouds(4));
    let outs = ["first", "second"].map(|name| {
        let out = folder.path().join(name);
        let summary = replay(&options(&bag, &out), &mut small_pipeline(32)).unwrap();
        assert!(!summary.loss(), "{summary}");
        assert!(summary.n_boxes > 0, "the comparison needs boxes");
        files(&out)
    });
    let names: Vec<&str> = outs[0].keys().map(String::as_str).collect();
    let frames = ["frames/000000.png", "frames/000001.png", "frames/000002.png", "frames/000003.png"];
    let others =
        ["detections.jsonl", "detections/detections_0.mcap", "detections/metadata.yaml", "foxglove-layout.json", "foxglove.mcap"];
    let expected: Vec<&str> = others.into_iter().chain(frames).chain(["index.html", "latency.json"]).collect();
    assert_eq!(names, expected);
    for (name, bytes) in &outs[0] {
        if !["index.html", "latency.json"].contains(&name.as_str()) {
            assert!(outs[1][name] == *bytes, "{name} differs between two runs");
        }
    }
}

#[test]
fn outputs_agree_with_each_other_and_with_the_input() {
    let folder = tempfile::tempdir().unwrap();
    let (bag, out) = (folder.path().join("bag"), folder.path().join("out"));
    write_bag(&bag, &clouds(3));
    let summary = replay(&options(&bag, &out), &mut small_pipeline(32)).unwrap();

    let records = records(&out);
    let arrays: Vec<(i64, Detection3DArray)> = messages(&out.join("detections"), OBJECTS_TOPIC);
    let markers: Vec<(i64, MarkerArray)> = messages(&out.join("detections"), MARKERS_TOPIC);
    let reports: Vec<(i64, FrameReport)> = messages(&out.join("detections"), REPORT_TOPIC);
    assert_eq!([records.len(), arrays.len(), markers.len(), reports.len()], [3; 4]);
    for (index, record) in records.iter().enumerate() {
        let header = cloud(index as i32).header;
        let log_time_ns = START_NS + index as i64 * PERIOD_NS;
        let frame = detected(record);
        assert_eq!((record.index, record.topic.as_str(), record.log_time_ns), (index as u64, TOPIC, log_time_ns));
        assert_eq!((frame.stamp, frame.frame_id.as_str()), ((header.stamp.sec, header.stamp.nanosec), "lidar"));
        assert_eq!((frame.points_received, frame.points_non_finite, frame.voxels.received), (600, 0, 600));
        let (array, report) = (&arrays[index].1, &reports[index].1);
        assert_eq!([arrays[index].0, markers[index].0, reports[index].0], [log_time_ns; 3]);
        assert_eq!([&array.header, &report.header], [&header; 2]);
        assert_eq!(array.detections.len(), frame.detections.len());
        assert_eq!(markers[index].1.markers.len(), 1 + 3 * frame.detections.len());
        for (detection, written) in array.detections.iter().zip(&frame.detections) {
            assert_eq!(detection.results[0].hypothesis.class_id, written.class);
            assert_eq!(detection.results[0].hypothesis.score, f64::from(written.score));
            let center = detection.bbox.center.position;
            assert_eq!([center.x, center.y, center.z], written.row[..3]);
        }
        assert_eq!(
            (report.points_in_voxels as usize, report.detections as usize),
            (frame.voxels.in_voxels, array.detections.len())
        );
        assert_eq!([report.decode_ms, report.backbone_ms, report.total_ms, report.latency_ms], [0.0; 4], "no times in the bag");
    }
    assert_eq!(summary.n_boxes, records.iter().map(|record| detected(record).detections.len() as u64).sum::<u64>());

    let foxglove = out.join("foxglove.mcap");
    assert_eq!(messages::<Detection3DArray>(&foxglove, OBJECTS_TOPIC), arrays);
    let points: Vec<_> = messages(&foxglove, TOPIC);
    assert_eq!(points, (0..3).map(|index| (START_NS + i64::from(index) * PERIOD_NS, cloud(index))).collect::<Vec<_>>());
    assert_eq!(BagReader::open(&foxglove).unwrap().topics().len(), 4, "clouds, objects, markers, tf");

    let latency: serde_json::Value = serde_json::from_slice(&std::fs::read(out.join("latency.json")).unwrap()).unwrap();
    assert_eq!((latency["frames"].as_array().unwrap().len(), latency["stages"]["total"]["n"].as_u64()), (3, Some(3)));
    let page = std::fs::read_to_string(out.join("index.html")).unwrap();
    for part in
        ["frames/000002.png", "<tr id=\"f2\" class=\"pick\">", "1700000002.000000500", "backbone", "3 processed, 0 malformed"]
    {
        assert!(page.contains(part), "{part}");
    }
}

#[test]
fn malformed_clouds_are_listed_and_stepped_over() {
    let folder = tempfile::tempdir().unwrap();
    let (bag, out) = (folder.path().join("bag"), folder.path().join("out"));
    let mut bytes = clouds(5);
    let mut short = cloud(1);
    short.data.truncate(100);
    bytes[1] = cdr::to_bytes(&short);
    bytes[3] = vec![0, 1, 0, 0, 9, 9];
    write_bag(&bag, &bytes);
    let summary = replay(&options(&bag, &out), &mut small_pipeline(16)).unwrap();
    assert!(summary.loss());
    assert_eq!((summary.n_processed, summary.losses.len()), (3, 0));
    let malformed: Vec<_> = summary.malformed.iter().map(|cloud| (cloud.index, cloud.log_time_ns, cloud.stamp)).collect();
    assert_eq!(malformed, [(1, START_NS + PERIOD_NS, Some((1_700_000_001, 500))), (3, START_NS + 3 * PERIOD_NS, None)]);
    assert!(summary.malformed[0].reason.contains("100"), "{}", summary.malformed[0].reason);

    let records = records(&out);
    assert_eq!(records.iter().map(|record| record.index).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert_eq!(records[1].outcome, FrameOutcome::Malformed { error: summary.malformed[0].reason.clone() });
    detected(&records[4]);
    let reports: Vec<(i64, FrameReport)> = messages(&out.join("detections"), REPORT_TOPIC);
    assert_eq!(reports.len(), 4, "none for the cloud without a header");
    assert_eq!((reports[1].1.clouds_failed, reports[3].1.clouds_failed), (1, 2));
    let page = std::fs::read_to_string(out.join("index.html")).unwrap();
    assert!(page.contains("Finished with loss") && page.contains("3 processed, 2 malformed"));
    assert!(summary.to_string().contains("finished with loss:\n  cloud 1: "), "{summary}");
}

#[test]
fn messages_before_1970_are_losses_and_the_others_are_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let (bag, out) = (folder.path().join("bag.db3"), folder.path().join("out"));
    let db = rusqlite::Connection::open(&bag).unwrap();
    db.execute_batch(
        "CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL, serialization_format TEXT NOT NULL);
         CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL, timestamp INTEGER NOT NULL, data BLOB NOT NULL);
         INSERT INTO topics VALUES (1, '/lidar/points', 'sensor_msgs/msg/PointCloud2', 'cdr'),
             (2, '/tf', 'tf2_msgs/msg/TFMessage', 'cdr');",
    )
    .unwrap();
    let frames = cdr::to_bytes(&pivotal::msgs::tf2_msgs::TFMessage::default());
    for (topic_id, time_ns, data) in
        [(1, -5, &clouds(1)[0]), (2, -4, &frames), (2, START_NS, &frames), (1, START_NS, &clouds(2)[1])]
    {
        let row = rusqlite::params![topic_id, time_ns, data];
        db.execute("INSERT INTO messages(topic_id, timestamp, data) VALUES (?1, ?2, ?3)", row).unwrap();
    }
    drop(db);
    let summary = replay(&options(&bag, &out), &mut small_pipeline(16)).unwrap();
    assert_eq!((summary.n_processed, summary.malformed.len()), (1, 0));
    let named = [("/lidar/points", -5), ("/tf", -4)].map(|(topic, time_ns)| {
        format!("topic {topic}: log time {time_ns} ns is negative, 0 or later is replayed (messages lost: 1)")
    });
    assert_eq!(summary.losses, named);
    assert!(summary.loss() && out.join("index.html").exists());
    assert_eq!(messages::<pivotal::msgs::tf2_msgs::TFMessage>(&out.join("foxglove.mcap"), "/tf").len(), 1);
}

#[test]
fn flags_are_those_of_the_live_node() {
    let folder = tempfile::tempdir().unwrap();
    let (bag, out) = (folder.path().join("bag"), folder.path().join("out"));
    write_bag(&bag, &[0, 5, 3, 4].map(|index| cdr::to_bytes(&cloud(index))));
    replay(&options(&bag, &out), &mut small_pipeline(16)).unwrap();
    // The clouds have no elongation; the third is older than the second.
    let expected: [&[&str]; 4] =
        [&["column_filled"], &["column_filled"], &["column_filled", "time_jump_back"], &["column_filled"]];
    let reports: Vec<(i64, FrameReport)> = messages(&out.join("detections"), REPORT_TOPIC);
    for (index, record) in records(&out).iter().enumerate() {
        let flags = |all: &[String]| all.iter().filter(|flag| !flag.ends_with("_cap")).cloned().collect::<Vec<_>>();
        assert_eq!(flags(&detected(record).flags), expected[index], "cloud {index}");
        assert_eq!(flags(&reports[index].1.flags), expected[index], "cloud {index}");
    }
}

#[test]
fn truncated_bag_is_replayed_as_far_as_it_goes() {
    let folder = tempfile::tempdir().unwrap();
    let (bag, out) = (folder.path().join("bag"), folder.path().join("out"));
    let file = write_bag(&bag, &clouds(6));
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() * 6 / 10]).unwrap();
    let summary = replay(&options(&bag, &out), &mut small_pipeline(16)).unwrap();
    assert!(summary.loss());
    assert!(!summary.losses.is_empty());
    assert!((1..6).contains(&summary.n_processed), "{summary}");
    assert_eq!(records(&out).len() as u64, summary.n_processed);
    assert_eq!(messages::<Detection3DArray>(&out.join("detections"), OBJECTS_TOPIC).len() as u64, summary.n_processed);
}

#[test]
fn offsets_and_limits_choose_clouds_and_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let bag = folder.path().join("bag");
    write_bag(&bag, &clouds(10));
    let mut pipeline = small_pipeline(16);
    let all = |out: &Path| ReplayOptions { foxglove: false, ..options(&bag, out) };
    let every = |out: &Path, every: u64| PictureOptions { every, ..all(out).pictures };
    type Change<'a> = &'a dyn Fn(ReplayOptions) -> ReplayOptions;
    // Log times of the first and last cloud in tenths of a second, number of pictures.
    let cases: [(Change<'_>, i64, i64, usize); 5] = [
        (&|all| ReplayOptions { pictures: every(&all.out, 4), ..all }, 0, 9, 3),
        (&|all| ReplayOptions { pictures: every(&all.out, 0), max_frames: Some(2), ..all }, 0, 1, 0),
        (&|all| ReplayOptions { start_offset_s: 0.35, ..all }, 4, 9, 6),
        (&|all| ReplayOptions { end_offset_s: Some(0.2), ..all }, 0, 2, 3),
        (&|all| ReplayOptions { start_offset_s: 0.5, end_offset_s: Some(0.5), ..all }, 5, 5, 1),
    ];
    for (case_idx, (change, first, last, n_pictures)) in cases.into_iter().enumerate() {
        let out = folder.path().join(format!("out{case_idx}"));
        replay(&change(all(&out)), &mut pipeline).unwrap();
        let tenths: Vec<i64> = records(&out).iter().map(|record| (record.log_time_ns - START_NS) / PERIOD_NS).collect();
        assert_eq!(tenths, (first..=last).collect::<Vec<_>>(), "case {case_idx}");
        assert_eq!(std::fs::read_dir(out.join("frames")).unwrap().count(), n_pictures, "case {case_idx}");
        assert!(!out.join("foxglove.mcap").exists());
    }
}

#[test]
fn boxes_of_the_score_threshold_or_less_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let (bag, all, best) = (folder.path().join("bag"), folder.path().join("all"), folder.path().join("best"));
    write_bag(&bag, &clouds(2));
    let mut pipeline = small_pipeline(16);
    replay(&options(&bag, &all), &mut pipeline).unwrap();
    let mut arrays: Vec<(i64, Detection3DArray)> = messages(&all.join("detections"), OBJECTS_TOPIC);
    let score = |detection: &Detection3D| detection.results[0].hypothesis.score as f32;
    let mut scores: Vec<f32> = arrays.iter().flat_map(|(_, array)| array.detections.iter().map(score)).collect();
    scores.sort_by(f32::total_cmp);
    let score_threshold = scores[scores.len() / 2];
    replay(&ReplayOptions { score_threshold, ..options(&bag, &best) }, &mut pipeline).unwrap();
    for (_, array) in &mut arrays {
        array.detections.retain(|detection| score(detection) > score_threshold);
    }
    assert!(arrays.iter().any(|(_, array)| !array.detections.is_empty()));
    assert_eq!(messages::<Detection3DArray>(&best.join("detections"), OBJECTS_TOPIC), arrays);
}

#[test]
fn options_that_cannot_be_met_are_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let bag = folder.path().join("bag");
    write_bag(&bag, &clouds(1));
    let out = folder.path().join("out");
    let foreign = folder.path().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("thesis.tex"), "x").unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let all = options(&bag, &out);
    let cases = [
        (
            ReplayOptions { topic: Some("/other".into()), ..all.clone() },
            "no topic `/other` of type sensor_msgs/msg/PointCloud2; the bag has ",
        ),
        (ReplayOptions { truth_topic: Some(TOPIC.into()), ..all.clone() }, "of type vision_msgs/msg/Detection3DArray"),
        (ReplayOptions { score_threshold: 1.0, ..all.clone() }, "score threshold = 1: must be in [0, 1)"),
        (ReplayOptions { start_offset_s: -1.0, ..all.clone() }, "start offset = -1: must be 0 or more seconds"),
        (ReplayOptions { end_offset_s: Some(f64::NAN), ..all.clone() }, "end offset = NaN: must be 0 or more seconds"),
        (ReplayOptions { start_offset_s: 3.0, end_offset_s: Some(2.0), ..all.clone() }, "start offset = 3 s: must not be beyond"),
        (
            ReplayOptions { pictures: PictureOptions { edge_px: 100_000, ..all.pictures.clone() }, ..all.clone() },
            "pictures: picture of 100000 x",
        ),
        (
            ReplayOptions { pictures: PictureOptions { range_m: Some(-5.0), ..all.pictures.clone() }, ..all.clone() },
            "pictures: picture of ",
        ),
        (
            ReplayOptions { out: foreign.clone(), overwrite: true, ..all.clone() },
            "foreign is not empty and holds no earlier replay",
        ),
        (ReplayOptions { out: file.clone(), ..all.clone() }, "file: File exists"),
        (ReplayOptions { bag: folder.path().join("none"), ..all.clone() }, "none: No such file"),
    ];
    let mut pipeline = small_pipeline(16);
    for (options, expected) in cases {
        let message = replay(&options, &mut pipeline).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        assert!(!out.exists(), "{expected}");
    }
    assert_eq!(files(&foreign).len(), 1);
}

#[test]
fn earlier_replay_is_replaced_only_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let (bag, out) = (folder.path().join("bag"), folder.path().join("out"));
    write_bag(&bag, &clouds(3));
    let mut pipeline = small_pipeline(16);
    replay(&options(&bag, &out), &mut pipeline).unwrap();
    std::fs::write(out.join("notes.txt"), "mine").unwrap();
    let before = files(&out);
    let message = replay(&options(&bag, &out), &mut pipeline).unwrap_err().to_string();
    assert!(message.ends_with("out is not empty; it holds an earlier replay, which may be overwritten on request"), "{message}");
    assert!(files(&out) == before, "nothing was touched");
    replay(&ReplayOptions { overwrite: true, max_frames: Some(1), foxglove: false, ..options(&bag, &out) }, &mut pipeline)
        .unwrap();
    let after = files(&out);
    assert_eq!(after["notes.txt"], b"mine");
    assert_eq!(after.keys().filter(|name| name.starts_with("frames/") || name.starts_with("foxglove")).count(), 1);
}

#[test]
fn stop_finishes_the_cloud_in_work_and_all_files() {
    let folder = tempfile::tempdir().unwrap();
    let (bag, out) = (folder.path().join("bag"), folder.path().join("out"));
    write_bag(&bag, &clouds(6));
    let stop = AtomicBool::new(false);
    let model = ModelInfo {
        name: "small".into(),
        device: "cpu".into(),
        weights_sha256: String::new(),
        spec_line: String::new(),
        provenance: String::new(),
    };
    let mut seen = Vec::new();
    let mut progress = |progress: &pivotal::replay::Progress| {
        seen.push((progress.n_done, progress.n_promised));
        stop.store(progress.n_done == 2, Ordering::Relaxed);
    };
    let summary = pivotal::replay::run(&options(&bag, &out), &mut small_pipeline(16), &model, &mut progress, &stop).unwrap();
    assert_eq!(seen, [(1, 6), (2, 6)]);
    assert!(summary.interrupted && !summary.loss());
    assert_eq!(messages::<Detection3DArray>(&out.join("detections"), OBJECTS_TOPIC).len(), 2);
    assert!(out.join("index.html").exists() && out.join("latency.json").exists());
    assert!(summary.to_string().contains("(stopped before the end)"), "{summary}");
}

#[test]
fn true_boxes_are_matched_by_stamp_and_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let (bag, out) = (folder.path().join("bag"), folder.path().join("out"));
    write_bag(&bag, &clouds(3));
    let mut pipeline = small_pipeline(16);
    replay(&options(&bag, &out), &mut pipeline).unwrap();

    // What was found is the truth, all logged at the end, the last frame without an array.
    let arrays: Vec<(i64, Detection3DArray)> = messages(&out.join("detections"), OBJECTS_TOPIC);
    let with_truth = folder.path().join("with_truth");
    let mut writer = BagWriter::create(&with_truth, &WriterOptions::default()).unwrap();
    let points = writer.add_topic(TOPIC, pivotal::msgs::sensor_msgs::PointCloud2::TYPE, OfferedQos::SENSOR).unwrap();
    let truth = writer.add_topic("/truth", Detection3DArray::TYPE, OfferedQos::RELIABLE).unwrap();
    for (bytes, index) in clouds(3).iter().zip(0..) {
        writer.write(points, START_NS + index * PERIOD_NS, bytes).unwrap();
    }
    for (_, array) in &arrays[..2] {
        writer.write(truth, START_NS + 9 * PERIOD_NS, &cdr::to_bytes(array)).unwrap();
    }
    writer.finish().unwrap();
    let compared = folder.path().join("compared");
    let options = ReplayOptions { truth_topic: Some("/truth".into()), ..options(&with_truth, &compared) };
    let summary = replay(&options, &mut pipeline).unwrap();
    let matches = summary.truth.as_ref().unwrap();
    assert_eq!((matches.topic.as_str(), matches.n_frames), ("/truth", 2));
    let n_true: usize = arrays[..2].iter().map(|(_, array)| array.detections.len()).sum();
    let sums = matches
        .classes
        .iter()
        .fold([0; 3], |sums, class| [sums[0] + class.truth, sums[1] + class.detected, sums[2] + class.matched]);
    assert_eq!(sums, [n_true as u64; 3]);
    assert_ne!(files(&out)["frames/000000.png"], files(&compared)["frames/000000.png"]);
    let page = std::fs::read_to_string(compared.join("index.html")).unwrap();
    assert!(page.contains("<dt>Ground truth</dt><dd><code>/truth</code>, 2 frames"), "{page}");
}

#[test]
fn true_boxes_that_cannot_be_read_are_losses() {
    let folder = tempfile::tempdir().unwrap();
    let (bag, out) = (folder.path().join("bag"), folder.path().join("out"));
    let mut writer = BagWriter::create(&bag, &WriterOptions::default()).unwrap();
    let points = writer.add_topic(TOPIC, pivotal::msgs::sensor_msgs::PointCloud2::TYPE, OfferedQos::SENSOR).unwrap();
    let truth = writer.add_topic("/truth", Detection3DArray::TYPE, OfferedQos::RELIABLE).unwrap();
    writer.write(points, START_NS, &clouds(1)[0]).unwrap();
    writer.write(truth, START_NS + 1, &cdr::to_bytes(&Detection3DArray::default())).unwrap();
    writer.write(truth, START_NS + 2, &[0, 1, 0, 0, 9]).unwrap();
    writer.finish().unwrap();
    // The metadata promises one array more than there is; a named file is missing, which every pass meets.
    let metadata = bag.join("metadata.yaml");
    let text = std::fs::read_to_string(&metadata).unwrap();
    let promising = text.replacen("message_count: 2", "message_count: 3", 1);
    let promising = promising.replacen("relative_file_paths:\n", "relative_file_paths:\n  - lost.mcap\n", 1);
    assert_ne!(text, promising);
    std::fs::write(&metadata, promising).unwrap();
    let options = ReplayOptions { truth_topic: Some("/truth".into()), ..options(&bag, &out) };
    let summary = replay(&options, &mut small_pipeline(16)).unwrap();
    assert_eq!(summary.n_processed, 1);
    let count = |part: &str| summary.losses.iter().filter(|loss| loss.contains(part)).count();
    assert_eq!(count(&format!("topic /truth: message logged at {} ns: ", START_NS + 2)), 1, "{:?}", summary.losses);
    assert_eq!(count("3 messages promised, 2 found"), 1, "{:?}", summary.losses);
    assert_eq!(count("lost.mcap"), 1, "{:?}", summary.losses);
    assert!(summary.loss());
}

#[test]
fn device_of_the_model_is_named_as_it_is_asked_for() {
    assert_eq!(ModelInfo::new("", "", &small_pipeline(8)).device, "cpu (cpu was asked for)");
}
