//! Everything a replay writes while it runs.

use super::foxglove::FoxgloveFile;
use super::out_dir::{JsonLines, OutDir};
use super::record::{BoxRecord, DetectedFrame, FrameOutcome, FrameRecord};
use super::{MARKERS_TOPIC, OBJECTS_TOPIC, REPORT_TOPIC, ReplayError};
use crate::bag::{BagWriter, OfferedQos, TopicId, WriterOptions};
use crate::cloud::decode::DecodeReport;
use crate::msgs::pivotal_msgs::FrameReport;
use crate::msgs::sensor_msgs::PointCloud2;
use crate::msgs::std_msgs::Header;
use crate::msgs::vision_msgs::Detection3DArray;
use crate::msgs::visualization_msgs::MarkerArray;
use crate::msgs::{Message, MsgType, cdr};
use crate::node::output::{FrameFacts, class_name, detections_to_markers, detections_to_msg, failed_report, report_to_msg};
use crate::pipeline::{FrameOutput, StageTimes};

/// One cloud of the bag.
#[derive(Clone, Copy)]
pub(super) struct CloudMessage<'a> {
    pub(super) index: u64,
    pub(super) topic: &'a str,
    pub(super) log_time_ns: i64,
    pub(super) cdr: &'a [u8],
}

/// A cloud that went through the pipeline.
pub(super) struct Processed {
    pub(super) header: Header,
    pub(super) decoded: DecodeReport,
    pub(super) output: FrameOutput,
    /// As a live node reports them.
    pub(super) flags: Vec<String>,
}

/// The files that grow with every cloud. Pictures are apart, since their time is.
pub(super) struct Outputs {
    bag: BagWriter,
    objects: TopicId,
    markers: TopicId,
    report: TopicId,
    lines: JsonLines,
    foxglove: Option<FoxgloveFile>,
    class_names: Vec<String>,
    n_malformed: u64,
}

impl Outputs {
    pub(super) fn create(dir: &OutDir, with_foxglove: bool, class_names: Vec<String>) -> Result<Self, ReplayError> {
        let mut bag = BagWriter::create(dir.detections(), &WriterOptions::default())?;
        let objects = bag.add_topic(OBJECTS_TOPIC, Detection3DArray::TYPE, OfferedQos::RELIABLE)?;
        let markers = bag.add_topic(MARKERS_TOPIC, MarkerArray::TYPE, OfferedQos::RELIABLE)?;
        let report = bag.add_topic(REPORT_TOPIC, FrameReport::TYPE, OfferedQos::RELIABLE)?;
        let lines = JsonLines::create(dir.lines())?;
        let foxglove = with_foxglove.then(|| FoxgloveFile::create(&dir.path("foxglove.mcap"))).transpose()?;
        Ok(Self { bag, objects, markers, report, lines, foxglove, class_names, n_malformed: 0 })
    }

    /// The boxes of a cloud, in every form.
    pub(super) fn write_detections(&mut self, message: &CloudMessage<'_>, frame: &Processed) -> Result<(), ReplayError> {
        let Processed { header, decoded, output, flags } = frame;
        let objects = cdr::to_bytes(&detections_to_msg(&output.detections, &self.class_names, header));
        let markers = cdr::to_bytes(&detections_to_markers(&output.detections, &self.class_names, header, 0.0));
        let facts = FrameFacts {
            points_received: decoded.received,
            points_non_finite: decoded.non_finite,
            n_published: output.detections.len(),
            clouds_failed: self.n_malformed,
            flags: flags.clone(),
            ..FrameFacts::default()
        };
        // Measured times would make two replays of the same bag differ.
        let timeless = FrameOutput { times: StageTimes::default(), ..output.clone() };
        let report = cdr::to_bytes(&report_to_msg(header, &timeless, facts));
        self.bag.write(self.objects, message.log_time_ns, &objects)?;
        self.bag.write(self.markers, message.log_time_ns, &markers)?;
        self.bag.write(self.report, message.log_time_ns, &report)?;
        self.write_foxglove(message.topic, PointCloud2::TYPE, message.log_time_ns, message.cdr)?;
        self.write_foxglove(OBJECTS_TOPIC, Detection3DArray::TYPE, message.log_time_ns, &objects)?;
        self.write_foxglove(MARKERS_TOPIC, MarkerArray::TYPE, message.log_time_ns, &markers)?;
        let frame = DetectedFrame {
            stamp: (header.stamp.sec, header.stamp.nanosec),
            frame_id: header.frame_id.clone(),
            points_received: decoded.received,
            points_non_finite: decoded.non_finite,
            voxels: output.voxels,
            candidates: output.n_candidates,
            max_scores: output.max_scores.clone(),
            flags: flags.clone(),
            detections: self.box_records(output),
        };
        self.write_line(message, FrameOutcome::Detections(frame))
    }

    /// A cloud that gave nothing; without a header there is nothing to report to the bag.
    pub(super) fn write_malformed(
        &mut self,
        message: &CloudMessage<'_>,
        header: Option<&Header>,
        reason: &str,
    ) -> Result<(), ReplayError> {
        self.n_malformed += 1;
        if let Some(header) = header {
            let report = cdr::to_bytes(&failed_report(header, reason, 0, self.n_malformed));
            self.bag.write(self.report, message.log_time_ns, &report)?;
        }
        self.write_line(message, FrameOutcome::Malformed { error: reason.to_owned() })
    }

    /// A message for Foxglove alone, as it is in the bag.
    pub(super) fn write_foxglove(
        &mut self,
        topic: &str,
        msg_type: MsgType,
        log_time_ns: i64,
        cdr: &[u8],
    ) -> Result<(), ReplayError> {
        self.foxglove.as_mut().map_or(Ok(()), |file| file.write(topic, msg_type, log_time_ns, cdr))
    }

    pub(super) fn finish(self) -> Result<(), ReplayError> {
        self.bag.finish()?;
        self.lines.finish()?;
        self.foxglove.map_or(Ok(()), FoxgloveFile::finish)
    }

    fn write_line(&mut self, message: &CloudMessage<'_>, outcome: FrameOutcome) -> Result<(), ReplayError> {
        let (index, topic, log_time_ns) = (message.index, message.topic.to_owned(), message.log_time_ns);
        self.lines.push(&FrameRecord { index, topic, log_time_ns, outcome })
    }

    fn box_records(&self, output: &FrameOutput) -> Vec<BoxRecord> {
        let record = |box_: &crate::postprocess::Detection| BoxRecord {
            class: class_name(&self.class_names, box_.class_idx),
            score: box_.score,
            row: box_.box3d.to_row(),
        };
        output.detections.iter().map(record).collect()
    }
}
