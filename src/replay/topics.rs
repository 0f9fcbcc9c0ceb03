//! Which topics of a bag are used.

use super::ReplayError;
use crate::bag::TopicInfo;
use crate::msgs::Message;
use crate::msgs::sensor_msgs::PointCloud2;

/// Index of the topic of clouds: the one asked for, or the only one there is.
pub(crate) fn choose_cloud_topic(topics: &[TopicInfo], wanted: Option<&str>) -> Result<usize, ReplayError> {
    if let Some(wanted) = wanted {
        return find_topic(topics, wanted, PointCloud2::TYPE.ros);
    }
    let clouds: Vec<usize> = (0..topics.len()).filter(|idx| topics[*idx].type_name == PointCloud2::TYPE.ros).collect();
    match clouds[..] {
        [only] => Ok(only),
        _ => Err(ReplayError::TopicChoice { n_clouds: clouds.len(), present: list(topics) }),
    }
}

/// Index of the topic with this name and type.
pub(super) fn find_topic(topics: &[TopicInfo], wanted: &str, type_name: &'static str) -> Result<usize, ReplayError> {
    topics.iter().position(|topic| topic.name == wanted && topic.type_name == type_name).ok_or_else(|| ReplayError::NoSuchTopic {
        wanted: wanted.to_owned(),
        type_name,
        present: list(topics),
    })
}

fn list(topics: &[TopicInfo]) -> String {
    let names: Vec<String> =
        topics.iter().map(|topic| format!("{} ({}, {})", topic.name, topic.type_name, topic.message_count)).collect();
    if names.is_empty() { "no topics".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const CLOUD: &str = "sensor_msgs/msg/PointCloud2";

    fn topics(names: &[(&str, &str)]) -> Vec<TopicInfo> {
        let topic = |(name, type_name): &(&str, &str)| TopicInfo {
            name: (*name).to_owned(),
            type_name: (*type_name).to_owned(),
            serialization_format: "cdr".to_owned(),
            message_count: 3,
            offered_qos: String::new(),
            type_hash: String::new(),
        };
        names.iter().map(topic).collect()
    }

    #[test]
    fn cloud_topic_is_the_named_or_the_only_one() {
        let one = topics(&[("/imu", "sensor_msgs/msg/Imu"), ("/points", CLOUD)]);
        let twice = topics(&[("/points", "other_msgs/msg/Points"), ("/points", CLOUD), ("/rear", CLOUD)]);
        assert_eq!(choose_cloud_topic(&one, None).unwrap(), 1);
        assert_eq!(choose_cloud_topic(&one, Some("/points")).unwrap(), 1);
        assert_eq!(choose_cloud_topic(&twice, Some("/points")).unwrap(), 1);
        let refused = [
            (
                &twice,
                None,
                "2 topics of type sensor_msgs/msg/PointCloud2, choose one; the bag has /points (other_msgs/msg/Points, 3), /points (",
            ),
            (&topics(&[]), None, "0 topics of type sensor_msgs/msg/PointCloud2, choose one; the bag has no topics"),
            (
                &one,
                Some("/imu"),
                "no topic `/imu` of type sensor_msgs/msg/PointCloud2; the bag has /imu (sensor_msgs/msg/Imu, 3), /points",
            ),
            (&one, Some("points"), "no topic `points` of type"),
        ];
        for (topics, wanted, expected) in refused {
            let message = choose_cloud_topic(topics, wanted).unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message}");
        }
    }
}
