//! Why the node ends, and the exit code that says so.

use super::args::ArgsError;
use super::config::ConfigError;
use crate::cloud::CloudError;
use crate::model::directory::DirectoryError;
use crate::msgs::cdr::CdrError;
use crate::pipeline::PipelineError;
use crate::postprocess::PostprocessError;
use crate::transport::TransportError;

/// Exit code after a normal end, SIGINT and SIGTERM included.
pub const EXIT_OK: u8 = 0;
/// Exit code for everything without a code of its own.
pub const EXIT_OTHER: u8 = 1;
/// Exit code for bad arguments, parameters, names or environment variables.
pub const EXIT_USAGE: u8 = 2;
/// Exit code of a replay that did all it could although input was lost or malformed.
pub const EXIT_LOSS: u8 = 3;
/// Exit code for a model directory that is missing, damaged or contradicts itself.
pub const EXIT_MODEL: u8 = 4;
/// Exit code for a device that cannot be had, or that failed again after the pipeline was rebuilt.
pub const EXIT_DEVICE: u8 = 5;

/// Why the node did not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The ROS part of the command line.
    #[error(transparent)]
    Args(#[from] ArgsError),
    /// Parameters.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Parameters about clouds that the decoder refuses.
    #[error("parameters: {0}")]
    Cloud(CloudError),
    /// Names, environment variables, or the middleware itself.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The model directory.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The model or the device it should run on.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// Frames kept failing after the pipeline was rebuilt.
    #[error("{n_failures} clouds in a row failed after the pipeline was rebuilt, the last with: {reason}")]
    DeviceLost {
        /// Clouds since the last success.
        n_failures: u32,
        /// Fault of the last one.
        reason: String,
    },
    /// A thread could not be started.
    #[error("cannot start the inference thread: {0}")]
    Thread(std::io::Error),
    /// A bug: the thread panicked outside of a frame.
    #[error("the inference thread ended unexpectedly")]
    InferenceEnded,
}

impl NodeError {
    /// What the process returns.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Args(_) | Self::Config(_) | Self::Cloud(_) => EXIT_USAGE,
            Self::Transport(TransportError::Environment { .. } | TransportError::Name { .. }) => EXIT_USAGE,
            Self::Pipeline(error) if is_device_fault(error) => EXIT_DEVICE,
            Self::Pipeline(_) | Self::Directory(_) => EXIT_MODEL,
            Self::DeviceLost { .. } => EXIT_DEVICE,
            Self::Transport(_) | Self::Thread(_) | Self::InferenceEnded => EXIT_OTHER,
        }
    }
}

/// Why one cloud gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum FrameFault {
    /// Not a PointCloud2.
    #[error("malformed message: {0}")]
    Message(CdrError),
    /// More points than the parameter allows.
    #[error("cloud has {got} points, max_points is {limit}")]
    TooManyPoints {
        /// Points in the message.
        got: u64,
        /// The parameter.
        limit: u64,
    },
    /// A PointCloud2 that contradicts itself or lacks what the model takes.
    #[error("malformed cloud: {0}")]
    Cloud(CloudError),
    /// The pipeline.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// A bug in this program, kept from ending it.
    #[error("panic: {0}")]
    Panic(String),
}

impl FrameFault {
    /// Whether the device or the pipeline is to blame, not the cloud.
    pub fn is_device_fault(&self) -> bool {
        match self {
            Self::Pipeline(error) => is_device_fault(error),
            Self::Panic(_) => true,
            Self::Message(_) | Self::TooManyPoints { .. } | Self::Cloud(_) => false,
        }
    }
}

fn is_device_fault(error: &PipelineError) -> bool {
    match error {
        PipelineError::Device(_) | PipelineError::Torch(_) | PipelineError::Network(_) => true,
        PipelineError::Postprocess(error) => matches!(error, PostprocessError::Torch(_)),
        PipelineError::Directory(_) | PipelineError::Weights { .. } => false,
        PipelineError::Spec(_) | PipelineError::Columns { .. } => false,
    }
}
