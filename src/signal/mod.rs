//! From frames to bins: time, order of samples, gaps, masks, preprocessing (pure).
//! Enters: frames of each signal, in order. Leaves: closed bins with every input's values, and what happened on the way.
//! Owns: per signal its watermark, its open bins and its filters' memory. Must hold: how a stream is cut into frames changes no bit.
//! Must not know: sessions, models, sequence numbers, clocks of the machine, any transport.

pub mod op; // preprocessing as a manifest declares it
pub mod input; // what a model's input asks for
pub mod pace; // the exact step of a stream
pub mod refusal; // what is refused at open and while streaming
mod unit; // SI prefixes
pub mod montage; // a signal's channels to a model's
mod smooth; // causal kernels
mod zscore; // running, calibrated, given statistics
pub mod chain; // the ops of one input, around `bin`
pub mod clock; // device time on the session's clock
mod coverage; // what came, and the holes
mod open_bins; // what came for bins that are still open
#[cfg(test)]
mod golden; // the methods' vectors
#[cfg(test)]
mod testing; // signals and frames for tests
