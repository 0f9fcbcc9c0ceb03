//! What programs say when they cannot do what they were asked: one line, nothing twice.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/train/cp-pillar.yaml");
const SYNTH: &str = "synth:seed=1,drives=1,frames=1";

#[test]
fn messages_name_the_path_and_say_nothing_twice() {
    let (trainer, node) = (env!("CARGO_BIN_EXE_trainer"), env!("CARGO_BIN_EXE_detector_node"));
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    fs::write(folder.path().join("no_spec.yaml"), "model: nowhere/spec.yaml").unwrap();
    fs::write(folder.path().join("spec.yaml"), "name: none").unwrap();
    fs::write(folder.path().join("bad_spec.yaml"), "model: ./spec.yaml").unwrap();
    let (synth_to, train) = (format!("convert cache {SYNTH} --out file/out"), format!("train --data {SYNTH} --out run --config"));
    let cases = [
        (trainer, "inspect nowhere".to_owned(), "nowhere"),
        (trainer, "inspect synth:seed=x".to_owned(), "seed"),
        (trainer, "convert cache nowhere --out out".to_owned(), "nowhere"),
        (trainer, synth_to, "file/out"),
        (trainer, "convert waymo nowhere --out out".to_owned(), "nowhere"),
        (trainer, "convert kitti nowhere --out out".to_owned(), "nowhere"),
        (trainer, "convert nuscenes nowhere --out out".to_owned(), "nowhere"),
        (trainer, format!("convert gt-database --data {SYNTH} --out file/out"), "file/out"),
        (trainer, "import nowhere.pth --spec cp-pillar --out out".to_owned(), "nowhere.pth"),
        (trainer, "import file --spec cp-pillar --out out".to_owned(), "file"),
        (trainer, format!("eval --model nowhere --data {SYNTH}"), "nowhere"),
        (trainer, "metrics --input nowhere.json".to_owned(), "nowhere.json"),
        (trainer, format!("{train} nowhere.yaml"), "nowhere.yaml"),
        (trainer, format!("{train} no_spec.yaml"), "nowhere/spec.yaml"),
        (trainer, format!("{train} bad_spec.yaml"), "spec.yaml"),
        (trainer, format!("train --data nowhere --out run --config {SHIPPED}"), "nowhere"),
        (trainer, format!("train --data {SYNTH} --out file/run --config {SHIPPED}"), "file/run"),
        (trainer, format!("{train} {SHIPPED} --set distill.teacher.from.model=nowhere"), "nowhere"),
        (trainer, format!("{train} {SHIPPED} --set augment.gt_sampling.database=nowhere"), "nowhere"),
        (trainer, format!("dump-teacher --model nowhere --config {SHIPPED} --data {SYNTH} --out out"), "nowhere"),
        (node, "replay file --model nowhere --out out".to_owned(), "nowhere"),
    ];
    for (program, arguments, path) in cases {
        let output = Command::new(program).args(arguments.split(' ')).current_dir(folder.path()).output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && message.contains(path), "{arguments}: {message}");
        let last = message.trim_end().lines().last().unwrap();
        let phrases: Vec<_> = last.split([':', ';']).map(str::trim).filter(|phrase| phrase.contains(' ')).collect();
        let distinct: BTreeSet<_> = phrases.iter().collect();
        assert_eq!(distinct.len(), phrases.len(), "{arguments}: {message}");
    }
}
