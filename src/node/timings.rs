//! Milliseconds of each frame on topics of their own, for plots.

use super::names::NodeNames;
use crate::msgs::builtin_interfaces::Time;
use crate::msgs::pivotal_msgs::Float64Stamped;
use crate::msgs::{Message, cdr};
use crate::pipeline::StageTimes;
use crate::transport::{Publisher, Qos, Transport, TransportError};

/// What is measured; each is a topic under `~/debug`. The first three are Autoware's names.
pub const TIMINGS: [&str; 11] = [
    "processing_time_ms",
    "pipeline_latency_ms",
    "cyclic_time_ms",
    "decode_ms",
    "voxelize_ms",
    "vfe_ms",
    "backbone_3d_ms",
    "scatter_ms",
    "backbone_ms",
    "head_ms",
    "postprocess_ms",
];

/// What was measured of one frame; what is `None` is not published.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Measured {
    /// From the message to the last box.
    pub(super) total_ms: f64,
    /// From the cloud's stamp to publication; only where stamps are of the system's clock.
    pub(super) since_stamp_ms: Option<f64>,
    /// From the frame before to this one.
    pub(super) since_last_ms: Option<f64>,
    /// Message to points.
    pub(super) decode_ms: f64,
    /// The pipeline's stages.
    pub(super) stages: StageTimes,
}

impl Measured {
    /// In the order of [`TIMINGS`].
    fn values(&self) -> [Option<f64>; TIMINGS.len()] {
        let stages = &self.stages;
        [
            Some(self.total_ms),
            self.since_stamp_ms,
            self.since_last_ms,
            Some(self.decode_ms),
            Some(stages.voxelize_ms),
            Some(stages.vfe_ms),
            Some(stages.backbone_3d_ms),
            Some(stages.scatter_ms),
            Some(stages.backbone_ms),
            Some(stages.head_ms),
            Some(stages.postprocess_ms),
        ]
    }
}

/// The topics.
pub(super) struct Timings {
    publishers: Vec<Publisher>,
}

impl Timings {
    pub(super) fn advertise(names: &NodeNames, transport: &Transport) -> Result<Self, TransportError> {
        let publishers = names.timings.iter().map(|topic| transport.advertise(topic, &Float64Stamped::TYPE, Qos::RELIABLE));
        Ok(Self { publishers: publishers.collect::<Result<_, _>>()? })
    }

    pub(super) fn has_subscribers(&self) -> bool {
        self.publishers.iter().any(|publisher| publisher.matched() > 0)
    }

    /// Publishes what somebody subscribes to; the last error if any was refused.
    pub(super) fn publish(&self, stamp: Time, measured: &Measured) -> Result<(), TransportError> {
        let values = self.publishers.iter().zip(measured.values());
        values
            .filter(|(publisher, _)| publisher.matched() > 0)
            .filter_map(|(publisher, value)| Some((publisher, value?)))
            .map(|(publisher, data)| publisher.publish(&cdr::to_bytes(&Float64Stamped { stamp, data })))
            .fold(Ok(()), Result::and)
    }
}
