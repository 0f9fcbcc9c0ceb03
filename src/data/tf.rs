//! The tree of frames of a recording, asked for any time within it.

use std::collections::HashMap;

use nalgebra::{Isometry3, Quaternion, Translation3, UnitQuaternion};

use crate::msgs::geometry_msgs::TransformStamped;
use crate::msgs::tf2_msgs::TFMessage;
use crate::time::Stamp;

/// Longest chain from a frame to its root; robots have about ten links.
const MAX_DEPTH: usize = 256;

/// Every edge that `/tf` and `/tf_static` told.
#[derive(Debug, Clone, Default)]
pub struct TfTree {
    /// By child frame.
    edges: HashMap<String, Edge>,
}

#[derive(Debug, Clone)]
struct Edge {
    parent: String,
    is_fixed: bool,
    /// By stamp once [`TfTree::finish`] was called.
    poses: Vec<(i64, Isometry3<f64>)>,
}

/// Why there is no transform.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TfError {
    /// The frames do not hang together.
    #[error("no chain of transforms from `{from}` to `{to}`; known frames: {known}")]
    NotConnected {
        /// Frame of the data.
        from: String,
        /// Frame asked for.
        to: String,
        /// Names.
        known: String,
    },
    /// The recording has the edge, but not then.
    #[error("transform `{parent}` from `{child}` is known from {first_s:.3} s to {last_s:.3} s, asked for {asked_s:.3} s")]
    OutOfTime {
        /// Parent frame.
        parent: String,
        /// Child frame.
        child: String,
        /// First stamp.
        first_s: f64,
        /// Last stamp.
        last_s: f64,
        /// Stamp of the cloud.
        asked_s: f64,
    },
    /// A frame is its own ancestor.
    #[error("the frames above `{frame}` form a circle")]
    Circle {
        /// Where the walk began.
        frame: String,
    },
}

impl TfTree {
    /// Takes the edges of a message; gives what is wrong with those that cannot be used.
    pub fn add(&mut self, message: &TFMessage, is_fixed: bool) -> Vec<String> {
        message.transforms.iter().filter_map(|edge| self.add_edge(edge, is_fixed).err()).collect()
    }

    fn add_edge(&mut self, edge: &TransformStamped, is_fixed: bool) -> Result<(), String> {
        let (parent, child) = (plain(&edge.header.frame_id), plain(&edge.child_frame_id));
        let (shift, turn) = (edge.transform.translation, edge.transform.rotation);
        let turn = Quaternion::new(turn.w, turn.x, turn.y, turn.z);
        let is_finite = [shift.x, shift.y, shift.z].iter().all(|value| value.is_finite());
        if !(is_finite && turn.norm().is_finite() && turn.norm() > 1e-3) {
            return Err(format!("transform `{parent}` from `{child}`: {shift:?}, rotation {turn:?}"));
        }
        let pose = Isometry3::from_parts(Translation3::new(shift.x, shift.y, shift.z), UnitQuaternion::from_quaternion(turn));
        let known =
            self.edges.entry(child.to_owned()).or_insert_with(|| Edge { parent: parent.to_owned(), is_fixed, poses: Vec::new() });
        if known.parent != parent {
            return Err(format!("frame `{child}` has two parents, `{}` and `{parent}`; the first is used", known.parent));
        }
        if is_fixed {
            known.is_fixed = true;
            known.poses.clear();
        }
        known.poses.push((Stamp::from(edge.header.stamp).nanos, pose));
        Ok(())
    }

    /// To be called once all messages were added, before any question.
    pub fn finish(&mut self) {
        for edge in self.edges.values_mut() {
            edge.poses.sort_by_key(|(stamp_ns, _)| *stamp_ns);
        }
    }

    /// Whether no edge is known.
    pub fn is_empty(&self) -> bool {
        self.edges.is_empty()
    }

    /// Pose of `from` in `to` at a time: takes points of `from` to `to`. Between two stamps positions are interpolated linearly and
    /// rotations along the shortest arc; nothing is extrapolated.
    ///
    /// # Errors
    /// Every [`TfError`].
    pub fn lookup(&self, to: &str, from: &str, stamp: Stamp) -> Result<Isometry3<f64>, TfError> {
        let (to, from) = (plain(to), plain(from));
        if to == from {
            return Ok(Isometry3::identity());
        }
        let (above_to, above_from) = (self.path_up(to)?, self.path_up(from)?);
        let Some(meet) = above_from.iter().find(|frame| above_to.contains(frame)) else {
            return Err(TfError::NotConnected { from: from.to_owned(), to: to.to_owned(), known: self.names() });
        };
        let meet_from_to = self.climb(&above_to, meet, stamp)?;
        let meet_from_from = self.climb(&above_from, meet, stamp)?;
        Ok(meet_from_to.inverse() * meet_from_from)
    }

    /// The root above a frame when something on the way to it moves: then the root is what stands still.
    pub fn still_frame_above(&self, frame: &str) -> Option<String> {
        let path = self.path_up(plain(frame)).ok()?;
        let moves = path.iter().any(|frame| self.edges.get(*frame).is_some_and(|edge| !edge.is_fixed));
        path.last().filter(|_| moves).map(|root| (*root).to_owned())
    }

    /// The frame and its ancestors, root last.
    fn path_up<'a>(&'a self, frame: &'a str) -> Result<Vec<&'a str>, TfError> {
        let mut path = vec![frame];
        let mut at = frame;
        while let Some(edge) = self.edges.get(at) {
            at = &edge.parent;
            path.push(at);
            if path.len() > MAX_DEPTH {
                return Err(TfError::Circle { frame: frame.to_owned() });
            }
        }
        Ok(path)
    }

    /// Pose of the first frame of `path` in the frame `top` on it.
    fn climb(&self, path: &[&str], top: &str, stamp: Stamp) -> Result<Isometry3<f64>, TfError> {
        let mut pose = Isometry3::identity();
        for &child in path.iter().take_while(|frame| **frame != top) {
            if let Some(edge) = self.edges.get(child) {
                pose = edge.at(child, stamp)? * pose;
            }
        }
        Ok(pose)
    }

    fn names(&self) -> String {
        let mut names: Vec<&str> = self.edges.iter().flat_map(|(child, edge)| [child.as_str(), &edge.parent]).collect();
        names.sort_unstable();
        names.dedup();
        if names.is_empty() { "none, the recording has no tf".to_owned() } else { names.join(", ") }
    }
}

impl Edge {
    fn at(&self, child: &str, stamp: Stamp) -> Result<Isometry3<f64>, TfError> {
        let after = self.poses.partition_point(|(stamp_ns, _)| *stamp_ns < stamp.nanos);
        let last = self.poses.last().filter(|_| self.is_fixed);
        if let Some((_, pose)) = last.or_else(|| self.poses.get(after).filter(|(at, _)| *at == stamp.nanos)) {
            return Ok(*pose);
        }
        let between = after.checked_sub(1).and_then(|before| Some((self.poses.get(before)?, self.poses.get(after)?)));
        let Some(((t0, before), (t1, behind))) = between else {
            let seconds = |pose: Option<&(i64, Isometry3<f64>)>| pose.map_or(f64::NAN, |(nanos, _)| *nanos as f64 * 1e-9);
            return Err(TfError::OutOfTime {
                parent: self.parent.clone(),
                child: child.to_owned(),
                first_s: seconds(self.poses.first()),
                last_s: seconds(self.poses.last()),
                asked_s: stamp.seconds(),
            });
        };
        let share = (stamp.nanos - t0) as f64 / (t1 - t0) as f64;
        let shift = before.translation.vector.lerp(&behind.translation.vector, share);
        // Opposite rotations have no shortest arc; that fast nothing turns between two stamps.
        let turn = before.rotation.try_slerp(&behind.rotation, share, 1e-9).unwrap_or(before.rotation);
        Ok(Isometry3::from_parts(shift.into(), turn))
    }
}

/// tf1 wrote frames with a leading slash.
fn plain(frame: &str) -> &str {
    frame.strip_prefix('/').unwrap_or(frame)
}
