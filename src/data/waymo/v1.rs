//! Version 1 of the data set: one TFRecord file per segment, one protobuf frame per record.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use bytes::Bytes;
use prost::Message;
use rayon::prelude::*;

use super::frame::{Laser, LaserImages, LeftOut, RawFrame, RawLabel, transform};
use super::geometry::{Calibration, Inclinations};
use super::proto;
use super::range_image::{POSE_CHANNELS, RANGE_CHANNELS, RangeImage};
use super::tfrecord::{self, Entry};
use super::{Fault, Tally};
use crate::bag::map::map_file;
use crate::data::{DataError, Finding, Fingerprint, Sample, SampleId, Source, sha256_of};

/// One file or a folder of them; frame after frame, file after file in the order of their names.
#[derive(Debug)]
pub struct Segments {
    name: String,
    segments: Vec<Segment>,
    /// Index of the first frame of each segment, and the total.
    starts: Vec<usize>,
    tally: Tally,
}

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    drive: String,
    bytes: Bytes,
    entries: Vec<Entry>,
    /// Whether any frame of the file has labels: one without is empty in a labelled file and unlabelled in another.
    labelled: OnceLock<bool>,
}

impl Segments {
    /// Indexes the records of the files; payloads are not read. Damaged records keep their place and fail when they are asked for, as
    /// does, in a folder, a file that is no TFRecord file.
    ///
    /// # Errors
    /// A path that cannot be read or has no `*.tfrecord`, a single file that holds no records, two files of one segment.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let segments: Vec<Segment> = if path.is_dir() {
            let paths = super::files_in(path, "tfrecord")?;
            if paths.is_empty() {
                return Err(super::no_source(path, "the folder has no *.tfrecord"));
            }
            paths.into_par_iter().map(|path| Segment::open(&path).unwrap_or_else(|error| Segment::broken(path, &error))).collect()
        } else {
            vec![Segment::open(path)?]
        };
        super::check_drives(segments.iter().map(|segment| (segment.drive.as_str(), segment.path.as_path())))?;
        let mut starts = vec![0];
        starts.extend(segments.iter().scan(0, |total, segment| {
            *total += segment.entries.len();
            Some(*total)
        }));
        Ok(Self { name: path.display().to_string(), segments, starts, tally: Tally::default() })
    }

    /// One frame before its range images become points.
    ///
    /// # Errors
    /// What is wrong with its record.
    pub fn raw_frame(&self, index: usize) -> Result<RawFrame, DataError> {
        let (segment, record_idx) = self.place(index);
        segment.raw_frame(record_idx).map_err(|fault| fault.of(&segment.path, &format!("record {record_idx}")))
    }

    /// What all loads so far left out.
    pub fn left_out(&self) -> LeftOut {
        self.tally.total()
    }

    fn place(&self, index: usize) -> (&Segment, usize) {
        let segment_idx = self.starts.partition_point(|&start| start <= index) - 1;
        (&self.segments[segment_idx], index - self.starts[segment_idx])
    }
}

impl Source for Segments {
    fn len(&self) -> usize {
        self.starts.last().copied().unwrap_or(0)
    }

    fn id(&self, index: usize) -> SampleId {
        let (segment, record_idx) = self.place(index);
        SampleId { drive: segment.drive.clone(), frame: record_idx as u64 }
    }

    fn load(&self, _epoch: u64, index: usize) -> Result<Sample, DataError> {
        let (segment, record_idx) = self.place(index);
        let (sample, left_out) = (segment.raw_frame(record_idx))
            .and_then(|raw| raw.check_scanned().and_then(|()| raw.into_sample(self.id(index))))
            .map_err(|fault| fault.of(&segment.path, &format!("record {record_idx}")))?;
        self.tally.add(&sample.id, left_out);
        Ok(sample)
    }

    fn fingerprint(&self) -> Fingerprint {
        let mut parts = Vec::new();
        for segment in &self.segments {
            parts.push(segment.path.file_name().unwrap_or_default().as_encoded_bytes().to_vec());
            parts.push(segment.bytes.len().to_le_bytes().to_vec());
            parts.extend(segment.entries.iter().map(|entry| match entry {
                // The stored checksums stand for the payloads.
                Entry::Record(payload) => tfrecord::stored_crc(&segment.bytes, payload).to_le_bytes().to_vec(),
                Entry::Damaged(reason) => reason.clone().into_bytes(),
            }));
        }
        Fingerprint { source: self.name.clone(), sha256: sha256_of(&parts) }
    }

    fn findings(&self) -> Vec<Finding> {
        let of_segment = |segment: &Segment| {
            let mut damaged = segment.entries.iter().enumerate().filter_map(|(record_idx, entry)| match entry {
                Entry::Damaged(reason) => Some(format!("record {record_idx}: {reason}")),
                Entry::Record(_) => None,
            });
            let example = damaged.next()?;
            Some(Finding { drive: segment.drive.clone(), kind: "damaged record", count: 1 + damaged.count() as u64, example })
        };
        self.segments.iter().filter_map(of_segment).collect()
    }
}

impl Segment {
    fn open(path: &Path) -> Result<Self, DataError> {
        let bytes = map_file(path).map_err(|source| DataError::Io { path: path.display().to_string(), source })?;
        let entries = tfrecord::index(&bytes).map_err(|fault| fault.of(path, "index"))?;
        let mut segment = Self { path: path.to_owned(), drive: String::new(), bytes, entries, labelled: OnceLock::new() };
        let name = segment.heads().find_map(|head| head.context?.name);
        segment.drive = name.filter(|name| !name.is_empty()).unwrap_or_else(|| super::stem(path));
        Ok(segment)
    }

    /// A file of which nothing can be read, as one damaged frame, so that the others of its folder can be used.
    fn broken(path: PathBuf, error: &DataError) -> Self {
        let entries = vec![Entry::Damaged(error.to_string())];
        Self { drive: super::stem(&path), path, bytes: Bytes::new(), entries, labelled: OnceLock::new() }
    }

    /// Names and labels of the frames, as far as they can be read.
    fn heads(&self) -> impl Iterator<Item = proto::FrameHead> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Record(payload) => proto::FrameHead::decode(self.bytes.slice(payload.clone())).ok(),
            Entry::Damaged(_) => None,
        })
    }

    fn payload(&self, record_idx: usize) -> Result<Range<usize>, Fault> {
        let refuse = |reason| Fault { place: "container".to_owned(), reason };
        match &self.entries[record_idx] {
            Entry::Damaged(reason) => Err(refuse(reason.clone())),
            Entry::Record(payload) => {
                tfrecord::verify(&self.bytes, payload).map_err(refuse)?;
                Ok(payload.clone())
            }
        }
    }

    fn raw_frame(&self, record_idx: usize) -> Result<RawFrame, Fault> {
        let payload = self.payload(record_idx)?;
        let frame = proto::Frame::decode(self.bytes.slice(payload))
            .map_err(|error| Fault { place: "protobuf".to_owned(), reason: format!("is no Frame: {error}") })?;
        let labelled = || *self.labelled.get_or_init(|| self.heads().any(|head| !head.laser_labels.is_empty()));
        let labels = (!frame.laser_labels.is_empty() || labelled()).then(|| labels(&frame.laser_labels)).transpose()?;
        let pose = frame.pose.as_ref().ok_or_else(|| Fault::field("pose", "is missing".to_owned()))?;
        Ok(RawFrame {
            timestamp_micros: frame.timestamp_micros.ok_or_else(|| Fault::field("timestamp_micros", "is missing".to_owned()))?,
            world_from_vehicle: transform(&pose.transform).map_err(|reason| Fault::field("pose", reason))?,
            lasers: lasers(&frame)?,
            labels,
        })
    }
}

fn lasers(frame: &proto::Frame) -> Result<Vec<LaserImages>, Fault> {
    // Frames cut down by tools hold laser messages without a name and without bytes.
    let mut with_data: Vec<(Laser, &proto::Laser)> = (frame.lasers.iter())
        .filter(|laser| laser.ri_return1.iter().chain(&laser.ri_return2).any(|image| !image.range_image_compressed.is_empty()))
        .map(|laser| {
            Ok((Laser::from_code(laser.name.unwrap_or_default().into()).map_err(|reason| Fault::field("lasers", reason))?, laser))
        })
        .collect::<Result<_, Fault>>()?;
    with_data.sort_by_key(|(laser, _)| *laser);
    if let Some(pair) = with_data.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(Fault::field("lasers", format!("{} occurs twice", pair[0].0.name())));
    }
    let images: Vec<(usize, Laser, Part, &Bytes)> = (with_data.iter().enumerate())
        .flat_map(|(idx, &(laser, message))| {
            let first = message.ri_return1.as_ref().map(|image| &image.range_image_compressed);
            let second = message.ri_return2.as_ref().map(|image| &image.range_image_compressed);
            let poses = message.ri_return1.as_ref().map(|image| &image.range_image_pose_compressed);
            [(Part::Return(0), first), (Part::Return(1), second), (Part::Poses, poses)]
                .into_iter()
                .filter_map(move |(part, bytes)| Some((idx, laser, part, bytes.filter(|bytes| !bytes.is_empty())?)))
        })
        .collect();
    let mut inflated: Vec<(usize, Part, RangeImage)> = images
        .into_par_iter()
        .map(|(idx, laser, part, bytes)| {
            let image = RangeImage::from_zlib(bytes, part.channels())
                .map_err(|reason| Fault { place: format!("laser {}: {}", laser.name(), part.name()), reason })?;
            Ok((idx, part, image))
        })
        .collect::<Result<_, Fault>>()?;

    let mut lasers: Vec<LaserImages> = Vec::with_capacity(with_data.len());
    for &(laser, _) in &with_data {
        lasers.push(LaserImages { laser, calibration: calibration(frame, laser)?, returns: [None, None], poses: None });
    }
    for (idx, part, image) in inflated.drain(..) {
        match part {
            Part::Return(return_idx) => lasers[idx].returns[return_idx] = Some(image),
            Part::Poses => lasers[idx].poses = Some(image),
        }
    }
    Ok(lasers)
}

/// What a compressed image of a laser is.
#[derive(Debug, Clone, Copy)]
enum Part {
    Return(usize),
    Poses,
}

impl Part {
    fn channels(self) -> usize {
        match self {
            Self::Return(_) => RANGE_CHANNELS,
            Self::Poses => POSE_CHANNELS,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Return(0) => "range image of return 1",
            Self::Return(_) => "range image of return 2",
            Self::Poses => "pose image",
        }
    }
}

fn calibration(frame: &proto::Frame, laser: Laser) -> Result<Calibration, Fault> {
    let fault = |reason| Fault { place: format!("calibration of laser {}", laser.name()), reason };
    let of_laser =
        |calibration: &&proto::LaserCalibration| Laser::from_code(calibration.name.unwrap_or_default().into()) == Ok(laser);
    let stored = (frame.context.iter().flat_map(|context| &context.laser_calibrations))
        .find(of_laser)
        .ok_or_else(|| fault("is missing".to_owned()))?;
    let extrinsic = stored.extrinsic.as_ref().ok_or_else(|| fault("has no extrinsic".to_owned()))?;
    let vehicle_from_laser = transform(&extrinsic.transform).map_err(fault)?;
    let (listed, min, max) = (stored.beam_inclinations.clone(), stored.beam_inclination_min, stored.beam_inclination_max);
    Ok(Calibration { vehicle_from_laser, inclinations: Inclinations::new(listed, min, max).map_err(fault)? })
}

fn labels(stored: &[proto::Label]) -> Result<Vec<RawLabel>, Fault> {
    (stored.iter().enumerate())
        .map(|(label_idx, label)| {
            let id = label.id.clone().unwrap_or_default();
            let Some(stored_box) = &label.r#box else {
                return Err(Fault { place: format!("label {label_idx} (`{id}`)"), reason: "has no box".to_owned() });
            };
            let &proto::LabelBox { center_x, center_y, center_z, width, length, height, heading } = stored_box;
            let speed_of =
                |metadata: &proto::LabelMetadata| Some([metadata.speed_x?, metadata.speed_y?, metadata.speed_z.unwrap_or(0.0)]);
            Ok(RawLabel {
                class_code: label.r#type.unwrap_or_default().into(),
                id,
                row: [center_x, center_y, center_z, length, width, height, heading],
                speed_mps: label.metadata.as_ref().and_then(speed_of),
                n_points: label.num_lidar_points_in_box.map(i64::from),
                difficulty: label.detection_difficulty_level.unwrap_or_default().into(),
            })
        })
        .collect()
}
