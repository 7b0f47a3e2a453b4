//! The schema of the wire, and its one mapping to and from the words of `domain`.
//! Enters: protobuf or JSON. Leaves: proven domain values, or a `Fault` that names the field; and the way back.
//! Owns: nothing; pure. Must hold: a number survives the road exactly; every transport speaks this schema.
//! Must not know: sessions, models, HTTP routes.

pub mod thinning; // many bins as few points
pub mod outputs; // values of a run: message, CSV, .npy
pub mod arrow; // values of a run in columns: Arrow, Parquet
pub mod columns; // a frame in columns
pub mod codec; // protobuf over gRPC: undecodable bytes are `malformed`
pub mod fault; // faults as messages and gRPC statuses
pub mod frame; // frames to domain
pub mod json; // JSON with paths in its faults
pub mod open; // signal specs and policies to domain
pub mod npy; // .npy arrays
pub mod table; // CSV tables of events
pub mod recording; // recordings in the open format
pub mod schema; // JSON Schemas of the messages
pub mod tensor; // tensors, and their JSON
pub mod told; // what a live subscriber is told

/// The generated types of `proto/latentd/v1`.
#[expect(missing_docs, clippy::all, reason = "generated; documented in the .proto files")]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/latentd.v1.rs"));
    include!(concat!(env!("OUT_DIR"), "/latentd.v1.serde.rs"));
}

/// The compiled descriptor set of `proto/latentd/v1`, for reflection and for the test that holds it to the released one.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/latentd.v1.bin"));
