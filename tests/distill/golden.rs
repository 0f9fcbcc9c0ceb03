//! Proof that the comparison with golden distillation can fail, and that what it does not know is said.

use std::fs;
use std::path::Path;

use pivotal::parity::{self, ParityReport};
use serde_json::Value;

use crate::support::shared;

/// Parity of copies of some files of a golden folder, with the JSON beside them changed.
fn report(folder: &str, files: &[&str], json: &str, change: impl FnOnce(&mut Value)) -> ParityReport {
    let (dir, source) = (tempfile::tempdir().unwrap(), shared("golden").join(folder));
    let to = dir.path().join(folder);
    fs::create_dir(&to).unwrap();
    for file in files {
        fs::copy(source.join(file), to.join(file)).unwrap();
    }
    let mut value: Value = serde_json::from_slice(&fs::read(source.join(json)).unwrap()).unwrap();
    change(&mut value);
    fs::write(to.join(json), value.to_string()).unwrap();
    parity::run(dir.path()).unwrap()
}

fn first_excess(report: &ParityReport) -> &str {
    report.cases[0].first_excess().map_or("none", |stage| &stage.stage)
}

#[test]
fn changed_settings_exceed_at_the_first_loss_they_touch() {
    let logit = "logit_cp-pillar-v0.48";
    let labels = "label_assign";
    let anchors = "anchor_logit";
    let cases: [(&str, &[&str], Value, &str); 9] = [
        (logit, &["cases", "official", "cfg", "HM_LOSS", "weight"], 8.0.into(), "official/loss"),
        (logit, &["cases", "official", "cfg", "HM_LOSS", "soft_mask"], false.into(), "official/loss"),
        (logit, &["cases", "rank60", "cfg", "HM_LOSS", "rank"], 59.into(), "rank60/loss"),
        (logit, &["cases", "vanilla_mse", "cfg", "ALIGN", "mode"], "nearest".into(), "vanilla_mse/loss"),
        (labels, &["cases", "official", "SCORE_THRESH"], vec![0.9, 0.5, 0.5].into(), "official/num_teacher"),
        (labels, &["cases", "official", "GT_FIRST"], true.into(), "official/merged_boxes"),
        (anchors, &["cases", "fg_anchor", "HM_LOSS", "count_ignore"], true.into(), "fg_anchor/loss"),
        (anchors, &["cases", "tea_thresh", "HM_LOSS", "thresh"], 0.8.into(), "tea_thresh/loss"),
        (anchors, &["cases", "plain", "REG_LOSS", "weight"], 0.6.into(), "plain/loss"),
    ];
    for (stem, keys, value, stage) in cases {
        let file = Path::new(stem).with_added_extension("safetensors");
        let report = report("kd", &[file.to_str().unwrap()], "kd.json", |json| {
            let place = keys.iter().fold(&mut json[stem], |json, key| &mut json[*key]);
            assert!(!place.is_null(), "{keys:?}");
            *place = value.clone();
        });
        assert_eq!(first_excess(&report), stage, "{keys:?}:\n{}", report.table());
    }
}

#[test]
fn settings_that_no_loss_of_ours_has_are_listed_and_the_others_compared() {
    let stem = "logit_cp-pillar-v0.48";
    let files = ["anchor_logit.safetensors", "feature.safetensors", "logit_cp-pillar-v0.48.safetensors"];
    let report = report("kd", &files, "kd.json", |json| {
        json["anchor_logit"]["cases"]["plain"]["HM_LOSS"]["type"] = "KLDivLoss".into();
        json["anchor_logit"]["cases"]["smoothl1"]["HM_LOSS"]["temperature"] = 2.into();
        json["anchor_logit"]["cases"]["fg_anchor"]["HM_LOSS"]["fg_mask_spatial"] = true.into();
        json[stem]["cases"]["official"]["cfg"]["HM_LOSS"]["type"] = "KLDivLoss".into();
        json[stem]["cases"]["rank60"]["cfg"]["ALIGN"]["mode"] = "lanczos".into();
    });
    assert!(report.passed(), "{}", report.table());
    let [anchors, feature, logit] = report.cases.as_slice() else { panic!("{}", report.table()) };
    assert!(feature.stages.is_empty() && feature.unsupported.len() == 1);
    assert_eq!(
        anchors.unsupported,
        [
            "fg_anchor: cells chosen by boxes and by anchors",
            "plain: class loss KLDivLoss",
            "smoothl1: settings this build does not know"
        ]
    );
    assert!(anchors.stages.iter().any(|stage| stage.stage == "fg_spatial_soft/grad_cls"));
    for name in ["official: heat map loss KLDivLoss", "rank60: settings this build does not know"] {
        assert!(logit.unsupported.iter().any(|part| part == name), "{name}: {:?}", logit.unsupported);
    }
    assert!(logit.stages.iter().any(|stage| stage.stage == "vanilla_mse/loss"));
}

#[test]
fn another_teacher_exceeds_at_every_tensor_it_gives() {
    let tag = "cp-pillar-v0.64_official";
    let only = |json: &mut Value| {
        let entry = json["results"][tag].take();
        json["results"] = serde_json::json!({ tag: entry });
    };
    assert!(report("tgi", &["slices.safetensors"], "tgi.json", only).passed());
    let changed = report("tgi", &["slices.safetensors"], "tgi.json", |json| {
        only(json);
        json["results"][tag]["teacher_seed"] = 1.into();
    });
    let wrong = changed.cases[0].stages.iter().filter(|stage| !stage.within).count();
    assert!(wrong > 151, "{wrong} of {}", changed.cases[0].stages.len());
}
