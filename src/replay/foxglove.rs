//! A single mcap with clouds, boxes and frames as ROS 2 messages, which Foxglove opens without ROS, and a layout for it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use mcap::records::MessageHeader;
use mcap::{Compression, McapError, WriteOptions, Writer};

use super::ReplayError;
use super::out_dir::write_error;
use crate::msgs::MsgType;

/// An mcap being written. Nothing in it depends on the clock.
pub(super) struct FoxgloveFile {
    path: PathBuf,
    writer: Writer<BufWriter<File>>,
    channels: BTreeMap<String, u16>,
}

impl FoxgloveFile {
    pub(super) fn create(path: PathBuf) -> Result<Self, ReplayError> {
        let file = File::create(&path).map_err(|source| write_error(&path, source))?;
        // lz4 packs a cloud in milliseconds; zstd would take several times the inference of a small model.
        let options = WriteOptions::new().profile("ros2").library("pivotal").compression(Some(Compression::Lz4));
        match options.create(BufWriter::new(file)) {
            Ok(writer) => Ok(Self { path, writer, channels: BTreeMap::new() }),
            Err(source) => Err(mcap_error(&path, source)),
        }
    }

    /// Appends one message; the topic gets a channel with its first one.
    pub(super) fn write(&mut self, topic: &str, msg_type: &MsgType, log_time_ns: i64, cdr: &[u8]) -> Result<(), ReplayError> {
        let written = self.channel(topic, msg_type).and_then(|channel_id| {
            let log_time = u64::try_from(log_time_ns).unwrap_or(0);
            let header = MessageHeader { channel_id, sequence: 0, log_time, publish_time: log_time };
            self.writer.write_to_known_channel(&header, cdr)
        });
        written.map_err(|source| mcap_error(&self.path, source))
    }

    fn channel(&mut self, topic: &str, msg_type: &MsgType) -> Result<u16, McapError> {
        if let Some(channel_id) = self.channels.get(topic) {
            return Ok(*channel_id);
        }
        let schema_id = self.writer.add_schema(msg_type.ros, "ros2msg", msg_type.definition.as_bytes())?;
        let channel_id = self.writer.add_channel(schema_id, topic, "cdr", &BTreeMap::new())?;
        self.channels.insert(topic.to_owned(), channel_id);
        Ok(channel_id)
    }

    pub(super) fn finish(mut self) -> Result<(), ReplayError> {
        self.writer.finish().map(|_summary| ()).map_err(|source| mcap_error(&self.path, source))
    }
}

fn mcap_error(path: &Path, source: McapError) -> ReplayError {
    match source {
        McapError::Io(source) => write_error(path, source),
        source => ReplayError::Mcap { path: path.to_owned(), source },
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
