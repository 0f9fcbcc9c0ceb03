//! `detector_node`: the live node, the replay of bags, a player that feeds a running node, the table of parameters.

use std::fmt;
use std::future::Future;
use std::process::ExitCode;

use clap::Parser;
use pivotal::node::args::split_ros_args;
use pivotal::node::error::{EXIT_OK, EXIT_OTHER, EXIT_USAGE, NodeError};
use pivotal::node::params::params_table_markdown;
use pivotal::play::PlayError;
use pivotal::replay::ReplayError;
use pivotal::transport::TransportError;
use tokio::signal::unix::{SignalKind, signal};

// Modules of this program in a folder that cargo does not take for programs of their own.
#[path = "detector_node/check.rs"]
mod check;
#[path = "detector_node/cli.rs"]
mod cli;
#[path = "detector_node/exit.rs"]
mod exit;
#[path = "detector_node/live.rs"]
mod live;
#[path = "detector_node/play.rs"]
mod play;
#[path = "detector_node/replay.rs"]
mod replay;

fn main() -> ExitCode {
    let args = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned());
    let result = split_ros_args(args).map_err(|error| NodeError::from(error).into()).and_then(|(own_args, ros)| {
        match cli::Cli::try_parse_from(own_args)?.command.unwrap_or(cli::Command::Run) {
            cli::Command::Run => live::run_node(&ros).map(|()| EXIT_OK),
            cli::Command::Replay(args) => replay::replay_bag(&args, &ros),
            cli::Command::Play(args) => play::play_bag(&args, &ros),
            cli::Command::Check => Ok(check::check_machine(&ros)),
            cli::Command::Params => {
                print!("{}", params_table_markdown());
                Ok(EXIT_OK)
            }
        }
    });
    ExitCode::from(result.unwrap_or_else(|error| report(&error)))
}

/// Prints why the program ends, and gives the exit code for it.
fn report(error: &anyhow::Error) -> u8 {
    if let Some(error) = error.downcast_ref::<clap::Error>() {
        // Nothing can be done about a closed terminal.
        let _ = error.print();
        return if error.use_stderr() { EXIT_USAGE } else { EXIT_OK };
    }
    eprintln!("detector_node: {error:#}");
    if let Some(error) = error.downcast_ref::<NodeError>() {
        return error.exit_code();
    }
    if let Some(error) = error.downcast_ref::<ReplayError>() {
        return if matches!(error, ReplayError::Bag(_) | ReplayError::Write { .. }) { EXIT_OTHER } else { EXIT_USAGE };
    }
    match error.downcast_ref::<PlayError>() {
        Some(PlayError::Topic(_) | PlayError::Transport(TransportError::Name { .. })) => EXIT_USAGE,
        None if error.is::<Usage>() => EXIT_USAGE,
        _ => EXIT_OTHER,
    }
}

/// A command line that parses but makes no sense.
#[derive(Debug)]
struct Usage(String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Completes at the first SIGINT or SIGTERM; must be called inside a tokio runtime.
fn termination() -> std::io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => tracing::info!("SIGINT: ending"),
            _ = terminate.recv() => tracing::info!("SIGTERM: ending"),
        }
    })
}
