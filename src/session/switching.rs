//! Another version of a stage takes over between two bins: made ready beside the running one, outside of the session's
//! lock; moved in by the bin that it begins with.

use std::sync::Arc;
use std::time::Duration;

use super::core::Core;
use super::live::Session;
use crate::batch::Place;
use crate::domain::settings::SwitchState;
use crate::domain::tensor::Tensor;
use crate::domain::time::Stamp;
use crate::error::{Fault, Kind};
use crate::pipeline::plan::Plan;
use crate::pipeline::successor::{Outgone, Successor};
use crate::recorder::Record;
use crate::signal::act::{Act, Switch};
use crate::store::record::Since;
use crate::wire::{self, v1};

/// Versions that may wait for their bin.
const PENDING_LIMIT: usize = 16;

/// What a successor is made ready beside.
pub struct Running {
    /// The plan by the time that it takes over.
    pub plan: Arc<Plan>,
    /// The session's static inputs.
    pub statics: Arc<[Tensor]>,
    /// By stage: its place in a lane.
    pub places: Vec<Arc<Place>>,
    /// Width of a bin.
    pub width: Duration,
}

/// A version that waits for its bin.
pub(super) struct Pending {
    at_bin: u64,
    next: Successor,
    place: Place,
    /// What the run says of it: the versions from there on.
    segment: String,
}

impl Session {
    /// Lets a version take over before `at_bin` (default: the next bin to close), and says before which. `prepare` makes
    /// it ready, and takes a place in its lane.
    /// Errors: `conflict` for a bin that has closed or lies before that of another switch; `overloaded` where many wait;
    /// `prepare`'s.
    pub fn switch(
        self: &Arc<Self>,
        at_bin: Option<u64>,
        now: Stamp,
        prepare: impl FnOnce(&Running) -> Result<(Successor, Place), Fault>,
    ) -> Result<u64, Fault> {
        let mut ahead = self.ahead.lock();
        let running = {
            let core = self.core.lock();
            self.still_open(&core)?;
            let (statics, places) = (core.journey.statics(), core.places.clone());
            Running { plan: Arc::clone(&ahead), statics, places, width: self.width }
        };
        let (next, place) = prepare(&running)?;
        let plan = Arc::clone(&next.plan);
        let (stage, state) = (&plan.stages[next.stage], next.state);
        let mut binning = self.binning.lock();
        let mut core = self.core.lock();
        self.still_open(&core)?;
        core.last_sign = now.instant;
        let at_bin = at_bin.unwrap_or(binning.aligner.next_bin());
        if let Some(last) = core.switches.back().filter(|last| last.at_bin > at_bin) {
            let detail = format!(
                "a switch before bin {} was asked for; one before bin {at_bin} comes too late",
                last.at_bin
            );
            return Err(Fault::new(Kind::Conflict, detail));
        }
        if core.switches.len() >= PENDING_LIMIT {
            let detail = format!("{PENDING_LIMIT} versions wait for their bin already");
            return Err(Fault::new(Kind::Overloaded, detail));
        }
        let (name, version, digest) = (stage.name.clone(), stage.version.version, stage.version.digest);
        let act = Act::Switch(Switch { stage: name, version, digest, state, at_bin });
        self.act(&mut binning, &mut core, act, now)?;
        drop(binning);
        let segment = wire::json::write(&v1::Segment { from_bin: at_bin, pinned: pinned(&plan) });
        let segment = String::from_utf8(segment).unwrap_or_default();
        core.switches.push_back(Pending { at_bin, next, place, segment });
        *ahead = Arc::clone(&plan);
        self.set_out(core);
        Ok(at_bin)
    }

    /// Bin `k` begins: versions whose bin it is, or was, take over.
    pub(super) fn take_over(&self, core: &mut Core, k: u64) {
        while core.switches.front().is_some_and(|pending| pending.at_bin <= k)
            && let Some(Pending { next, place, segment, .. }) = core.switches.pop_front()
        {
            let stage = next.stage;
            let outgone = core.journey.succeed(next);
            self.relearn(core);
            if let Some(held) = core.places.get_mut(stage) {
                let left = std::mem::replace(held, Arc::new(place));
                core.outgone.push((outgone, left));
            }
            self.note(core, Record::Segment(Since { from_bin: k, body: segment }));
        }
    }

    /// What versions that took over have replaced: to be dropped where there is time, since it may be the last of a
    /// version.
    pub fn outgone(&self) -> Vec<(Outgone, Arc<Place>)> {
        std::mem::take(&mut self.core.lock().outgone)
    }
}

/// The versions of a plan, by stage.
pub fn pinned(plan: &Plan) -> Vec<v1::Pinned> {
    let stages = plan.stages.iter().map(|stage| v1::Pinned {
        stage: stage.name.to_string(),
        model: stage.version.model.to_string(),
        version: stage.version.version.0,
        digest: stage.version.digest.to_string(),
    });
    stages.collect()
}

/// What of `SwitchState` is served. Errors: `invalid` (no such word), `unsupported`.
pub fn state_of(word: &str) -> Result<SwitchState, Fault> {
    match SwitchState::parse(word) {
        None if word.is_empty() => Ok(SwitchState::Keep),
        None => Err(Fault::unknown_word("state", word, &SwitchState::words())),
        Some(SwitchState::Warm) => {
            let detail = "state = \"warm\" is not served by this version; keep and reset are";
            Err(Fault::new(Kind::Unsupported, detail))
        }
        Some(state) => Ok(state),
    }
}
