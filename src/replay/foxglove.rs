//! A single mcap with clouds, boxes and frames as ROS 2 messages, which Foxglove opens without ROS, and a layout for it.

use std::collections::BTreeMap;
use std::path::Path;

use super::ReplayError;
use crate::bag::{BagWriter, Compression, OfferedQos, TopicId, WriterOptions};
use crate::msgs::MsgType;

/// The mcap being written.
pub(super) struct FoxgloveFile {
    writer: BagWriter,
    topics: BTreeMap<String, TopicId>,
}

impl FoxgloveFile {
    pub(super) fn create(path: &Path) -> Result<Self, ReplayError> {
        // lz4 packs a cloud in milliseconds; zstd would take longer than the inference of a small model.
        let options = WriterOptions { compression: Compression::Lz4 };
        Ok(Self { writer: BagWriter::file(path, &options)?, topics: BTreeMap::new() })
    }

    /// Appends one message; its topic is declared with the first one.
    pub(super) fn write(&mut self, topic: &str, msg_type: MsgType, log_time_ns: i64, cdr: &[u8]) -> Result<(), ReplayError> {
        let topic_id = match self.topics.get(topic) {
            Some(topic_id) => *topic_id,
            None => {
                let topic_id = self.writer.add_topic(topic, msg_type, OfferedQos::RELIABLE)?;
                self.topics.insert(topic.to_owned(), topic_id);
                topic_id
            }
        };
        Ok(self.writer.write(topic_id, log_time_ns, cdr)?)
    }

    pub(super) fn finish(self) -> Result<(), ReplayError> {
        Ok(self.writer.finish()?)
    }
}

/// A layout file with one 3D panel that shows the cloud by height and the boxes, seen from behind and above.
pub(super) fn layout(cloud_topic: &str, marker_topic: &str, frame_id: &str) -> String {
    let layout = serde_json::json!({
        "configById": {
            "3D!pivotal": {
                "cameraState": {
                    "perspective": true, "distance": 70, "phi": 50, "thetaOffset": 90,
                    "targetOffset": [10, 0, 0], "target": [0, 0, 0], "targetOrientation": [0, 0, 0, 1],
                    "fovy": 45, "near": 0.5, "far": 5000
                },
                "followMode": "follow-pose",
                "followTf": frame_id,
                "topics": {
                    cloud_topic: { "visible": true, "colorMode": "colormap", "colorMap": "turbo", "colorField": "z", "pointSize": 2 },
                    marker_topic: { "visible": true }
                },
                "layers": { "grid": { "layerId": "foxglove.Grid", "instanceId": "grid", "visible": true, "size": 100, "divisions": 10 } }
            }
        },
        "globalVariables": {},
        "userNodes": {},
        "playbackConfig": { "speed": 1 },
        "layout": "3D!pivotal"
    });
    format!("{layout:#}\n")
}
