//! Frames on their way into bins: the aligner, and what it has laid down that is not yet the session's work.
//!
//! It has a lock of its own, taken before the core's: preprocessing may take milliseconds a frame, and neither the thread
//! that has run a bin nor whoever asks how the session stands waits for that.

use std::collections::VecDeque;
use std::time::Duration;

use super::core::{Core, End, Work};
use crate::signal::act::Act;
use crate::signal::aligner::Aligner;
use crate::signal::refusal::Refusal;
use crate::signal::step::Step;

/// The aligner, and what it has laid down.
pub(super) struct Binning {
    pub(super) aligner: Aligner,
    /// What the last frame or act gave; empty between them.
    pub(super) steps: Vec<Step>,
    /// Work of the chunk in hand. It becomes the session's at the end of the chunk, so that no bin of a chunk sets out
    /// before all of it is known: what is stale shows by what lies behind it.
    pub(super) work: VecDeque<Work>,
    /// The ends in `work`.
    pub(super) ends: VecDeque<End>,
    /// What frames have cost since the last bin closed.
    since_bin: Duration,
}

impl Binning {
    /// Nothing came yet.
    pub(super) fn new(aligner: Aligner) -> Self {
        Self {
            aligner,
            steps: Vec::new(),
            work: VecDeque::new(),
            ends: VecDeque::new(),
            since_bin: Duration::ZERO,
        }
    }

    /// Does something to the aligner beside pushing frames; what it gives lies in `steps`.
    /// Errors: as the aligner's; nothing has happened then.
    pub(super) fn act(&mut self, act: &Act) -> Result<(), Refusal> {
        self.aligner.act(act, &mut self.steps)
    }

    /// Frames have cost so much and closed so many bins. Answers what those bins have cost since the one before them.
    pub(super) fn spent(&mut self, took: Duration, bins: usize) -> Option<Duration> {
        self.since_bin += took;
        (bins > 0).then(|| std::mem::take(&mut self.since_bin))
    }

    /// Makes what was laid down the session's work.
    pub(super) fn lay_down(&mut self, core: &mut Core) {
        core.work.append(&mut self.work);
        core.ends.append(&mut self.ends);
        core.standing = self.aligner.standing();
    }
}
