//! An inspection as text that fits on a screen.

use std::fmt::Write;

use super::{DriveSummary, Inspection};
use crate::data::statistics::Percentiles;

/// Longer lists are cut, and say so.
const MAX_DRIVES: usize = 8;
const MAX_FINDINGS: usize = 12;
const MAX_FAULTS: usize = 5;

impl Inspection {
    /// Several short tables.
    pub fn table(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let n_frames: usize = self.drives.iter().map(|drive| drive.n_frames).sum();
        writeln!(out, "{}  sha256 {}", self.fingerprint.source, self.fingerprint.sha256.get(..12).unwrap_or_default())?;
        let n_loaded = self.looked_at.len() - self.faults.len();
        let which = match self.looked_at.as_slice() {
            [only] => format!("of frame {only}"),
            all if all.len() == n_frames => "of all frames".to_owned(),
            all => format!("of {} frames, evenly spread", all.len()),
        };
        writeln!(out, "{n_frames} frames in {} drives; the numbers below are {which}", self.drives.len())?;
        self.write_drives(out)?;
        self.write_points(out)?;
        self.write_labels(out, n_loaded)?;
        write_list(out, "findings", self.findings.iter().map(ToString::to_string), MAX_FINDINGS)?;
        write_list(out, "frames that could not be loaded", self.faults.iter().cloned(), MAX_FAULTS)
    }

    fn write_drives(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "\n{:32} {:>7} {:>16} {:>10} {:>8} {:>5} {:>10} {:>8}",
            "drive", "frames", "first stamp s", "length s", "step s", "gaps", "longest s", "backward"
        )?;
        for DriveSummary { name, n_frames, times } in self.drives.iter().take(MAX_DRIVES) {
            write!(out, "{:32} {n_frames:>7}", shortened(name, 32))?;
            match times {
                Some(times) => writeln!(
                    out,
                    " {:>16.3} {:>10.2} {:>8.3} {:>5} {:>10.3} {:>8}",
                    times.first.seconds(),
                    times.duration_s,
                    times.step_s,
                    times.n_gaps,
                    times.longest_step_s,
                    times.n_backward
                )?,
                None => writeln!(out, "  its stamps are known once all its frames are loaded (--frames)")?,
            }
        }
        match self.drives.len().saturating_sub(MAX_DRIVES) {
            0 => Ok(()),
            n_more => writeln!(out, "… and {n_more} more"),
        }
    }

    fn write_points(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "\n{:18} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "points", "min", "1 %", "5 %", "50 %", "95 %", "99 %", "max"
        )?;
        let mut row = |name: &str, values: &Option<Percentiles>| match values {
            Some(Percentiles { min, p01, p05, p50, p95, p99, max }) => {
                let values = [min, p01, p05, p50, p95, p99, max].map(|value| number(*value));
                writeln!(out, "{name:18} {}", values.map(|value| format!("{value:>9}")).join(" "))
            }
            None => writeln!(out, "{name:18}         -"),
        };
        row("points per frame", &self.statistics.points_per_frame)?;
        for (feature, values) in &self.statistics.columns {
            row(feature.name(), &Some(*values))?;
        }
        row("range m", &self.range_m)?;
        row("ground z m", &self.statistics.ground_z_m)?;
        let zone = match self.n_no_label_zone {
            Some(n) => format!("{n} of {} points in no-label zones", self.n_points),
            None => "no-label zones unknown".to_owned(),
        };
        writeln!(out, "frame {}; {zone}; {} frames with a pose in the world", self.frame_ids.join(", "), self.n_with_pose)
    }

    fn write_labels(&self, out: &mut String, n_loaded: usize) -> std::fmt::Result {
        if self.n_unlabelled == n_loaded {
            return writeln!(out, "\nno labels");
        }
        let [near, middle] = super::RANGE_BINS_M;
        writeln!(
            out,
            "\n{:20} {:>6} {:>7} {:>7} {:>9} {:>8} {:>8} {:>8}  {:18}",
            "labels",
            "n",
            "level 1",
            "level 2",
            "no points",
            format!("< {near} m"),
            format!("< {middle} m"),
            "farther",
            "l x w x h, z (median)"
        )?;
        for (class, counts) in &self.classes {
            let [level_1, level_2] = counts.n_levels;
            let [n_near, n_middle, n_far] = counts.n_by_range;
            let size =
                self.statistics.classes.get(class).map(|of| {
                    format!("{:.1} x {:.1} x {:.1}, {:.1}", of.length_m.p50, of.width_m.p50, of.height_m.p50, of.z_m.p50)
                });
            let size = size.unwrap_or_default();
            let (name, n, empty) = (shortened(class, 20), counts.n, counts.n_without_points);
            write!(out, "{name:20} {n:>6} {level_1:>7} {level_2:>7} {empty:>9} {n_near:>8} {n_middle:>8} {n_far:>8}  {size}")?;
            match counts.n_miscounted {
                0 => writeln!(out)?,
                n => writeln!(out, "; {n} declare another number of points")?,
            }
        }
        if self.n_unlabelled + self.n_without_objects > 0 {
            writeln!(out, "{} frames without labels, {} labelled as empty", self.n_unlabelled, self.n_without_objects)?;
        }
        Ok(())
    }
}

fn write_list(out: &mut String, title: &str, lines: impl ExactSizeIterator<Item = String>, limit: usize) -> std::fmt::Result {
    let n_lines = lines.len();
    if n_lines > 0 {
        writeln!(out, "\n{title}")?;
    }
    for line in lines.take(limit) {
        writeln!(out, "  {line}")?;
    }
    if n_lines > limit { writeln!(out, "  … and {} more", n_lines - limit) } else { Ok(()) }
}

/// Four significant digits or whole numbers.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 || value.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 100.0 => format!("{value:.1}"),
        size if size >= 0.01 => format!("{value:.3}"),
        _ => format!("{value:.1e}"),
    }
}

/// The end of a long name tells more than its beginning.
fn shortened(name: &str, width: usize) -> String {
    let n_chars = name.chars().count();
    if n_chars <= width {
        return name.to_owned();
    }
    let tail: String = name.chars().skip(n_chars + 1 - width).collect();
    format!("…{tail}")
}
