//! Every golden checkpoint, tensor by tensor.

use pivotal::import::checkpoint::parse_checkpoint;
use pivotal::import::container::Format;
use pivotal::import::spconv::{self, SparseLayout};
use pivotal::model::init::uniform;
use tch::{Kind, Tensor};

use super::{ckpt, golden, tensor_bytes, tensor_sha256};

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Float => "float32",
        Kind::Int64 => "int64",
        Kind::Half => "float16",
        Kind::BFloat16 => "bfloat16",
        Kind::Double => "float64",
        Kind::Int => "int32",
        Kind::Bool => "bool",
        other => panic!("{other:?} is in no golden checkpoint"),
    }
}

#[test]
fn checkpoints_golden_files_match_every_shape_dtype_and_digest() {
    let index = golden("golden/ckpt/ckpt.json");
    let mut n_tensors = 0;
    for (file, entry) in index.as_object().unwrap() {
        let checkpoint = parse_checkpoint(&ckpt(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        let rows = entry.get("params").or(entry.get("entries")).unwrap().as_object().unwrap();
        let names: Vec<&String> = checkpoint.tensors.keys().collect();
        let mut wanted: Vec<&String> = rows.keys().collect();
        wanted.sort();
        assert_eq!(names, wanted, "{file}");
        for (name, tensor) in &checkpoint.tensors {
            let row = &rows[name];
            let shape: Vec<i64> = serde_json::from_value(row[0].clone()).unwrap();
            assert_eq!((tensor.size(), kind_name(tensor.kind())), (shape, row[1].as_str().unwrap()), "{file} {name}");
            if let Some(digest) = row.get(2) {
                assert_eq!(tensor_sha256(tensor), digest.as_str().unwrap(), "{file} {name}");
            }
            n_tensors += 1;
        }
    }
    assert_eq!(index.as_object().unwrap().len(), 9);
    assert!(n_tensors > 400, "{n_tensors}");
}

#[test]
fn checkpoint_metadata_and_unread_parts_are_reported() {
    let cases = [
        ("tiny_zip_cpu", Format::Zip, false),
        ("tiny_legacy_cpu", Format::Legacy, false),
        ("tiny_zip_cuda_optim", Format::Zip, true),
        ("tiny_legacy_cuda_optim", Format::Legacy, true),
    ];
    for (file, format, has_optimizer) in cases {
        let checkpoint = parse_checkpoint(&ckpt(file)).unwrap();
        assert_eq!(checkpoint.format, format, "{file}");
        assert!(checkpoint.epoch.is_some() && checkpoint.iteration.is_some(), "{file}");
        assert!(checkpoint.version.is_some_and(|version| version.starts_with("pcdet+0.5.2")), "{file}");
        let skipped: &[&str] = if has_optimizer { &["optimizer_state (dict)"] } else { &[] };
        assert_eq!(checkpoint.skipped, skipped, "{file}");
    }
    let odd = parse_checkpoint(&ckpt("odd_tensors_zip")).unwrap();
    assert_eq!((odd.epoch, odd.iteration, odd.version.as_deref()), (Some(3), Some(77), Some("pcdet+0.5.2+0000000")));
}

/// `ckpt.json` has no digests for these; their README row says how they were made.
#[test]
fn odd_tensors_zip_and_legacy_equal_the_generator() {
    let base = Tensor::from_slice(&uniform("odd", 70100, -1.0, 1.0, 24)).reshape([6, 4]);
    for file in ["odd_tensors_zip", "odd_tensors_legacy"] {
        let tensors = parse_checkpoint(&ckpt(file)).unwrap().tensors;
        let expected = [
            ("transposed_view", base.transpose(0, 1)),
            ("shared_rows_1_3", base.narrow(0, 1, 2)),
            ("half", base.to_kind(Kind::Half)),
            ("bf16", base.to_kind(Kind::BFloat16)),
            ("f64", base.to_kind(Kind::Double)),
        ];
        for (name, wanted) in expected {
            assert_eq!(tensor_bytes(&tensors[name]), tensor_bytes(&wanted), "{file} {name}");
        }
        assert_eq!(tensors["empty"].size(), [0, 3], "{file}");
        assert!(tensors["scalar_i64"].size().is_empty(), "{file}");
    }
    let [zip, legacy] = ["odd_tensors_zip", "odd_tensors_legacy"].map(|file| parse_checkpoint(&ckpt(file)).unwrap().tensors);
    for (name, tensor) in &zip {
        assert_eq!(tensor_bytes(tensor), tensor_bytes(&legacy[name]), "{name}");
    }
}

#[test]
fn sparse_layout_golden_files_are_told_apart_and_convert_to_equal_tensors() {
    let cases = [
        ("cp-pillar-v0.64_zip", None),
        ("cp-voxel-xxs_legacy", Some(SparseLayout::Spconv2)),
        ("tiny_zip_cpu", Some(SparseLayout::Spconv2)),
        ("tiny_legacy_cuda_optim", Some(SparseLayout::Spconv2)),
        ("tiny_legacy_spconv1", Some(SparseLayout::Spconv1)),
    ];
    for (file, layout) in cases {
        assert_eq!(spconv::detect(&parse_checkpoint(&ckpt(file)).unwrap().tensors).unwrap(), layout, "{file}");
    }
    let modern = parse_checkpoint(&ckpt("tiny_legacy_cpu")).unwrap().tensors;
    let old = parse_checkpoint(&ckpt("tiny_legacy_spconv1")).unwrap().tensors;
    let converted = spconv::to_spconv2(old, SparseLayout::Spconv1);
    assert_eq!(converted.len(), modern.len());
    for (name, tensor) in &modern {
        assert_eq!(converted[name].size(), tensor.size(), "{name}");
        assert_eq!(tensor_bytes(&converted[name]), tensor_bytes(tensor), "{name}");
    }
}
