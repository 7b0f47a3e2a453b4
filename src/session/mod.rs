//! One ordered stream through one pipeline: order, gaps, state, and what is in flight.
//! Enters: frames of a rig, from any transport. Leaves: an answer for each, pushes for bins that closed alone, notices,
//! records for the recorder, and all of it again for whoever listens.
//! Owns: per session its order, its open bins, its state, its unanswered frames.
//! Must hold: a frame is consumed at most once; bins are stepped in order, one at a time; state moves only after the
//! outputs were checked; what is lost, refused or late is said.
//! Must not know: HTTP, gRPC, SQL, ONNX.

pub mod attach; // a stream that writes
pub mod subscribe; // one who listens
pub mod live; // the session's own door
mod core; // what a session owns behind its lock
mod binning; // the aligner, behind a lock of its own
mod ingest; // frames in
mod stepping; // bins through the pipeline, one at a time
mod answering; // answers out
mod health; // whether it is still what the model learnt
mod clocks; // probes, relations, ages
pub mod switching; // another version of a stage, between two bins
pub mod replay; // what a run took in, done to an aligner again
mod lag; // how long answers took
pub mod order; // seq, repeated answers, writers
pub mod outbox; // messages that wait for a stream
pub mod meter; // what a session tells the metrics
mod part; // bins on their way into an answer
mod fanout; // live subscribers, told beside the step path
mod thinning; // bins of many messages as one
mod mailbox; // messages that wait for one who listens
pub mod table; // the sessions there are

pub use attach::Attachment;
pub use live::{Made, Session};
pub use meter::Meter;
pub use order::{Sink, Writer};
pub use outbox::Outgoing;
pub use subscribe::Subscription;
pub use table::Table;
