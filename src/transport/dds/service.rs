//! The answering end of a ROS service: two DDS topics, and a thread that reads questions and writes answers.
//!
//! ROS's middlewares say in different ways which question an answer belongs to. Cyclone's puts 16 bytes before the message
//! (half of the client's GUID, a number); the answer repeats them. All others name the question's sample in the inline QoS of
//! the answer. Who asks is told by the vendor in the GUID of the question's writer, so that clients of both are served at once.
//!
//! # Source
//! OMG's "RPC over DDS" 1.0, enhanced mapping; `rmw_cyclonedds_cpp` and `rmw_fastrtps_cpp` as far as their bytes show.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use rustdds::no_key::{DataWriter, DeserializedCacheChange, SimpleDataReader};
use rustdds::rpc::SampleIdentity;
use rustdds::{GUID, RTPSEntity, SequenceNumber, Timestamp, WriteOptionsBuilder};

use super::graph::Kind;
use super::raw::RawAdapter;
use super::{HELD_SAMPLES, LOG_PERIOD, Participant, UNACKNOWLEDGED_PER_DEPTH, Worker, policies, refused, wake_this_thread};
use crate::msgs::SrvType;
use crate::time::Throttle;
use crate::transport::names::TopicName;
use crate::transport::service::Handler;
use crate::transport::{HEADER_LEN, Qos, TransportError};

/// First bytes of every GUID that Cyclone DDS makes.
const CYCLONE_VENDOR: [u8; 2] = [0x01, 0x10];

/// What Cyclone's middleware puts before each question and answer.
const CYCLONE_ID_LEN: usize = 16;

/// The thread is woken by questions; this only bounds how long one could be overlooked.
const TICK: Duration = Duration::from_secs(1);

/// A service, gone when dropped.
pub(in crate::transport) struct Server {
    question: GUID,
    answer: GUID,
    // Dropped in this order: the thread owns the library's endpoints, which must go before the participant.
    _worker: Worker,
    participant: Arc<Participant>,
}

impl Server {
    pub(in crate::transport) fn new(
        participant: Arc<Participant>,
        service: &TopicName,
        srv_type: &SrvType,
        mut handler: Handler,
    ) -> Result<Self, TransportError> {
        let action = || format!("offer service {service}");
        let depth = Qos::SERVICE.depth;
        let topic = |prefix: &str, suffix: &str, kind: &'static str, limit| {
            let policies = policies(Qos::SERVICE, limit);
            let topic = participant.dds_topic(&format!("{prefix}{service}{suffix}"), kind, &policies);
            topic.map(|topic| (topic, policies)).map_err(|fault| refused(action(), &fault))
        };
        let (questions, _) = topic("rq", "Request", srv_type.dds_request, depth.max(HELD_SAMPLES))?;
        let (answers, answer_policies) = topic("rr", "Reply", srv_type.dds_response, depth * UNACKNOWLEDGED_PER_DEPTH)?;
        let reader: SimpleDataReader<Bytes, RawAdapter> = participant
            .subscriber
            .create_simple_datareader_no_key(&questions, None)
            .map_err(|fault| refused(action(), &fault))?;
        let writer: DataWriter<Bytes, RawAdapter> = participant
            .publisher
            .create_datawriter_no_key(&answers, Some(answer_policies))
            .map_err(|fault| refused(action(), &fault))?;
        let (question, answer) = (reader.guid(), writer.guid());
        participant.introduce(Kind::Reader, question, service)?;
        participant.introduce(Kind::Writer, answer, service)?;
        let mut faults = Throttle::new(LOG_PERIOD);
        let name = service.clone();
        let worker = Worker::start("dds service", TICK, move || {
            reader.drain_read_notifications();
            reader.set_waker(Some(wake_this_thread()));
            while let Some(result) = reader.try_take_one().transpose() {
                let result = result
                    .map_err(|fault| fault.to_string())
                    .and_then(|sample| Question::new(sample).ok_or_else(|| "shorter than the header of a question".to_owned()))
                    .and_then(|question| question.answer(&mut handler, &writer));
                if let (Err(fault), Some(n_more)) = (result, faults.due(Instant::now())) {
                    tracing::warn!(
                        "service {name}: a question was not answered: {fault} ({n_more} more since the last such line)"
                    );
                }
            }
        })?;
        Ok(Self { question, answer, _worker: worker, participant })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.participant.forget(self.question);
        self.participant.forget(self.answer);
    }
}

/// A question and what its answer has to carry.
struct Question {
    /// Header and body.
    message: Bytes,
    /// Cyclone's identification, empty for other vendors.
    cyclone_id: Bytes,
    identity: SampleIdentity,
}

impl Question {
    fn new(sample: DeserializedCacheChange<Bytes>) -> Option<Self> {
        let writer = sample.writer_guid();
        let number = sample.sequence_number;
        let mut identity =
            sample.related_sample_identity().unwrap_or(SampleIdentity { writer_guid: writer, sequence_number: number });
        // Fast DDS names the reader that waits for the answer, and leaves the number to be filled in.
        if identity.sequence_number == SequenceNumber::UNKNOWN {
            identity.sequence_number = number;
        }
        let payload = sample.into_value();
        if writer.to_bytes()[..2] != CYCLONE_VENDOR {
            return Some(Self { message: payload, cyclone_id: Bytes::new(), identity });
        }
        if payload.len() < HEADER_LEN + CYCLONE_ID_LEN {
            return None;
        }
        // 16 bytes less do not change how the rest is aligned.
        let mut message = BytesMut::with_capacity(payload.len() - CYCLONE_ID_LEN);
        message.put_slice(&payload[..HEADER_LEN]);
        message.put_slice(&payload[HEADER_LEN + CYCLONE_ID_LEN..]);
        Some(Self { message: message.freeze(), cyclone_id: payload.slice(HEADER_LEN..HEADER_LEN + CYCLONE_ID_LEN), identity })
    }

    fn answer(self, handler: &mut Handler, writer: &DataWriter<Bytes, RawAdapter>) -> Result<(), String> {
        // Cyclone takes the identification in the byte order that the answer's header names, and answers are little-endian.
        if !self.cyclone_id.is_empty() && self.message[1] != 1 {
            return Err("a question in big-endian CDR from Cyclone DDS".to_owned());
        }
        let answer = handler(&self.message).map_err(|fault| fault.to_string())?;
        let mut payload = BytesMut::with_capacity(answer.len() + self.cyclone_id.len());
        payload.put_slice(&answer[..HEADER_LEN]);
        payload.put_slice(&self.cyclone_id);
        payload.put_slice(&answer[HEADER_LEN..]);
        let options =
            WriteOptionsBuilder::new().source_timestamp(Timestamp::now()).related_sample_identity(self.identity).build();
        writer.write_with_options(payload.freeze(), options).map(|_| ()).map_err(|fault| fault.to_string())
    }
}
