//! Every key of a run's YAML in words. Tests hold it to [`super::config`]: all keys are here, wrong values are refused, and
//! `config/train/README.md` shows this table.

use std::fmt::Write as _;

use super::config::{RunConfig, flattened};

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
    key("batch_size", "1 to 1024", "0", "Frames of a step. The learning rate is not scaled with it."),
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
    key("loader.threads", "1 to 256", "0", "Threads that make batches ahead of the device."),
    key("loader.ahead", "1 to 1024", "0", "Batches made ahead."),
    key("checkpoints.every_steps", "1 or more", "0", "Steps between checkpoints; each epoch ends with one too."),
    key("checkpoints.keep", "1 to 1000", "0", "Newest checkpoints kept."),
    key(
        "validation.every_epochs",
        "whole number",
        "",
        "Epochs between evaluations on the validation source; 0: only after the last epoch, which has one in any case.",
    ),
    key("validation.max_frames", "whole number", "", "Frames evaluated, evenly spread over the source; 0: all."),
    key("log_every_steps", "1 or more", "0", "Steps that a line of the log is the mean of."),
    key("num_threads", "0 to 1024", "-1", "CPU threads of libtorch; 0 leaves it to libtorch. Another number gives other last bits."),
];

const fn key(name: &'static str, allowed: &'static str, wrong: &'static str, description: &'static str) -> Key {
    Key { name, allowed, wrong, description }
}

/// The keys as a Markdown table with their defaults.
pub fn config_table_markdown() -> String {
    let defaults = flattened(&serde_json::to_value(RunConfig::default()).unwrap_or_default());
    let mut table = String::from("| key | default | allowed | what |\n| --- | --- | --- | --- |\n");
    for Key { name, allowed, description, .. } in KEYS {
        let default = defaults.iter().find(|(key, _)| key == name).map(|(_, value)| value.to_string()).unwrap_or_default();
        // Infallible for a String.
        let _ = writeln!(table, "| `{name}` | `{default}` | {allowed} | {description} |");
    }
    table
}
