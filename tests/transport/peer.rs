//! A foreign DDS implementation in a process of its own: Cyclone DDS 11 from PyPI (`scripts/setup-peers.sh`) as
//! `tests/peers/cyclone_peer.py`, or the program in `PIVOTAL_PEER`, which talks the same way (`tests/peers/README.md`).

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use pivotal::msgs::cdr;
use pivotal::msgs::sensor_msgs::PointCloud2Ref;
use pivotal::msgs::std_msgs::Header;
use pivotal::msgs::vision_msgs::{Detection3D, Detection3DArray, ObjectHypothesisWithPose};
use pivotal::transport::Reliability;
use pivotal::transport::settings::DdsSettings;
use serde_json::Value;

use super::PATIENCE;

pub const BOTH: [(Reliability, &str); 2] = [(Reliability::BestEffort, "best_effort"), (Reliability::Reliable, "reliable")];

/// The peer program, running.
pub struct Peer {
    process: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Peer {
    pub fn start(settings: &DdsSettings, arguments: &[&str]) -> Self {
        let mut process = Self::program()
            .args(["--domain", &settings.domain_id.to_string()])
            .args(arguments)
            .env_remove("CYCLONEDDS_URI")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = mpsc::channel();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        // Ends with the process, or when nobody listens any more.
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { stdin: process.stdin.take(), process, lines }
    }

    fn program() -> Command {
        std::env::var_os("PIVOTAL_PEER").map_or_else(|| python_peer("cyclone_peer.py"), Command::new)
    }

    /// The next line it says.
    pub fn hear(&mut self) -> Value {
        self.hear_within(2 * PATIENCE).expect("the peer said nothing")
    }

    pub fn hear_within(&mut self, time: Duration) -> Option<Value> {
        let line = self.lines.recv_timeout(time).ok()?;
        Some(serde_json::from_str(&line).unwrap_or_else(|fault| panic!("{line:?}: {fault}")))
    }

    /// Lets it begin to publish.
    pub fn go(&mut self) {
        self.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    }

    /// Waits until it has what it expects, lets it end, and gives its summary.
    pub fn finish_expecting(mut self) -> Value {
        assert_eq!(self.hear()["event"], "expected");
        self.finish()
    }

    /// Lets it end, and gives its summary.
    pub fn finish(mut self) -> Value {
        drop(self.stdin.take());
        let summary = self.hear();
        assert!(self.process.wait().unwrap().success());
        summary
    }
}

/// A program of `tests/peers` on PyPI's Cyclone DDS.
pub fn python_peer(script: &str) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let site = root.join(".venv-peers");
    assert!(site.join("cyclonedds").is_dir(), "{} is missing; run scripts/setup-peers.sh", site.display());
    let mut python = Command::new("python3");
    python.arg("-B").arg(Path::new("tests/peers").join(script)).current_dir(root).env("PYTHONPATH", site);
    python
}

impl Drop for Peer {
    fn drop(&mut self) {
        // After a failed assertion; a peer that has ended does not mind.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The byte at `at` of the peer's cloud `number`.
pub fn pattern(number: usize, at: usize) -> u8 {
    (31 * at + number) as u8
}

/// Number of a cloud of the peer, whose content is compared byte by byte.
pub fn check_cloud(bytes: &[u8], lengths: &[usize]) -> usize {
    let cloud: PointCloud2Ref = cdr::from_bytes(bytes).unwrap();
    let number: usize = cloud.header.frame_id.strip_prefix("cloud ").unwrap().parse().unwrap();
    assert_eq!(cloud.data.len(), lengths[number % lengths.len()], "cloud {number}");
    assert!(cloud.data.iter().enumerate().all(|(at, byte)| *byte == pattern(number, at)), "cloud {number} arrived changed");
    number
}

/// Detections until the message has at least `len` bytes; the last id makes it 0 to 3 bytes longer. Unpadded.
pub fn detections(header: Header, len: usize, extra: usize) -> (Detection3DArray, Vec<u8>) {
    let mut array = Detection3DArray { header, detections: Vec::new() };
    while array.detections.is_empty() || cdr::to_bytes(&array).len() < len {
        let results = vec![ObjectHypothesisWithPose::default()];
        array.detections.push(Detection3D { results, id: "abcd".to_owned(), ..Detection3D::default() });
    }
    array.detections.last_mut().unwrap().id.push_str(&"e".repeat(extra));
    let mut bytes = cdr::to_bytes(&array);
    // The last field is a string, which ends in one zero; the rest is padding.
    bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).unwrap() + 2);
    (array, bytes)
}
