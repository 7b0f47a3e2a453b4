//! Bins through the pipeline, one at a time: whoever finds none in flight starts the next, and the thread that finishes
//! one goes on from there, so that a session is driven by its own data and never by a task of its own.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::core::{Core, InFlight, Work};
use super::live::Session;
use super::part::OpenPart;
use crate::batch::{Onward, Owner, Ran, Row, RowFault};
use crate::domain::output::{EventKind, Flags, Notice};
use crate::error::Kind;
use crate::metrics::Outcome;
use crate::pipeline::journey::Next;
use crate::pipeline::understudy::Understudy;
use crate::readout::Column;
use crate::recorder::Record;
use crate::signal::step::Bin;

/// Due time of a bin whose session asks for none, in bins: enough to keep the order, never a promise.
const DUE_BINS: u32 = 2;

impl Session {
    /// Starts the next bin, if none is in flight and one waits; then lets go of the lock and runs it, here if it may.
    pub(super) fn set_out(self: &Arc<Self>, mut core: parking_lot::MutexGuard<'_, Core>) {
        if core.in_flight.is_some() {
            return;
        }
        let onward = self.advance(&mut core);
        let beside = std::mem::take(&mut core.beside);
        drop(core);
        if let Some(Onward { lane, row }) = onward {
            lane.submit(row, Arc::clone(self) as Arc<dyn Owner>, true);
        }
        submit(beside);
    }

    /// Does the work at the head until a row must be run.
    fn advance(&self, core: &mut Core) -> Option<Onward> {
        while let Some(work) = core.work.pop_front() {
            match work {
                Work::Bin(bin) if self.is_held_up(core, bin.k, core.received()) => {
                    core.work.push_front(Work::Bin(bin));
                    break;
                }
                Work::Bin(bin) => {
                    if let Some(onward) = self.begin(core, *bin) {
                        return Some(onward);
                    }
                }
                Work::Skipped { to, bins } => {
                    core.journey.break_windows();
                    core.warmed().for_each(|understudy| understudy.break_window());
                    core.skipped += bins;
                    self.meter.bins(Outcome::Skipped, bins);
                    self.note(core, Record::Skipped { from_bin: to - bins, to_bin: to });
                }
                Work::Act(act) => self.record_act(core, act),
                Work::End => {
                    if let Some(end) = core.ends.pop_front() {
                        self.answer(core, end);
                    }
                }
            }
        }
        self.stirred.notify_waiters();
        None
    }

    fn begin(&self, core: &mut Core, bin: Bin) -> Option<Onward> {
        let (received, behind) = core.take_bin();
        let mut flags = bin.flags | self.take_over(core, bin.k, received);
        if std::mem::take(&mut core.reset_due) || bin.reset.is_some() {
            core.journey.reset();
            core.warmed().for_each(|understudy| understudy.reset());
            flags |= Flags::RESET;
        }
        if bin.epoch {
            core.journey.break_windows();
            core.warmed().for_each(|understudy| understudy.break_window());
        }
        flags |= self.watch(core, &bin, received.unix_ns);
        if behind {
            flags |= Flags::STALE;
        }
        let due = received.instant + self.deadline.unwrap_or(self.width * DUE_BINS);
        let next = core.journey.begin(&bin.inputs, due);
        let shown = core.warmed().next().is_some().then(|| (bin.inputs.into(), due));
        core.in_flight = Some(InFlight { k: bin.k, flags, shown });
        match next {
            Next::Stage(onward) => Some(onward),
            Next::Done | Next::Stopped => {
                self.end_bin(core);
                None
            }
        }
    }

    /// The bin at hand has passed every stage: read out, commit, on to the next.
    fn end_bin(&self, core: &mut Core) {
        let Some(InFlight { k, mut flags, shown }) = core.in_flight.take() else { return };
        let fault = core.journey.fault().map(|(stage, reason)| (stage, reason.to_owned()));
        if fault.is_some() {
            flags |= Flags::OUTPUT_INVALID;
        }
        if core.journey.is_warming_up() {
            flags |= Flags::WARMING_UP;
        }
        let skipped = std::mem::take(&mut core.skipped);
        if skipped > 0 || !core.parts.last().is_some_and(|part| part.goes_on_with(k)) {
            let columns = self.outputs.iter().zip(&self.kept).map(|(spec, kept)| {
                (*kept || self.fanout.is_chosen(spec.number)).then(|| Column::new(spec, 1))
            });
            core.parts.push(OpenPart::new(skipped, k, columns.collect()));
        }
        let part = core.parts.last_mut().expect("a part was just pushed");
        let begun = Instant::now();
        core.journey.read_out(&mut part.columns);
        let read_out = begun.elapsed();
        self.meter.read_out(read_out);
        part.flags.push(flags.0);
        if let Some((inputs, due)) = shown {
            self.show(core, k, &inputs, due);
        }
        match fault {
            None => {
                self.watch_latents(core);
                core.journey.commit();
                // A bin in which nothing ran, between two windows, says nothing for or against the model.
                if core.journey.gave_something() {
                    core.invalid_in_row = 0;
                }
            }
            Some((_, reason)) => self.invalid(core, k, &reason),
        }
        let times = core.journey.times;
        if let Some(end) = core.ends.front_mut() {
            end.queued += times.queued;
            end.compute += times.compute;
            if let Some(trace) = &mut end.trace {
                trace.read_out(k, begun, read_out);
            }
        }
        core.tally.bins += 1;
        core.tally.last_bin = Some(k);
        let outcome = if flags.has(Flags::OUTPUT_INVALID) {
            Outcome::OutputInvalid
        } else if flags.has(Flags::GAP_FILLED) {
            Outcome::GapFilled
        } else {
            Outcome::Answered
        };
        self.meter.bins(outcome, 1);
    }

    fn invalid(&self, core: &mut Core, k: u64, reason: &str) {
        core.invalid_in_row += 1;
        let t_ns = core.received().unix_ns;
        let notice = |kind, bin, count, detail| Notice {
            kind,
            signal: None,
            from_bin: Some(bin),
            to_bin: Some(bin + 1),
            count,
            detail,
            t_ns,
        };
        self.tell(core, notice(EventKind::OutputInvalid, k, 1, reason.to_owned()));
        if core.invalid_in_row >= self.invalid_limit {
            core.invalid_in_row = 0;
            core.reset_due = true;
            let detail = format!("{} invalid bins in a row; the state starts anew", self.invalid_limit);
            self.tell(core, notice(EventKind::Reset, k + 1, 1, detail));
        }
    }
}

impl Owner for Session {
    fn finished(self: Arc<Self>, row: Box<Row>, outcome: Result<Ran, RowFault>) -> Option<Onward> {
        self.unbroken(|| self.passed(row, outcome)).flatten()
    }

    fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }
}

impl Session {
    /// Stamps a run, if its bin is traced.
    fn trace_run(&self, core: &mut Core, ran: &Ran) {
        let Core { ends, in_flight, journey, .. } = core;
        let trace = ends.front_mut().and_then(|end| end.trace.as_deref_mut());
        if let (Some(trace), Some(bin)) = (trace, in_flight) {
            let version = &journey.stage().version;
            let times = (ran.queued, ran.compute);
            trace.ran(bin.k, (&version.model, version.version), ran.started, times, ran.rows);
        }
    }

    /// A stage's row came back: on to the next stage, or the next bin.
    fn passed(&self, row: Box<Row>, outcome: Result<Ran, RowFault>) -> Option<Onward> {
        let mut core = self.core.lock();
        if let Ok(ran) = &outcome {
            self.trace_run(&mut core, ran);
        }
        let onward = match core.journey.arrived(row, outcome) {
            Next::Stage(onward) => Some(onward),
            Next::Done => {
                self.end_bin(&mut core);
                self.advance(&mut core)
            }
            Next::Stopped => {
                // The pool is gone: what is still to be stepped is never answered as if it had been.
                self.abandon(&mut core, Kind::Unavailable, "the server is stopping");
                self.stirred.notify_waiters();
                None
            }
        };
        let beside = std::mem::take(&mut core.beside);
        drop(core);
        submit(beside);
        onward
    }
}

/// Submits rows of versions that are warmed: never to be run right here, where somebody waits.
fn submit(beside: Vec<(Arc<Understudy>, Onward)>) {
    for (understudy, Onward { lane, row }) in beside {
        lane.submit(row, understudy, false);
    }
}
