//! What the JSON readers and the settings refuse, and how they say so.

use pivotal::eval::config::MetricsConfig;
use pivotal::eval::{self, EvalFrame, json};
use serde_json::{Value, json};

const GOOD_PREDICTION: &str = r#"{"frame":0,"type":1,"score":0.5,"overlap_with_nlz":false,"box":[0,0,0,4,2,1.5,0]}"#;
const GOOD_TRUTH: &str = r#"{"frame":0,"type":1,"difficulty":1,"speed":[0,0],"box":[0,0,0,4,2,1.5,0]}"#;

fn read(text: &str) -> Result<Vec<EvalFrame>, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("input.json");
    std::fs::write(&path, text).unwrap();
    json::read_input(&path).map_err(|error| {
        let message = error.to_string();
        message.strip_prefix(&format!("{}: ", path.display())).expect("the message begins with the file").to_owned()
    })
}

fn input(prediction: &str, truth: &str) -> String {
    format!(r#"{{"predictions":[{prediction}],"ground_truths":[{truth}]}}"#)
}

#[test]
fn bad_objects_are_refused_by_place_and_key() {
    assert_eq!(read(&input(GOOD_PREDICTION, GOOD_TRUTH)).unwrap().len(), 1);
    for (from, to, wanted) in [
        (r#""score":0.5,"#, "", "missing field `score`"),
        (r#""overlap_with_nlz":false,"#, "", "missing field `overlap_with_nlz`"),
        (r#""score":0.5"#, r#""score":NaN"#, "expected value"),
        (r#""score":0.5"#, r#""score":null"#, "invalid type: null"),
        (r#""score":0.5"#, r#""score":1e39"#, "number out of range"),
        (r#""score":0.5"#, r#""score":1e999"#, "number out of range"),
        (r#""score":0.5"#, r#""score":0.5,"score":0.6"#, "duplicate field `score`"),
        (r#""type":1"#, r#""type":5"#, "predictions[0].type: must be 0 (unknown) to 4 (cyclist), got 5"),
        (r#""type":1"#, r#""type":-1"#, "invalid value: integer `-1`"),
        (r#""frame":0"#, r#""frame":1e30"#, "invalid type: floating point"),
        (r#""frame":0"#, r#""frame":99999999999999999999"#, "expected i64"),
        ("[0,0,0,4,2,1.5,0]", "[0,0,0,4,2,1.5]", "invalid length 6"),
        ("[0,0,0,4,2,1.5,0]", "[0,0,0,4,2,1.5,0,0]", "trailing characters"),
        ("[0,0,0,4,2,1.5,0]", "[0,0,0,4,2,-1e39,0]", "number out of range"),
    ] {
        let message = read(&input(&GOOD_PREDICTION.replace(from, to), GOOD_TRUTH)).unwrap_err();
        assert!(message.contains(wanted), "{to}: {message}");
    }
    for (from, to, wanted) in [
        (r#""difficulty":1"#, r#""difficulty":3"#, "ground_truths[0].difficulty: must be 0, 1 or 2, got 3"),
        (r#""difficulty":1,"#, "", "missing field `difficulty`"),
        (r#""speed":[0,0]"#, r#""speed":[0,1e39]"#, "number out of range"),
        (r#""type":1"#, r#""type":"VEHICLE""#, "invalid type: string"),
    ] {
        let message = read(&input(GOOD_PREDICTION, &GOOD_TRUTH.replace(from, to))).unwrap_err();
        assert!(message.contains(wanted), "{to}: {message}");
    }
}

#[test]
fn broken_files_are_refused_with_their_place() {
    for (text, wanted) in [
        ("", "EOF while parsing"),
        ("[]", "invalid length 0"),
        (r#"{"predictions":[]}"#, "missing field `ground_truths`"),
        (r#"{"predictions":[],"ground_truths":[],"predictions":[]}"#, "duplicate field `predictions`"),
        (r#"{"predictions":[],"ground_truths":[]} x"#, "trailing characters"),
    ] {
        let message = read(text).unwrap_err();
        assert!(message.contains(wanted), "{text}: {message}");
    }
    let missing = json::read_input(std::path::Path::new("/nowhere/x.json")).unwrap_err().to_string();
    assert!(missing.starts_with("/nowhere/x.json: "), "{missing}");
}

#[test]
fn speed_may_be_left_out_and_other_keys_are_ignored() {
    let truth = GOOD_TRUTH.replace(r#""speed":[0,0]"#, r#""num_points":7"#);
    assert_eq!(read(&input(GOOD_PREDICTION, &truth)).unwrap()[0].ground_truths[0].speed_mps, [0.0; 2]);
}

#[test]
fn frame_with_more_objects_than_can_be_matched_is_refused() {
    let many = vec![GOOD_PREDICTION; eval::objects::MAX_OBJECTS_PER_FRAME + 1].join(",");
    let frames = read(&input(&many, GOOD_TRUTH)).unwrap();
    let error = eval::measure(&frames, &MetricsConfig::leaderboard()).unwrap_err().to_string();
    assert_eq!(error, "frame 0 has 5001 predictions, at most 5000 can be matched");
}

#[test]
fn objects_in_memory_are_checked_too() {
    let good = read(&input(GOOD_PREDICTION, GOOD_TRUTH)).unwrap();
    let refuse = |change: fn(&mut EvalFrame)| {
        let mut frames = good.clone();
        change(&mut frames[0]);
        eval::measure(&frames, &MetricsConfig::leaderboard()).unwrap_err().to_string()
    };
    assert!(refuse(|f| f.predictions[0].score = f32::NAN).starts_with("frame 0, prediction 0: score must be finite"));
    assert!(refuse(|f| f.ground_truths[0].box3d.yaw = f64::NAN).starts_with("frame 0, ground truth 0: box must be finite"));
    assert!(refuse(|f| f.ground_truths[0].difficulty = 3).starts_with("frame 0, ground truth 0: difficulty must be"));
}

#[test]
fn settings_that_break_a_rule_are_refused_by_key() {
    let good = serde_json::to_value(MetricsConfig::leaderboard()).unwrap();
    for (key, value, wanted) in [
        ("iou_thresholds", json!([0.7, 0.5]), "config.iou_thresholds: 5 numbers from 0 to 1, by object type, got [0.7, 0.5]"),
        ("iou_thresholds", json!([0, 0.7, 0.5, 0.5, 1.5]), "config.iou_thresholds: 5 numbers"),
        ("desired_recall_delta", json!(0.0), "config.desired_recall_delta: 0.0001 to 1, got 0"),
        ("desired_recall_delta", json!(1e-9), "config.desired_recall_delta: 0.0001 to 1"),
        ("difficulties", json!([{}]), "config.difficulties: one entry for each of 2 breakdown_generator_ids, got 1"),
        ("difficulties", json!([{}, {"levels": ["LEVEL_3"]}]), "unknown variant `LEVEL_3`"),
        ("score_cutoffs", json!([]), "config.num_desired_score_cutoffs: 1 to 10000 where score_cutoffs is empty, got none"),
        ("score_cutoffs", json!(vec![0.5; 10_001]), "config.score_cutoffs: at most 10000 cutoffs, got 10001"),
        ("score_cutoffs", json!([1e39]), "number out of range"),
        ("breakdown_generator_ids", json!(["WEATHER", "RANGE"]), "unknown variant `WEATHER`"),
        ("breakdown_generator_ids", json!([]), "config.breakdown_generator_ids: 1 to 64, got 0"),
        ("matcher_type", json!("TYPE_HUNGARIAN_TEST_ONLY"), "unknown variant `TYPE_HUNGARIAN_TEST_ONLY`"),
        ("box_type", json!("TYPE_UNKNOWN"), "unknown variant `TYPE_UNKNOWN`"),
        ("box_type", Value::Null, "expected value"),
        ("let_metric_config", json!({"enabled": true}), "unknown field `let_metric_config`"),
        ("num_desired_score_cutoffs", json!(-1), "integer `-1`"),
    ] {
        let mut config = good.clone();
        config[key] = value.clone();
        let message = config_error(&json!({ "config": config }));
        assert!(message.contains(wanted), "{key} {value}: {message}");
    }
    assert!(config_error(&json!({})).contains("missing field `config`"));
    let mut without = good;
    without.as_object_mut().unwrap().remove("matcher_type");
    assert!(config_error(&json!({ "config": without })).contains("missing field `matcher_type`"));
}

fn config_error(file: &Value) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    std::fs::write(&path, file.to_string()).unwrap();
    json::read_config(&path).unwrap_err().to_string()
}

#[test]
fn settings_left_out_have_the_official_defaults() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    let file = json!({"config": {
        "score_cutoffs": [0.5], "breakdown_generator_ids": ["ONE_SHARD"], "difficulties": [{}],
        "matcher_type": "TYPE_HUNGARIAN", "iou_thresholds": [0, 0.7, 0.5, 0.5, 0.5], "box_type": "TYPE_3D",
    }});
    std::fs::write(&path, file.to_string()).unwrap();
    let config = json::read_config(&path).unwrap();
    assert_eq!((config.desired_recall_delta, config.min_precision, config.min_heading_accuracy), (0.05, 0.0, -1.0));
}

#[test]
fn command_says_what_is_wrong_with_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("input.json");
    std::fs::write(&path, input(&GOOD_PREDICTION.replace("0.5", "NaN"), GOOD_TRUTH)).unwrap();
    let output =
        std::process::Command::new(env!("CARGO_BIN_EXE_trainer")).args(["metrics", "--input"]).arg(&path).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(message.contains("input.json") && message.contains("line 1"), "{message}");
}
