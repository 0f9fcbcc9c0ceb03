// The peer of cyclone_peer.py on Fast DDS 2.9 (Debian's libfastrtps-dev), over UDP on the loopback interface.
#include <fastdds/dds/domain/DomainParticipant.hpp>
#include <fastdds/dds/domain/DomainParticipantFactory.hpp>
#include <fastdds/dds/publisher/DataWriter.hpp>
#include <fastdds/dds/publisher/Publisher.hpp>
#include <fastdds/dds/subscriber/DataReader.hpp>
#include <fastdds/dds/subscriber/SampleInfo.hpp>
#include <fastdds/dds/subscriber/Subscriber.hpp>
#include <fastdds/dds/topic/TypeSupport.hpp>
#include <fastdds/rtps/transport/UDPv4TransportDescriptor.h>

#include "peer.hpp"
#include "ros_typesPubSubTypes.h"

using namespace eprosima::fastdds::dds;
using eprosima::fastrtps::rtps::IPLocator;
using Cloud = sensor_msgs::msg::dds_::PointCloud2_;
using Array = vision_msgs::msg::dds_::Detection3DArray_;

int main(int argc, char** argv) {
  const peer::Options options = peer::parse(argc, argv);

  DomainParticipantQos participant_qos;
  auto udp = std::make_shared<eprosima::fastdds::rtps::UDPv4TransportDescriptor>();
  udp->interfaceWhiteList.push_back("127.0.0.1");
  udp->sendBufferSize = udp->receiveBufferSize = 4 * 1024 * 1024;
  participant_qos.transport().use_builtin_transports = false;
  participant_qos.transport().user_transports.push_back(udp);
  // Without multicast on lo, Fast DDS calls the well-known ports of its peers' first participants.
  for (uint32_t id = 0; id < 4; ++id) {
    eprosima::fastrtps::rtps::Locator_t locator;
    IPLocator::setIPv4(locator, 127, 0, 0, 1);
    locator.port = 7400 + 250 * options.domain + 10 + 2 * id;
    participant_qos.wire_protocol().builtin.initialPeersList.push_back(locator);
  }
  DomainParticipant* participant =
      DomainParticipantFactory::get_instance()->create_participant(static_cast<uint32_t>(options.domain), participant_qos);
  if (!participant) return 1;

  TypeSupport cloud_type(new sensor_msgs::msg::dds_::PointCloud2_PubSubType());
  TypeSupport array_type(new vision_msgs::msg::dds_::Detection3DArray_PubSubType());
  cloud_type.register_type(participant);
  array_type.register_type(participant);
  Topic* clouds = participant->create_topic(options.publish, cloud_type.get_type_name(), TOPIC_QOS_DEFAULT);
  Topic* arrays = participant->create_topic(options.subscribe, array_type.get_type_name(), TOPIC_QOS_DEFAULT);

  DataWriterQos writer_qos;
  writer_qos.reliability().kind = options.reliable ? RELIABLE_RELIABILITY_QOS : BEST_EFFORT_RELIABILITY_QOS;
  writer_qos.reliability().max_blocking_time = {20, 0};
  writer_qos.durability().kind = VOLATILE_DURABILITY_QOS;
  writer_qos.history().kind = KEEP_LAST_HISTORY_QOS;
  writer_qos.history().depth = 10;
  writer_qos.publish_mode().kind = ASYNCHRONOUS_PUBLISH_MODE;
  writer_qos.endpoint().history_memory_policy = eprosima::fastrtps::rtps::DYNAMIC_REUSABLE_MEMORY_MODE;
  DataWriter* writer = participant->create_publisher(PUBLISHER_QOS_DEFAULT)->create_datawriter(clouds, writer_qos);

  DataReaderQos reader_qos;
  reader_qos.reliability().kind = RELIABLE_RELIABILITY_QOS;
  reader_qos.history().kind = KEEP_ALL_HISTORY_QOS;
  reader_qos.endpoint().history_memory_policy = eprosima::fastrtps::rtps::DYNAMIC_REUSABLE_MEMORY_MODE;
  DataReader* reader = participant->create_subscriber(SUBSCRIBER_QOS_DEFAULT)->create_datareader(arrays, reader_qos);
  if (!writer || !reader) return 1;

  PublicationMatchedStatus written;
  SubscriptionMatchedStatus read;
  do {
    usleep(5000);
    writer->get_publication_matched_status(written);
    reader->get_subscription_matched_status(read);
  } while (written.current_count == 0 || read.current_count == 0);

  Cloud cloud;
  cloud.height(1);
  cloud.point_step(32);
  cloud.width(static_cast<uint32_t>(options.bytes / 32));
  cloud.row_step(static_cast<uint32_t>(options.bytes));
  cloud.is_dense(true);
  cloud.data().resize(options.bytes);
  int sent = 0;
  auto send = [&](int number) {
    peer::fill(cloud.data().data(), cloud.data().size(), number);
    cloud.header().frame_id("cloud " + std::to_string(number));
    const int64_t nanos = peer::now_nanos();
    cloud.header().stamp().sec(static_cast<int32_t>(nanos / 1000000000));
    cloud.header().stamp().nanosec(static_cast<uint32_t>(nanos % 1000000000));
    sent += writer->write(&cloud);
  };

  std::vector<double> latencies_ms;
  auto take = [&] {
    Array array;
    SampleInfo info;
    while (reader->take_next_sample(&array, &info) == ReturnCode_t::RETCODE_OK) {
      if (!info.valid_data) continue;
      const auto& stamp = array.header().stamp();
      latencies_ms.push_back((peer::now_nanos() - stamp.sec() * INT64_C(1000000000) - stamp.nanosec()) / 1e6);
    }
  };
  peer::run(options, send, take);
  peer::say(peer::summary(sent, latencies_ms));
  participant->delete_contained_entities();
  DomainParticipantFactory::get_instance()->delete_participant(participant);
}
