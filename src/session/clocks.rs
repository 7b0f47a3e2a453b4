//! The session's clocks: probes in, relations to the aligner and the run, ages of bins out.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::attach::Attachment;
use super::binning::Binning;
use super::core::Core;
use super::live::Session;
use super::outbox::Outgoing;
use super::part::Part;
use crate::domain::output::{EventKind, Flags, Notice};
use crate::domain::time::Stamp;
use crate::error::{Fault, clip};
use crate::recorder::{Record, Since};
use crate::signal::act::Act;
use crate::signal::clock::Relation;
use crate::signal::exchange::{ClockStep, Exchange, Heard, Probe};
use crate::wire::{self, v1};

/// A probe that came within this of where the relation puts it is answered with the offset of its own instant.
const NEAR_NS: u128 = 1_000_000_000;
/// What the run is told of an uncertainty has so much to spare, so that it is not told each time.
const TOLD_SPARE: f64 = 1.25;
/// An uncertainty that has become less is told after it was less for so long; one that has become more within so long of
/// the last time is told with as much again to spare. So a road whose delays come and go is told of a few times, not of
/// each.
const TOLD_EVERY_NS: i64 = 10_000_000_000;

/// Probes of one clock of which it is known what they were answered with: only those are believed when they come back.
const ANSWERED: usize = 64;

/// The exchange with each clock of a session that was probed.
#[derive(Default)]
pub(super) struct Exchanges {
    by_clock: BTreeMap<String, Kept>,
    /// The first bin of the last setting that was told, so that settings stand in order.
    told_from: u64,
}

#[derive(Default)]
struct Kept {
    exchange: Exchange,
    /// The newest probes that were answered, oldest first.
    answered: VecDeque<Answered>,
    told: Option<Uncertainty>,
}

/// A probe as it was answered.
struct Answered {
    t1_ns: i64,
    t2_ns: i64,
    t3_ns: i64,
    /// It came back as `last`: it counts once.
    is_taken: bool,
}

/// What the run says of a clock's uncertainty.
struct Uncertainty {
    told_us: f64,
    /// The largest since `since_ns` (µs).
    largest_us: f64,
    since_ns: i64,
}

impl Uncertainty {
    /// What must be told of an uncertainty at a server time, after what was told.
    fn newly_told(told: &mut Option<Self>, uncertainty_us: f64, now_ns: i64) -> Option<f64> {
        let mut told_us = uncertainty_us * TOLD_SPARE;
        if let Some(before) = told {
            let is_over = now_ns.saturating_sub(before.since_ns) > TOLD_EVERY_NS;
            before.largest_us = before.largest_us.max(uncertainty_us);
            let is_loose = is_over && before.largest_us * TOLD_SPARE < before.told_us / 2.0;
            if uncertainty_us <= before.told_us && !is_loose {
                if is_over {
                    (before.largest_us, before.since_ns) = (uncertainty_us, now_ns);
                }
                return None;
            }
            if is_loose {
                told_us = before.largest_us * TOLD_SPARE;
            } else if !is_over {
                told_us = told_us.max(before.told_us * 2.0);
            }
        }
        *told = Some(Self { told_us, largest_us: uncertainty_us, since_ns: now_ns });
        Some(told_us)
    }
}

impl Kept {
    fn note_answered(&mut self, reply: &v1::ProbeReply) {
        if self.answered.len() == ANSWERED {
            self.answered.pop_front();
        }
        let v1::ProbeReply { t1_ns, t2_ns, t3_ns, .. } = *reply;
        self.answered.push_back(Answered { t1_ns, t2_ns, t3_ns, is_taken: false });
    }

    /// Whether a finished probe is one that was answered and did not come back yet.
    /// Errors: `invalid`, for stamps that were never answered.
    fn take_answered(&mut self, clock: &str, last: &v1::ProbeStamps) -> Result<bool, Fault> {
        let v1::ProbeStamps { t1_ns, t2_ns, t3_ns, .. } = *last;
        let of_ours =
            |probe: &&mut Answered| (probe.t1_ns, probe.t2_ns, probe.t3_ns) == (t1_ns, t2_ns, t3_ns);
        if let Some(probe) = self.answered.iter_mut().rev().find(of_ours) {
            return Ok(!std::mem::replace(&mut probe.is_taken, true));
        }
        let stamps = |t1: i64, t2: i64, t3: i64| format!("t1_ns = {t1}, t2_ns = {t2}, t3_ns = {t3}");
        let expected = match self.answered.iter().rev().find(|probe| probe.t1_ns == t1_ns) {
            Some(probe) => format!("{}, as that probe was answered", stamps(t1_ns, probe.t2_ns, probe.t3_ns)),
            None => format!(
                "t1_ns, t2_ns and t3_ns of one of the newest {ANSWERED} answers to probes of clock `{}`, or no last",
                clip(clock)
            ),
        };
        Err(Fault::mismatch("last", expected, stamps(t1_ns, t2_ns, t3_ns)))
    }

    /// How far the clock may be from the truth at a server time (µs), if that must be told anew.
    fn newly_told(&mut self, now_ns: i64) -> Option<f64> {
        let (_, uncertainty_us) = now(self.exchange.relation()?, now_ns);
        Uncertainty::newly_told(&mut self.told, uncertainty_us, now_ns)
    }
}

impl Exchanges {
    /// How the session's clock stands at a server time, and how often its clocks were set.
    pub(super) fn state(&self, session_clock: &str, now_ns: i64) -> v1::ClockState {
        let steps = self.by_clock.values().map(|kept| kept.exchange.steps()).sum();
        let relation = self.by_clock.get(session_clock).and_then(|kept| kept.exchange.relation());
        // Before the first exchange anything may be true.
        let (offset_ns, uncertainty_us) =
            relation.map_or((0, f64::INFINITY), |relation| now(relation, now_ns));
        v1::ClockState {
            offset_ns: Some(offset_ns),
            drift_ppm: Some(relation.map_or(0.0, |relation| relation.drift_ppm)),
            uncertainty_us: Some(uncertainty_us),
            steps,
        }
    }
}

/// Offset (ns) and uncertainty (µs) of a relation at a server time.
fn now(relation: &Relation, now_ns: i64) -> (i64, f64) {
    at(relation, relation.to_device(now_ns.into()))
}

/// Offset (ns) and uncertainty (µs) of a relation at a device time.
fn at(relation: &Relation, device_ns: i128) -> (i64, f64) {
    let offset_ns = relation.offset_at(device_ns).clamp(i64::MIN.into(), i64::MAX.into()) as i64;
    (offset_ns, relation.uncertainty_at(device_ns) as f64 / 1e3)
}

impl Session {
    /// Takes a probe of a device's clock, and what its last one has found; the reply is stamped as it goes.
    /// `received` must not lie before the probe came.
    /// Errors: `not_found` (no signal is on that clock), `invalid` (a last one that was never answered so), `unavailable`.
    pub fn probe(self: &Arc<Self>, ask: &v1::ProbeRequest, received: Stamp) -> Result<v1::ProbeReply, Fault> {
        let mut reply = self.take_probe(ask, received)?;
        self.stamp(&mut reply);
        Ok(reply)
    }

    /// As `probe`, its `t3_ns` still to be stamped.
    fn take_probe(
        self: &Arc<Self>,
        ask: &v1::ProbeRequest,
        received: Stamp,
    ) -> Result<v1::ProbeReply, Fault> {
        let clock = self.clock(&ask.clock)?;
        // Whoever has nothing to tell of an earlier one waits for no frame's preprocessing.
        let told = ask.last.as_ref().map(|last| (last, self.binning.lock()));
        let mut core = self.core.lock();
        self.still_open(&core)?;
        core.last_sign = received;
        if let Some((last, mut binning)) = told {
            self.hear(&mut binning, &mut core, clock, last, received)?;
        }
        let relation = core.exchanges.by_clock.get(clock).and_then(|kept| kept.exchange.relation()).copied();
        self.set_out(core);
        let found = relation.map(|relation| {
            let t1_ns = i128::from(ask.t1_ns);
            let off = (relation.to_server(t1_ns) - i128::from(received.unix_ns)).unsigned_abs();
            // A device that answers wrongly now is told what held when it was last believed.
            let (offset_ns, uncertainty_us) =
                at(&relation, if off < NEAR_NS { t1_ns } else { relation.at_ns.into() });
            (offset_ns, relation.drift_ppm, uncertainty_us)
        });
        Ok(v1::ProbeReply {
            clock: clock.into(),
            t1_ns: ask.t1_ns,
            t2_ns: received.unix_ns,
            t3_ns: received.unix_ns,
            offset_ns: found.map(|found| found.0),
            drift_ppm: found.map(|found| found.1),
            uncertainty_us: found.map(|found| found.2),
        })
    }

    /// Stamps the reply to a probe as it is sent, and remembers what it says.
    pub(super) fn stamp(&self, reply: &mut v1::ProbeReply) {
        let mut core = self.core.lock();
        // Behind the lock: a wait for it is none of the road's.
        reply.t3_ns = Stamp::now().unix_ns.max(reply.t2_ns);
        core.exchanges.by_clock.entry(reply.clock.clone()).or_default().note_answered(reply);
    }

    /// A clock of the session by its name.
    fn clock<'a>(&'a self, name: &str) -> Result<&'a str, Fault> {
        let clocks = || self.signals.iter().map(|spec| spec.clock.as_str());
        clocks().find(|clock| *clock == name).ok_or_else(|| {
            let mut known: Vec<&str> = Vec::new();
            clocks().for_each(|clock| {
                if !known.contains(&clock) {
                    known.push(clock);
                }
            });
            Fault::not_found("clock", name, known)
        })
    }

    /// What a finished probe has found. Errors: `invalid`, for one that was never answered so.
    fn hear(
        self: &Arc<Self>,
        binning: &mut Binning,
        core: &mut Core,
        clock: &str,
        last: &v1::ProbeStamps,
        received: Stamp,
    ) -> Result<(), Fault> {
        let v1::ProbeStamps { t1_ns, t2_ns, t3_ns, t4_ns } = *last;
        let kept = core.exchanges.by_clock.entry(clock.into()).or_default();
        if !kept.take_answered(clock, last)? {
            return Ok(());
        }
        let heard = kept.exchange.take(Probe { t1_ns, t2_ns, t3_ns, t4_ns });
        let stepped_ns = match heard {
            Heard::Nothing => return Ok(()),
            Heard::Relation => 0,
            Heard::Step(step) => {
                kept.told = None;
                step.by_ns
            }
        };
        let Some(relation) = kept.exchange.relation().copied() else { return Ok(()) };
        self.act(binning, core, Act::Relate { clock: clock.into(), relation, stepped_ns }, received)?;
        if let Heard::Step(step) = heard {
            self.tell_step(core, clock, step, received);
        }
        self.tell_uncertainty(core, core.standing.next_bin(), received.unix_ns);
        Ok(())
    }

    fn tell_step(&self, core: &mut Core, clock: &str, step: ClockStep, received: Stamp) {
        let detail = format!(
            "clock `{clock}` was set by {} ms: t_server - t_device was {} ns, is {} ns",
            step.by_ns as f64 / 1e6,
            step.old_offset_ns,
            step.new_offset_ns
        );
        let signal = self.signals.iter().find(|spec| spec.clock == clock).map(|spec| spec.name.clone());
        let from_bin = Some(core.standing.next_bin());
        let (kind, t_ns) = (EventKind::ClockStep, received.unix_ns);
        self.tell(core, Notice { kind, signal, from_bin, to_bin: None, count: 1, detail, t_ns });
    }

    /// Tells the run how far its clocks may be from the truth from a bin on, where what it was told no longer holds.
    pub(super) fn tell_uncertainty(&self, core: &mut Core, from_bin: u64, now_ns: i64) {
        if self.recorder.is_none() {
            return;
        }
        let Exchanges { by_clock, told_from } = &mut core.exchanges;
        *told_from = from_bin.max(*told_from);
        let mut settings = Vec::new();
        for (clock, kept) in by_clock {
            if let Some(told_us) = kept.newly_told(now_ns) {
                let name = format!("clock.{clock}.uncertainty_us");
                settings.push(v1::Setting { from_bin: *told_from, name, value: told_us.ceil().to_string() });
            }
        }
        for setting in settings {
            let body = String::from_utf8(wire::json::write(&setting)).unwrap_or_default();
            self.note(core, Record::Setting(Since { from_bin: setting.from_bin, body }));
        }
    }

    /// From the end of a bin on the device to a server time, with what the device held back; and how far that may be from
    /// the truth. `None` before the session's clock was probed.
    fn age(&self, core: &Core, bin: u64, now_ns: i64) -> Option<(Duration, Duration)> {
        let end_ns = core.standing.grid()?.end_ns(bin);
        let (end_ns, uncertainty_ns) = core.standing.clock().server_at(end_ns.into())?;
        // A little less than nothing is the relation's error.
        let since_ns = u64::try_from((i128::from(now_ns) - end_ns).max(0)).unwrap_or(u64::MAX);
        let age = Duration::from_nanos(since_ns).saturating_add(self.source_delay);
        Some((age, Duration::from_nanos(uncertainty_ns)))
    }

    /// The age of an answer's newest bin at a server time (µs).
    pub(super) fn age_us(&self, core: &Core, part: &Part, now_ns: i64) -> Option<f64> {
        let newest = part.first_bin + part.n().checked_sub(1)?;
        self.age(core, newest, now_ns).map(|(age, _)| age.as_secs_f64() * 1e6)
    }

    /// Measures the ages of bins, and flags those over the deadline: a deadline is kept only if age and uncertainty
    /// together are under it. Answers how many are over; `None` before the session's clock was probed.
    pub(super) fn judge_ages(&self, core: &Core, parts: &mut [Part], now_ns: i64) -> Option<u64> {
        if !core.standing.clock().is_known() {
            return None;
        }
        let mut missed = 0;
        for part in parts {
            for (bin, flags) in (part.first_bin..).zip(&mut part.flags) {
                let (age, uncertainty) = self.age(core, bin, now_ns)?;
                self.meter.age(age);
                if self.deadline.is_some_and(|deadline| age.saturating_add(uncertainty) > deadline) {
                    *flags |= Flags::DEADLINE_MISSED.0;
                    missed += 1;
                }
            }
        }
        Some(missed)
    }
}

impl Attachment {
    /// Takes a probe; the reply goes down in its turn, its `t3_ns` stamped as it is taken to be sent (`next`).
    pub fn probe(&self, ask: &v1::ProbeRequest, received: Stamp) {
        match self.session.take_probe(ask, received) {
            Ok(reply) => self.outbox.put(Outgoing::Message(v1::down::Message::Probe(reply))),
            Err(fault) => self.refuse(fault),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told of uncertainties (µs), one every 100 ms, with how many times that was.
    fn told(uncertainties_us: impl Iterator<Item = f64>) -> (f64, usize) {
        let (mut told, mut last_us, mut times) = (None, 0.0, 0);
        for (k, uncertainty_us) in uncertainties_us.enumerate() {
            if let Some(us) = Uncertainty::newly_told(&mut told, uncertainty_us, k as i64 * 100_000_000) {
                (last_us, times) = (us, times + 1);
            }
            assert!(uncertainty_us <= last_us, "{k}: {uncertainty_us} µs, but {last_us} µs are told");
        }
        (last_us, times)
    }

    #[test]
    fn what_is_told_of_an_uncertainty_always_holds_and_a_jittery_road_is_told_of_a_few_times_an_hour() {
        let hour = || 0..36_000u32;
        // Every few seconds it becomes a thousand times worse, slowly or at once, and is good again.
        let (_, times) = told(hour().map(|k| 50.0 * 1.15f64.powi((k % 50) as i32)));
        assert!(times <= 12, "{times}");
        let (_, times) = told(hour().map(|k| if k % 73 == 0 { 50_000.0 } else { 50.0 }));
        assert!(times <= 3, "{times}");
        // Even where the pauses are longer than what is told would wait.
        let (_, times) = told(
            hour().map(|k| 50.0 * 1.15f64.powi((k % 1_000).min(50) as i32 * i32::from(k % 1_000 < 500))),
        );
        assert!(times <= 36 * 14, "{times}");
    }

    #[test]
    fn an_uncertainty_that_stays_less_is_told_anew() {
        let (last_us, times) = told((0..600).map(|k| if k < 100 { 900.0 } else { 80.0 }));
        assert_eq!((last_us, times), (100.0, 2));
    }

    #[test]
    fn of_each_clock_only_the_newest_answered_probes_are_known_and_each_counts_once() {
        let mut kept = Kept::default();
        let reply = |t1_ns| v1::ProbeReply { t1_ns, t2_ns: 2, t3_ns: 3, ..Default::default() };
        let last = |t1_ns, t3_ns| v1::ProbeStamps { t1_ns, t2_ns: 2, t3_ns, t4_ns: 9 };
        (0..=ANSWERED as i64).for_each(|t1_ns| kept.note_answered(&reply(t1_ns)));
        assert_eq!(kept.answered.len(), ANSWERED);
        assert!(kept.take_answered("amp", &last(0, 3)).is_err(), "the oldest was forgotten");
        assert!(kept.take_answered("amp", &last(1, 4)).is_err());
        assert_eq!(kept.take_answered("amp", &last(1, 3)).ok(), Some(true));
        assert_eq!(kept.take_answered("amp", &last(1, 3)).ok(), Some(false));
    }
}
