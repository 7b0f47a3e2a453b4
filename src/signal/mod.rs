//! From frames to bins: time, order of samples, gaps, masks, preprocessing (pure).
//! Enters: frames of each signal, in order. Leaves: closed bins with every input's values, and what happened on the way.
//! Owns: per signal its watermark, its open bins and its filters' memory. Must hold: how a stream is cut into frames changes no bit.
//! Must not know: sessions, models, sequence numbers, clocks of the machine, any transport.

pub mod plan; // what is known at open, and whether it fits together
pub mod input; // what a model's input asks for
pub mod op; // preprocessing as a manifest declares it
pub mod refusal; // what is refused at open and while streaming
pub mod step; // what leaves: bins, skipped bins, notices
pub mod aligner; // frames in, bins out: the door of this room
pub mod standing; // how it stood, for whoever may not wait for it
pub mod act; // what else is done to it, and done again by replay
mod shape; // whether a frame is what its signal announced
mod landing; // where a frame lies, before anything changes
pub mod exchange; // probes to a clock's relation
pub mod clock; // device time on the session's clock
mod relate; // what a new relation changes
pub mod pace; // the exact step of a stream
mod grid; // bins in 128 bits
mod stamps; // whether stamps agree with the index
mod track; // one signal: epochs, mask, what came
mod coverage; // the watermark and the holes below it
mod late; // data for bins that have closed
mod stall; // a signal that bins close without
mod cofiring; // channels that fire at once
mod open_bins; // what came for bins that are still open
mod closing; // one bin: whole, filled or skipped
mod thresholds; // of crossings, as a session gives and reads them
mod feed; // one input: from what came to its row
pub mod montage; // a signal's channels to a model's
pub mod image; // channels that are images
mod unit; // SI prefixes
pub mod chain; // the ops of one input, around `bin`
mod ops; // each of them at work
pub mod trial; // markers that start and end trials
mod log; // where a call writes down what happened
#[cfg(test)]
mod golden; // the methods' vectors
#[cfg(test)]
mod testing; // signals and frames for tests
#[cfg(test)]
mod tests; // the promises of this room, one by one
