//! Services: a question in, its answer out, both as serialised CDR like everything else that crosses the seam.

use super::names::TopicName;
use super::{TransportError, dds};
use crate::msgs::cdr::{self, CdrError};
use crate::msgs::{Service, SrvType};

/// From the bytes of a question to those of its answer, or why they are no such question.
pub(super) type Handler = Box<dyn FnMut(&[u8]) -> Result<Vec<u8>, CdrError> + Send>;

/// A service that this node offers; gone when dropped.
pub struct ServiceServer {
    name: TopicName,
    _end: End,
}

/// What keeps the service up.
pub(super) enum End {
    Inproc {
        _offer: super::inproc::Offer,
    },
    Dds {
        _server: dds::service::Server,
    },
    #[cfg(feature = "r2r")]
    R2r {
        _server: super::r2r::Server,
    },
}

impl ServiceServer {
    pub(super) fn new(name: &TopicName, end: End) -> Self {
        Self { name: name.clone(), _end: end }
    }

    /// The service's name.
    pub fn name(&self) -> &TopicName {
        &self.name
    }
}

/// A handler of bytes around one of messages.
pub(super) fn raw_handler<S: Service>(mut handler: impl FnMut(S::Request) -> S::Response + Send + 'static) -> Handler {
    Box::new(move |question| Ok(cdr::to_bytes(&handler(cdr::from_bytes(question)?))))
}

/// Two services of one name, or a question to one that is not there.
pub(super) fn unavailable(name: &TopicName, srv_type: &SrvType, reason: &'static str) -> TransportError {
    TransportError::Service { service: name.to_string(), srv_type: srv_type.ros, reason: reason.to_owned() }
}
