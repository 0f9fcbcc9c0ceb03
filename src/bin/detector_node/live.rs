//! The live node: configuration, logging, DDS, signals, then [`pivotal::node::run`].

use anyhow::Context;
use pivotal::node::args::RosArgs;
use pivotal::node::config::ResolvedParams;
use pivotal::node::error::{EXIT_OK, NodeError};
use pivotal::node::logging;
use pivotal::node::names::NodeNames;
use pivotal::node::rosout;
use pivotal::node::run::{self, Ending};
#[cfg(not(feature = "r2r"))]
use pivotal::transport::settings::{DdsSettings, process_environment};
use pivotal::transport::{Transport, buffers};

use crate::{exit, termination};

/// Runs until a signal.
pub fn run_node(ros: &RosArgs) -> anyhow::Result<()> {
    let (names, notices) = NodeNames::resolve(&ros.remaps).map_err(NodeError::from)?;
    let (rosout, lines) = ros.rosout.then(|| rosout::layer(names.node.base())).unzip();
    logging::init(&ros.log_levels, names.node.base(), rosout).context("logging")?;
    let params = ResolvedParams::new(&ros.params, &names.node.to_string()).map_err(NodeError::from)?;
    for notice in ros.notices.iter().chain(&notices).chain(&params.notices) {
        tracing::warn!("{notice}");
    }
    let in_force: Vec<_> = params.iter().map(|(name, value)| format!("{name}={value}")).collect();
    tracing::info!("parameters: {}", in_force.join(" "));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("tokio")?;
    let result: anyhow::Result<Ending> = runtime.block_on(async {
        // Before anything slow, so that a signal during the start ends the start.
        let shutdown = termination().context("signal handlers")?;
        let transport = join(&names)?;
        let publish_lines = async {
            match lines {
                Some(lines) => rosout::forward(lines, &transport).await,
                None => Ok(()),
            }
        };
        Ok(tokio::select! {
            ending = run::run(&names, params, &transport, shutdown) => ending?,
            Err(error) = publish_lines => return Err(NodeError::from(error).into()),
        })
    });
    let ending = result?;
    tracing::info!("ended");
    match ending {
        Ending::Complete => Ok(()),
        Ending::ThreadLeftBehind => exit::without_destructors(EXIT_OK),
    }
}

/// Joins the ROS graph through rcl.
#[cfg(feature = "r2r")]
fn join(names: &NodeNames) -> Result<Transport, NodeError> {
    if let Some(warning) = buffers::receive_limit_warning(buffers::receive_limit_bytes()) {
        tracing::warn!("{warning}");
    }
    let transport = Transport::r2r(&names.node)?;
    tracing::info!("{} in the ROS graph through rcl", names.node);
    Ok(transport)
}

/// Joins the DDS domain that the environment names, with warnings about what will not work.
#[cfg(not(feature = "r2r"))]
fn join(names: &NodeNames) -> Result<Transport, NodeError> {
    let (settings, warnings) = DdsSettings::from_environment(process_environment)?;
    for warning in warnings.iter().chain(&buffers::receive_limit_warning(buffers::receive_limit_bytes())) {
        tracing::warn!("{warning}");
    }
    let transport = Transport::dds(&names.node, &settings)?;
    tracing::info!("{} in DDS domain {}", names.node, settings.domain_id);
    Ok(transport)
}
