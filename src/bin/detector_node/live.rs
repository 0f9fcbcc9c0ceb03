//! The live node: configuration, logging, DDS, signals, then [`pivotal::node::run`].

use anyhow::Context;
use pivotal::node::args::RosArgs;
use pivotal::node::config::ResolvedParams;
use pivotal::node::error::{EXIT_OK, NodeError};
use pivotal::node::logging;
use pivotal::node::names::NodeNames;
use pivotal::node::run::{self, Ending};
use pivotal::transport::settings::{DdsSettings, process_environment};
use pivotal::transport::{Transport, buffers};

use crate::{exit, termination};

/// Runs until a signal.
pub fn run_node(ros: &RosArgs) -> anyhow::Result<()> {
    let (names, notices) = NodeNames::resolve(&ros.remaps).map_err(NodeError::from)?;
    logging::init(&ros.log_levels, names.node.base()).context("logging")?;
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
        let transport = join_dds(&names)?;
        Ok(run::run(&names, params, &transport, shutdown).await?)
    });
    let ending = result?;
    tracing::info!("ended");
    match ending {
        Ending::Complete => Ok(()),
        Ending::ThreadLeftBehind => exit::without_destructors(EXIT_OK),
    }
}

/// Joins the DDS domain that the environment names, with warnings about what will not work.
fn join_dds(names: &NodeNames) -> Result<Transport, NodeError> {
    let (settings, warnings) = DdsSettings::from_environment(process_environment)?;
    for warning in warnings.iter().chain(&buffers::receive_limit_warning(buffers::receive_limit_bytes())) {
        tracing::warn!("{warning}");
    }
    let transport = Transport::dds(&names.node, &settings)?;
    tracing::info!("{} in DDS domain {}", names.node, settings.domain_id);
    Ok(transport)
}
