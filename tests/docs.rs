//! README, ARCHITECTURE and --help say what the code does.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use pivotal::model::spec::ModelSpec;
use pivotal::node::params::params_table_markdown;

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

#[test]
fn readme_parameter_table_is_the_declared_one() {
    let readme = read("README.md");
    let (_, rest) = readme.split_once("<!-- params:begin -->\n").expect("README has the begin mark");
    let (table, _) = rest.split_once("<!-- params:end -->").expect("README has the end mark");
    assert_eq!(table, params_table_markdown(), "put the output of `detector_node params` between the marks");
}

#[test]
fn built_in_specs_are_in_readme_and_every_spec_file_is_built_in() {
    let readme = read("README.md");
    for name in ModelSpec::builtin_names() {
        assert!(readme.contains(&format!("`{name}`")), "{name} is not in README");
    }
    let files: BTreeSet<_> = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/models"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    assert_eq!(files, ModelSpec::builtin_names().into_iter().map(str::to_owned).collect());
    for name in files {
        assert_eq!(ModelSpec::builtin(&name).unwrap().name, name, "name inside config/models/{name}.yaml");
    }
}

#[test]
fn relative_links_and_pictures_exist() {
    for document in ["README.md", "ARCHITECTURE.md", "bags/README.md"] {
        let text = read(document);
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(document).parent().unwrap().to_path_buf();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if !link.contains("://") && !link.starts_with('#') {
                assert!(folder.join(link).exists(), "{document} points to {link}, which is not there");
            }
        }
    }
}

#[test]
fn documents_are_finished() {
    for document in ["README.md", "ARCHITECTURE.md"] {
        for (number, line) in read(document).lines().enumerate() {
            for mark in ["@@", "TODO"] {
                assert!(!line.contains(mark), "{document}:{}: {mark} is left: {line}", number + 1);
            }
        }
    }
}

#[test]
fn architecture_lists_every_module() {
    let architecture = read("ARCHITECTURE.md");
    for module in read("src/lib.rs").lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')) {
        assert!(architecture.contains(&format!("`{module}`")), "module {module} is not in ARCHITECTURE.md");
    }
}

#[test]
fn commands_in_readme_and_scripts_exist() {
    let subcommands = |binary: &str| {
        let output = Command::new(binary).arg("--help").output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let programs = [
        ("trainer", subcommands(env!("CARGO_BIN_EXE_trainer"))),
        ("detector_node", subcommands(env!("CARGO_BIN_EXE_detector_node"))),
    ];
    let mut n_checked = 0;
    for document in ["README.md", "scripts/demo.sh"] {
        for line in read(document).lines() {
            for (program, help) in &programs {
                let line = line.replace("$bin/", "").replace('"', "");
                let Some(rest) = line.trim_start_matches(['`', '*', ' ']).strip_prefix(&format!("{program} ")) else { continue };
                let word = rest.split_whitespace().next().unwrap_or_default().trim_matches('`');
                if word.starts_with('-') || !word.chars().all(|c| c.is_ascii_lowercase()) {
                    continue;
                }
                let listed = help.lines().any(|line| line.trim_start().starts_with(&format!("{word} ")));
                assert!(listed, "{document} uses `{program} {word}`, which --help does not list:\n{help}");
                n_checked += 1;
            }
        }
    }
    assert!(n_checked >= 6, "only {n_checked} commands were found");
}

#[test]
fn reference_tests_that_may_be_left_out_exist() {
    let output = Command::new(std::env::current_exe().unwrap()).arg("--list").output().unwrap();
    let listing = String::from_utf8(output.stdout).unwrap();
    let names: BTreeSet<_> = listing.lines().filter_map(|line| line.strip_suffix(": test")).collect();
    for name in read("tests/reference-tests.txt").lines() {
        assert!(names.contains(name), "{name} of tests/reference-tests.txt is no test");
    }
}

/// The last column of README's table of what happens when something is wrong. Tests inside the library are looked up in its sources.
#[test]
fn behaviour_table_names_tests_that_exist() {
    let output = Command::new(std::env::current_exe().unwrap()).arg("--list").output().unwrap();
    let listing = String::from_utf8(output.stdout).unwrap();
    let readme = read("README.md");
    let (_, rest) =
        readme.split_once("| condition | what happens | test |\n| --- | --- | --- |\n").expect("README has the table");
    let rows: Vec<_> = rest.lines().take_while(|line| line.starts_with('|')).collect();
    assert!(rows.len() >= 16, "only {} conditions", rows.len());
    for row in rows {
        let test = row.trim_end_matches(" |").rsplit("| ").next().unwrap().trim_matches('`');
        let in_library = test.split_once("::tests::").is_some_and(|(module, name)| {
            read(&format!("src/{}.rs", module.replace("::", "/"))).contains(&format!("fn {name}()"))
        });
        assert!(in_library || listing.contains(&format!("{test}: test\n")), "{test} is no test");
    }
}
