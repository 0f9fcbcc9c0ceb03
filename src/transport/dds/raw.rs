//! Payloads pass rustdds as bytes: header and body on our side, the body alone on the library's.

use std::convert::Infallible;

use bytes::{BufMut, Bytes, BytesMut};
use rustdds::RepresentationIdentifier;
use rustdds::no_key::{Decode, DefaultDecoder, DeserializerAdapter, SerializerAdapter};

use crate::transport::HEADER_LEN;

/// Every encoding the library can name: whoever decodes says which of them it takes.
const ENCODINGS: [RepresentationIdentifier; 13] = [
    RepresentationIdentifier::CDR_LE,
    RepresentationIdentifier::CDR_BE,
    RepresentationIdentifier::PL_CDR_LE,
    RepresentationIdentifier::PL_CDR_BE,
    RepresentationIdentifier::XCDR2_LE,
    RepresentationIdentifier::XCDR2_BE,
    RepresentationIdentifier::D_CDR2_LE,
    RepresentationIdentifier::D_CDR2_BE,
    RepresentationIdentifier::PL_XCDR2_LE,
    RepresentationIdentifier::PL_XCDR2_BE,
    RepresentationIdentifier::CDR2_LE,
    RepresentationIdentifier::CDR2_BE,
    RepresentationIdentifier::XML,
];

/// Takes and gives whole payloads, header included.
pub(super) struct RawAdapter;

impl SerializerAdapter<Bytes> for RawAdapter {
    type Error = Infallible;

    /// What [`crate::transport::Publisher::publish`] lets through.
    fn output_encoding() -> RepresentationIdentifier {
        RepresentationIdentifier::CDR_LE
    }

    fn to_bytes(payload: &Bytes) -> Result<Bytes, Infallible> {
        Ok(payload.slice(HEADER_LEN.min(payload.len())..))
    }
}

impl DeserializerAdapter<Bytes> for RawAdapter {
    type Error = Infallible;
    type Decoded = Bytes;

    fn supported_encodings() -> &'static [RepresentationIdentifier] {
        &ENCODINGS
    }

    fn transform_decoded(decoded: Bytes) -> Bytes {
        decoded
    }
}

impl DefaultDecoder<Bytes> for RawAdapter {
    type Decoder = RawDecoder;
    const DECODER: RawDecoder = RawDecoder;
}

/// Copies the body behind a new header; the only copy between socket and decoder after reassembly.
#[derive(Clone)]
pub(super) struct RawDecoder;

impl Decode<'_, Bytes> for RawDecoder {
    type Error = Infallible;

    fn decode_bytes(self, body: &[u8], encoding: RepresentationIdentifier) -> Result<Bytes, Infallible> {
        let mut payload = BytesMut::with_capacity(HEADER_LEN + body.len());
        payload.put_slice(&encoding.to_bytes());
        payload.put_bytes(0, 2);
        payload.put_slice(body);
        Ok(payload.freeze())
    }
}
