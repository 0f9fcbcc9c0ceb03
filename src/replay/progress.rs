//! How far a replay is, on stderr.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How far a replay is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Clouds done, malformed ones included.
    pub n_done: u64,
    /// Clouds the bag promises, or fewer when the replay is limited.
    pub n_promised: u64,
}

/// Lines logged where a bar cannot be drawn.
const N_LOG_LINES: u64 = 10;

/// A bar with rate and remaining time on a terminal, else a log line for every tenth part.
pub fn on_stderr() -> Box<dyn FnMut(&Progress)> {
    if std::io::stderr().is_terminal() { Box::new(draw_bar()) } else { Box::new(log_lines) }
}

fn draw_bar() -> impl FnMut(&Progress) {
    let template = "{bar:32} {pos}/{len} clouds  {per_sec}  {eta} left";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr()).with_style(style);
    move |progress| {
        bar.set_length(progress.n_promised.max(progress.n_done));
        bar.set_position(progress.n_done);
        if progress.n_done >= progress.n_promised {
            bar.finish();
        }
    }
}

fn log_lines(progress: &Progress) {
    let step = progress.n_promised.div_ceil(N_LOG_LINES).max(1);
    if progress.n_done.is_multiple_of(step) || progress.n_done == progress.n_promised {
        tracing::info!("{} of {} clouds", progress.n_done, progress.n_promised);
    }
}
