//! From what a user or a remap rule writes to full names: `~/x`, `x` and `/x`; the topics of this node.
//!
//! # Source
//! The rules of "Topic and Service name mapping to DDS" and "Remapping Names" on design.ros2.org, as rcl applies them.

use super::remap::{RemapRule, remap_node, remap_topic, unmatched_rules};
use super::timings::TIMINGS;
use crate::transport::TransportError;
use crate::transport::names::{NodeName, TopicName};

/// The node's name unless it is remapped.
pub const DEFAULT_NODE_NAME: &str = "detector_node";

const INPUT: &str = "~/input/pointcloud";
const OBJECTS: &str = "~/output/objects";
const MARKERS: &str = "~/output/markers";
const REPORT: &str = "~/output/report";
const AUTOWARE: &str = "~/output/autoware_objects";
const DIAGNOSTICS: &str = "/diagnostics";

/// The resolved names of the node and its topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeNames {
    /// The node.
    pub node: NodeName,
    /// `sensor_msgs/PointCloud2`, subscribed.
    pub input: TopicName,
    /// `vision_msgs/Detection3DArray`, published.
    pub objects: TopicName,
    /// `visualization_msgs/MarkerArray`, published.
    pub markers: TopicName,
    /// `pivotal_msgs/FrameReport`, published.
    pub report: TopicName,
    /// `autoware_perception_msgs/DetectedObjects`, published where asked for.
    pub autoware: TopicName,
    /// `pivotal_msgs/Float64Stamped`, published where asked for; in the order of [`TIMINGS`].
    pub timings: Vec<TopicName>,
    /// `diagnostic_msgs/DiagnosticArray`, published.
    pub diagnostics: TopicName,
}

impl NodeNames {
    /// Applies the remap rules; also gives a notice for each rule that names nothing of this node.
    ///
    /// # Errors
    /// When a rule makes a name that ROS does not allow.
    pub fn resolve(rules: &[RemapRule]) -> Result<(Self, Vec<String>), TransportError> {
        let node = remap_node(rules, DEFAULT_NODE_NAME)?;
        let topic = |name: &str| remap_topic(rules, &node, name);
        let timings = TIMINGS.map(|timing| format!("~/debug/{timing}"));
        let names = Self {
            input: topic(INPUT)?,
            objects: topic(OBJECTS)?,
            markers: topic(MARKERS)?,
            report: topic(REPORT)?,
            autoware: topic(AUTOWARE)?,
            timings: timings.iter().map(|name| topic(name)).collect::<Result<_, _>>()?,
            diagnostics: topic(DIAGNOSTICS)?,
            node: node.clone(),
        };
        let notice = |rule: &RemapRule| format!("remap rule `{rule}` names no topic of {node}");
        let mut known = vec![INPUT, OBJECTS, MARKERS, REPORT, AUTOWARE, DIAGNOSTICS];
        known.extend(timings.iter().map(String::as_str));
        let unmatched = unmatched_rules(rules, &node, &known);
        Ok((names, unmatched.into_iter().map(notice).collect()))
    }
}

/// The full name of a topic: `/x` is absolute, `x` lies in the namespace, `~/x` under the node; `{node}`, `{ns}` and
/// `{namespace}` are replaced.
///
/// # Errors
/// [`TransportError::Name`] when the result is not a valid topic name.
pub fn expand(node: &NodeName, topic: &str) -> Result<TopicName, TransportError> {
    let error = |reason: &str| TransportError::Name { what: "topic name", name: topic.to_owned(), reason: reason.to_owned() };
    let substituted = topic
        .replace("{node}", node.base())
        .replace("{namespace}", node.namespace().trim_start_matches('/'))
        .replace("{ns}", node.namespace().trim_start_matches('/'));
    let full = match substituted.strip_prefix('~') {
        Some("") => node.to_string(),
        Some(rest) if rest.starts_with('/') => format!("{node}{rest}"),
        Some(_) => return Err(error("`~` must be followed by `/`")),
        None if substituted.is_empty() => return Err(error("must not be empty")),
        None if substituted.starts_with('/') => substituted,
        None if node.namespace() == "/" => format!("/{substituted}"),
        None => format!("{}/{substituted}", node.namespace()),
    };
    TopicName::new(&full)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn topic_names_expand_as_in_ros() {
        let cases = [
            ("/", "detector", "~/input/pointcloud", "/detector/input/pointcloud"),
            ("/left", "detector", "~/output/objects", "/left/detector/output/objects"),
            ("/left", "detector", "points", "/left/points"),
            ("/", "detector", "points", "/points"),
            ("/left", "detector", "/points", "/points"),
            ("/left", "detector", "~", "/left/detector"),
            ("/a/b", "n", "{ns}/{node}/x", "/a/b/a/b/n/x"),
            ("/a", "n", "/{namespace}/x", "/a/x"),
        ];
        for (namespace, name, topic, expected) in cases {
            let node = NodeName::new(namespace, name).unwrap();
            assert_eq!(expand(&node, topic).unwrap().as_str(), expected, "{topic} in {namespace}");
        }
    }

    #[test]
    fn topic_names_broken_are_refused_by_name() {
        let node = NodeName::new("/", "detector").unwrap();
        for topic in ["", "~x", "a//b", "/a/", "/1st", "/point-cloud", "/{unknown}", "/"] {
            let message = expand(&node, topic).unwrap_err().to_string();
            assert!(message.contains("topic name") && message.contains(topic), "{topic}: {message}");
        }
    }

    #[test]
    fn node_names_resolve_with_notices_for_rules_that_fit_nothing() {
        let rules = ["__ns:=/left", "~/input/pointcloud:=/points", "/diagnostics:=/left/diagnostics", "input:=/points"]
            .map(|text| RemapRule::parse(text).unwrap());
        let (names, notices) = NodeNames::resolve(&rules).unwrap();
        assert_eq!(names.node.to_string(), "/left/detector_node");
        assert_eq!(names.input.as_str(), "/points");
        assert_eq!(names.objects.as_str(), "/left/detector_node/output/objects");
        assert_eq!(names.diagnostics.as_str(), "/left/diagnostics");
        assert_eq!(notices, ["remap rule `input:=/points` names no topic of /left/detector_node"]);
    }
}
