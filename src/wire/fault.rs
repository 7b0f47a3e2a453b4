//! Faults as messages, and as gRPC statuses that carry them whole.

use bytes::Bytes;
use prost::Message;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use super::v1;
use crate::error::{Fault, Kind};

/// The trailer that names a fault's kind.
pub const KIND_TRAILER: &str = "latentd-kind";

/// The fault as the wire's message.
pub fn message(fault: &Fault, request_id: &str) -> v1::Fault {
    v1::Fault {
        r#type: format!("urn:latentd:{}", fault.kind),
        kind: fault.kind.word().into(),
        status: u32::from(fault.status),
        title: fault.kind.codes().2.into(),
        detail: fault.detail.clone(),
        signal: fault.signal.clone(),
        seq: fault.seq,
        expected_seq: fault.expected_seq,
        consumed: fault.consumed,
        retry_after_ms: fault.retry_after_ms,
        tensor: fault.tensor.clone(),
        expected: fault.expected.clone(),
        found: fault.found.clone(),
        request_id: request_id.into(),
    }
}

/// `google.rpc.Status`, as far as it is needed to carry one `Any`.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// The fault as a gRPC status: code by the table, the message whole in `grpc-status-details-bin`, its kind in a trailer.
pub fn status(fault: &Fault, request_id: &str) -> Status {
    let code = Code::from_i32(fault.kind.codes().1 as i32);
    let details = RpcStatus {
        code: code as i32,
        message: fault.detail.clone(),
        details: vec![prost_types::Any {
            type_url: "type.googleapis.com/latentd.v1.Fault".into(),
            value: message(fault, request_id).encode_to_vec(),
        }],
    };
    let mut trailers = MetadataMap::new();
    trailers.insert(KIND_TRAILER, MetadataValue::from_static(fault.kind.word()));
    Status::with_details_and_metadata(
        code,
        fault.detail.clone(),
        Bytes::from(details.encode_to_vec()),
        trailers,
    )
}

/// The fault that a status carries, as a client reads it.
pub fn from_status(status: &Status) -> Option<v1::Fault> {
    let details = RpcStatus::decode(status.details()).ok()?;
    details.details.iter().find_map(|any| v1::Fault::decode(any.value.as_slice()).ok())
}

/// A status that tonic or the codec made, in our words: tonic's codes for size and decoding are not the wire's.
pub fn from_transport(status: &Status) -> Option<Fault> {
    match status.code() {
        Code::OutOfRange | Code::ResourceExhausted if status.details().is_empty() => {
            Some(Fault::new(Kind::TooLarge, format!("message over its limit: {}", status.message())))
        }
        Code::Internal if status.details().is_empty() => {
            Some(Fault::new(Kind::Malformed, format!("unreadable message: {}", status.message())))
        }
        Code::InvalidArgument if status.details().is_empty() => {
            Some(Fault::new(Kind::Malformed, status.message()))
        }
        // Without a word of its own: there is no such call. Else it is one that we take in another form.
        Code::Unimplemented if status.details().is_empty() => {
            let known = "no such call; gRPC reflection lists those there are";
            let sentence = if status.message().is_empty() { known } else { status.message() };
            Some(Fault::new(Kind::Unsupported, sentence))
        }
        _ => None,
    }
}
