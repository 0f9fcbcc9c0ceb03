//! Everything a replay writes while it runs.

use std::time::Instant;

use super::foxglove::FoxgloveFile;
use super::out_dir::{JsonLines, OutDir};
use super::record::{BoxRecord, DetectedFrame, FrameOutcome, FrameRecord};
use super::{MARKERS_TOPIC, OBJECTS_TOPIC, REPORT_TOPIC, ReplayError};
use crate::bag::{BagWriter, Compression, OfferedQos, TopicId, WriterOptions};
use crate::cloud::DecodeReport;
use crate::msgs::pivotal::FrameReport;
use crate::msgs::sensor_msgs::PointCloud2;
use crate::msgs::std_msgs::Header;
use crate::msgs::vision_msgs::Detection3DArray;
use crate::msgs::visualization_msgs::MarkerArray;
use crate::msgs::{Message, MsgType, cdr};
use crate::node::output::{FrameFacts, detections_to_markers, detections_to_msg, failed_report, frame_flags, report_to_msg};
use crate::pipeline::{FrameOutput, StageTimes};
