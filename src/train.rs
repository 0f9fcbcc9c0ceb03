//! Training: what a network should say about a frame, how far it is from that, and the step that brings it nearer.
//!
//! Everything here computes what the original PyTorch code computes (sparsekd-spec sections 1.5, 2.4 to 2.6); `trainer parity`
//! holds it to the original's numbers.

pub mod checkpoint;
pub mod config;
pub mod config_table;
pub mod ema;
pub mod events;
pub mod fresh;
pub mod log;
pub mod loss;
pub mod optim;
pub mod progress;
pub mod revision;
pub mod run;
pub mod schedule;
pub mod state;
pub mod targets;
mod tensor_file;

/// A setting of training that breaks a rule.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{key} = {value}: {rule}")]
pub struct SettingError {
    /// Name of the setting inside its section.
    pub key: &'static str,
    /// What was given.
    pub value: String,
    /// What it must keep to.
    pub rule: &'static str,
}

/// An error unless the rule holds.
pub(crate) fn rule(holds: bool, key: &'static str, value: &dyn std::fmt::Debug, rule: &'static str) -> Result<(), SettingError> {
    if holds { Ok(()) } else { Err(SettingError { key, value: format!("{value:?}"), rule }) }
}
