//! latentd: frames of neural data in; latents, decoded behaviour and features out, bin by bin.
//!
//! The rooms, in the order of the walk that a frame takes.

pub mod domain; // the words as types
pub mod error; // what a caller is told when something is wrong
pub mod signal; // from frames to bins (pure)
pub mod graph; // ONNX graphs as data (pure)
pub mod engine; // the only room that knows `ort`
pub mod store; // journal and library: what is kept
pub mod recorder; // what must not be lost, in order, to the journal
