//! The ROS part of a command line: everything between `--ros-args` and `--` (or the end).
//!
//! rcl reads these flags in a node linked with ROS; here they are read without it, with the same meaning.

use std::path::PathBuf;

use super::param_value::ParamValue;
use super::remap::{RemapError, RemapRule, split_node_prefix};

/// What stood between `--ros-args` and `--`, in its order.
#[derive(Debug, Clone, PartialEq)]
pub struct RosArgs {
    /// `-r`, `--remap`.
    pub remaps: Vec<RemapRule>,
    /// `-p`, `--param` and `--params-file`: later ones win over earlier ones.
    pub params: Vec<ParamSource>,
    /// `--log-level`.
    pub log_levels: Vec<LogLevel>,
    /// Whether log lines go to `/rosout` too.
    pub rosout: bool,
    /// Flags that are accepted without effect, each with the reason.
    pub notices: Vec<String>,
}

impl Default for RosArgs {
    fn default() -> Self {
        Self { remaps: Vec::new(), params: Vec::new(), log_levels: Vec::new(), rosout: true, notices: Vec::new() }
    }
}

/// Where parameters come from.
#[derive(Debug, Clone, PartialEq)]
pub enum ParamSource {
    /// `-p [node:]name:=value`.
    Assignment {
        /// Pattern of node names as in a parameter file; every node when `None`.
        node: Option<String>,
        /// Name with dots.
        name: String,
        /// Its value.
        value: ParamValue,
    },
    /// `--params-file FILE`.
    File(PathBuf),
}

/// One `--log-level [logger:=]LEVEL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLevel {
    /// For this logger only; for all when `None`.
    pub logger: Option<String>,
    /// The lowest severity that is logged.
    pub severity: Severity,
}

/// ROS log levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Everything.
    Debug,
    /// Rare events of normal work; the default.
    Info,
    /// Recovered from.
    Warn,
    /// Something was lost.
    Error,
    /// The process ends; this node logs such things as errors too.
    Fatal,
}

/// Why the ROS part of a command line was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArgsError {
    /// A flag nobody knows.
    #[error(
        "`{flag}` is not a ROS argument; known are -r/--remap, -p/--param, --params-file, --log-level, --log-config-file, \
         --log-file-name, -e/--enclave and --{{enable,disable}}-{{rosout,stdout,external-lib}}-logs; `--` ends the ROS part"
    )]
    UnknownFlag {
        /// The flag.
        flag: String,
    },
    /// A flag without its value.
    #[error("`{flag}` needs {expected} after it")]
    MissingValue {
        /// The flag.
        flag: String,
        /// What has to follow.
        expected: &'static str,
    },
    /// A remap rule that is none.
    #[error(transparent)]
    Remap(#[from] RemapError),
    /// `-p` with something else than `name:=value`.
    #[error("parameter `{text}`: {fault}")]
    Param {
        /// As given.
        text: String,
        /// What is wrong with it.
        fault: String,
    },
    /// A level nobody knows.
    #[error("log level `{text}`: must be debug, info, warn, error or fatal, with an optional `logger:=` before it")]
    LogLevel {
        /// As given.
        text: String,
    },
}

/// Divides a command line into what is ours and what is for ROS; the program's name may be among the former.
///
/// # Errors
/// [`ArgsError`] for the first ROS argument that cannot be understood.
pub fn split_ros_args(args: impl IntoIterator<Item = String>) -> Result<(Vec<String>, RosArgs), ArgsError> {
    let mut own = Vec::new();
    let mut ros = RosArgs::default();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        if arg == "--ros-args" {
            read_ros_section(&mut args, &mut ros)?;
        } else {
            own.push(arg);
        }
    }
    Ok((own, ros))
}

fn read_ros_section(args: &mut impl Iterator<Item = String>, ros: &mut RosArgs) -> Result<(), ArgsError> {
    while let Some(flag) = args.next() {
        let mut value = |expected| args.next().ok_or_else(|| ArgsError::MissingValue { flag: flag.clone(), expected });
        match flag.as_str() {
            "--" => return Ok(()),
            // rclpy's launch files repeat it.
            "--ros-args" => {}
            "-r" | "--remap" => ros.remaps.push(RemapRule::parse(&value("from:=to")?)?),
            "-p" | "--param" => ros.params.push(parse_assignment(&value("name:=value")?)?),
            "--params-file" => ros.params.push(ParamSource::File(value("a file")?.into())),
            "--log-level" => ros.log_levels.push(parse_log_level(&value("a level")?)?),
            "--log-config-file" | "--log-file-name" => {
                let file = value("a file")?;
                ros.notices.push(format!("{flag} {file} has no effect: this node logs to stderr only"));
            }
            "-e" | "--enclave" => {
                let enclave = value("an enclave")?;
                ros.notices.push(format!("{flag} {enclave} has no effect: DDS security is not supported"));
            }
            "--enable-rosout-logs" => ros.rosout = true,
            "--disable-rosout-logs" => ros.rosout = false,
            "--enable-stdout-logs" | "--disable-stdout-logs" => {
                ros.notices.push(format!("{flag} has no effect: this node logs to stderr; --log-level sets how much"));
            }
            "--enable-external-lib-logs" | "--disable-external-lib-logs" => {
                ros.notices.push(format!("{flag} has no effect: this node writes no log files"));
            }
            _ => return Err(ArgsError::UnknownFlag { flag }),
        }
    }
    Ok(())
}

fn parse_assignment(text: &str) -> Result<ParamSource, ArgsError> {
    let error = |fault: &str| ArgsError::Param { text: text.to_owned(), fault: fault.to_owned() };
    let (left, value) = text.split_once(":=").ok_or_else(|| error("must have the form `name:=value`"))?;
    let (node, name) = split_node_prefix(left);
    if name.is_empty() || node == Some("") {
        return Err(error("a name must stand before `:=`"));
    }
    let value = ParamValue::parse(value).map_err(|fault| error(&fault))?;
    Ok(ParamSource::Assignment { node: node.map(str::to_owned), name: name.to_owned(), value })
}

fn parse_log_level(text: &str) -> Result<LogLevel, ArgsError> {
    let (logger, level) = match text.split_once(":=") {
        Some((logger, level)) => (Some(logger.to_owned()), level),
        None => (None, text),
    };
    let severity = match level.to_ascii_lowercase().as_str() {
        "debug" => Severity::Debug,
        "info" | "unset" => Severity::Info,
        "warn" => Severity::Warn,
        "error" => Severity::Error,
        "fatal" => Severity::Fatal,
        _ => return Err(ArgsError::LogLevel { text: text.to_owned() }),
    };
    if logger.as_deref() == Some("") {
        return Err(ArgsError::LogLevel { text: text.to_owned() });
    }
    Ok(LogLevel { logger, severity })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn split(line: &str) -> Result<(Vec<String>, RosArgs), ArgsError> {
        split_ros_args(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn both_parts_of_a_line_are_told_apart() {
        let (own, ros) = split("run --ros-args -r a:=b --ros-args -p x:=1 -- --verbose --ros-args --log-level WARN").unwrap();
        assert_eq!(own, ["run", "--verbose"]);
        assert_eq!(ros.remaps, vec![RemapRule::parse("a:=b").unwrap()]);
        let value = ParamValue::Integer(1);
        assert_eq!(ros.params, vec![ParamSource::Assignment { node: None, name: "x".into(), value }]);
        assert_eq!(ros.log_levels, vec![LogLevel { logger: None, severity: Severity::Warn }]);
    }

    #[test]
    fn flags_of_launch_files_are_all_understood() {
        let (own, ros) = split(
            "--ros-args -r __node:=d -r __ns:=/a --params-file /tmp/p.yaml -p d:device:=cuda:0 --param n.m:=[a,b] \
             --remap x:=y --log-level rustdds:=debug --enable-rosout-logs --disable-stdout-logs \
             --disable-external-lib-logs -e /e --log-config-file f --log-file-name g",
        )
        .unwrap();
        assert!(own.is_empty());
        assert_eq!(ros.remaps.len(), 3);
        assert_eq!(ros.params.len(), 3);
        assert_eq!(ros.params[0], ParamSource::File("/tmp/p.yaml".into()));
        let ParamSource::Assignment { node, name, value } = &ros.params[1] else { panic!("{:?}", ros.params) };
        assert_eq!((node.as_deref(), name.as_str()), (Some("d"), "device"));
        assert_eq!(*value, ParamValue::String("cuda:0".into()));
        assert_eq!(ros.log_levels, vec![LogLevel { logger: Some("rustdds".into()), severity: Severity::Debug }]);
        assert_eq!(ros.notices.len(), 5);
        assert!(ros.rosout);
        assert!(!split("--ros-args --disable-rosout-logs").unwrap().1.rosout);
        assert!(ros.notices.iter().all(|notice| notice.contains("has no effect")));
    }

    #[test]
    fn broken_arguments_are_refused_by_name() {
        let cases = [
            ("--ros-args --no-such-flag", "`--no-such-flag` is not a ROS argument"),
            ("--ros-args stray", "`stray` is not a ROS argument"),
            ("--ros-args -r", "`-r` needs from:=to"),
            ("--ros-args --params-file", "needs a file"),
            ("--ros-args -r a=b", "remap rule `a=b`"),
            ("--ros-args -p device=cpu", "parameter `device=cpu`: must have the form"),
            ("--ros-args -p :=3", "a name must stand"),
            ("--ros-args -p x:=[1", "parameter `x:=[1`"),
            ("--ros-args -p x:={a:1}", "parameter `x:={a:1}`"),
            ("--ros-args --log-level loud", "log level `loud`: must be debug"),
            ("--ros-args --log-level :=info", "log level `:=info`"),
        ];
        for (line, fault) in cases {
            let message = split(line).unwrap_err().to_string();
            assert!(message.contains(fault), "{line}: {message}");
        }
    }
}
