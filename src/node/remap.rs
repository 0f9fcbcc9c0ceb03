//! Remap rules of the command line: `from:=to`, `__node:=name`, `__ns:=/space`, each with an optional `node:` before it.
//!
//! As in rcl, the node's name is remapped first, then its namespace with the new name in force, then topics, and of several
//! rules that match the first one wins.

use std::fmt;

use super::names::expand;
use crate::transport::TransportError;
use crate::transport::names::{NodeName, TopicName};

/// One rule of `-r`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemapRule {
    /// Only for the node of this name; for every node when `None`.
    pub node: Option<String>,
    /// What is replaced.
    pub target: RemapTarget,
    /// What it becomes.
    pub to: String,
}

/// What a rule replaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemapTarget {
    /// `__node` (or the older `__name`).
    NodeName,
    /// `__ns`.
    Namespace,
    /// A topic, not yet expanded.
    Topic(String),
    /// A service. This node has none, so such a rule never matches.
    Service(String),
}

/// Text that is not a remap rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("remap rule `{rule}`: {fault}")]
pub struct RemapError {
    /// The rule as given.
    pub rule: String,
    /// What is wrong with it.
    pub fault: &'static str,
}

impl RemapRule {
    /// Reads `[node:]from:=to`.
    ///
    /// # Errors
    /// [`RemapError`] for text without `:=`, empty sides, and wildcards, which rcl does not apply either.
    pub fn parse(rule: &str) -> Result<Self, RemapError> {
        let error = |fault| RemapError { rule: rule.to_owned(), fault };
        let (left, to) = rule.split_once(":=").ok_or_else(|| error("must have the form `from:=to`"))?;
        let (node, from) = split_node_prefix(left);
        if from.is_empty() || to.is_empty() || node == Some("") {
            return Err(error("neither side of `:=` may be empty"));
        }
        if from.contains('*') || to.contains('*') || to.contains('\\') {
            return Err(error("wildcards are not supported"));
        }
        let target = match from {
            "__node" | "__name" => RemapTarget::NodeName,
            "__ns" => RemapTarget::Namespace,
            topic => match topic.strip_prefix("rosservice://") {
                Some(service) => RemapTarget::Service(service.to_owned()),
                None => RemapTarget::Topic(topic.strip_prefix("rostopic://").unwrap_or(topic).to_owned()),
            },
        };
        let to = to.strip_prefix("rostopic://").or_else(|| to.strip_prefix("rosservice://")).unwrap_or(to);
        Ok(Self { node: node.map(str::to_owned), target, to: to.to_owned() })
    }

    fn is_for(&self, node_name: &str) -> bool {
        self.node.as_deref().is_none_or(|wanted| wanted == node_name)
    }
}

/// As it can be written after `-r`.
impl fmt::Display for RemapRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(node) = &self.node {
            write!(f, "{node}:")?;
        }
        match &self.target {
            RemapTarget::NodeName => f.write_str("__node")?,
            RemapTarget::Namespace => f.write_str("__ns")?,
            RemapTarget::Topic(topic) => f.write_str(topic)?,
            RemapTarget::Service(service) => write!(f, "rosservice://{service}")?,
        }
        write!(f, ":={}", self.to)
    }
}

/// The `node` of `node:rest`; the colon of a URL scheme is none.
pub(super) fn split_node_prefix(left: &str) -> (Option<&str>, &str) {
    match left.split_once(':') {
        Some((node, rest)) if !rest.starts_with("//") => (Some(node), rest),
        _ => (None, left),
    }
}

/// The node's name after `__node` and `__ns` rules.
///
/// # Errors
/// [`TransportError::Name`] when a rule makes an invalid name or namespace.
pub fn remap_node(rules: &[RemapRule], default_name: &str) -> Result<NodeName, TransportError> {
    let first = |target: &RemapTarget, name: &str| {
        rules.iter().find(|rule| rule.target == *target && rule.is_for(name)).map(|rule| rule.to.clone())
    };
    let name = first(&RemapTarget::NodeName, default_name).unwrap_or_else(|| default_name.to_owned());
    let namespace = first(&RemapTarget::Namespace, &name).unwrap_or_else(|| "/".to_owned());
    NodeName::new(&namespace, &name)
}

/// The full name of a topic after the rules; both sides of a rule are expanded for this node.
///
/// # Errors
/// [`TransportError::Name`] when the topic or a side of a rule that is for this node is not a valid name.
pub fn remap_topic(rules: &[RemapRule], node: &NodeName, topic: &str) -> Result<TopicName, TransportError> {
    let full = expand(node, topic)?;
    for rule in rules.iter().filter(|rule| rule.is_for(node.base())) {
        if let RemapTarget::Topic(from) = &rule.target
            && expand(node, from)? == full
        {
            return expand(node, &rule.to);
        }
    }
    Ok(full)
}

/// Topic rules meant for this node that name none of its topics: most likely a typing error, worth a warning.
pub fn unmatched_rules<'a>(rules: &'a [RemapRule], node: &NodeName, topics: &[&str]) -> Vec<&'a RemapRule> {
    let full: Vec<_> = topics.iter().filter_map(|topic| expand(node, topic).ok()).collect();
    let is_unmatched = |rule: &&RemapRule| match &rule.target {
        RemapTarget::Topic(from) => rule.is_for(node.base()) && expand(node, from).is_ok_and(|from| !full.contains(&from)),
        RemapTarget::Service(_) => rule.is_for(node.base()),
        RemapTarget::NodeName | RemapTarget::Namespace => false,
    };
    rules.iter().filter(is_unmatched).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn rules(texts: &[&str]) -> Vec<RemapRule> {
        texts.iter().map(|text| RemapRule::parse(text).unwrap()).collect()
    }

    #[test]
    fn topics_follow_the_first_rule_that_matches() {
        let cases: [(&[&str], &str, &str); 12] = [
            (&[], "~/input/pointcloud", "/detector/input/pointcloud"),
            (&["~/input/pointcloud:=/points"], "~/input/pointcloud", "/points"),
            (&["/detector/input/pointcloud:=/points"], "~/input/pointcloud", "/points"),
            (&["detector/input/pointcloud:=points"], "~/input/pointcloud", "/points"),
            (&["detector:~/input/pointcloud:=/points"], "~/input/pointcloud", "/points"),
            (&["other:~/input/pointcloud:=/points"], "~/input/pointcloud", "/detector/input/pointcloud"),
            (&["~/input/pointcloud:=/a", "~/input/pointcloud:=/b"], "~/input/pointcloud", "/a"),
            (&["rostopic://~/input/pointcloud:=rostopic:///a"], "~/input/pointcloud", "/a"),
            (&["rosservice://~/input/pointcloud:=/a"], "~/input/pointcloud", "/detector/input/pointcloud"),
            (&["__ns:=/left", "~/input/pointcloud:=points"], "~/input/pointcloud", "/left/points"),
            (&["__node:=d2", "d2:__ns:=/left"], "~/input/pointcloud", "/left/d2/input/pointcloud"),
            (&["__name:=d2", "detector:__ns:=/left"], "~/input/pointcloud", "/d2/input/pointcloud"),
        ];
        for (texts, topic, expected) in cases {
            let rules = rules(texts);
            let node = remap_node(&rules, "detector").unwrap();
            assert_eq!(remap_topic(&rules, &node, topic).unwrap().as_str(), expected, "{texts:?}");
        }
    }

    #[test]
    fn broken_rules_are_refused() {
        for (text, fault) in [
            ("/points", "form `from:=to`"),
            (":=/points", "empty"),
            ("/points:=", "empty"),
            (":/points:=/x", "empty"),
            ("/a/*:=/b", "wildcards"),
            ("/a:=/b/\\1", "wildcards"),
        ] {
            let message = RemapRule::parse(text).unwrap_err().to_string();
            assert!(message.contains(fault) && message.contains(text), "{text}: {message}");
        }
        for text in ["__ns:=left", "__ns:=/left/", "__node:=a/b", "__node:=2d"] {
            let message = remap_node(&rules(&[text]), "detector").unwrap_err().to_string();
            assert!(message.contains("node name"), "{text}: {message}");
        }
        let node = NodeName::new("/", "detector").unwrap();
        assert!(remap_topic(&rules(&["~/a:=/b-c"]), &node, "~/a").is_err());
    }

    #[test]
    fn rules_that_name_no_topic_are_found() {
        let node = NodeName::new("/", "detector").unwrap();
        let rules = rules(&["input:=/points", "other:x:=y", "~/input/pointcloud:=/p", "__ns:=/a"]);
        let unmatched = unmatched_rules(&rules, &node, &["~/input/pointcloud"]);
        assert_eq!(unmatched, vec![&rules[0]]);
    }
}
