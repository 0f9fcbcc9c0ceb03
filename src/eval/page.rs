//! The HTML page of an evaluation: one file that needs nothing else, pictures included.
//!
//! Names and messages come from data and are escaped wherever they are put.

use std::fmt::Write;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::replay::page::{document, escape, push_fact_list, push_latency_table, push_loss_list};

use super::Breakdown;
use super::config::Level;
use super::frames::Region;
use super::report::{EvalReport, FrameScore, Origin};

/// Width and height of the area of a curve, in units of its picture.
const CURVE: [f32; 2] = [300.0, 200.0];
/// Room left of and below it for the labels.
const MARGIN: [f32; 2] = [34.0, 30.0];
const LEVELS: [Level; 2] = [Level::Level1, Level::Level2];
const RANGES: [&str; 3] = ["0 to 30 m", "30 to 50 m", "from 50 m"];

/// A bird's-eye picture of one of the worst frames.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture<'a> {
    /// Of which frame.
    pub score: &'a FrameScore,
    /// The bytes of its file.
    pub png: Vec<u8>,
}

/// The page.
pub fn render(report: &EvalReport, origin: &Origin, pictures: &[Picture<'_>]) -> String {
    let title = format!("Evaluation of {}", escape(&report.model.name));
    let mut body = format!("<h1>{title}</h1>\n");
    push_facts(&mut body, report, origin);
    if !report.bad_frames.is_empty() {
        push_loss_list(&mut body, report.bad_frames.iter().map(|bad| format!("{}: {}", bad.frame, bad.reason)).collect());
    }
    push_classes(&mut body, report);
    push_curves(&mut body, report);
    push_ranges(&mut body, report);
    push_labels(&mut body, report);
    push_worst_frames(&mut body, report, pictures);
    push_latency(&mut body, report);
    document(&title, &body)
}

fn push_facts(body: &mut String, report: &EvalReport, origin: &Origin) {
    let [x_min, y_min, _, x_max, y_max, _] = report.model.range_m;
    let frames = format!(
        "{} evaluated of {} chosen ({} in the source); {} without labels, {} bad",
        report.n_frames,
        report.n_frames_chosen,
        report.n_frames_of_source,
        report.n_frames_without_labels,
        report.bad_frames.len()
    );
    let region = match report.region {
        Region::Everything => "everything, wherever it is".to_owned(),
        Region::Model => format!(
            "objects whose middle lies within the model's range, x {x_min} to {x_max} m and y {y_min} to {y_max} m; {} labels and {} \
             boxes outside of it were left out",
            report.n_labels_outside_region(),
            report.n_boxes_outside_region
        ),
    };
    let mut facts = vec![
        (
            "Mean APH, LEVEL_2",
            report.mean_aph_level_2().map_or_else(|| "-".to_owned(), |mean| format!("<strong>{mean:.4}</strong>")),
        ),
        ("Model", format!("{}; {}", escape(&report.model.name), escape(&report.model.classes.join(", ")))),
        ("Weights", format!("<code>sha256 {}</code>", escape(&origin.weights_sha256))),
        ("Data", format!("<code>{}</code>, <code>sha256 {}</code>", escape(&report.data.source), escape(&report.data.sha256))),
        ("Frames", frames),
        ("Points", format!("{}, of which the network saw {}", report.n_points, report.n_points_in_voxels)),
        ("Measured on", region),
        ("Command", format!("<code>{}</code>", escape(&origin.command))),
    ];
    for finding in &report.findings {
        facts.push(("Data finding", escape(&finding.to_string())));
    }
    push_fact_list(body, &facts);
}

/// Four cells: AP and APH of both levels.
fn push_scores<'a>(body: &mut String, of_level: impl Fn(Level) -> Option<&'a Breakdown>) {
    for level in LEVELS {
        let _ = match of_level(level) {
            Some(b) => write!(body, "<td>{:.4}</td><td>{:.4}</td>", b.ap, b.aph),
            None => write!(body, "<td>-</td><td>-</td>"),
        };
    }
}

const SCORE_HEADS: &str = "<th>AP L1</th><th>APH L1</th><th>AP L2</th><th>APH L2</th>";

fn push_classes(body: &mut String, report: &EvalReport) {
    let _ =
        writeln!(body, "<h2>By class</h2>\n<table>\n<thead><tr><th class=\"name\">class</th>{SCORE_HEADS}</tr></thead>\n<tbody>");
    for (class, object_type) in report.classes() {
        let _ = write!(body, "<tr><td class=\"name\">{}</td>", escape(class));
        push_scores(body, |level| report.by_type(object_type, level));
        body.push_str("</tr>\n");
    }
    body.push_str("</tbody>\n</table>\n");
}

fn push_ranges(body: &mut String, report: &EvalReport) {
    let _ = writeln!(
        body,
        "<h2>By range</h2>\n<table>\n<thead><tr><th class=\"name\">class</th><th class=\"name\">range</th>{SCORE_HEADS}\
         <th>found</th><th>missed L2</th></tr></thead>\n<tbody>"
    );
    for (class, object_type) in report.classes() {
        for (range, name) in RANGES.into_iter().enumerate() {
            let _ = write!(body, "<tr><td class=\"name\">{}</td><td class=\"name\">{name}</td>", escape(class));
            push_scores(body, |level| report.by_range(object_type, range, level));
            // At the lowest cutoff every box counts.
            let curve = report.by_range(object_type, range, Level::Level2).map(|b| &b.curve);
            let most = |counts: &[u32]| counts.iter().max().copied().unwrap_or(0);
            let found = curve.map_or(0, |curve| most(&curve.true_positives));
            let missed = curve.map_or(0, |curve| curve.false_negatives.iter().min().copied().unwrap_or(0));
            let _ = writeln!(body, "<td>{found}</td><td>{missed}</td></tr>");
        }
    }
    body.push_str("</tbody>\n</table>\n");
}

fn push_labels(body: &mut String, report: &EvalReport) {
    body.push_str(
        "<h2>Labels and boxes</h2>\n<table>\n<thead><tr><th class=\"name\">class</th><th>LEVEL_1</th><th>LEVEL_2 only</th>\
         <th>without points</th><th>outside</th><th>boxes found</th></tr></thead>\n<tbody>\n",
    );
    for ((class, counts), (_, n_boxes)) in report.labels.iter().zip(&report.boxes) {
        let _ = writeln!(
            body,
            "<tr><td class=\"name\">{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{n_boxes}</td></tr>",
            escape(class),
            counts.level_1,
            counts.level_2,
            counts.without_points,
            counts.outside_region
        );
    }
    for (class, n) in &report.labels_of_other_classes {
        let _ = writeln!(body, "<tr><td class=\"name\">{} (not looked for)</td><td colspan=\"5\">{n}</td></tr>", escape(class));
    }
    body.push_str("</tbody>\n</table>\n");
}

fn push_worst_frames(body: &mut String, report: &EvalReport, pictures: &[Picture<'_>]) {
    if report.worst_frames.is_empty() {
        return;
    }
    let _ = writeln!(
        body,
        "<h2>Worst frames</h2>\n<p class=\"faint\">Most misses and false alarms at a score of {} or more; the overlap is that of the \
         metric.</p>\n<table>\n<thead><tr><th class=\"name\">frame</th><th>found</th><th>false alarms</th><th>missed</th></tr></thead>\
         \n<tbody>",
        report.fault_score
    );
    for FrameScore { frame, found, false_alarms, missed, .. } in &report.worst_frames {
        let name = escape(&frame.to_string());
        let _ = writeln!(body, "<tr><td class=\"name\">{name}</td><td>{found}</td><td>{false_alarms}</td><td>{missed}</td></tr>");
    }
    body.push_str("</tbody>\n</table>\n");
    for picture in pictures {
        let (name, data) = (escape(&picture.score.frame.to_string()), BASE64_STANDARD.encode(&picture.png));
        let _ = writeln!(
            body,
            "<div class=\"viewer\"><div class=\"bar\">{name}; dashed: labels</div>\
             <img alt=\"{name} from above\" src=\"data:image/png;base64,{data}\"></div>"
        );
    }
}

fn push_latency(body: &mut String, report: &EvalReport) {
    let _ = writeln!(
        body,
        "<h2>Latency</h2>\n<p class=\"faint\">Milliseconds per frame on {}, {} CPU threads, frames being read at the same time; these \
         numbers differ from run to run, everything above does not. Total runs from the loaded frame to the boxes; read lies outside \
         of it.</p>",
        escape(&report.latency.device),
        report.latency.cpu_threads
    );
    push_latency_table(body, report.latency.stages.iter().map(|row| (row.stage, row.stats)));
}

fn push_curves(body: &mut String, report: &EvalReport) {
    body.push_str("<h2>Precision and recall</h2>\n<div class=\"curves\">\n");
    for (class, object_type) in report.classes() {
        let levels = LEVELS.into_iter().filter_map(|level| Some((level, report.by_type(object_type, level)?)));
        push_curve(body, class, &levels.collect::<Vec<_>>());
    }
    body.push_str("</div>\n");
}

/// One class: recall to the right, precision upwards, a line per level.
fn push_curve(body: &mut String, class: &str, levels: &[(Level, &Breakdown)]) {
    let [width, height] = CURVE;
    let [left, below] = MARGIN;
    let _ = writeln!(
        body,
        "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"precision over recall, {2}\">\n<text class=\"title\" x=\"{left}\" y=\"14\">{2}</text>",
        left + width + 12.0,
        height + below + 24.0,
        escape(class)
    );
    let (x, y) = (|recall: f32| left + recall * width, |precision: f32| 24.0 + (1.0 - precision) * height);
    for tenths in [0_u8, 2, 4, 6, 8, 10] {
        let share = f32::from(tenths) / 10.0;
        let _ = writeln!(
            body,
            "<path class=\"grid\" d=\"M{0:.1} {1:.1}V{2:.1}M{3:.1} {4:.1}H{5:.1}\"/><text x=\"{0:.1}\" y=\"{6:.1}\" text-anchor=\"middle\">{share}</text>\
             <text x=\"{7:.1}\" y=\"{8:.1}\" text-anchor=\"end\">{share}</text>",
            x(share),
            y(0.0),
            y(1.0),
            x(0.0),
            y(share),
            x(1.0),
            y(0.0) + 14.0,
            left - 6.0,
            y(share) + 4.0
        );
    }
    for (level, b) in levels {
        let points = b.curve.recalls.iter().zip(&b.curve.precisions).filter(|(recall, _)| **recall > 0.0);
        let mut points: Vec<(f32, f32)> = points.map(|(recall, precision)| (*recall, *precision)).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1)));
        let line: Vec<String> =
            points.iter().map(|&(recall, precision)| format!("{:.2},{:.2}", x(recall), y(precision))).collect();
        let class = format!("level-{}", *level as u8);
        let _ = writeln!(body, "<polyline class=\"{class}\" points=\"{}\"/>", line.join(" "));
        let key_y = y(0.0) - 22.0 + 14.0 * (*level as u8 as f32 - 1.0);
        let text = format!("{level}: AP {:.3}, APH {:.3}", b.ap, b.aph);
        let _ = writeln!(body, "<text class=\"{class}\" x=\"{:.1}\" y=\"{key_y:.1}\">{text}</text>", x(0.03));
    }
    body.push_str("</svg>\n");
}
