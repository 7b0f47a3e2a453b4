//! One ordered stream through one pipeline: order, gaps, state, and what is in flight.
//! Enters: frames of a rig, from any transport. Leaves: an answer for each, pushes for bins that closed alone, notices,
//! and records for the recorder.
//! Owns: per session its order, its open bins, its state, its unanswered frames.
//! Must hold: a frame is consumed at most once; bins are stepped in order, one at a time; state moves only after the
//! outputs were checked; what is lost, refused or late is said.
//! Must not know: HTTP, gRPC, SQL, ONNX.

pub mod attach; // a stream that writes
pub mod live; // the session's own door
mod core; // what a session owns behind its lock
mod ingest; // frames in
mod stepping; // bins through the pipeline, one at a time
mod answering; // answers out
mod clocks; // probes, relations, ages
pub mod switching; // another version of a stage, between two bins
pub mod replay; // what a run took in, done to an aligner again
mod lag; // how long answers took
pub mod order; // seq, repeated answers, writers
pub mod outbox; // messages that wait for a stream
pub mod meter; // what a session tells the metrics
mod part; // bins on their way into an answer
pub mod table; // the sessions there are

pub use attach::Attachment;
pub use live::{Made, Session};
pub use meter::Meter;
pub use order::Sink;
pub use outbox::Outgoing;
pub use table::Table;
