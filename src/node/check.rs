//! `detector_node check`: what would keep the node from working well on this machine, before it is started.

use super::args::RosArgs;
use super::config::{ConfigError, ResolvedParams};
use super::names::NodeNames;
use crate::device;
use crate::model::directory;
use crate::transport::buffers;
use crate::transport::settings::DdsSettings;

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whether it is as it should be.
    pub fine: bool,
    /// What it is, and what to do about it.
    pub text: String,
}

fn fine(text: String) -> Finding {
    Finding { fine: true, text }
}

fn wrong(text: String) -> Finding {
    Finding { fine: false, text }
}

/// Looks at names, environment, the kernel's socket buffers, parameters, device and model. `receive_limit_bytes` is what
/// [`buffers::receive_limit_bytes`] gives; `environment` looks up variables.
pub fn check(ros: &RosArgs, receive_limit_bytes: Option<u64>, environment: impl Fn(&str) -> Option<String>) -> Vec<Finding> {
    let mut findings = vec![check_buffers(receive_limit_bytes)];
    match DdsSettings::from_environment(environment) {
        Ok((settings, warnings)) => {
            findings.push(fine(format!("DDS domain {}, discovery range {:?}", settings.domain_id, settings.range)));
            findings.extend(warnings.into_iter().map(wrong));
        }
        Err(error) => findings.push(wrong(error.to_string())),
    }
    let node = match NodeNames::resolve(&ros.remaps) {
        Ok((names, notices)) => {
            findings.push(fine(format!("node {}, clouds from {}", names.node, names.input)));
            findings.extend(notices.into_iter().map(wrong));
            names.node.to_string()
        }
        Err(error) => {
            findings.push(wrong(error.to_string()));
            return findings;
        }
    };
    match ResolvedParams::new(&ros.params, &node) {
        Ok(params) => {
            findings.extend(params.notices.iter().cloned().map(wrong));
            findings.extend(check_model(&params));
        }
        Err(ConfigError::Params(problems)) => {
            findings.extend(problems.iter().map(|problem| wrong(problem.to_string())));
        }
        Err(error) => findings.push(wrong(error.to_string())),
    }
    findings
}

fn check_buffers(receive_limit_bytes: Option<u64>) -> Finding {
    match (buffers::receive_limit_warning(receive_limit_bytes), receive_limit_bytes) {
        (Some(warning), _) => wrong(warning),
        (None, Some(limit)) => fine(format!("net.core.rmem_max is {limit} bytes, enough for large clouds")),
        (None, None) => fine("net.core.rmem_max is not told by this system".to_owned()),
    }
}

fn check_model(params: &ResolvedParams) -> Vec<Finding> {
    let config = params.to_config();
    let device = match device::choose(&config.pipeline.device) {
        Ok(chosen) => fine(format!("device {}: {}", device::name(chosen.device), chosen.reason)),
        Err(error) => wrong(error.to_string()),
    };
    let model = match directory::load(&config.model_dir) {
        Err(error) => wrong(error.to_string()),
        Ok(model) => match params.check_against(&model.spec) {
            Ok(()) => fine(format!("model {} sha256:{}", model.spec.name, model.sha256)),
            Err(error) => wrong(error.to_string()),
        },
    };
    vec![device, model]
}
