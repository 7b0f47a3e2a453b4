//! Faults as messages, and as gRPC statuses that carry them whole.

use bytes::Bytes;
use prost::Message;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use super::v1;
use crate::error::{Fault, Kind, clip};

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

/// A status that tonic or the codec made, in our words: tonic's codes for size and decoding are not the wire's, and its
/// sentences are looked at here alone.
pub fn from_transport(status: &Status) -> Option<Fault> {
    if !status.details().is_empty() {
        return None;
    }
    let said = status.message();
    match status.code() {
        Code::OutOfRange | Code::ResourceExhausted => Some(Fault::new(Kind::TooLarge, over_limit(said))),
        Code::Internal => Some(Fault::new(Kind::Malformed, unreadable(said))),
        Code::InvalidArgument => Some(Fault::new(Kind::Malformed, said)),
        // Without a word of its own: there is no such call. Else it is one that we take in another form.
        Code::Unimplemented if said.is_empty() => {
            let known = "no such call; gRPC reflection lists those there are";
            Some(Fault::new(Kind::Unsupported, known))
        }
        Code::Unimplemented => Some(Fault::new(Kind::Unsupported, compressed(said))),
        Code::NotFound => {
            Some(Fault::new(Kind::NotFound, "no such service; gRPC reflection lists those there are"))
        }
        _ => None,
    }
}

/// Of `decoded message length too large: found 9 bytes, the limit is: 4 bytes`, the numbers.
fn over_limit(said: &str) -> String {
    let mut numbers = said.split(|letter: char| !letter.is_ascii_digit()).filter(|word| !word.is_empty());
    match (numbers.next(), numbers.next()) {
        (Some(found), Some(limit)) => {
            format!("a message over message_limit: expected at most {limit} bytes, found {found}")
        }
        _ => "a message over message_limit".into(),
    }
}

/// What is wrong with the frames that messages come in.
fn unreadable(said: &str) -> String {
    let found = if let Some((_, rest)) = said.split_once("invalid compression flag: ") {
        let flag = rest.split(' ').next().unwrap_or_default();
        format!("its first byte is {flag}, expected 0 (not compressed) or 1")
    } else if said.contains("compressed-flag") {
        "its first byte is 1 (compressed), and the call names no grpc-encoding".into()
    } else if said.contains("EOF") {
        "the call ends inside it".into()
    } else if said.contains("issing request") {
        "there is none, and the call takes one".into()
    } else {
        "it does not come as gRPC says".into()
    };
    format!("a message cannot be read: {found}")
}

/// Of ``Content is compressed with `x` which isn't supported``, the name.
fn compressed(said: &str) -> String {
    match said.split('`').nth(1) {
        Some(name) if said.contains("compressed") => {
            format!("messages compressed with `{}` are not read; send them plain (identity)", clip(name))
        }
        _ => "the call is taken in another form; gRPC reflection shows it".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tonic_says_is_told_in_our_words_by_our_codes() {
        let cases = [
            (
                Status::out_of_range(
                    "Error, decoded message length too large: found 9 bytes, the limit is: 4 bytes",
                ),
                "too_large: a message over message_limit: expected at most 4 bytes, found 9",
            ),
            (Status::resource_exhausted("Too many"), "too_large: a message over message_limit"),
            (
                Status::internal(
                    "protocol error: received message with invalid compression flag: 7 (valid flags are 0 and 1), \
                     while sending request",
                ),
                "malformed: a message cannot be read: its first byte is 7, expected 0 (not compressed) or 1",
            ),
            (
                Status::internal(
                    "protocol error: received message with compressed-flag but no grpc-encoding was specified",
                ),
                "malformed: a message cannot be read: its first byte is 1 (compressed), and the call names no \
                 grpc-encoding",
            ),
            (
                Status::internal("Unexpected EOF decoding stream."),
                "malformed: a message cannot be read: the call ends inside it",
            ),
            (
                Status::internal("Missing request message."),
                "malformed: a message cannot be read: there is none, and the call takes one",
            ),
            (
                Status::internal("h2 protocol error: something new"),
                "malformed: a message cannot be read: it does not come as gRPC says",
            ),
            (
                Status::unimplemented("Content is compressed with `gzip` which isn't supported"),
                "unsupported: messages compressed with `gzip` are not read; send them plain (identity)",
            ),
            (Status::unimplemented(""), "unsupported: no such call; gRPC reflection lists those there are"),
            (
                Status::not_found("service not registered"),
                "not_found: no such service; gRPC reflection lists those there are",
            ),
        ];
        for (status, told) in cases {
            assert_eq!(from_transport(&status).unwrap().to_string(), told);
        }
        assert!(from_transport(&Status::cancelled("h2 protocol error")).is_none());
        let ours = super::status(&Fault::new(Kind::Internal, "ours"), "");
        assert!(from_transport(&ours).is_none(), "a fault of ours stays as it is");
    }
}
