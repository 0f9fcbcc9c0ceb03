//! Names of nodes and topics: their rules, and how `~/x`, `x` and `/x` become full names.
//!
//! # Source
//! The rules of "Topic and Service name mapping to DDS" and "Remapping Names" on design.ros2.org, as rcl applies them.

/// A node's name and its namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeName {
    namespace: String,
    name: String,
}

/// A name that breaks ROS 2's rules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} `{got}`: {rule}")]
pub struct NameError {
    /// `node name`, `namespace` or `topic name`.
    pub what: &'static str,
    /// The name as given.
    pub got: String,
    /// The rule it breaks.
    pub rule: &'static str,
}

impl NodeName {
    /// Checks both parts; the namespace begins with `/` and is `/` alone for the root.
    ///
    /// # Errors
    /// [`NameError`] with the first rule broken.
    pub fn new(namespace: &str, name: &str) -> Result<Self, NameError> {
        let node_error = |rule| NameError { what: "node name", got: name.to_owned(), rule };
        if let Some(rule) = token_fault(name) {
            return Err(node_error(rule));
        }
        if name.len() > 255 {
            return Err(node_error("must not be longer than 255 characters"));
        }
        if namespace != "/" {
            check_absolute(namespace).map_err(|rule| NameError { what: "namespace", got: namespace.to_owned(), rule })?;
        }
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }

    /// The name without its namespace.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `/` or `/a/b`.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// `/a/b/name`.
    pub fn fully_qualified(&self) -> String {
        join(&self.namespace, &self.name)
    }

    /// The full name of a topic: `/x` is absolute, `x` lies in the namespace, `~/x` under the node; `{node}`, `{ns}` and
    /// `{namespace}` are replaced.
    ///
    /// # Errors
    /// [`NameError`] when the result is not a valid topic name.
    pub fn expand(&self, topic: &str) -> Result<String, NameError> {
        let error = |rule| NameError { what: "topic name", got: topic.to_owned(), rule };
        let private = match topic.strip_prefix('~') {
            Some("") => Some(""),
            Some(rest) => Some(rest.strip_prefix('/').ok_or_else(|| error("`~` must be followed by `/`"))?),
            None => None,
        };
        let namespace = self.namespace.trim_start_matches('/');
        let substituted =
            private.unwrap_or(topic).replace("{node}", &self.name).replace("{namespace}", namespace).replace("{ns}", namespace);
        let full = match private {
            Some("") => self.fully_qualified(),
            Some(_) => join(&self.fully_qualified(), &substituted),
            None if substituted.starts_with('/') => substituted,
            None => join(&self.namespace, &substituted),
        };
        check_absolute(&full).map_err(error)?;
        Ok(full)
    }
}

fn join(namespace: &str, name: &str) -> String {
    if namespace == "/" { format!("/{name}") } else { format!("{namespace}/{name}") }
}

fn check_absolute(name: &str) -> Result<(), &'static str> {
    let tokens = name.strip_prefix('/').ok_or("must begin with `/`")?;
    if tokens.ends_with('/') || tokens.is_empty() {
        return Err("must not end with `/`");
    }
    match tokens.split('/').find_map(token_fault) {
        Some(rule) => Err(rule),
        None => Ok(()),
    }
}

fn token_fault(token: &str) -> Option<&'static str> {
    if token.is_empty() {
        return Some("no part between slashes may be empty");
    }
    if token.starts_with(|first: char| first.is_ascii_digit()) {
        return Some("no part may begin with a digit");
    }
    if !token.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Some("only letters, digits, `_` and `/` are allowed");
    }
    None
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
        for (namespace, node, topic, expected) in cases {
            assert_eq!(NodeName::new(namespace, node).unwrap().expand(topic).unwrap(), expected, "{topic} in {namespace}");
        }
    }

    #[test]
    fn broken_names_are_refused_with_the_rule() {
        let topics = [
            ("", "must not end"),
            ("~x", "followed by `/`"),
            ("a//b", "empty"),
            ("/a/", "must not end"),
            ("/1st", "digit"),
            ("/point-cloud", "only letters"),
            ("/{unknown}", "only letters"),
        ];
        let node = NodeName::new("/", "detector").unwrap();
        for (topic, rule) in topics {
            let message = node.expand(topic).unwrap_err().to_string();
            assert!(message.contains(rule), "{topic}: {message}");
        }
        for (namespace, name, rule) in
            [("left", "n", "begin with `/`"), ("/a/", "n", "must not end"), ("/", "a/b", "only letters"), ("/", "", "empty")]
        {
            let message = NodeName::new(namespace, name).unwrap_err().to_string();
            assert!(message.contains(rule), "{namespace} {name}: {message}");
        }
    }
}
