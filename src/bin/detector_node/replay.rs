//! A bag through the detector, with exit codes that tell how it went.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, bail};
use pivotal::model::directory;
use pivotal::node::args::RosArgs;
use pivotal::node::error::{EXIT_LOSS, EXIT_OK, NodeError};
use pivotal::node::logging;
use pivotal::node::names::DEFAULT_NODE_NAME;
use pivotal::pipeline::Pipeline;
use pivotal::replay::args::ReplayArgs;
use pivotal::replay::{self, ModelInfo, progress};

use crate::termination;

/// Replays, prints the summary and gives the exit code.
pub fn replay_bag(args: &ReplayArgs, ros: &RosArgs) -> anyhow::Result<u8> {
    if !ros.remaps.is_empty() || !ros.params.is_empty() {
        bail!(crate::Usage("replay takes its settings as options; of the ROS arguments only --log-level".to_owned()));
    }
    logging::init(&ros.log_levels, DEFAULT_NODE_NAME, None).context("logging")?;
    let mut model = directory::load(&args.model).map_err(NodeError::from)?;
    if let Some(iou) = args.nms_iou {
        let by_distance = || crate::Usage(format!("--nms-iou {iou}: the model suppresses boxes by distance"));
        model.spec.postprocess.nms = model.spec.postprocess.nms.with_iou(iou).ok_or_else(by_distance)?;
    }
    let mut pipeline = Pipeline::new(model.spec, &model.weights, &args.pipeline_options()).map_err(NodeError::from)?;
    let info = ModelInfo::new(&model.sha256, &model.provenance.data, &pipeline);
    let command_line: Vec<_> = std::env::args().collect();
    let options = args.replay_options(command_line.join(" "));
    let mut progress = progress::on_stderr();
    let stop = stop_at_a_signal()?;
    let summary = replay::run(&options, &mut pipeline, &info, &mut progress, &stop)?;
    println!("{summary}");
    Ok(if summary.loss() { EXIT_LOSS } else { EXIT_OK })
}

/// A flag that the first SIGINT or SIGTERM sets.
pub fn stop_at_a_signal() -> anyhow::Result<Arc<AtomicBool>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("tokio")?;
    let stop = Arc::new(AtomicBool::new(false));
    let set = Arc::clone(&stop);
    let signals = {
        let _guard = runtime.enter();
        termination().context("signal handlers")?
    };
    // Ends with the process: without a signal there is nothing to wait for.
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(signals);
        set.store(true, Ordering::Relaxed);
    })?;
    Ok(stop)
}
