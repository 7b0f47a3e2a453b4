//! The words of latentd as types: ids, time, signals, frames, tensors, outputs, callers.
//! Enters: nothing. Leaves: values that are proven when they exist.
//! Owns: no state, does no I/O, awaits nothing.
//! Must hold: numbers carry their unit in the name; instants are integer nanoseconds; bins are `u64`.
//! Must not know: protobuf, HTTP, ONNX Runtime, SQL.

pub mod ids; // names and ids, each its own type
pub mod time; // exact rates, the grid of bins
pub mod tensor; // dtype, shape, bytes
pub mod extremes; // what stands for many bins
pub mod signal; // what a rig announces of one stream
pub mod frame; // one message of a rig
pub mod settings; // how a session wants to be treated
pub mod output; // what leaves for a bin
pub mod caller; // who asks
pub mod request; // the id of one call
pub mod trace; // where a call stands in a trace
