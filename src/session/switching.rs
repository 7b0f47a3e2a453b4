//! Another version of a stage takes over between two bins: made ready beside the running one, outside of the session's
//! lock, if asked warmed beside it; moved in by the bin that it begins with.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::binning::Binning;
use super::core::Core;
use super::live::Session;
use crate::batch::Place;
use crate::domain::ids::StageName;
use crate::domain::output::{EventKind, Flags, Notice};
use crate::domain::settings::SwitchState;
use crate::domain::tensor::Tensor;
use crate::domain::time::Stamp;
use crate::error::{Fault, Kind};
use crate::pipeline::plan::Plan;
use crate::pipeline::successor::{Outgone, Successor};
use crate::pipeline::understudy::{Understudy, warming_bins};
use crate::recorder::{Record, Since};
use crate::signal::act::{Act, Switch};
use crate::signal::step::InputRow;
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
    /// When it was asked for.
    pub asked: Instant,
}

/// What a session no longer runs, or has never run, and what that held.
pub type Replaced = (Outgone, Option<Arc<Place>>, Option<Arc<Understudy>>);

/// A version that waits for its bin.
pub(super) struct Pending {
    at_bin: u64,
    /// The plan that it makes.
    plan: Arc<Plan>,
    stage: usize,
    state: SwitchState,
    waits: Waits,
}

/// How a version waits.
enum Waits {
    /// As it was made.
    Made(Successor, Place),
    /// It has been shown every bin from that one on.
    Warmed(Arc<Understudy>, u64),
}

impl Pending {
    fn stage(&self) -> &StageName {
        &self.plan.stages[self.stage].name
    }

    fn understudy(&self) -> Option<&Arc<Understudy>> {
        match &self.waits {
            Waits::Made(..) => None,
            Waits::Warmed(understudy, _) => Some(understudy),
        }
    }

    /// It does not take over; what is left of it.
    fn retire(self) -> Replaced {
        match self.waits {
            Waits::Made(next, place) => (next.into(), Some(Arc::new(place)), None),
            Waits::Warmed(understudy, _) => {
                understudy.retire();
                (Outgone::of(self.plan), None, Some(understudy))
            }
        }
    }
}

impl Core {
    /// Versions that are warmed just now.
    pub(super) fn warmed(&self) -> impl Iterator<Item = &Arc<Understudy>> {
        self.switches.iter().filter_map(Pending::understudy)
    }

    /// The last version that waits, if it is warmed for that stage and that bin: another one asked for there takes its
    /// turn, since it never answered a bin that could be gone on from.
    fn withdrawn_by(&self, stage: &str, at_bin: Option<u64>) -> Option<&Pending> {
        let last = self.switches.back()?;
        let is_same = Some(last.at_bin) == at_bin && last.stage().as_str() == stage;
        (is_same && last.understudy().is_some()).then_some(last)
    }

    /// The plan that a version asked for now will find.
    fn plan_before(&self, stage: &str, at_bin: Option<u64>) -> &Arc<Plan> {
        let skipped = usize::from(self.withdrawn_by(stage, at_bin).is_some());
        let last = self.switches.iter().rev().nth(skipped);
        last.map_or(self.journey.plan(), |last| &last.plan)
    }

    /// The session ends: no version takes over any more.
    pub(super) fn retire_switches(&mut self) {
        self.outgone.extend(self.switches.drain(..).map(Pending::retire));
    }
}

impl Session {
    /// Lets a version take over in that stage before `at_bin`, and says before which bin. Default: the next bin to
    /// close; for one that is warmed, the first after `warming_bins`. `prepare` makes it ready, and takes a place in its
    /// lane.
    /// Errors: `conflict` for a bin that has closed or lies before that of another switch; `overloaded` where many wait;
    /// `prepare`'s.
    pub fn switch(
        self: &Arc<Self>,
        stage: &str,
        at_bin: Option<u64>,
        now: Stamp,
        prepare: impl Fn(&Running) -> Result<(Successor, Place), Fault>,
    ) -> Result<u64, Fault> {
        let _one_at_a_time = self.readying.lock();
        loop {
            let running = {
                let core = self.core.lock();
                self.still_open(&core)?;
                let plan = Arc::clone(core.plan_before(stage, at_bin));
                let (statics, places) = (core.journey.statics(), core.places.clone());
                Running { plan, statics, places, width: self.width, asked: now.instant }
            };
            let (next, place) = prepare(&running)?;
            let mut binning = self.binning.lock();
            let mut core = self.core.lock();
            self.still_open(&core)?;
            if !Arc::ptr_eq(core.plan_before(stage, at_bin), &running.plan) {
                // A version that it was to follow does not take over: it was made ready for a plan that never comes.
                continue;
            }
            core.last_sign = now;
            let at_bin =
                self.lay_down(&mut binning, &mut core, at_bin, now, (next, place, running.statics))?;
            drop(binning);
            self.set_out(core);
            return Ok(at_bin);
        }
    }

    /// A version that is ready waits for its bin from here on.
    fn lay_down(
        self: &Arc<Self>,
        binning: &mut Binning,
        core: &mut Core,
        asked: Option<u64>,
        now: Stamp,
        (next, place, statics): (Successor, Place, Arc<[Tensor]>),
    ) -> Result<u64, Fault> {
        let (plan, stage, state) = (Arc::clone(&next.plan), next.stage, next.state);
        let running = &plan.stages[stage];
        let next_bin = binning.aligner.next_bin();
        let warming = if state == SwitchState::Warm { warming_bins(running, self.width) } else { 0 };
        let at_bin = asked.unwrap_or(next_bin.saturating_add(warming));
        if let Some(last) = core.switches.back().filter(|last| last.at_bin > at_bin) {
            let detail = format!(
                "a switch before bin {} was asked for; one before bin {at_bin} comes too late",
                last.at_bin
            );
            return Err(Fault::new(Kind::Conflict, detail));
        }
        let (name, version, digest) = (running.name.clone(), running.version.version, running.version.digest);
        let withdraws = core.withdrawn_by(name.as_str(), asked).is_some();
        if core.switches.len() - usize::from(withdraws) >= PENDING_LIMIT {
            let detail = format!("{PENDING_LIMIT} versions wait for their bin already");
            return Err(Fault::new(Kind::Overloaded, detail));
        }
        let act = Act::Switch(Switch { stage: name, version, digest, state, at_bin });
        self.act(binning, core, act, now)?;
        if withdraws {
            let withdrawn = core.switches.len() - 1;
            self.give_up(core, withdrawn, &format!("version {version} was asked for in its place"), now);
        }
        let waits = match state {
            SwitchState::Keep | SwitchState::Reset => Waits::Made(next, place),
            SwitchState::Warm => {
                let session = Arc::downgrade(self);
                let told = move || {
                    if let Some(session) = session.upgrade() {
                        session.hear_of_warmed(Stamp::now());
                    }
                };
                Waits::Warmed(Understudy::new(next, statics, place, told), next_bin)
            }
        };
        core.switches.push_back(Pending { at_bin, plan, stage, state, waits });
        Ok(at_bin)
    }

    /// A version that is warmed has failed, or has done what a bin waits for.
    fn hear_of_warmed(self: &Arc<Self>, now: Stamp) {
        self.unbroken(|| {
            let mut core = self.core.lock();
            self.give_up_failed(&mut core, now);
            self.set_out(core);
        });
    }

    /// Shows versions that are warmed a bin that has passed every stage and is not committed yet.
    pub(super) fn show(&self, core: &mut Core, k: u64, inputs: &Arc<[InputRow]>, due: Instant) {
        let Core { switches, journey, beside, .. } = core;
        for pending in switches {
            let bins = pending.at_bin.saturating_sub(k);
            let spare = self.width.saturating_mul(u32::try_from(bins).unwrap_or(u32::MAX));
            if let Waits::Warmed(understudy, from_bin) = &pending.waits
                && *from_bin <= k
                && let Some(onward) = understudy.show(k, inputs, (due, spare), journey)
            {
                beside.push((Arc::clone(understudy), onward));
            }
        }
    }

    /// Whether a version that takes over before bin `k` has not been through the bins before it: then the bin waits, so
    /// that its numbers depend on the bins alone. Who has failed by then does not take over.
    pub(super) fn is_held_up(&self, core: &mut Core, k: u64, now: Stamp) -> bool {
        if core.switches.is_empty() {
            return false;
        }
        let due = core.switches.iter().take_while(|pending| pending.at_bin <= k);
        if !due.filter_map(Pending::understudy).all(|understudy| understudy.is_done()) {
            return true;
        }
        self.give_up_failed(core, now);
        false
    }

    /// Versions that failed while they were warmed do not take over.
    fn give_up_failed(&self, core: &mut Core, now: Stamp) {
        let faults = core.switches.iter().map(|pending| pending.understudy()?.fault());
        let failed = faults.enumerate().find_map(|(at, fault)| Some((at, fault?)));
        if let Some((at, why)) = failed {
            self.give_up(core, at, &why, now);
        }
    }

    /// The version that waits at that place does not take over, nor do those behind it, which were made ready for the
    /// plan that it would have made.
    fn give_up(&self, core: &mut Core, at: usize, why: &str, now: Stamp) {
        let mut why = why.to_owned();
        for pending in core.switches.split_off(at) {
            let (stage, at_bin, state) = (pending.stage(), pending.at_bin, pending.state);
            let version = pending.plan.stages[pending.stage].version.version;
            let detail = format!(
                "stage `{stage}`: version {version} does not take over before bin {at_bin} (state: {state}): {why}"
            );
            why = format!("version {version} of stage `{stage}`, which it was to follow, does not");
            let notice = Notice {
                kind: EventKind::Switched,
                signal: None,
                from_bin: Some(at_bin),
                to_bin: Some(at_bin),
                count: 0,
                detail,
                t_ns: now.unix_ns,
            };
            core.outgone.push(pending.retire());
            self.tell(core, notice);
        }
    }

    /// Bin `k` begins: versions whose bin it is, or was, take over. What that says of the bin.
    pub(super) fn take_over(&self, core: &mut Core, k: u64, now: Stamp) -> Flags {
        let mut flags = Flags::default();
        while core.switches.front().is_some_and(|pending| pending.at_bin <= k)
            && let Some(Pending { plan, stage, state, waits, .. }) = core.switches.pop_front()
        {
            let (next, place, seen) = match waits {
                Waits::Made(next, place) => (next, place, None),
                Waits::Warmed(understudy, _) => {
                    // Done, or the bin were held up.
                    let Some((next, place, seen)) = understudy.take_over() else { continue };
                    (next, place, Some(seen))
                }
            };
            flags |= Flags::SWITCHED;
            if state == SwitchState::Reset || seen == Some(0) {
                flags |= Flags::RESET;
            }
            let outgone = core.journey.succeed(next);
            self.relearn(core);
            if let Some(held) = core.places.get_mut(stage) {
                let left = std::mem::replace(held, Arc::new(place));
                core.outgone.push((outgone, Some(left), None));
            }
            let segment = wire::json::write(&v1::Segment { from_bin: k, pinned: pinned(&plan) });
            let body = String::from_utf8(segment).unwrap_or_default();
            self.note(core, Record::Segment(Since { from_bin: k, body }));
            let running = &plan.stages[stage];
            let seen = seen.map(|seen| format!(" by {seen} bins")).unwrap_or_default();
            let detail = format!(
                "stage `{}`: version {} from bin {k} on (state: {state}{seen})",
                running.name, running.version.version
            );
            let (kind, t_ns) = (EventKind::Switched, now.unix_ns);
            let (from_bin, to_bin) = (Some(k), Some(k + 1));
            self.tell(core, Notice { kind, signal: None, from_bin, to_bin, count: 1, detail, t_ns });
        }
        flags
    }

    /// What versions that took over have replaced, and those that did not: to be dropped where there is time, since it
    /// may be the last of a version.
    pub fn outgone(&self) -> Vec<Replaced> {
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

/// `keep` where nothing is said. Errors: `invalid` (no such word).
pub fn state_of(word: &str) -> Result<SwitchState, Fault> {
    match SwitchState::parse(word) {
        None if word.is_empty() => Ok(SwitchState::Keep),
        None => Err(Fault::unknown_word("state", word, &SwitchState::words())),
        Some(state) => Ok(state),
    }
}
