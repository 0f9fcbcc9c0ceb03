//! Names of nodes and topics, checked once and then carried by type. DDS knows the topic `/a/b` as `rt/a/b`.
//!
//! The rules are ros2-client's; names with `~` or relative ones are resolved before they come here, because remapping
//! happens between the two.

use std::fmt;

use super::TransportError;

/// The resolved name of a topic: `/lidar/points`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TopicName(String);

impl TopicName {
    /// Checks an absolute topic name.
    ///
    /// # Errors
    /// When the name is not absolute or breaks ROS's rules for topic names.
    pub fn new(name: &str) -> Result<Self, TransportError> {
        let refuse = |reason: String| TransportError::Name { what: "topic name", name: name.to_owned(), reason };
        if !name.starts_with('/') {
            return Err(refuse("expected a resolved name, which begins with '/'".to_owned()));
        }
        ros2_client::Name::parse(name).map_err(|fault| refuse(fault.to_string()))?;
        Ok(Self(name.to_owned()))
    }

    /// As ROS prints it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As DDS knows it.
    pub fn dds(&self) -> String {
        format!("rt{}", self.0)
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a node and its namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NodeName(ros2_client::NodeName);

impl NodeName {
    /// Checks a node name (`detector`) and an absolute namespace (`/` or `/front/lidar`).
    ///
    /// # Errors
    /// When either breaks ROS's rules.
    pub fn new(namespace: &str, name: &str) -> Result<Self, TransportError> {
        let refuse = |reason: String| TransportError::Name { what: "node name", name: format!("{namespace} + {name}"), reason };
        // ros2-client lets doubled slashes pass in a namespace.
        if namespace.contains("//") {
            return Err(refuse("a namespace has no empty part".to_owned()));
        }
        ros2_client::NodeName::new(namespace, name).map(Self).map_err(|fault| refuse(fault.to_string()))
    }

    /// The name without its namespace.
    pub fn base(&self) -> &str {
        self.0.base_name()
    }

    /// The namespace, beginning with `/`.
    pub fn namespace(&self) -> &str {
        self.0.namespace()
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.fully_qualified_name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names_are_mangled_or_refused_by_the_rules_of_ros() {
        for (name, dds) in [("/points", "rt/points"), ("/front/lidar_0/points", "rt/front/lidar_0/points")] {
            assert_eq!(TopicName::new(name).expect(name).dds(), dds);
        }
        for name in ["", "/", "points", "~/points", "/a//b", "/points/", "/1st", "/a b", "/a__b", "/é", "/a/{node}"] {
            assert!(TopicName::new(name).is_err(), "{name:?} passed");
        }
    }

    #[test]
    fn node_names_are_joined_or_refused_by_the_rules_of_ros() {
        for (namespace, name, full) in [("/", "detector", "/detector"), ("/front/lidar", "d2", "/front/lidar/d2")] {
            assert_eq!(NodeName::new(namespace, name).expect(name).to_string(), full);
        }
        for (namespace, name) in
            [("", "d"), ("/", ""), ("/", "a/b"), ("/", "2d"), ("/a/", "d"), ("a", "d"), ("//a", "d"), ("/~", "d")]
        {
            assert!(NodeName::new(namespace, name).is_err(), "{namespace:?} {name:?} passed");
        }
    }
}
