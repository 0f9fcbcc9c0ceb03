//! Model directories: written whole, read back bit for bit, refused with every disagreement at once.

use std::path::Path;

use pivotal::import::import_pth;
use pivotal::model::directory::provenance::Provenance;
use pivotal::model::directory::{DirectoryError, SaveOptions, WeightsDtype, load, save, sha256_hex};
use pivotal::model::expected_params;
use pivotal::model::init::{HeadMultipliers, hash_weights};
use pivotal::model::params::Weights;
use pivotal::model::spec::ModelSpec;
use tch::{Device, Kind, Tensor};

use super::{golden, tensor_bytes, tensor_sha256};
use crate::support::shared;

const F32: SaveOptions = SaveOptions { dtype: WeightsDtype::F32, overwrite: false };

/// The smallest built-in network with generated weights.
fn small_model() -> (ModelSpec, Weights) {
    let spec = ModelSpec::builtin("cp-pillar-v0.64-xxs").unwrap();
    let weights = hash_weights(&expected_params(&spec), 7, &HeadMultipliers { hm_weight: 0.3 });
    (spec, weights)
}

fn made_up() -> Provenance {
    Provenance { metrics: [("mAPH".to_owned(), 0.1 + 0.2)].into(), ..Provenance::new("a test", "none: generated weights") }
}

fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn save_then_load_gives_the_same_model_and_the_same_bytes_twice() {
    let (spec, weights) = small_model();
    let temp = tempfile::tempdir().unwrap();
    let [one, two] = ["deep/one", "two"].map(|name| temp.path().join(name));
    for dir in [&one, &two] {
        save(dir, &spec, &weights, &made_up(), F32).unwrap();
    }
    assert_eq!(files(&one), files(&two));
    let loaded = load(&one).unwrap();
    assert_eq!(loaded.spec, spec);
    assert_eq!(loaded.provenance, made_up());
    assert_eq!(loaded.sha256, sha256_hex(&std::fs::read(one.join("weights.safetensors")).unwrap()));
    assert_eq!(loaded.weights.len(), weights.len());
    for (name, tensor) in &weights {
        assert_eq!(tensor_bytes(&loaded.weights[name]), tensor_bytes(tensor), "{name}");
    }
    let check =
        std::process::Command::new("sha256sum").args(["-c", "--strict", "SHA256SUMS"]).current_dir(&one).output().unwrap();
    assert!(check.status.success(), "{check:?}");
    let names: Vec<String> = files(&one).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["SHA256SUMS", "provenance.json", "spec.yaml", "weights.safetensors"]);
}

#[test]
fn save_as_f16_halves_the_file_and_loads_the_rounded_values_as_f32() {
    let (spec, mut weights) = small_model();
    let temp = tempfile::tempdir().unwrap();
    let [wide, narrow] = ["wide", "narrow"].map(|name| temp.path().join(name));
    save(&wide, &spec, &weights, &made_up(), F32).unwrap();
    let f16 = SaveOptions { dtype: WeightsDtype::F16, overwrite: false };
    save(&narrow, &spec, &weights, &made_up(), f16).unwrap();
    let size = |dir: &Path| std::fs::metadata(dir.join("weights.safetensors")).unwrap().len() as f64;
    assert!((0.45..0.6).contains(&(size(&narrow) / size(&wide))));
    for (name, tensor) in load(&narrow).unwrap().weights {
        assert_eq!(tensor, weights[&name].to_kind(Kind::Half).to_kind(Kind::Float), "{name}");
    }
    let name = weights.keys().next().unwrap().clone();
    let huge = weights[&name].full_like(70000.0);
    weights.insert(name.clone(), huge);
    let error = save(&temp.path().join("huge"), &spec, &weights, &made_up(), f16).unwrap_err().to_string();
    assert!(error.contains(&format!("`{name}` has values beyond the range of f16")), "{error}");
}

#[test]
fn save_replaces_only_a_model_directory_and_only_when_told() {
    let (spec, weights) = small_model();
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("model");
    let replace = SaveOptions { overwrite: true, ..F32 };
    std::fs::create_dir(&dir).unwrap();
    save(&dir, &spec, &weights, &made_up(), F32).unwrap();
    assert!(matches!(save(&dir, &spec, &weights, &made_up(), F32), Err(DirectoryError::Exists { .. })));
    let renamed = ModelSpec { name: "another".to_owned(), ..spec.clone() };
    save(&dir, &renamed, &weights, &made_up(), replace).unwrap();
    assert_eq!(load(&dir).unwrap().spec.name, "another");

    let home = temp.path().join("home");
    std::fs::create_dir(&home).unwrap();
    std::fs::write(home.join("thesis.tex"), "precious").unwrap();
    assert!(matches!(save(&home, &spec, &weights, &made_up(), replace), Err(DirectoryError::NotAModel { .. })));
    assert_eq!(files(&home), [("thesis.tex".to_owned(), b"precious".to_vec())]);
    // Nothing is left beside what was asked for.
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 2);

    let mut broken = weights;
    broken.pop_first();
    assert!(matches!(save(&dir, &spec, &broken, &made_up(), replace), Err(DirectoryError::Problems { .. })));
    let endless = Provenance { metrics: [("mAP".to_owned(), f64::NAN)].into(), ..made_up() };
    let (spec, weights) = small_model();
    let error = save(&temp.path().join("nan"), &spec, &weights, &endless, F32).unwrap_err().to_string();
    assert!(error.contains("metric `mAP` is NaN"), "{error}");
}

/// Rewrites the hashes, so that only what a test changed disagrees.
fn rehash(dir: &Path) {
    let sums: String = files(dir)
        .iter()
        .filter(|(name, _)| name != "SHA256SUMS")
        .map(|(name, bytes)| format!("{}  {name}\n", sha256_hex(bytes)))
        .collect();
    std::fs::write(dir.join("SHA256SUMS"), sums).unwrap();
}

fn edit(dir: &Path, file: &str, from: &str, to: &str) {
    let text = std::fs::read_to_string(dir.join(file)).unwrap();
    assert!(text.contains(from), "{file} has no {from:?}");
    std::fs::write(dir.join(file), text.replacen(from, to, 1)).unwrap();
}

/// Replaces weights.safetensors.
fn write_tensors(dir: &Path, weights: &Weights) {
    let named: Vec<(&String, &Tensor)> = weights.iter().collect();
    Tensor::write_safetensors(&named, dir.join("weights.safetensors")).unwrap();
}

#[test]
fn damaged_directories_name_file_and_both_values() {
    let (_, weights) = small_model();
    type Damage<'a> = Box<dyn Fn(&Path) + 'a>;
    let cases: Vec<(Damage<'_>, &[&str])> = vec![
        (
            Box::new(|dir| std::fs::remove_dir_all(dir).unwrap()),
            &["4 problems", "weights.safetensors: No such file", "SHA256SUMS: No such file"],
        ),
        (Box::new(|dir| std::fs::remove_file(dir.join("spec.yaml")).unwrap()), &["1 problem:", "spec.yaml: No such file"]),
        (Box::new(|dir| std::fs::remove_file(dir.join("SHA256SUMS")).unwrap()), &["1 problem:", "SHA256SUMS: No such file"]),
        (
            Box::new(|dir| edit(dir, "SHA256SUMS", "  spec.yaml", "  spec.yml")),
            &["2 problems", "SHA256SUMS has 0 entries for spec.yaml, 1 needed", "lists `spec.yml`, which is no part"],
        ),
        (
            Box::new(|dir| std::fs::write(dir.join("SHA256SUMS"), "abc").unwrap()),
            &["line 1: `abc` is not a hash", "0 entries for weights"],
        ),
        (
            Box::new(|dir| edit(dir, "provenance.json", "a test", "a lie")),
            &["1 problem:", "provenance.json has SHA-256 ", ", SHA256SUMS says "],
        ),
        (
            Box::new(|dir| {
                edit(dir, "spec.yaml", "format: 1", "format: 1\ncolour: red");
                rehash(dir);
            }),
            &["1 problem:", "spec.yaml: ", "colour"],
        ),
        (
            Box::new(|dir| {
                edit(dir, "provenance.json", "\"tool\"", "\"mood\": 1, \"tool\"");
                rehash(dir);
            }),
            &["1 problem:", "provenance.json: unknown field `mood`", "line 2"],
        ),
        (
            Box::new(|dir| {
                let bytes = std::fs::read(dir.join("weights.safetensors")).unwrap();
                std::fs::write(dir.join("weights.safetensors"), &bytes[..bytes.len() / 2]).unwrap();
                rehash(dir);
            }),
            &["1 problem:", "weights.safetensors: "],
        ),
        (
            // Everything at once.
            Box::new(|dir| {
                let mut changed: Weights = weights.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
                changed.remove("vfe.pfn_layers.0.linear.weight");
                changed.insert("neck.bias".to_owned(), Tensor::zeros([3], (Kind::Float, Device::Cpu)));
                changed.insert("vfe.pfn_layers.0.norm.bias".to_owned(), Tensor::zeros([5, 5], (Kind::Float, Device::Cpu)));
                let counts = changed["vfe.pfn_layers.1.norm.bias"].to_kind(Kind::Int64);
                changed.insert("vfe.pfn_layers.1.norm.bias".to_owned(), counts);
                let holed = changed["vfe.pfn_layers.1.norm.weight"].copy();
                let _ = holed.get(2).fill_(f64::NAN);
                changed.insert("vfe.pfn_layers.1.norm.weight".to_owned(), holed);
                write_tensors(dir, &changed);
                edit(dir, "provenance.json", "a test", "a lie");
            }),
            &[
                "7 problems",
                "weights.safetensors has SHA-256 ",
                "provenance.json has SHA-256 ",
                "missing `vfe.pfn_layers.0.linear.weight` [",
                "unexpected `neck.bias`",
                "`vfe.pfn_layers.0.norm.bias` has shape [5, 5], the spec needs [",
                "`vfe.pfn_layers.1.norm.bias` is Int64, f32 or f16 needed",
                "1 of ",
                " values of `vfe.pfn_layers.1.norm.weight` are not finite, the first at flat index 2",
            ],
        ),
    ];
    let (spec, weights) = small_model();
    for (damage, wanted) in &cases {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("model");
        save(&dir, &spec, &weights, &made_up(), F32).unwrap();
        damage(&dir);
        let error = load(&dir).unwrap_err().to_string();
        assert!(error.starts_with(&dir.display().to_string()), "{error}");
        for part in *wanted {
            assert!(error.contains(part), "{part:?} is not in {error:?}");
        }
    }
}

#[test]
fn import_pillar_checkpoint_loads_bit_for_bit() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("model");
    let spec = ModelSpec::builtin("cp-pillar-v0.64").unwrap();
    let path = shared("golden/ckpt/cp-pillar-v0.64_zip.pth");
    let asked = Provenance::new("trainer import", "unknown");
    let report = import_pth(&path, &spec, &dir, &asked, F32).unwrap();
    let loaded = load(&dir).unwrap();

    let index = golden("golden/ckpt/ckpt.json");
    let rows = index["cp-pillar-v0.64_zip"]["params"].as_object().unwrap();
    for (name, tensor) in &loaded.weights {
        assert_eq!(tensor_sha256(tensor), rows[name][2].as_str().unwrap(), "{name}");
    }
    // 27 norms count their batches, the detector its steps.
    assert_eq!((report.dropped_tensors.len(), report.n_tensors), (28, rows.len() - 28));
    assert_eq!(report.n_tensors, loaded.weights.len());
    assert_eq!(report.sparse_layout, None);
    let import = loaded.provenance.import.unwrap();
    assert_eq!(import.dropped_tensors, report.dropped_tensors);
    assert_eq!(import.format, "zip");
    let source = loaded.provenance.source.unwrap();
    assert_eq!(source.file, "cp-pillar-v0.64_zip.pth");
    assert_eq!(source.sha256, sha256_hex(&std::fs::read(&path).unwrap()));
}

#[test]
fn import_of_another_network_is_refused_before_anything_is_written() {
    let cases = [
        ("cp-pillar-v0.64_zip", "cp-pillar-v0.64-xxs", "does not hold the network of spec `cp-pillar-v0.64-xxs`"),
        (
            "tiny_legacy_spconv1",
            "cp-pillar",
            "sparse kernels in spconv 1.x [k,k,k,in,out]), spec `cp-pillar` is a pillar network; there are no voxel specs yet",
        ),
        ("cp-voxel-xxs_legacy", "cp-pillar", "holds a voxel network (`backbone_3d.conv1.0.conv1.weight`, "),
        ("odd_tensors_zip", "cp-pillar", "`f64` is Double, f32 or f16 needed"),
    ];
    for (file, spec, wanted) in cases {
        let temp = tempfile::tempdir().unwrap();
        let path = shared(&format!("golden/ckpt/{file}.pth"));
        let spec = ModelSpec::builtin(spec).unwrap();
        let asked = Provenance::new("trainer import", "unknown");
        let error = import_pth(&path, &spec, &temp.path().join("model"), &asked, F32).unwrap_err().to_string();
        assert!(error.starts_with(&path.display().to_string()) && error.contains(wanted), "{wanted:?} is not in {error:?}");
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0, "{file}");
    }
}
