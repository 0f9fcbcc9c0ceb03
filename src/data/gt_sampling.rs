//! Ground-truth sampling: objects of other frames pasted where nothing stands (sparsekd-spec section 1.3).
//!
//! # Which objects
//! The original's loader processes each walk a random permutation of the database and remember where they are. Here the order of
//! objects must follow from (seed, epoch, frame) alone, so every frame has its own stretch of an endless walk: per class, frame
//! `index` of epoch `epoch` owns `target` places from `(epoch * n_frames + index) * target` on and uses the first as many as it
//! wants. The walk goes through permutation after permutation of the database, each keyed by the seed, the class and its number.
//! No object is met twice in one permutation, as in the original. What differs: places that a frame does not use are passed over, so
//! that in one permutation a random part of the objects is used, each with the same chance, where the original leaves none out;
//! and at the end of a permutation the walk goes on into the next, where the original hands out fewer objects.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::chance::{self, Permutation};
use super::gt_database::{GtDatabase, GtDatabaseError};
use super::prepare::{ClassMap, Turn};
use crate::cloud::InputSpec;
use crate::cloud::columns::ColumnMap;
use crate::geometry::Box3d;
use crate::geometry::iou::{Footprint, reference};
use crate::train::{SettingError, rule};

/// What is pasted, and from where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GtSamplingConfig {
    /// Folder that `trainer convert gt-database` wrote.
    pub database: PathBuf,
    /// Objects of each class of the model that a frame has afterwards, those it had before included; Vehicle 15, Pedestrian 10,
    /// Cyclist 10.
    #[serde(default = "default_targets")]
    pub targets: BTreeMap<String, u32>,
    /// Objects with fewer points are never pasted; 5.
    #[serde(default = "default_min_points")]
    pub min_points: u32,
}

fn default_targets() -> BTreeMap<String, u32> {
    [("Vehicle", 15), ("Pedestrian", 10), ("Cyclist", 10)].map(|(class, n)| (class.to_owned(), n)).into()
}

fn default_min_points() -> u32 {
    5
}

impl GtSamplingConfig {
    /// Checks every rule that types cannot hold.
    ///
    /// # Errors
    /// The first setting that breaks a rule.
    pub fn check(&self) -> Result<(), SettingError> {
        let counts = self.targets.values().all(|target| (1..=1000).contains(target));
        rule(counts, "gt_sampling.targets", &self.targets, "1 to 1000 objects of a class, or no entry")?;
        rule(self.min_points >= 1, "gt_sampling.min_points", &self.min_points, "at least 1")
    }
}

/// An object that found its place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pasted {
    /// Where it stood in its own frame, and stands now.
    pub box3d: Box3d,
    /// Class of the model.
    pub class_idx: usize,
    /// Index in the database.
    pub object_idx: usize,
}

/// A database opened for one model.
#[derive(Debug, Clone)]
pub struct GtSampler {
    database: Arc<GtDatabase>,
    columns: ColumnMap,
    pools: Vec<Pool>,
}

/// The objects of one class.
#[derive(Debug, Clone)]
struct Pool {
    class_idx: usize,
    class: String,
    target: u64,
    object_idxs: Vec<u32>,
}

/// Why a database cannot serve a model.
#[derive(Debug, thiserror::Error)]
pub enum GtSamplingError {
    /// The database itself.
    #[error(transparent)]
    Database(#[from] GtDatabaseError),
    /// Its columns are not those of the model.
    #[error("ground-truth database {}: {source}", .database.display())]
    Columns {
        /// Its folder.
        database: PathBuf,
        /// The column.
        r#source: crate::cloud::CloudError,
    },
    /// A target for a class the model does not have.
    #[error("gt_sampling.targets.{class}: the model has no such class, it has {}", .classes.join(", "))]
    UnknownClass {
        /// As configured.
        class: String,
        /// Classes of the model.
        classes: Vec<String>,
    },
    /// A target for a class of which there are no objects.
    #[error(
        "gt_sampling.targets.{class}: {} has no such object with {min_points} points or more; it has {held}. Leave the class out \
         of the targets, or map the source's class names", .database.display()
    )]
    NoObjects {
        /// As configured.
        class: String,
        /// Folder of the database.
        database: PathBuf,
        /// As configured.
        min_points: u32,
        /// Classes of the database with their numbers.
        held: String,
    },
}

impl GtSampler {
    /// Opens the configured database.
    ///
    /// # Errors
    /// Everything in [`GtSamplingError`].
    pub fn open(config: &GtSamplingConfig, classes: &ClassMap, input: &InputSpec) -> Result<Self, GtSamplingError> {
        Self::new(Arc::new(GtDatabase::open(&config.database)?), config, classes, input)
    }

    /// Of a database that is open already.
    ///
    /// # Errors
    /// See [`GtSampler::open`].
    pub fn new(
        database: Arc<GtDatabase>,
        config: &GtSamplingConfig,
        classes: &ClassMap,
        input: &InputSpec,
    ) -> Result<Self, GtSamplingError> {
        let dir = || database.dir().to_owned();
        let columns =
            ColumnMap::new(database.features(), input).map_err(|source| GtSamplingError::Columns { database: dir(), source })?;
        if let Some(class) = config.targets.keys().find(|class| !classes.names().contains(class)) {
            return Err(GtSamplingError::UnknownClass { class: class.clone(), classes: classes.names().to_vec() });
        }
        let mut pools = Vec::new();
        for (class_idx, class) in classes.names().iter().enumerate() {
            let Some(&target) = config.targets.get(class) else { continue };
            let object_idxs: Vec<u32> = (database.objects().iter().zip(0u32..))
                .filter(|(object, _)| object.n_points >= config.min_points)
                .filter(|(object, _)| classes.index_of(database.class_of(object)) == Some(class_idx))
                .map(|(_, object_idx)| object_idx)
                .collect();
            if object_idxs.is_empty() {
                let (min_points, held) = (config.min_points, database.classes_in_words());
                return Err(GtSamplingError::NoObjects { class: class.clone(), database: dir(), min_points, held });
            }
            pools.push(Pool { class_idx, class: class.clone(), target: u64::from(target), object_idxs });
        }
        Ok(Self { database, columns, pools })
    }

    /// The database.
    pub fn database(&self) -> &GtDatabase {
        &self.database
    }

    /// Objects that are pasted into a frame, and how many more were tried and collided.
    ///
    /// `standing` are the frame's boxes of all classes, also those the model does not know (`None`).
    pub fn choose(&self, seed: u64, turn: Turn, standing: &[(Box3d, Option<usize>)]) -> (Vec<Pasted>, u64) {
        let mut occupied: Vec<Footprint> = standing.iter().map(|(b, _)| Footprint::new(b)).collect();
        let (mut pasted, mut n_collided) = (Vec::new(), 0);
        for pool in &self.pools {
            let n_present = standing.iter().filter(|(_, class_idx)| *class_idx == Some(pool.class_idx)).count() as u64;
            let candidates = pool.candidates(seed, turn, pool.target.saturating_sub(n_present));
            let boxes: Vec<Box3d> = candidates.iter().map(|&idx| self.database.objects()[idx].box3d).collect();
            let free = free_candidates(&boxes, &occupied);
            n_collided += (boxes.len() - free.len()) as u64;
            for candidate in free {
                let (box3d, object_idx) = (boxes[candidate], candidates[candidate]);
                occupied.push(Footprint::new(&box3d));
                pasted.push(Pasted { box3d, class_idx: pool.class_idx, object_idx });
            }
        }
        (pasted, n_collided)
    }

    /// Calls `take` with every point of an object as the database holds it, moved to its place.
    ///
    /// # Errors
    /// When the database is damaged there.
    pub fn points_of(&self, pasted: &Pasted, mut take: impl FnMut(&mut [f32])) -> Result<(), GtDatabaseError> {
        let center = pasted.box3d.center.map(|v| v as f32);
        let mut points = self.database.points(pasted.object_idx)?;
        for row in points.chunks_exact_mut(self.database.features().len()) {
            for axis in 0..3 {
                row[axis] += center[axis];
            }
            take(row);
        }
        Ok(())
    }

    /// From the database's columns to the model's.
    pub fn columns(&self) -> &ColumnMap {
        &self.columns
    }
}

impl Pool {
    /// Indices into the database, each once; see the module's header.
    fn candidates(&self, seed: u64, turn: Turn, n_wanted: u64) -> Vec<usize> {
        let n = self.object_idxs.len() as u64;
        let frame = turn.epoch.wrapping_mul(turn.n_frames).wrapping_add(turn.index);
        let first = frame.wrapping_mul(self.target);
        let purpose = format!("gt_sampling {}", self.class);
        let mut permutation: Option<(u64, Permutation)> = None;
        let mut taken = HashSet::new();
        let mut candidates = Vec::new();
        for place in (0..n_wanted).map(|step| first.wrapping_add(step)) {
            let round = place / n;
            let (_, order) = match permutation.take() {
                Some(known) if known.0 == round => permutation.insert(known),
                _ => permutation.insert((round, Permutation::new(n, &mut chance::of_epoch(seed, round, &purpose)))),
            };
            let object_idx = self.object_idxs[order.at(place % n) as usize] as usize;
            // Two permutations may meet in one frame, and an object would collide with itself.
            if taken.insert(object_idx) {
                candidates.push(object_idx);
            }
        }
        candidates
    }
}

/// Which candidates overlap nothing that stands there and no other candidate: of two that overlap, neither is taken.
///
/// Overlap is the original's, which counts neighbours within 1 cm.
pub fn free_candidates(candidates: &[Box3d], occupied: &[Footprint]) -> Vec<usize> {
    let footprints: Vec<Footprint> = candidates.iter().map(Footprint::new).collect();
    let overlaps = |a: &Footprint, b: &Footprint| reference::footprint_overlap(a, b) > 0.0;
    let is_free = |&idx: &usize| {
        let own = &footprints[idx];
        let others = footprints.iter().enumerate().filter(|(other_idx, _)| *other_idx != idx).map(|(_, other)| other);
        !occupied.iter().chain(others).any(|other| overlaps(own, other))
    };
    (0..candidates.len()).filter(is_free).collect()
}
