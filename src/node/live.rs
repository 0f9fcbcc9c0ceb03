//! The parameters of a node that runs: read by its threads, changed from outside all at once or not at all.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::config::{ConfigError, ResolvedParams};
use super::param_value::ParamValue;
use crate::model::spec::ModelSpec;

/// Parameters that may change between two looks at them.
pub struct LiveParams {
    state: Mutex<State>,
    version: AtomicU64,
    /// A change was accepted.
    pub(super) changed: Notify,
}

struct State {
    params: ResolvedParams,
    /// What the model allows, once it is loaded.
    model: Option<ModelSpec>,
}

/// A parameter that has another value now.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Its name.
    pub name: &'static str,
    /// The value it had.
    pub before: ParamValue,
    /// The value it has.
    pub now: ParamValue,
}

impl LiveParams {
    /// Starts with the parameters of the command line.
    pub fn new(params: ResolvedParams) -> Self {
        Self { state: Mutex::new(State { params, model: None }), version: AtomicU64::new(0), changed: Notify::new() }
    }

    /// The parameters now.
    pub fn current(&self) -> ResolvedParams {
        self.lock().params.clone()
    }

    /// Another number whenever they have changed.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// From here on changes must fit this model too.
    ///
    /// # Errors
    /// When the parameters do not fit it now.
    pub fn bind(&self, model: &ModelSpec) -> Result<(), ConfigError> {
        let mut state = self.lock();
        state.params.check_against(model)?;
        state.model = Some(model.clone());
        Ok(())
    }

    /// Changes all given parameters; gives those whose value is another now.
    ///
    /// # Errors
    /// Why nothing was changed, in one line: everything that is wrong with the changes.
    pub fn set(&self, changes: &[(String, ParamValue)]) -> Result<Vec<Change>, String> {
        let mut state = self.lock();
        let one_line = |error: ConfigError| error.to_string().replace('\n', "; ");
        let next = state.params.with_changes(changes).map_err(one_line)?;
        if let Some(model) = &state.model {
            next.check_against(model).map_err(one_line)?;
        }
        let changed: Vec<_> = state
            .params
            .iter()
            .zip(next.iter())
            .filter(|((_, before), (_, now))| before != now)
            .map(|((name, before), (_, now))| Change { name, before: before.clone(), now: now.clone() })
            .collect();
        if !changed.is_empty() {
            state.params = next;
            self.version.fetch_add(1, Ordering::Release);
            self.changed.notify_one();
        }
        Ok(changed)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
