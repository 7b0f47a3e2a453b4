//! latentd: frames of neural data in; latents, decoded behaviour and features out, bin by bin.
//!
//! The rooms, in the order of the walk that a frame takes. Each one's head says what enters, what leaves, what it owns,
//! what must hold and what it must not know; `docs/ARCHITECTURE.md` follows one frame through them by name.

pub mod domain; // the words as types
pub mod error; // what a caller is told when something is wrong
pub mod phrase; // what libraries say of broken bytes, in our words
pub mod config; // flags, environment and file, proven
pub mod metrics; // every metric, named once
pub mod trace; // what requests and steps spent their time on
pub mod wire; // the schema, and its way to domain and back
pub mod http; // requests in, answers out
pub mod grpc; // the same over streams
pub mod access; // who may come in
pub mod app; // the use cases, free of transport
pub mod session; // one ordered stream: order, gaps, state, what is in flight
pub mod signal; // from frames to bins (pure)
pub mod pipeline; // the plan of stages, and a bin's journey through it
pub mod batch; // rows that gather while a device is busy
pub mod engine; // the only room that knows `ort`
pub mod graph; // ONNX graphs as data (pure)
pub mod readout; // tensors to outputs
pub mod health; // whether it is still what the model learnt (pure)
pub mod recorder; // what must not be lost, in order, to the journal
pub mod store; // journal and library: the only room that knows `sqlx`
pub mod registry; // the model repository, its checks and versions
pub mod analysis; // metrics over what was recorded (pure)
pub mod telemetry; // the log, for people and for machines
pub mod lifecycle; // start, readiness, drain
pub mod cli; // the commands
