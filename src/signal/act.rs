//! What is done to an aligner beside pushing frames. It is recorded in the order in which it was done, so that replay
//! does it again at the same place.

use super::clock::Relation;
use crate::domain::ids::{Digest, StageName, Version};
use crate::domain::settings::{ResetScope, SwitchState};

/// One of these things.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// The wait for signals that are behind was over for every bin before this one.
    Close {
        /// One past the last bin that may close without them.
        before: u64,
        /// When (Unix ns).
        now_ns: i64,
    },
    /// A reset was asked for.
    Reset {
        /// How far it reaches.
        scope: ResetScope,
        /// It takes place before this bin.
        at_bin: u64,
    },
    /// Probes have found how a clock stands to the server's; it holds from the next frame on.
    Relate {
        /// The clock.
        clock: String,
        /// How it stands.
        relation: Relation,
        /// By how much the clock was set since the relation before: what it reads more than it would (ns); else 0.
        stepped_ns: i64,
    },
    /// Another version takes over in a stage. To the aligner it is a bin that must not have closed; the versions, and
    /// what is told of them, are the session's.
    Switch(Switch),
}

/// A version that takes over in a stage, between two bins.
#[derive(Clone, Debug, PartialEq)]
pub struct Switch {
    /// The stage.
    pub stage: StageName,
    /// The version of the stage's model that takes over.
    pub version: Version,
    /// Its content.
    pub digest: Digest,
    /// What it begins with; one that is warmed sees the bins that close after this act.
    pub state: SwitchState,
    /// It runs from this bin on; if that one is not answered, from the next that is.
    pub at_bin: u64,
}
