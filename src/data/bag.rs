//! Recorded bags as a source: clouds by topic, labels by topic or from a file beside, tf where it is asked for.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nalgebra::{Isometry3, Point3};
use rayon::prelude::*;

use super::bag_drive::{BagDrive, CloudAt, LabelsAt};
use super::labels::{labels_of_message, transform_label};
use super::{BagOptions, DataError, Finding, Fingerprint, Label, Sample, SampleId, Source, sha256_of};
use crate::cloud::decode::{CloudDecoder, SensorOverrides, columns_present};
use crate::cloud::{InputSpec, IntensityMode, PointCloud};
use crate::msgs::cdr;
use crate::msgs::sensor_msgs::PointCloud2Ref;
use crate::msgs::vision_msgs::Detection3DArray;
use crate::time::Stamp;

/// Bags, each a drive. They are read once when opened, for the places of their messages; frames are then read on demand.
///
/// Clouds keep every column that has a known name, or those asked for; a point with a non-finite value in one of them is left
/// out, as the node does. Labels are brought into the frame of the cloud by tf where they are in another one.
pub struct BagSource {
    name: String,
    options: BagOptions,
    drives: Vec<BagDrive>,
    /// Index of the first frame of each drive.
    starts: Vec<usize>,
    n_frames: usize,
    findings: Vec<Finding>,
    n_non_finite: AtomicU64,
    n_read: AtomicU64,
}

impl fmt::Debug for BagSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BagSource").field("name", &self.name).field("n_frames", &self.n_frames).finish_non_exhaustive()
    }
}

impl BagSource {
    /// Opens bags, given with the names of their drives. `name` is the source as the user typed it.
    ///
    /// # Errors
    /// When a bag cannot be opened, an option does not fit one, or no bag has a usable cloud.
    pub fn open(name: &str, bags: &[(String, PathBuf)], options: &BagOptions) -> Result<Self, DataError> {
        let opened: Vec<_> = bags
            .par_iter()
            .map(|(drive, path)| {
                let mut findings = Vec::new();
                BagDrive::open(path, drive, options, &mut findings).map(|opened| (opened, findings))
            })
            .collect::<Result<_, _>>()?;
        let (drives, findings): (Vec<_>, Vec<_>) = opened.into_iter().unzip();
        let findings: Vec<Finding> = findings.into_iter().flatten().collect();
        let mut starts = Vec::new();
        let mut n_frames = 0;
        for drive in &drives {
            starts.push(n_frames);
            n_frames += drive.clouds.len();
        }
        if n_frames == 0 {
            let reasons: Vec<String> = findings.iter().map(Finding::to_string).collect();
            return Err(DataError::Source { source_name: name.to_owned(), reason: format!("no frames: {}", reasons.join("; ")) });
        }
        let (n_non_finite, n_read) = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(Self { name: name.to_owned(), options: options.clone(), drives, starts, n_frames, findings, n_non_finite, n_read })
    }

    fn at(&self, index: usize) -> (&BagDrive, usize) {
        let drive_idx = self.starts.partition_point(|start| *start <= index) - 1;
        (&self.drives[drive_idx], index - self.starts[drive_idx])
    }
}

impl Source for BagSource {
    fn len(&self) -> usize {
        self.n_frames
    }

    fn id(&self, index: usize) -> SampleId {
        let (drive, frame) = self.at(index);
        SampleId { drive: drive.name.clone(), frame: frame as u64 }
    }

    fn load(&self, _epoch: u64, index: usize) -> Result<Sample, DataError> {
        let id = self.id(index);
        let (drive, frame) = self.at(index);
        let place = &drive.clouds[frame];
        let fault = |reason: String| DataError::Sample { id: id.clone(), reason };
        let mut cloud = self.cloud(drive, place, &id)?;
        if let Some(target) = &self.options.target_frame {
            let target_from_cloud =
                drive.tf.lookup(target, &cloud.frame_id, cloud.stamp).map_err(|error| fault(error.to_string()))?;
            move_points(&mut cloud, &target_from_cloud);
            cloud.frame_id.clone_from(target);
        }
        let labels = place.labels.map(|at| labels(drive, at, &cloud).map_err(fault)).transpose()?;
        let world = self.options.world_frame.clone().or_else(|| drive.tf.still_frame_above(&place.frame_id));
        let world_from_cloud = world.and_then(|world| drive.tf.lookup(&world, &cloud.frame_id, cloud.stamp).ok());
        Ok(Sample { id, cloud, labels, in_no_label_zone: Vec::new(), world_from_cloud })
    }

    fn stamp(&self, index: usize) -> Option<Stamp> {
        let (drive, frame) = self.at(index);
        Some(drive.clouds[frame].stamp)
    }

    fn fingerprint(&self) -> Fingerprint {
        let options = serde_json::json!(self.options).to_string();
        let mut parts = vec![options.into_bytes()];
        for drive in &self.drives {
            parts.push(drive.name.clone().into_bytes());
            for file in &drive.bag.summary().files {
                let bytes = std::fs::metadata(file).map_or(0, |meta| meta.len());
                parts.push(bytes.to_le_bytes().to_vec());
            }
            parts.extend(drive.clouds.iter().map(|cloud| cloud.stamp.nanos.to_le_bytes().to_vec()));
            // The sidecar's labels decide like the bag does; they have no size of their own here.
            parts.extend(drive.sidecar.iter().map(|frame| format!("{frame:?}").into_bytes()));
        }
        Fingerprint { source: self.name.clone(), sha256: sha256_of(&parts) }
    }

    fn findings(&self) -> Vec<Finding> {
        let mut findings = self.findings.clone();
        let (count, n_read) = (self.n_non_finite.load(Ordering::Relaxed), self.n_read.load(Ordering::Relaxed));
        if count > 0 {
            let example = format!("in the {n_read} clouds loaded so far");
            findings.push(Finding { drive: "all".to_owned(), kind: "point that is not finite, left out", count, example });
        }
        findings
    }
}

impl BagSource {
    fn cloud(&self, drive: &BagDrive, place: &CloudAt, id: &SampleId) -> Result<PointCloud, DataError> {
        let fault = |reason: String| DataError::Sample { id: id.clone(), reason };
        let cloud_fault = |source| DataError::Cloud { id: id.clone(), source };
        let bytes = drive.bag.read(place.at).map_err(|loss| fault(loss.to_string()))?;
        let message: PointCloud2Ref<'_> = cdr::from_bytes(&bytes).map_err(|error| fault(error.to_string()))?;
        let features = if self.options.columns.is_empty() {
            columns_present(&message, &self.options.fields).map_err(cloud_fault)?.0
        } else {
            self.options.columns.clone()
        };
        let intensity = self.options.intensity_scale.map_or(IntensityMode::Raw, IntensityMode::Scale);
        let input = InputSpec { features, intensity, fill_absent: Default::default() };
        let sensor = SensorOverrides { field_names: self.options.fields.clone(), intensity: None };
        let mut cloud = PointCloud::default();
        let report = CloudDecoder::new(&input, &sensor)
            .and_then(|mut decoder| decoder.decode(&message, &mut cloud))
            .map_err(cloud_fault)?;
        self.n_non_finite.fetch_add(report.non_finite as u64, Ordering::Relaxed);
        self.n_read.fetch_add(1, Ordering::Relaxed);
        Ok(cloud)
    }
}

/// The usable labels in the frame of the cloud; the unusable ones were counted when the bag was opened.
fn labels(drive: &BagDrive, at: LabelsAt, cloud: &PointCloud) -> Result<Vec<Label>, String> {
    let (mut labels, frame_id) = match at {
        LabelsAt::Sidecar(idx) => (drive.sidecar[idx].labels.clone(), drive.sidecar[idx].frame_id.clone()),
        LabelsAt::Message(at) => {
            let bytes = drive.bag.read(at).map_err(|loss| loss.to_string())?;
            let array: Detection3DArray = cdr::from_bytes(&bytes).map_err(|error| error.to_string())?;
            (labels_of_message(&array).0, array.header.frame_id)
        }
    };
    let is_elsewhere = !frame_id.is_empty() && frame_id != cloud.frame_id;
    if is_elsewhere && !labels.is_empty() {
        let cloud_from_labels = drive
            .tf
            .lookup(&cloud.frame_id, &frame_id, cloud.stamp)
            .map_err(|error| format!("labels are in `{frame_id}`, the cloud in `{}`: {error}", cloud.frame_id))?;
        for label in &mut labels {
            transform_label(&cloud_from_labels, label)
                .map_err(|reason| format!("labels are in `{frame_id}`, the cloud in `{}`: {reason}", cloud.frame_id))?;
        }
    }
    Ok(labels)
}

fn move_points(cloud: &mut PointCloud, to_from: &Isometry3<f64>) {
    let n_columns = cloud.features.len().max(1);
    for row in cloud.points.chunks_exact_mut(n_columns) {
        if let [x, y, z, ..] = row {
            let moved = to_from * Point3::new(f64::from(*x), f64::from(*y), f64::from(*z));
            (*x, *y, *z) = (moved.x as f32, moved.y as f32, moved.z as f32);
        }
    }
}

/// The bags at a path, with the names of their drives: the bag itself, or every bag folder and storage file in a folder of bags.
/// Empty when there is none.
pub fn bags_at(path: &Path) -> std::io::Result<Vec<(String, PathBuf)>> {
    if path.is_file() || is_bag_folder(path)? {
        return Ok(vec![(drive_name(path), path.to_owned())]);
    }
    let mut bags = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let inner = entry?.path();
        if inner.is_dir() && is_bag_folder(&inner)? {
            bags.push((drive_name(&inner), inner));
        }
    }
    bags.sort();
    Ok(bags)
}

fn is_bag_folder(folder: &Path) -> std::io::Result<bool> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
        if name == "metadata.yaml" || crate::bag::has_storage_name(&path) || name.ends_with(".bag") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Name of the file or folder, without the endings of storage files.
fn drive_name(path: &Path) -> String {
    let full = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = full.file_name().map_or_else(|| "bag".to_owned(), |name| name.to_string_lossy().into_owned());
    if full.is_dir() {
        return name;
    }
    let name = name.strip_suffix(".zstd").unwrap_or(&name);
    name.strip_suffix(".mcap").or_else(|| name.strip_suffix(".db3")).unwrap_or(name).to_owned()
}
