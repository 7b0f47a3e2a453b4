//! A pipeline as it runs: the compiled plan of stages, and a bin's journey through them.
//! Enters: a pipeline's spec with the versions pinned for it. Leaves: rows for lanes, outputs for the readout.
//! Owns: per session one journey; per pipeline one plan. Must hold: a plan is checked when it is made, so that no bin
//! meets a wrong shape. Must not know: sessions, HTTP, SQL, ONNX Runtime.

pub mod journey; // one session's bins, stage by stage
pub mod plan; // what is fed by what
pub mod successor; // another version of a stage
pub mod understudy; // the same, while it is warmed
mod backlog; // what that has been shown and has not done
pub mod oneshot; // one request without a session
pub mod input; // what a streamed input asks of its signal
pub mod watch; // what a session's health looks at
mod window; // the last bins of a stage that takes several
