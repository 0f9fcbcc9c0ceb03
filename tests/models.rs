//! The models in `models`: whole, small, made by what they say, and good enough for the demo.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pivotal::model::directory;

const MAX_BYTES: u64 = 5_000_000;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap()
}

/// The command of a script that begins like this, as words, with its variables filled in.
fn command_of(script: &str, begin: &str, variables: &[(&str, &Path)]) -> Vec<String> {
    let line = script.lines().find_map(|line| line.strip_prefix(begin)).unwrap_or_else(|| panic!("no line with {begin}"));
    let filled =
        variables.iter().fold(line.replace('"', ""), |line, (name, value)| line.replace(name, &value.display().to_string()));
    filled.split_whitespace().map(str::to_owned).collect()
}

fn stdout_of(program: &str, arguments: &[String]) -> String {
    let output = Command::new(program).args(arguments).current_dir(root()).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}\n{stdout}{stderr}");
    stdout.into_owned()
}

/// Class, recall and precision of the rows between two marks of README.
fn floors() -> Vec<(String, f64, f64)> {
    let readme = read("README.md");
    let (_, rest) = readme.split_once("<!-- floors:begin -->\n").expect("README has the begin mark");
    let (table, _) = rest.split_once("<!-- floors:end -->").expect("README has the end mark");
    let cells = |line: &str| -> Vec<String> { line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect() };
    let rows = table.lines().skip(2).map(cells);
    rows.map(|row| (row[0].clone(), row[1].parse().unwrap(), row[2].parse().unwrap())).collect()
}

#[test]
fn shipped_models_are_whole_small_and_say_what_made_them() {
    let mut n_models = 0;
    for entry in fs::read_dir(root().join("models")).unwrap() {
        let dir = entry.unwrap().path();
        n_models += 1;
        let model = directory::load(&dir).unwrap();
        let name = dir.file_name().unwrap().to_string_lossy().into_owned();
        assert_eq!(model.spec.name, name);
        let n_bytes: u64 = fs::read_dir(&dir).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
        assert!(n_bytes < MAX_BYTES, "{name} has {n_bytes} bytes, {MAX_BYTES} are allowed");
        let training = model.provenance.training.unwrap();
        let commit = &training.revision;
        assert!(commit.len() == 40 && commit.chars().all(|digit| digit.is_ascii_hexdigit()), "{name}: {commit}");
        assert!(training.teacher.is_some() && training.steps > 0, "{name} was not distilled");
        assert!(model.provenance.metrics.contains_key("maph_l2"), "{name}: {:?}", model.provenance.metrics);
    }
    assert!(n_models > 0);
}

#[test]
fn demo_finds_objects_above_the_floors_in_readme() {
    let folder = tempfile::tempdir().unwrap();
    let script = read("scripts/demo.sh");
    let model = script.lines().find_map(|line| line.strip_prefix("model=")).unwrap();
    let variables = [("$out", folder.path()), ("$model", Path::new(model))];
    stdout_of(env!("CARGO_BIN_EXE_trainer"), &command_of(&script, "\"$bin/trainer\" ", &variables));
    let mut replay = command_of(&script, "\"$bin/detector_node\" replay", &variables);
    replay.insert(0, "replay".to_owned());
    replay.extend(["--picture-every", "0", "--no-foxglove"].map(str::to_owned));
    let shown = stdout_of(env!("CARGO_BIN_EXE_detector_node"), &replay);
    let floors = floors();
    assert_eq!(floors.len(), 3);
    for (class, min_recall, min_precision) in floors {
        let line = shown.lines().find_map(|line| line.strip_prefix(&format!("{class}: recall "))).expect(&shown);
        let number = |text: &str| text.split_whitespace().next().unwrap().parse::<f64>().unwrap();
        let (recall, precision) = (number(line), number(line.split_once("precision ").unwrap().1));
        assert!(recall >= min_recall && precision >= min_precision, "{class}: at least {min_recall}, {min_precision}\n{shown}");
    }
}
