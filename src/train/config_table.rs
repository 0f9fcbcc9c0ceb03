//! Every key of a run's YAML in words. Tests hold it to [`super::config`]: all keys are here, wrong values are refused, and
//! `config/train/README.md` shows this table.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::Value;

use super::config::RunConfig;
use crate::data::augment::AugmentConfig;
use crate::distill::{DistillConfig, TeacherFrom};

/// One key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Dotted path.
    pub name: &'static str,
    /// What values are allowed.
    pub allowed: &'static str,
    /// A value of the right type that is refused; empty where there is none.
    pub wrong: &'static str,
    /// What it does.
    pub description: &'static str,
}

/// Every key, in the order of the table.
pub const KEYS: &[Key] = &[
    key("model", "name of a built-in spec, or path of a spec.yaml", "\"\"", "What is trained. Must be set."),
    key(
        "range",
        "[xmin, ymin, zmin, xmax, ymax, zmax] in metres, whole cells",
        "",
        "Range instead of the spec's, for instance a smaller one to train on a CPU; goes into the model's spec.yaml.",
    ),
    key("seed", "whole number", "", "Key of initial weights and of the order of frames."),
    key(
        "data_seed",
        "whole number",
        "",
        "Key of augmentation. Runs that share it see the same frames, so they can share a teacher dump.",
    ),
    key("epochs", "1 to 100000", "0", "Passes over the data; the schedule spans them."),
    key(
        "class_names",
        "map of names",
        "{Car: Lorry}",
        "Names of classes in the data with the model's name for each, for instance `{Car: Vehicle}`.",
    ),
    key(
        "precision",
        "`f32`, `bf16`",
        "f16",
        "Arithmetic of the convolutions, forward and backward; weights, norms, losses and the optimiser are f32.",
    ),
    key(
        "ema_decay",
        "in [0, 1)",
        "1",
        "Share of the old average of the weights in the new one; validation and the final model then use the average. 0: off.",
    ),
    key("optimizer.beta2", "in [0, 1)", "1", "Adam's share of the old mean squared gradient."),
    key("optimizer.eps", "above 0", "0", "Added to the root of the mean squared gradient."),
    key("optimizer.weight_decay", "in [0, 1)", "1", "Share of every weight lost in a step, over the learning rate."),
    key("optimizer.max_grad_norm", "above 0", "0", "Longest gradient over all weights; longer ones are shortened to it."),
    key("schedule.peak_lr", "above 0", "0", "Highest learning rate."),
    key("schedule.div_factor", "1 or more", "0.5", "The first rate is the peak over this, the last one 10000 times less again."),
    key("schedule.pct_start", "in [0, 1)", "1", "Share of the steps in which the rate rises."),
    key("schedule.moms", "two numbers in [0, 1)", "[1, 1]", "Adam's beta1 at the first step and at the peak."),
    key("loss.heat_map", "0 or more", "-1", "Weight of the focal loss of the heat map."),
    key("loss.regression", "0 or more", "-1", "Weight of the L1 loss of the boxes."),
    key("targets.gaussian_overlap", "in (0, 1)", "0", "A box moved by the Gaussian's radius still overlaps itself by this."),
    key("targets.min_radius", "0 to 1000 cells", "-1", "Least radius of a Gaussian."),
    key("targets.max_objects", "1 to 100000", "0", "Boxes of a frame beyond this many are left out."),
    key(
        "augment.gt_sampling",
        "null, or the keys below",
        "",
        "Objects of other frames pasted into free places; null: off. On as soon as a database is named.",
    ),
    key("augment.gt_sampling.database", "folder", "", "What `trainer convert gt-database` wrote."),
    key(
        "augment.gt_sampling.targets",
        "class to 1 to 1000",
        "{Vehicle: 0}",
        "Objects of each class that a frame has afterwards, its own included.",
    ),
    key("augment.gt_sampling.min_points", "1 or more", "0", "Objects with fewer points are never pasted."),
    key("augment.flip_x_probability", "0 to 1", "2", "Chance that y changes sign."),
    key("augment.flip_y_probability", "0 to 1", "2", "Chance that x changes sign."),
    key(
        "augment.rotation_rad",
        "null, or two angles in [-pi, pi]",
        "[1, -1]",
        "The frame is turned about z by an angle between these.",
    ),
    key("augment.scaling", "null, or two factors in [0.1, 10]", "[2, 1]", "The frame is scaled by a factor between these."),
    key("augment.shuffle", "true, false", "maybe", "Random order of points, which decides which of them a full pillar keeps."),
    key(
        "distill",
        "null, or the keys below",
        "",
        "What the student takes from a teacher; null: nothing. On as soon as a teacher is named.",
    ),
    key(
        "distill.teacher.from",
        "`{model: DIR}`, `{dump: DIR}`",
        "{who: x}",
        "A model directory that is asked in every step, or a folder of `trainer dump-teacher`.",
    ),
    key(
        "distill.teacher.mode",
        "`train`, `eval`",
        "test",
        "Statistics of the teacher's batch norms: of the batch at hand, as released, or of its training.",
    ),
    key("distill.teacher.precision", "`f32`, `bf16`", "f16", "Arithmetic of the teacher's convolutions."),
    key("distill.logit", "null, or the keys below", "", "Distillation of the heat map; null: none."),
    key("distill.logit.weight", "0 or more", "-1", "Of the heat map's term."),
    key(
        "distill.logit.loss",
        "`mse`, `smooth_l1`, `{focal: {positive_from, inverse}}`",
        "kl",
        "What is done with a pair of probabilities.",
    ),
    key("distill.logit.min_confidence", "in [0, 1)", "1", "Positions where no class of the teacher exceeds this are left out."),
    key(
        "distill.logit.confidence_weight",
        "true, false",
        "maybe",
        "Whether a position counts by the teacher's highest probability there.",
    ),
    key("distill.logit.truth", "`off`, `hard`, `gaussian`", "soft", "How the true boxes choose positions."),
    key("distill.logit.rank", "null, or 1 or more", "0", "Only the positions of the teacher's best so many entries of a frame."),
    key("distill.logit.align.to", "`teacher`, `student`", "both", "Whose resolution is kept where the two differ."),
    key("distill.logit.align.mode", "`bilinear`, `nearest`, `bicubic`, `area`", "cubic", "How the other map is resized."),
    key(
        "distill.logit.sort",
        "null, or `{weight, rank}`",
        "{weight: 1, rank: 0}",
        "Cross-entropy over the teacher's best entries.",
    ),
    key("distill.regression_weight", "0 or more", "-1", "Of the boxes' term; without effect where resolutions differ."),
    key("distill.label", "null, or the keys below", "", "The teacher's boxes as labels; null: none."),
    key("distill.label.score", "`class`, `iou`, `mixed`", "best", "What a box of the teacher's is judged by."),
    key(
        "distill.label.min_scores",
        "one number in [0, 1), or one for each class",
        "[0.1, 0.2]",
        "A box counts when it scores more.",
    ),
    key(
        "distill.label.merge",
        "`released`, `truth_first`, `teacher_only`, `corrected`",
        "union",
        "How the teacher's boxes and the true ones are put together; `corrected` removes duplicates and keeps all true ones.",
    ),
    key("distill.label.max_overlap", "in [0, 1)", "1", "With `corrected`: boxes of a class that overlap more are one object."),
    key("distill.inherit", "null, or the keys below", "", "The student's first weights; null: fresh ones."),
    key("distill.inherit.from", "null, or a model directory", "", "Whose weights; null: the teacher's."),
    key(
        "distill.inherit.how",
        "`copy`, `prefix`, `prefix_released`, `bn_scale`, `l1_norm`",
        "all",
        "Which channels: `prefix` is a plain copy where both are equally wide.",
    ),
    key("loader.batch_size", "1 to 1024", "0", "Frames of a step. The learning rate is not scaled with it."),
    key("loader.n_workers", "1 to 256", "0", "Threads that make batches ahead of the device."),
    key("loader.n_batches_ahead", "1 to 1024", "0", "Batches that may lie ready."),
    key(
        "loader.keep_partial_batch",
        "true, false",
        "maybe",
        "Whether the frames left over at the end of an epoch make a smaller batch.",
    ),
    key("loader.max_unreadable_share", "0 to 1", "2", "The run ends when more of an epoch's frames turned out unreadable."),
    key(
        "checkpoints.every_steps",
        "1 or more",
        "0",
        "Steps between checkpoints; one more is written before each evaluation and at the end.",
    ),
    key("checkpoints.keep", "1 to 1000", "0", "Newest checkpoints kept."),
    key(
        "validation.every_epochs",
        "whole number",
        "",
        "Epochs between evaluations on the validation source; 0: only after the last epoch, which has one in any case.",
    ),
    key("validation.max_frames", "whole number", "", "Frames evaluated, evenly spread over the source; 0: all."),
    key("log_every_steps", "1 or more", "0", "Steps that a line of the log is the mean of."),
    key(
        "num_threads",
        "0 to 1024",
        "-1",
        "CPU threads of libtorch; 0 leaves it to libtorch. Another number gives other last bits.",
    ),
    key(
        "model_dtype",
        "`f32`, `f16`",
        "bf16",
        "Element type of the weights in the model directories; evaluations use the rounded ones.",
    ),
];

const fn key(name: &'static str, allowed: &'static str, wrong: &'static str, description: &'static str) -> Key {
    Key { name, allowed, wrong, description }
}

/// A configuration in which every optional section is there, at its defaults.
pub fn everything_on() -> RunConfig {
    let database = PathBuf::from("DIR");
    let gt_sampling = serde_json::from_value(serde_json::json!({ "database": database })).ok();
    RunConfig {
        model: "cp-pillar".to_owned(),
        augment: AugmentConfig { gt_sampling, ..AugmentConfig::default() },
        distill: Some(DistillConfig::released(TeacherFrom::Model(database))),
        ..RunConfig::default()
    }
}

/// The keys as a Markdown table with their defaults. Keys of optional sections show what they are once the section is there.
pub fn config_table_markdown() -> String {
    let trees = [RunConfig::default(), everything_on()].map(|config| serde_json::to_value(config).unwrap_or_default());
    let mut table = String::from("| key | default | allowed | what |\n| --- | --- | --- | --- |\n");
    for Key { name, allowed, description, .. } in KEYS {
        let pointer = format!("/{}", name.replace('.', "/"));
        let default = trees.iter().find_map(|tree| tree.pointer(&pointer)).map(Value::to_string).unwrap_or_default();
        // Infallible for a String.
        let _ = writeln!(table, "| `{name}` | `{default}` | {allowed} | {description} |");
    }
    table
}
