//! Parameter values as they stand in YAML, and the parameter files of ROS 2.
//!
//! A file maps node names to `ros__parameters`, whose nesting is flattened with dots:
//!
//! ```yaml
//! /**:                       # every node
//!   ros__parameters:
//!     device: cpu
//! /left/detector:            # that node only
//!   ros__parameters:
//!     device: cuda:0
//! ```
//!
//! In node names `*` stands for one part and `**` for any number of parts. A name without a leading slash is in the root
//! namespace, as in rclcpp.

use std::fmt;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::NonFiniteFloatPolicy;

/// A value whose type YAML decided.
#[derive(Debug, Clone, PartialEq)]
pub enum ParamValue {
    /// Nothing, `~` or `null`.
    Null,
    /// `true`, and the older spellings `yes`, `on`.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A number with a point or exponent; may be `.nan` or `.inf`, which no rule allows.
    Double(f64),
    /// Anything else, and everything quoted.
    String(String),
    /// `[a, b]`.
    List(Vec<ParamValue>),
}

impl ParamValue {
    /// Reads the right side of `-p name:=value`.
    ///
    /// # Errors
    /// The YAML parser's words, also for maps.
    pub fn parse(text: &str) -> Result<Self, String> {
        match parse_yaml(text)? {
            Node::Value(value) => Ok(value),
            Node::Map(_) => Err("a map is not a parameter value".to_owned()),
        }
    }

    /// The ROS name of the type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "bool",
            Self::Integer(_) => "integer",
            Self::Double(_) => "double",
            Self::String(_) => "string",
            Self::List(items) if items.iter().all(|item| matches!(item, Self::String(_))) => "string_array",
            Self::List(_) => "array of other than strings",
        }
    }
}

/// As YAML would have it again.
impl fmt::Display for ParamValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => value.fmt(f),
            Self::Integer(value) => value.fmt(f),
            Self::Double(value) => write!(f, "{value:?}"),
            Self::String(value) => write!(f, "{value:?}"),
            Self::List(items) => {
                f.write_char('[')?;
                for (item_idx, item) in items.iter().enumerate() {
                    if item_idx > 0 {
                        f.write_str(", ")?;
                    }
                    item.fmt(f)?;
                }
                f.write_char(']')
            }
        }
    }
}

/// One parameter of one section of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct FileAssignment {
    /// Pattern of node names, beginning with `/`.
    pub node: String,
    /// Name with dots.
    pub name: String,
    /// Its value.
    pub value: ParamValue,
}

/// Why a parameter file was refused.
#[derive(Debug, thiserror::Error)]
pub enum ParamFileError {
    /// The file cannot be read.
    #[error("parameter file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        r#source: std::io::Error,
    },
    /// Not YAML.
    #[error("parameter file {}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The parser's words, with line and column.
        message: String,
    },
    /// YAML, but not of the form node, `ros__parameters`, names.
    #[error("parameter file {}: `{key}`: {rule}", path.display())]
    Structure {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        key: String,
        /// What must stand there.
        rule: &'static str,
    },
}

/// Reads a parameter file.
///
/// # Errors
/// [`ParamFileError`]: unreadable, not YAML (duplicate keys included), or of another structure.
pub fn read_param_file(path: &Path) -> Result<Vec<FileAssignment>, ParamFileError> {
    let text = std::fs::read_to_string(path).map_err(|source| ParamFileError::Read { path: path.to_owned(), source })?;
    parse_param_file(&text, path)
}

/// Reads the text of a parameter file; `path` is for messages.
///
/// # Errors
/// As [`read_param_file`].
pub fn parse_param_file(text: &str, path: &Path) -> Result<Vec<FileAssignment>, ParamFileError> {
    let root = parse_yaml(text).map_err(|message| ParamFileError::Syntax { path: path.to_owned(), message })?;
    let mut assignments = Vec::new();
    match root {
        Node::Map(sections) => collect_sections("", sections, &mut assignments),
        Node::Value(ParamValue::Null) => Ok(()),
        Node::Value(_) => Err((String::from("(top)"), "must be a map of node names")),
    }
    .map_err(|(key, rule)| ParamFileError::Structure { path: path.to_owned(), key, rule })?;
    Ok(assignments)
}

/// Whether a pattern of a file (`/**`, `/ns/*`, `/ns/node`) is for a node of this full name.
pub fn node_pattern_matches(pattern: &str, fully_qualified: &str) -> bool {
    fn parts_match(pattern: &[&str], name: &[&str]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (Some((&"**", rest)), _) => (0..=name.len()).any(|skipped| parts_match(rest, &name[skipped..])),
            (Some((part, pattern_rest)), Some((name_part, name_rest))) => {
                (*part == "*" || part == name_part) && parts_match(pattern_rest, name_rest)
            }
            _ => false,
        }
    }
    fn parts(text: &str) -> Vec<&str> {
        text.split('/').filter(|part| !part.is_empty()).collect()
    }
    parts_match(&parts(pattern), &parts(fully_qualified))
}

type StructureFault = (String, &'static str);

/// Walks `namespace: node: ros__parameters:`; namespaces may be nested or written with slashes.
fn collect_sections(prefix: &str, sections: Vec<(String, Node)>, out: &mut Vec<FileAssignment>) -> Result<(), StructureFault> {
    for (key, node) in sections {
        match (key.as_str(), node) {
            ("ros__parameters", _) if prefix.is_empty() => {
                return Err((key, "must stand under a node name, for instance `/**:`"));
            }
            ("ros__parameters", Node::Map(params)) => collect_params(prefix, "", params, out)?,
            ("ros__parameters", Node::Value(ParamValue::Null)) => {}
            ("ros__parameters", Node::Value(_)) => return Err((format!("{prefix}/{key}"), "must be a map of parameter names")),
            (_, Node::Map(inner)) => collect_sections(&format!("{prefix}/{}", key.trim_matches('/')), inner, out)?,
            (_, Node::Value(ParamValue::Null)) => {}
            (_, Node::Value(_)) => return Err((format!("{prefix}/{key}"), "must hold `ros__parameters:` before any value")),
        }
    }
    Ok(())
}

fn collect_params(
    node: &str,
    prefix: &str,
    params: Vec<(String, Node)>,
    out: &mut Vec<FileAssignment>,
) -> Result<(), StructureFault> {
    for (key, value) in params {
        let name = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
        match value {
            Node::Value(value) => out.push(FileAssignment { node: node.to_owned(), name, value }),
            Node::Map(inner) => collect_params(node, &name, inner, out)?,
        }
    }
    Ok(())
}

/// YAML with the order of maps kept.
enum Node {
    Value(ParamValue),
    Map(Vec<(String, Node)>),
}

fn parse_yaml(text: &str) -> Result<Node, String> {
    let options = serde_saphyr::options! {
        with_snippet: false,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a parameter value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Value(ParamValue::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Value(ParamValue::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Value(ParamValue::Integer(value)))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Node, E> {
        let value = i64::try_from(value).map_err(|_| E::custom(format!("{value} does not fit a 64-bit integer")))?;
        Ok(Node::Value(ParamValue::Integer(value)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Value(ParamValue::Double(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Value(ParamValue::String(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            match item {
                Node::Value(value) => items.push(value),
                Node::Map(_) => return Err(serde::de::Error::custom("a map cannot be an item of a parameter's array")),
            }
        }
        Ok(Node::Value(ParamValue::List(items)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn text(value: &str) -> ParamValue {
        ParamValue::String(value.to_owned())
    }

    #[test]
    fn scalars_get_the_types_ros_gives_them() {
        let cases = [
            ("true", ParamValue::Bool(true)),
            ("yes", ParamValue::Bool(true)),
            ("3", ParamValue::Integer(3)),
            ("-3", ParamValue::Integer(-3)),
            ("0.5", ParamValue::Double(0.5)),
            ("1e-3", ParamValue::Double(1e-3)),
            ("'3'", text("3")),
            ("cuda:0", text("cuda:0")),
            ("/models/a b", text("/models/a b")),
            ("[car, 'truck']", ParamValue::List(vec![text("car"), text("truck")])),
            ("[]", ParamValue::List(vec![])),
            ("[1, a]", ParamValue::List(vec![ParamValue::Integer(1), text("a")])),
            ("", ParamValue::Null),
            ("~", ParamValue::Null),
            (".inf", ParamValue::Double(f64::INFINITY)),
        ];
        for (yaml, expected) in cases {
            assert_eq!(ParamValue::parse(yaml).as_ref(), Ok(&expected), "{yaml}");
        }
        for broken in ["[a", "{a: 1}", "[{a: 1}]", "a: b: c"] {
            assert!(ParamValue::parse(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn values_display_as_yaml_that_parses_back() {
        for value in [
            ParamValue::Bool(false),
            ParamValue::Integer(-7),
            ParamValue::Double(2.0),
            text("a \"b\" #c"),
            ParamValue::List(vec![text("x"), text("y")]),
        ] {
            assert_eq!(ParamValue::parse(&value.to_string()), Ok(value));
        }
    }

    #[test]
    fn node_patterns_match_like_rclcpp() {
        let cases = [
            ("/**", "/detector", true),
            ("/**", "/left/detector", true),
            ("/*", "/detector", true),
            ("/*", "/left/detector", false),
            ("/left/*", "/left/detector", true),
            ("/**/detector", "/detector", true),
            ("/**/detector", "/a/b/detector", true),
            ("/**/detector", "/a/b/other", false),
            ("/detector", "/detector", true),
            ("/detector", "/left/detector", false),
            ("/left/detector", "/left/detector", true),
        ];
        for (pattern, node, expected) in cases {
            assert_eq!(node_pattern_matches(pattern, node), expected, "{pattern} on {node}");
        }
    }

    #[test]
    fn file_sections_flatten_with_dots_in_order() {
        let yaml = "
/**:
  ros__parameters:
    device: cpu
    input: {depth: 3}
detector:
  ros__parameters: {a: 1}
/left:
  detector:
    ros__parameters:
      names: [x]
empty:
";
        let found = parse_param_file(yaml, Path::new("t.yaml")).unwrap();
        let expected = [
            ("/**", "device", text("cpu")),
            ("/**", "input.depth", ParamValue::Integer(3)),
            ("/detector", "a", ParamValue::Integer(1)),
            ("/left/detector", "names", ParamValue::List(vec![text("x")])),
        ]
        .map(|(node, name, value)| FileAssignment { node: node.into(), name: name.into(), value });
        assert_eq!(found, expected);
    }

    #[test]
    fn broken_files_are_refused_with_place_and_rule() {
        let cases = [
            ("device: cpu", "`/device`: must hold `ros__parameters:`"),
            ("ros__parameters: {device: cpu}", "must stand under a node name"),
            ("/**: {ros__parameters: 3}", "`/**/ros__parameters`: must be a map"),
            ("- a", "must be a map of node names"),
            ("/**: {ros__parameters: {a: 1, a: 2}}", "duplicate"),
            ("/**: [", "t.yaml"),
        ];
        for (yaml, fault) in cases {
            let message = parse_param_file(yaml, Path::new("t.yaml")).unwrap_err().to_string();
            assert!(message.contains(fault), "{yaml}: {message}");
        }
        let missing = read_param_file(Path::new("/nowhere/p.yaml")).unwrap_err().to_string();
        assert!(missing.contains("/nowhere/p.yaml"), "{missing}");
    }
}
