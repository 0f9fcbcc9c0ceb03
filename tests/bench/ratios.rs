//! Reads what criterion measured and prints it as ratios: times of a shared machine mean little, ratios of one run more.

use std::path::Path;

/// Milliseconds criterion estimated for `group/id`, if it ran.
fn median_ms(group: &str, id: &str) -> Option<f64> {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target"), Into::into);
    // Criterion replaces what file names cannot hold.
    let path = target.join("criterion").join(group.replace('/', "_")).join(id).join("new/estimates.json");
    let estimates: serde_json::Value = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    Some(estimates["median"]["point_estimate"].as_f64()? / 1e6)
}

/// One line per group: the plain version's time, then each other one's time and how many times faster it is.
pub fn print_ratios(groups: &[(String, &[&str])]) {
    println!("\nmedian milliseconds, and how many times faster than the plain version in the same run");
    for (group, ids) in groups {
        let Some((plain, others)) = ids.split_first() else { continue };
        let Some(plain_ms) = median_ms(group, plain) else { continue };
        print!("{group:32} {plain} {plain_ms:9.3}");
        for id in others {
            if let Some(ms) = median_ms(group, id) {
                print!("   {id} {ms:9.3} ({:.2}x)", plain_ms / ms);
            }
        }
        println!();
    }
}
