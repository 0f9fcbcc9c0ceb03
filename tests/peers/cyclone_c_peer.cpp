// The peer of cyclone_peer.py on Cyclone DDS 0.10 (Debian's cyclonedds-dev), the line that Humble, Jazzy and Kilted ship.
#include <dds/dds.h>

#include "peer.hpp"
#include "ros_types.h"

using Cloud = sensor_msgs_msg_dds__PointCloud2_;
using Array = vision_msgs_msg_dds__Detection3DArray_;

static dds_entity_t checked(dds_entity_t entity) {
  if (entity < 0) {
    std::fprintf(stderr, "cyclone: %s\n", dds_strretcode(-entity));
    std::exit(1);
  }
  return entity;
}

static dds_qos_t* qos(bool reliable, dds_history_kind_t history, int depth) {
  dds_qos_t* qos = dds_create_qos();
  dds_qset_reliability(qos, reliable ? DDS_RELIABILITY_RELIABLE : DDS_RELIABILITY_BEST_EFFORT, DDS_SECS(20));
  dds_qset_history(qos, history, depth);
  return qos;
}

int main(int argc, char** argv) {
  const peer::Options options = peer::parse(argc, argv);
  setenv("CYCLONEDDS_URI",
         "<CycloneDDS><Domain><General><Interfaces><NetworkInterface name=\"lo\"/></Interfaces><AllowMulticast>false</AllowMulticast>"
         "</General><Discovery><ParticipantIndex>auto</ParticipantIndex><Peers><Peer Address=\"127.0.0.1\"/></Peers></Discovery>"
         "<Internal><SocketReceiveBufferSize max=\"8MB\"/></Internal></Domain></CycloneDDS>",
         0);
  const dds_entity_t participant = checked(dds_create_participant(options.domain, nullptr, nullptr));
  const dds_entity_t clouds =
      checked(dds_create_topic(participant, &sensor_msgs_msg_dds__PointCloud2__desc, options.publish.c_str(), nullptr, nullptr));
  const dds_entity_t arrays = checked(
      dds_create_topic(participant, &vision_msgs_msg_dds__Detection3DArray__desc, options.subscribe.c_str(), nullptr, nullptr));
  const dds_entity_t writer = checked(dds_create_writer(participant, clouds, qos(options.reliable, DDS_HISTORY_KEEP_LAST, 10), nullptr));
  const dds_entity_t reader = checked(dds_create_reader(participant, arrays, qos(true, DDS_HISTORY_KEEP_ALL, 0), nullptr));

  dds_publication_matched_status_t written;
  dds_subscription_matched_status_t read;
  do {
    usleep(5000);
    dds_get_publication_matched_status(writer, &written);
    dds_get_subscription_matched_status(reader, &read);
  } while (written.current_count == 0 || read.current_count == 0);

  std::vector<uint8_t> data(options.bytes);
  int sent = 0;
  auto send = [&](int number) {
    peer::fill(data.data(), data.size(), number);
    const std::string frame = "cloud " + std::to_string(number);
    const int64_t nanos = peer::now_nanos();
    Cloud cloud{};
    cloud.header.stamp.sec = static_cast<int32_t>(nanos / 1000000000);
    cloud.header.stamp.nanosec = static_cast<uint32_t>(nanos % 1000000000);
    cloud.header.frame_id = const_cast<char*>(frame.c_str());
    cloud.height = 1;
    cloud.point_step = 32;
    cloud.width = static_cast<uint32_t>(data.size() / 32);
    cloud.row_step = static_cast<uint32_t>(data.size());
    cloud.data._buffer = data.data();
    cloud.data._length = cloud.data._maximum = static_cast<uint32_t>(data.size());
    cloud.is_dense = true;
    sent += dds_write(writer, &cloud) == DDS_RETCODE_OK;
  };

  std::vector<double> latencies_ms;
  auto take = [&] {
    void* samples[16] = {};
    dds_sample_info_t infos[16];
    const int taken = dds_take(reader, samples, infos, 16, 16);
    const int64_t now = peer::now_nanos();
    for (int at = 0; at < taken; ++at) {
      if (!infos[at].valid_data) continue;
      const auto& stamp = static_cast<Array*>(samples[at])->header.stamp;
      latencies_ms.push_back((now - stamp.sec * INT64_C(1000000000) - stamp.nanosec) / 1e6);
    }
    if (taken > 0) dds_return_loan(reader, samples, taken);
  };
  peer::run(options, send, take);
  peer::say(peer::summary(sent, latencies_ms));
  dds_delete(participant);
}
