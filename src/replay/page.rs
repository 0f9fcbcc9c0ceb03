//! The HTML page of a replay: one file that needs nothing but the pictures beside it.
//!
//! Names and messages come from the bag and are escaped wherever they are put.

use std::fmt::Write;

use serde::Serialize;

use super::latency::{self, FrameTimes, LatencyStats};
use super::{ReplaySummary, TruthMatches};

/// Frames listed; the rest are in `detections.jsonl`.
const MAX_ROWS: usize = 5000;
/// Losses listed.
const MAX_LOSSES: usize = 500;

/// One row of the frame table.
#[derive(Debug, Clone, PartialEq)]
pub struct FrameRow {
    /// Which cloud of the topic.
    pub index: u64,
    /// Seconds and nanoseconds of the header; `None` when the message could not be read that far.
    pub stamp: Option<(i32, u32)>,
    /// Counts, or why there are none.
    pub outcome: Result<FrameCounts, String>,
    /// Its picture, relative to the page.
    pub picture: Option<String>,
}

/// The counts of one frame.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FrameCounts {
    /// Points in the message.
    pub points: usize,
    /// Points the network saw.
    pub in_voxels: usize,
    /// Pillars kept.
    pub voxels: usize,
    /// Boxes.
    pub boxes: usize,
    /// Score of the best box.
    pub best_score: Option<f32>,
    /// Anything unusual.
    pub flags: Vec<String>,
}

#[derive(Serialize)]
struct Picture<'a> {
    file: &'a str,
    index: u64,
}

/// The page.
pub fn render(summary: &ReplaySummary, rows: &[FrameRow], times: &[FrameTimes]) -> String {
    let title = format!("Replay of {}", escape(&summary.bag.display().to_string()));
    let mut body = format!("<h1>{title}</h1>\n");
    push_facts(&mut body, summary);
    push_losses(&mut body, summary);
    let pictures: Vec<Picture<'_>> =
        rows.iter().filter_map(|row| Some(Picture { file: row.picture.as_deref()?, index: row.index })).collect();
    if !pictures.is_empty() {
        push_viewer(&mut body, pictures.len());
    }
    push_latency(&mut body, times);
    push_frames(&mut body, rows);
    if !pictures.is_empty() {
        push_script(&mut body, &pictures);
    }
    document(&title, &body)
}

/// A whole page around a body; `title` is escaped already.
pub(crate) fn document(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <style>\n{}</style>\n</head>\n<body>\n{body}</body>\n</html>\n",
        include_str!("page.css")
    )
}

/// Names and values, which are HTML already, in two columns.
pub(crate) fn push_fact_list(body: &mut String, facts: &[(&str, String)]) {
    body.push_str("<dl class=\"facts\">\n");
    for (name, value) in facts {
        let _ = writeln!(body, "<dt>{name}</dt><dd>{value}</dd>");
    }
    body.push_str("</dl>\n");
}

/// A box with what went wrong, each line escaped here.
pub(crate) fn push_loss_list(body: &mut String, mut lines: Vec<String>) {
    let hidden = lines.len().saturating_sub(MAX_LOSSES);
    lines.truncate(MAX_LOSSES);
    body.push_str("<div class=\"loss\"><strong>Finished with loss.</strong> Everything else was processed.\n<ul>\n");
    for line in lines {
        let _ = writeln!(body, "<li>{}</li>", escape(&line));
    }
    if hidden > 0 {
        let _ = writeln!(body, "<li>and {hidden} more</li>");
    }
    body.push_str("</ul></div>\n");
}

/// Milliseconds by stage.
pub(crate) fn push_latency_table<'a>(body: &mut String, lines: impl IntoIterator<Item = (&'a str, LatencyStats)>) {
    body.push_str(
        "<table>\n<thead><tr><th class=\"name\">stage</th><th>mean</th><th>p50</th><th>p95</th><th>p99</th><th>max</th>\
         <th>clouds</th></tr></thead>\n<tbody>\n",
    );
    for (name, stats) in lines {
        let class = if name == "total" { " class=\"sum\"" } else { "" };
        let _ = writeln!(
            body,
            "<tr{class}><td class=\"name\">{name}</td><td>{:.2}</td><td>{:.2}</td><td>{:.2}</td><td>{:.2}</td><td>{:.2}</td><td>{}</td></tr>",
            stats.mean_ms, stats.p50_ms, stats.p95_ms, stats.p99_ms, stats.max_ms, stats.n
        );
    }
    body.push_str("</tbody>\n</table>\n");
}

/// The text with every character that means something in HTML replaced.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

fn push_facts(body: &mut String, summary: &ReplaySummary) {
    let classes: Vec<String> =
        summary.boxes_per_class.iter().map(|(class, n_boxes)| format!("{} {n_boxes}", escape(class))).collect();
    let files = [
        ("detections.jsonl", "JSON lines"),
        ("detections/", "rosbag2"),
        ("latency.json", "times"),
        ("foxglove.mcap", "Foxglove"),
        ("foxglove-layout.json", "Foxglove layout"),
    ];
    let links: Vec<String> = files
        .iter()
        .filter(|(file, _)| summary.foxglove || !file.starts_with("foxglove"))
        .map(|(file, name)| format!("<a href=\"{file}\">{name}</a>"))
        .collect();
    let mut facts = vec![
        ("Topic", format!("<code>{}</code>", escape(&summary.topic))),
        ("Clouds", format!("{} processed, {} malformed", summary.n_processed, summary.malformed.len())),
        ("Boxes", format!("{} ({})", summary.n_boxes, classes.join(", "))),
        ("Model", format!("{}, {}", escape(&summary.model.name), escape(&summary.model.device))),
        ("Made from", escape(&summary.model.provenance)),
        ("Weights", format!("<code>sha256 {}</code>", escape(&summary.model.weights_sha256))),
        ("Network", escape(&summary.model.spec_line)),
        (
            "Speed",
            format!(
                "{:.1} clouds per second, {:.1} s in all, pictures and files included",
                summary.frames_per_s(),
                summary.wall_s
            ),
        ),
        ("Command", format!("<code>{}</code>", escape(&summary.command_line))),
        ("Files", links.join(", ")),
    ];
    if !summary.other_topics.is_empty() {
        let topics: Vec<String> = summary
            .other_topics
            .iter()
            .map(|(name, ros_type)| format!("<code>{}</code> ({})", escape(name), escape(ros_type)))
            .collect();
        facts.push(("Not replayed", topics.join(", ")));
    }
    for note in &summary.notes {
        facts.push(("Note", escape(note)));
    }
    if let Some(matches) = &summary.truth {
        facts.push(("Ground truth", truth_text(matches)));
    }
    push_fact_list(body, &facts);
}

fn truth_text(matches: &TruthMatches) -> String {
    let mut text = format!("<code>{}</code>, {} frames", escape(&matches.topic), matches.n_frames);
    for class in &matches.classes {
        let _ = write!(text, "<br>{}", escape(&class.to_string()));
    }
    if matches.n_outside > 0 {
        let _ = write!(text, "<br>not counted: {} true boxes outside of the model's range", matches.n_outside);
    }
    text
}

fn push_losses(body: &mut String, summary: &ReplaySummary) {
    let malformed = summary.malformed.iter().map(|cloud| format!("cloud {}: {}", cloud.index, cloud.reason));
    let lines: Vec<String> = summary.losses.iter().cloned().chain(malformed).collect();
    if !lines.is_empty() {
        push_loss_list(body, lines);
    }
}

fn push_viewer(body: &mut String, n_pictures: usize) {
    let _ = writeln!(
        body,
        "<h2>Pictures</h2>\n<div class=\"viewer\">\n<div class=\"bar\"><button id=\"previous\">Previous</button>\
         <input id=\"slider\" type=\"range\" min=\"0\" max=\"{}\" value=\"0\" aria-label=\"frame\">\
         <button id=\"next\">Next</button><span id=\"caption\"></span></div>\n<img id=\"picture\" alt=\"\">\n</div>",
        n_pictures - 1
    );
}

fn push_latency(body: &mut String, times: &[FrameTimes]) {
    let Some(first) = times.first() else { return };
    let _ = writeln!(
        body,
        "<h2>Latency</h2>\n<p class=\"faint\">Milliseconds per cloud, measured in this run; these numbers differ from run to run, \
         the detections do not. Total runs from the message to the boxes; read, write and picture lie outside of it. \
         The first cloud, which pays for warming up, took {:.1} ms.</p>",
        first.total_ms
    );
    push_latency_table(body, latency::table(times));
}

fn push_frames(body: &mut String, rows: &[FrameRow]) {
    body.push_str(
        "<h2>Frames</h2>\n<div class=\"scroll\">\n<table>\n<thead><tr><th>frame</th><th>stamp (s)</th><th>points</th><th>in pillars</th>\
         <th>pillars</th><th>boxes</th><th>best score</th><th class=\"name\">remarks</th></tr></thead>\n<tbody>\n",
    );
    for row in rows.iter().take(MAX_ROWS) {
        let class = if row.picture.is_some() { " class=\"pick\"" } else { "" };
        let stamp = row.stamp.map_or_else(|| "-".to_owned(), |(sec, nanosec)| format!("{sec}.{nanosec:09}"));
        let _ = write!(body, "<tr id=\"f{0}\"{class}><td>{0}</td><td>{stamp}</td>", row.index);
        let _ = match &row.outcome {
            Ok(counts) => writeln!(
                body,
                "<td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td class=\"name\">{}</td></tr>",
                counts.points,
                counts.in_voxels,
                counts.voxels,
                counts.boxes,
                counts.best_score.map_or_else(|| "-".to_owned(), |score| format!("{score:.2}")),
                escape(&counts.flags.join(" "))
            ),
            Err(reason) => {
                writeln!(body, "<td></td><td></td><td></td><td></td><td></td><td class=\"name bad\">{}</td></tr>", escape(reason))
            }
        };
    }
    body.push_str("</tbody>\n</table>\n</div>\n");
    if rows.len() > MAX_ROWS {
        let _ = writeln!(body, "<p class=\"faint\">{} more frames are in detections.jsonl.</p>", rows.len() - MAX_ROWS);
    }
}

fn push_script(body: &mut String, pictures: &[Picture<'_>]) {
    // File names are made by the replay, but a `<` in JSON could end the script element all the same.
    let list = serde_json::to_string(pictures).unwrap_or_default().replace('<', "\\u003c");
    let _ = writeln!(
        body,
        "<script type=\"application/json\" id=\"pictures\">{list}</script>\n<script>\n{}</script>",
        include_str!("page.js")
    );
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::pipeline::StageTimes;
    use crate::replay::{MalformedCloud, ModelInfo};

    const HOSTILE: &str = "/<script>alert('x')</script>&\"";

    fn summary() -> ReplaySummary {
        ReplaySummary {
            bag: PathBuf::from(HOSTILE),
            topic: HOSTILE.to_owned(),
            model: ModelInfo {
                name: HOSTILE.to_owned(),
                device: "cpu".to_owned(),
                weights_sha256: "00ff".to_owned(),
                spec_line: HOSTILE.to_owned(),
                provenance: HOSTILE.to_owned(),
            },
            n_processed: 2,
            malformed: vec![MalformedCloud { index: 1, log_time_ns: 5, stamp: None, reason: HOSTILE.to_owned() }],
            losses: vec![HOSTILE.to_owned()],
            notes: vec![HOSTILE.to_owned()],
            interrupted: false,
            other_topics: vec![(HOSTILE.to_owned(), HOSTILE.to_owned())],
            n_boxes: 3,
            boxes_per_class: vec![(HOSTILE.to_owned(), 3)],
            truth: Some(TruthMatches::new(HOSTILE, &[HOSTILE.to_owned()])),
            latency: Vec::new(),
            wall_s: 0.5,
            foxglove: true,
            page: PathBuf::from("index.html"),
            command_line: HOSTILE.to_owned(),
        }
    }

    fn rows() -> Vec<FrameRow> {
        let counts = FrameCounts { boxes: 3, best_score: Some(0.5), flags: vec![HOSTILE.to_owned()], ..FrameCounts::default() };
        vec![
            FrameRow {
                index: 0,
                stamp: Some((12, 34)),
                outcome: Ok(counts.clone()),
                picture: Some("frames/000000.png".to_owned()),
            },
            FrameRow { index: 1, stamp: None, outcome: Err(HOSTILE.to_owned()), picture: None },
            FrameRow { index: 2, stamp: Some((-1, 5)), outcome: Ok(counts), picture: Some("frames/</script>.png".to_owned()) },
        ]
    }

    #[test]
    fn page_escapes_every_text_of_the_bag() {
        let stages = StageTimes { backbone_ms: 12.25, ..StageTimes::default() };
        let page = render(&summary(), &rows(), &[FrameTimes { stages, total_ms: 20.0, ..FrameTimes::default() }]);
        assert!(!page.contains("<script>alert"), "{page}");
        let escaped = page.matches("/&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;&quot;").count();
        assert_eq!(escaped, 18, "title, heading, facts, losses, truth and rows");
        assert_eq!(page.matches("</script>").count(), 2, "only the two elements of the page end");
        assert!(page.contains("<td class=\"name\">backbone</td><td>12.25</td>"), "{page}");
        assert!(page.contains("<tr id=\"f0\" class=\"pick\"><td>0</td><td>12.000000034</td>"), "{page}");
    }

    #[test]
    fn page_needs_nothing_from_elsewhere() {
        let page = render(&summary(), &rows(), &[]);
        for reference in ["http:", "https:", "//", "src=", "@import", "url("] {
            assert!(!page.contains(reference), "{reference}");
        }
    }

    #[test]
    fn page_without_pictures_or_losses_leaves_their_parts_out() {
        let mut clean = ReplaySummary { malformed: Vec::new(), losses: Vec::new(), foxglove: false, ..summary() };
        let page = render(&clean, &rows()[1..2], &[]);
        for part in ["<script", "<img", "Finished with loss", "foxglove.mcap", "<h2>Latency"] {
            assert!(!page.contains(part), "{part}");
        }
        clean.losses = vec!["lost".to_owned(); 1234];
        let page = render(&clean, &[], &[]);
        assert_eq!((page.matches("<li>lost</li>").count(), page.matches("and 734 more").count()), (MAX_LOSSES, 1));
    }
}
