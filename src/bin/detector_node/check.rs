//! `detector_node check`: prints what [`pivotal::node::check`] finds.

use pivotal::node::args::RosArgs;
use pivotal::node::check::check;
use pivotal::node::error::{EXIT_OK, EXIT_OTHER};
use pivotal::transport::buffers::receive_limit_bytes;
use pivotal::transport::settings::process_environment;

/// A line for each finding; the exit code says whether all is fine.
pub fn check_machine(ros: &RosArgs) -> u8 {
    let findings = check(ros, receive_limit_bytes(), process_environment);
    for finding in &findings {
        println!("{}  {}", if finding.fine { "ok     " } else { "PROBLEM" }, finding.text);
    }
    if findings.iter().all(|finding| finding.fine) { EXIT_OK } else { EXIT_OTHER }
}
