//! The figures as Markdown tables.

use std::fmt::Write;

use super::{Cost, Latency, ModelProfile, Report};

/// Overview, parts, stages where times were measured, cost against accuracy where it is known.
pub fn markdown(report: &Report) -> String {
    let mut text = format!("Frames: {}.\n\n", report.frames);
    overview(&mut text, &report.models);
    parts(&mut text, &report.models);
    let timed: Vec<_> = report.models.iter().filter_map(|model| Some((model, model.latency.as_ref()?))).collect();
    if let Some((_, first)) = timed.first() {
        stages(&mut text, &timed, first);
    }
    if !report.cost_performance.is_empty() {
        cost_performance(&mut text, report);
    }
    text.push_str(
        "\nPaper: padded slots of pillars computed, a transposed convolution charged its whole kernel at each output cell, two \
         operations per element of a batch norm. Actual: stored points only, transposed convolutions once, norms folded.\n",
    );
    text
}

fn overview(text: &mut String, models: &[ModelProfile]) {
    row(
        text,
        ["model", "grid", "params (M)", "pillars", "MACs (G), paper", "acts (M), paper", "MACs (G), actual", "acts (M), actual"],
    );
    rule(text, 8, 1);
    for model in models {
        let cost = &model.cost;
        row(
            text,
            [
                model.model.clone(),
                format!("{} x {}", model.grid[0], model.grid[1]),
                format!("{:.3}", cost.params as f64 * 1e-6),
                format!("{:.0}", model.workload.voxels),
                giga(cost.paper),
                mega(cost.paper),
                giga(cost.actual),
                mega(cost.actual),
            ],
        );
    }
}

fn parts(text: &mut String, models: &[ModelProfile]) {
    text.push('\n');
    row(
        text,
        [
            "model",
            "part",
            "params",
            "MACs (G), paper",
            "of these in norms",
            "acts (M), paper",
            "MACs (G), actual",
            "acts (M), actual",
        ],
    );
    rule(text, 8, 2);
    for model in models {
        for group in &model.cost.groups {
            row(
                text,
                [
                    model.model.clone(),
                    group.group.to_string(),
                    group.params.to_string(),
                    giga(group.paper),
                    format!("{:.3}", group.paper.norm_macs * 1e-9),
                    mega(group.paper),
                    giga(group.actual),
                    mega(group.actual),
                ],
            );
        }
    }
}

fn stages(text: &mut String, timed: &[(&ModelProfile, &Latency)], first: &Latency) {
    let n_timed = first.stages.first().map_or(0, |line| line.stats.n);
    let _ = write!(
        text,
        "\nMilliseconds from decoded points to boxes, median / 95th percentile of {n_timed} frames after {} for warming up; device {}, \
         {} CPU threads, {}.\n\n",
        first.warm_up,
        first.device,
        first.cpu_threads,
        format!("{:?}", first.precision).to_lowercase()
    );
    row(text, std::iter::once("model").chain(first.stages.iter().map(|line| line.stage)));
    rule(text, 1 + first.stages.len(), 1);
    for (model, latency) in timed {
        let times = latency.stages.iter().map(|line| format!("{:.1} / {:.1}", line.stats.p50_ms, line.stats.p95_ms));
        row(text, std::iter::once(model.model.clone()).chain(times));
    }
}

fn cost_performance(text: &mut String, report: &Report) {
    text.push('\n');
    row(
        text,
        ["model", "report", "mAPH L2", "of the largest", "MACs (G), actual", "of the largest", "latency (ms)", "beaten by"],
    );
    rule(text, 8, 2);
    for line in &report.cost_performance {
        let model = report.models.iter().find(|model| model.model == line.model);
        let latency = model.and_then(|model| model.latency.as_ref()?.of("total"));
        row(
            text,
            [
                line.model.clone(),
                line.report.clone(),
                format!("{:.4}", line.maph_l2),
                line.maph_share.map_or("-".to_owned(), |share| format!("{:.1} %", 100.0 * share)),
                model.map_or("-".to_owned(), |model| giga(model.cost.actual)),
                format!("{:.1} %", 100.0 * line.macs_share),
                latency.map_or("-".to_owned(), |stats| format!("{:.1}", stats.p50_ms)),
                line.beaten_by.clone().unwrap_or_else(|| "-".to_owned()),
            ],
        );
    }
}

fn row(text: &mut String, cells: impl IntoIterator<Item = impl AsRef<str>>) {
    for cell in cells {
        let _ = write!(text, "| {} ", cell.as_ref());
    }
    text.push_str("|\n");
}

/// The line under the head: `n_left` columns of words, the others of numbers.
fn rule(text: &mut String, n_columns: usize, n_left: usize) {
    for column in 0..n_columns {
        text.push_str(if column < n_left { "| --- " } else { "| ---: " });
    }
    text.push_str("|\n");
}

fn giga(cost: Cost) -> String {
    format!("{:.2}", cost.macs() * 1e-9)
}

fn mega(cost: Cost) -> String {
    format!("{:.1}", cost.activations * 1e-6)
}
