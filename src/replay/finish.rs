//! The end of a replay: files closed, times and page written, summary made.

use serde::Serialize;

use super::latency::{self, FrameTimes, LatencyStats};
use super::out_dir::{OutDir, write_file};
use super::run::Replay;
use super::summary::{ModelInfo, ReplaySummary};
use super::{MARKERS_TOPIC, ReplayError, ReplayOptions, foxglove, page};

/// What is known once the bag has been read.
pub(super) struct Ending {
    pub(super) losses: Vec<String>,
    pub(super) notes: Vec<String>,
    pub(super) interrupted: bool,
    pub(super) other_topics: Vec<(String, String)>,
    pub(super) wall_s: f64,
}

/// The content of `latency.json`.
#[derive(Serialize)]
struct LatencyFile<'a> {
    note: &'static str,
    model: &'a str,
    device: &'a str,
    wall_s: f64,
    stages: serde_json::Map<String, serde_json::Value>,
    frames: &'a [FrameTimes],
}

pub(super) fn finish(
    replay: Replay<'_>,
    options: &ReplayOptions,
    dir: &OutDir,
    model: &ModelInfo,
    ending: Ending,
) -> Result<ReplaySummary, ReplayError> {
    replay.outputs.finish()?;
    if options.foxglove {
        let layout = foxglove::layout(replay.topic, MARKERS_TOPIC, &replay.frame_id);
        write_file(&dir.path("foxglove-layout.json"), layout.as_bytes())?;
    }
    let latency = latency::table(&replay.times);
    write_latency(dir, model, ending.wall_s, &latency, &replay.times)?;
    let summary = ReplaySummary {
        bag: options.bag.clone(),
        topic: replay.topic.to_owned(),
        model: model.clone(),
        n_processed: replay.times.len() as u64,
        malformed: replay.malformed,
        losses: ending.losses,
        notes: ending.notes,
        interrupted: ending.interrupted,
        other_topics: ending.other_topics,
        n_boxes: replay.boxes_per_class.iter().sum(),
        boxes_per_class: replay.class_names.into_iter().zip(replay.boxes_per_class).collect(),
        truth: replay.matches,
        latency,
        wall_s: ending.wall_s,
        foxglove: options.foxglove,
        page: dir.path("index.html"),
        command_line: options.command_line.clone(),
    };
    write_file(&summary.page, page::render(&summary, &replay.rows, &replay.times).as_bytes())?;
    Ok(summary)
}

fn write_latency(
    dir: &OutDir,
    model: &ModelInfo,
    wall_s: f64,
    table: &[(&'static str, LatencyStats)],
    frames: &[FrameTimes],
) -> Result<(), ReplayError> {
    let stages = table.iter().map(|(stage, stats)| ((*stage).to_owned(), serde_json::json!(stats))).collect();
    let note = "measured in this run; milliseconds; total = message to boxes; read, write and picture lie outside of it";
    let file = LatencyFile { note, model: &model.name, device: &model.device, wall_s, stages, frames };
    let path = dir.path("latency.json");
    let text = serde_json::to_vec_pretty(&file).map_err(|fault| super::out_dir::write_error(&path, fault.into()))?;
    write_file(&path, &text)
}
