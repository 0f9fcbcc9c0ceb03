//! How far a run is, on stderr.

use std::io::IsTerminal;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// Steps of the whole run.
    pub n_steps: u64,
    /// From 0.
    pub epoch: u64,
    /// Total loss of the last step.
    pub loss: f64,
    /// Learning rate of the last step.
    pub lr: f64,
    /// Whether the log got a line for this step.
    pub logged: bool,
}

/// A bar with loss, rate and remaining time on a terminal, else a line whenever the log gets one.
pub fn on_stderr() -> Box<dyn FnMut(&Progress)> {
    if std::io::stderr().is_terminal() { Box::new(draw_bar()) } else { Box::new(log_lines()) }
}

fn draw_bar() -> impl FnMut(&Progress) {
    let template = "epoch {msg}  [{bar:30}] {pos}/{len} steps  {per_sec}  {eta} left";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr()).with_style(style);
    let mut is_first = true;
    move |progress| {
        bar.set_length(progress.n_steps);
        if std::mem::take(&mut is_first) {
            // A resumed run was not that fast.
            bar.set_position(progress.step);
            bar.reset_eta();
        }
        bar.set_position(progress.step);
        bar.set_message(format!("{}  loss {:.4}  lr {:.2e}", progress.epoch + 1, progress.loss, progress.lr));
        if progress.step >= progress.n_steps {
            bar.finish();
        }
    }
}

fn log_lines() -> impl FnMut(&Progress) {
    let mut first: Option<(Instant, u64)> = None;
    move |progress| {
        let Progress { step, n_steps, epoch, loss, lr, logged } = *progress;
        // The first step is no measure: it waits for data and warms up.
        let (since, first_step) = *first.get_or_insert_with(|| (Instant::now(), step));
        if !logged {
            return;
        }
        let rate = (step - first_step) as f64 / since.elapsed().as_secs_f64();
        let pace = if step == first_step {
            String::new()
        } else {
            format!(", {rate:.2} steps/s, {:.0} s left", (n_steps - step) as f64 / rate)
        };
        tracing::info!("step {step} of {n_steps}, epoch {}: loss {loss:.4}, lr {lr:.2e}{pace}", epoch + 1);
    }
}
