//! What the environment says about DDS discovery, read as ROS 2 reads it.
//!
//! A value that means nothing is an error, because a node in the wrong domain looks exactly like broken discovery. What
//! rustdds cannot do is named: as an error where running without it would be unsafe or could never work, else as a warning.

use std::net::IpAddr;

use super::TransportError;

/// Above this the port numbers of RTPS no longer fit (7400 + 250 x domain).
const LAST_DOMAIN_ID: u16 = 232;

/// How a participant joins its domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DdsSettings {
    /// Participants of different domains do not see each other; 0 to 232.
    pub domain_id: u16,
    /// Which machines are looked for.
    pub range: DiscoveryRange,
    /// Length of an endpoint's id in `ros_discovery_info`: 24 bytes up to Humble, 16 since Iron.
    pub gid_len: usize,
}

/// Which machines are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiscoveryRange {
    /// All that multicast reaches, and this one.
    Subnet,
    /// This machine only, through the loopback interface.
    Localhost,
    /// None, not even other processes of this machine.
    Off,
}

impl DdsSettings {
    /// Domain 0, the whole subnet, ids as since Iron: ROS's defaults.
    pub const DEFAULT: Self = Self { domain_id: 0, range: DiscoveryRange::Subnet, gid_len: 16 };

    /// Reads ROS's variables through `lookup` (normally [`process_environment`]) and gives the settings, and warnings about
    /// what is set but cannot be followed.
    ///
    /// # Errors
    /// For a value that ROS does not define, and for settings without which this node must not or cannot run (security
    /// enclaves, a Zenoh middleware, a discovery server).
    pub fn from_environment(lookup: impl Fn(&str) -> Option<String>) -> Result<(Self, Vec<String>), TransportError> {
        // An empty variable is an unset one, as in rcutils.
        let set = |name: &'static str| lookup(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let refuse = |name, value: String, expected| Err(TransportError::Environment { name, value, expected });
        let mut warnings = Vec::new();

        let domain_id = match set("ROS_DOMAIN_ID") {
            None => Self::DEFAULT.domain_id,
            Some(value) => match value.parse::<u16>() {
                Ok(id) if id <= LAST_DOMAIN_ID => id,
                _ => return refuse("ROS_DOMAIN_ID", value, "a whole number from 0 to 232"),
            },
        };

        let localhost_only = match set("ROS_LOCALHOST_ONLY").as_deref() {
            None | Some("0") => false,
            Some("1") => true,
            Some(value) => return refuse("ROS_LOCALHOST_ONLY", value.to_owned(), "0 or 1"),
        };
        let asked = match set("ROS_AUTOMATIC_DISCOVERY_RANGE") {
            None => DiscoveryRange::Subnet,
            Some(value) => match value.as_str() {
                "SUBNET" | "SYSTEM_DEFAULT" => DiscoveryRange::Subnet,
                "LOCALHOST" => DiscoveryRange::Localhost,
                "OFF" => DiscoveryRange::Off,
                _ => return refuse("ROS_AUTOMATIC_DISCOVERY_RANGE", value, "SUBNET, LOCALHOST, OFF or SYSTEM_DEFAULT"),
            },
        };
        // ROS ignores the newer variables when the deprecated one is on.
        let range = if localhost_only { DiscoveryRange::Localhost } else { asked };

        let peers = set("ROS_STATIC_PEERS").unwrap_or_default();
        let far: Vec<&str> = peers.split(';').map(str::trim).filter(|peer| !peer.is_empty() && !is_this_machine(peer)).collect();
        if !far.is_empty() && !localhost_only && range != DiscoveryRange::Off {
            warnings.push(format!(
                "ROS_STATIC_PEERS names {}: the built-in DDS cannot reach peers that multicast does not reach; it finds those of \
                 its subnet (ROS_AUTOMATIC_DISCOVERY_RANGE=SUBNET) and of this machine",
                far.join(", ")
            ));
        }

        if let Some(value) = set("ROS_DISCOVERY_SERVER") {
            return refuse("ROS_DISCOVERY_SERVER", value, "to be unset: the built-in DDS does not speak to discovery servers");
        }
        if let Some(value) = set("RMW_IMPLEMENTATION").filter(|value| value.contains("zenoh")) {
            return refuse("RMW_IMPLEMENTATION", value, "a DDS middleware: the built-in DDS cannot meet Zenoh nodes");
        }
        if let Some(value) = set("ROS_SECURITY_ENABLE").filter(|value| value.eq_ignore_ascii_case("true")) {
            return refuse("ROS_SECURITY_ENABLE", value, "false or unset: the built-in DDS does not encrypt");
        }
        for name in ["CYCLONEDDS_URI", "FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"] {
            if set(name).is_some() {
                warnings.push(format!("{name} is set; the built-in DDS does not read it"));
            }
        }

        let old_gids = matches!(set("ROS_DISTRO").as_deref(), Some("foxy" | "galactic" | "humble"));
        let gid_len = if old_gids { 24 } else { Self::DEFAULT.gid_len };
        Ok((Self { domain_id, range, gid_len }, warnings))
    }
}

/// The variables of this process; one that is not Unicode shows as its readable part, which no rule accepts.
pub fn process_environment(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

fn is_this_machine(peer: &str) -> bool {
    peer == "localhost" || peer.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<(DdsSettings, Vec<String>), TransportError> {
        DdsSettings::from_environment(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn settings_of_known_values_follow_ros() {
        let base = DdsSettings::DEFAULT;
        let localhost = DdsSettings { range: DiscoveryRange::Localhost, ..base.clone() };
        let off = DdsSettings { range: DiscoveryRange::Off, ..base.clone() };
        let table: &[(&[(&str, &str)], DdsSettings)] = &[
            (&[], base.clone()),
            (&[("ROS_DOMAIN_ID", "")], base.clone()),
            (&[("ROS_DOMAIN_ID", "232")], DdsSettings { domain_id: 232, ..base.clone() }),
            (&[("ROS_LOCALHOST_ONLY", "0")], base.clone()),
            (&[("ROS_LOCALHOST_ONLY", "1")], localhost.clone()),
            (&[("ROS_LOCALHOST_ONLY", "1"), ("ROS_AUTOMATIC_DISCOVERY_RANGE", "OFF")], localhost.clone()),
            (&[("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")], base.clone()),
            (&[("ROS_AUTOMATIC_DISCOVERY_RANGE", "SYSTEM_DEFAULT")], base.clone()),
            (&[("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST"), ("ROS_STATIC_PEERS", "127.0.0.1;localhost")], localhost),
            (&[("ROS_AUTOMATIC_DISCOVERY_RANGE", "OFF"), ("ROS_STATIC_PEERS", "10.0.0.7")], off),
            (&[("ROS_DISTRO", "humble")], DdsSettings { gid_len: 24, ..base.clone() }),
            (&[("ROS_DISTRO", "jazzy"), ("RMW_IMPLEMENTATION", "rmw_cyclonedds_cpp")], base),
        ];
        for (variables, expected) in table {
            let (settings, warnings) = read(variables).expect("known values");
            assert_eq!(&settings, expected, "{variables:?}");
            assert_eq!(warnings, Vec::<String>::new(), "{variables:?}");
        }
    }

    #[test]
    fn settings_of_unknown_values_are_refused_with_name_value_and_rule() {
        for (name, value) in [
            ("ROS_DOMAIN_ID", "233"),
            ("ROS_DOMAIN_ID", "-1"),
            ("ROS_DOMAIN_ID", "seven"),
            ("ROS_LOCALHOST_ONLY", "yes"),
            ("ROS_AUTOMATIC_DISCOVERY_RANGE", "subnet"),
            ("ROS_DISCOVERY_SERVER", "10.0.0.1:11811"),
            ("RMW_IMPLEMENTATION", "rmw_zenoh_cpp"),
            ("ROS_SECURITY_ENABLE", "TRUE"),
        ] {
            let message = read(&[(name, value)]).expect_err(name).to_string();
            assert!(message.contains(name) && message.contains(value) && message.contains("expected"), "{message}");
        }
    }

    #[test]
    fn settings_beyond_the_library_are_warned_about_by_name() {
        for (name, value, part) in [
            ("ROS_STATIC_PEERS", "127.0.0.1; 192.168.7.9", "192.168.7.9"),
            ("CYCLONEDDS_URI", "file:///etc/cyclone.xml", "does not read"),
        ] {
            let (_, warnings) = read(&[(name, value)]).expect(name);
            assert_eq!(warnings.len(), 1);
            assert!(warnings[0].contains(name) && warnings[0].contains(part), "{warnings:?}");
        }
    }
}
