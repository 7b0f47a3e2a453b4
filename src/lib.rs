//! latentd: frames of neural data in; latents, decoded behaviour and features out, bin by bin.
//!
//! The rooms, in the order of the walk that a frame takes.

pub mod domain; // the words as types
pub mod error; // what a caller is told when something is wrong
pub mod config; // flags, environment and file, proven
pub mod metrics; // every metric, named once
pub mod signal; // from frames to bins (pure)
pub mod graph; // ONNX graphs as data (pure)
pub mod engine; // the only room that knows `ort`
pub mod wire;
pub mod http; // the door for HTTP
pub mod cli; // arguments to one command
pub mod lifecycle; // readiness, signals, stop
pub mod telemetry; // the log
