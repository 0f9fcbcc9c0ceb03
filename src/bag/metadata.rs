//! `metadata.yaml`, versions 1 to 9: every key may be absent or null, since recorders of ten releases wrote it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Newest version this module knows; a newer one is read as far as its keys are the same.
pub(super) const NEWEST_VERSION: u32 = 9;

/// Name of the file in a bag folder.
pub(super) const FILE_NAME: &str = "metadata.yaml";

/// What a bag folder says about its files.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Metadata {
    pub version: Option<u32>,
    pub storage_identifier: Option<String>,
    pub duration: Option<Duration>,
    pub starting_time: Option<StartingTime>,
    pub message_count: Option<u64>,
    pub topics_with_message_count: Option<Vec<TopicWithCount>>,
    pub compression_format: Option<String>,
    pub compression_mode: Option<String>,
    pub relative_file_paths: Option<Vec<String>>,
    pub files: Option<Vec<FileInfo>>,
    pub custom_data: Option<serde_json::Value>,
    pub ros_distro: Option<String>,
}

/// The one key at the top of the file.
#[derive(Deserialize, Serialize)]
pub(super) struct Document {
    pub rosbag2_bagfile_information: Metadata,
}

#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Duration {
    pub nanoseconds: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct StartingTime {
    pub nanoseconds_since_epoch: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct TopicWithCount {
    pub topic_metadata: TopicMetadata,
    pub message_count: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct TopicMetadata {
    pub name: Option<String>,
    #[serde(rename = "type")]
    pub type_name: Option<String>,
    pub serialization_format: Option<String>,
    /// Text up to version 8, a list since 9.
    pub offered_qos_profiles: Option<serde_json::Value>,
    pub type_description_hash: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct FileInfo {
    pub path: Option<String>,
    pub starting_time: Option<StartingTime>,
    pub duration: Option<Duration>,
    pub message_count: Option<u64>,
}

impl Metadata {
    /// Text of `metadata.yaml`.
    ///
    /// # Errors
    /// What the YAML parser says, with its position.
    pub fn parse(text: &str) -> Result<Self, String> {
        let document: Document = serde_saphyr::from_str(text).map_err(|fault| fault.to_string())?;
        Ok(document.rosbag2_bagfile_information)
    }

    /// The same without the outer key, as storage files repeat it.
    pub fn parse_embedded(text: &str) -> Option<Self> {
        serde_saphyr::from_str(text).ok()
    }

    /// Named files with the messages each promises.
    pub fn files(&self) -> Vec<(String, Option<u64>)> {
        let details = self.files.as_deref().unwrap_or_default();
        let count_of =
            |path: &str| details.iter().find(|file| file.path.as_deref() == Some(path)).and_then(|file| file.message_count);
        match self.relative_file_paths.as_deref() {
            Some([only]) => vec![(only.clone(), count_of(only).or(self.message_count))],
            Some(paths) if !paths.is_empty() => paths.iter().map(|path| (path.clone(), count_of(path))).collect(),
            _ => details.iter().filter_map(|file| Some((file.path.clone()?, file.message_count))).collect(),
        }
    }

    /// Whether each message is a compressed frame of its own.
    pub fn has_compressed_messages(&self) -> bool {
        self.compression_mode.as_deref().is_some_and(|mode| mode.eq_ignore_ascii_case("message"))
    }

    /// Keys a reader misses, for people.
    pub fn gaps(&self) -> Vec<String> {
        let absent = [
            ("version", self.version.is_none()),
            ("storage_identifier", self.storage_identifier.is_none()),
            ("relative_file_paths", self.relative_file_paths.is_none()),
            ("topics_with_message_count", self.topics_with_message_count.is_none()),
        ];
        let mut gaps: Vec<String> =
            absent.iter().filter(|(_, absent)| *absent).map(|(key, _)| format!("{FILE_NAME} lacks {key}")).collect();
        if let Some(version) = self.version.filter(|&version| version > NEWEST_VERSION) {
            gaps.push(format!("{FILE_NAME} has version {version}, newer than the {NEWEST_VERSION} known here"));
        }
        gaps
    }
}

impl TopicMetadata {
    /// The profiles as YAML text, whichever way they were written.
    pub fn qos_text(&self) -> String {
        match &self.offered_qos_profiles {
            None | Some(serde_json::Value::Null) => String::new(),
            Some(serde_json::Value::String(text)) => text.clone(),
            Some(list) => list.to_string(),
        }
    }
}

/// Where a named file lies: as named inside the folder, by its bare name (early versions put the folder's name in front), or with
/// `.zstd` added or removed. A path that leads out of the folder only counts by its bare name.
pub(super) fn find_file(folder: &Path, named: &str) -> Option<PathBuf> {
    let relative = Path::new(named);
    let stays_inside =
        relative.components().all(|part| matches!(part, std::path::Component::Normal(_) | std::path::Component::CurDir));
    let mut candidates = Vec::new();
    if stays_inside {
        candidates.push(folder.join(relative));
    }
    if let Some(name) = relative.file_name() {
        candidates.push(folder.join(name));
    }
    let respelled: Vec<PathBuf> = candidates
        .iter()
        .map(|path| match path.extension() {
            Some(extension) if extension == "zstd" => path.with_extension(""),
            _ => {
                let mut name = path.clone().into_os_string();
                name.push(".zstd");
                name.into()
            }
        })
        .collect();
    candidates.into_iter().chain(respelled).find(|path| path.is_file())
}
