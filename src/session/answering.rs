//! Answers out: what a frame has closed becomes a record first, then messages.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::core::{Awaiting, Cause, Core, Due, End};
use super::fanout::News;
use super::live::Session;
use super::order::Answer;
use super::outbox::Outgoing;
use super::part::{OpenPart, Part};
use crate::domain::ids::SignalName;
use crate::domain::output::{EventKind, Flags, Notice};
use crate::domain::settings::Ack;
use crate::domain::time::Stamp;
use crate::recorder::{OutputColumn, Record, Ticket};
use crate::signal::act::Act;
use crate::wire::v1;

/// The notice about a frame that closed no bin and whose data the recorder had no room for.
fn frame_not_recorded(signal: &SignalName, cause: &Cause, now_ns: i64) -> Notice {
    Notice {
        kind: EventKind::NotRecorded,
        signal: Some(signal.clone()),
        from_bin: Some(cause.bins_until),
        to_bin: Some(cause.bins_until),
        count: 1,
        detail: format!("frame {}: the disk is behind; its data are not in the run", cause.seq),
        t_ns: now_ns,
    }
}

impl Session {
    /// Everything that this frame closed has been stepped: record it, answer it.
    pub(super) fn answer(&self, core: &mut Core, end: End) {
        let mut parts: Vec<Part> = std::mem::take(&mut core.parts).into_iter().map(OpenPart::seal).collect();
        let now = Instant::now();
        let lag = now.duration_since(end.received.instant);
        let lag_us = lag.as_secs_f64() * 1e6;
        let now_ns = end.received.unix_ns.saturating_add(i64::try_from(lag.as_nanos()).unwrap_or(i64::MAX));
        let bins: u64 = parts.iter().map(Part::n).sum();
        if bins > 0 {
            self.judge(core, &mut parts, end.cause.is_some().then_some(lag), now_ns);
        }
        let ticket = self.record(core, &end, &mut parts, now_ns);
        let lag = v1::Lag {
            queue: end.queued.as_secs_f64() * 1e6,
            compute: end.compute.as_secs_f64() * 1e6,
            total: lag_us,
        };
        let trace = end.trace;
        let Some(cause) = end.cause else {
            let news = self.news(core, &parts, None, lag, now_ns);
            self.push(core, ticket, parts, Stamp { instant: now, unix_ns: now_ns });
            return self.publish(news);
        };
        if parts.is_empty() && cause.fault.is_none() {
            parts.push(Part::empty(std::mem::take(&mut core.skipped), cause.bins_until));
        }
        let news = self.news(core, &parts, Some(&cause), lag, now_ns);
        if !core.held.is_empty() {
            // Bins that closed without an answer go first.
            parts = Part::join(core.held.drain(..).chain(parts));
        }
        let answer = match cause.fault {
            Some(fault) => {
                core.held = parts;
                Answer::Fault(fault)
            }
            None => {
                if cause.once && parts.len() > 1 {
                    core.held = parts.split_off(1);
                }
                let none_wanted = if cause.reply { Vec::new() } else { vec![false; self.wanted.len()] };
                let wanted = if cause.reply { &self.wanted } else { &none_wanted };
                let outputs = parts.into_iter().map(|part| v1::Output {
                    signal: self.signals[cause.signal].name.to_string(),
                    seq: Some(cause.seq),
                    lag_us: Some(lag),
                    age_us: self.age_us(core, &part, now_ns),
                    durable_seq: self.durable_seq(),
                    echo: cause.echo.clone(),
                    ..part.message(wanted)
                });
                Answer::Outputs(outputs.collect())
            }
        };
        match self.ack {
            Ack::Durable if self.recorder.is_some() => {
                let due = Due::Answer { signal: cause.signal, seq: cause.seq, answer };
                core.awaiting.push_back(Awaiting { ticket, due });
                self.durable_due.notify_one();
            }
            _ => core.orders[cause.signal].answer(cause.seq, answer),
        }
        // After the rig, which comes first.
        self.publish(news);
        if bins > 0 {
            let replied = now.elapsed();
            self.meter.replied(replied);
            if let Some(mut trace) = trace {
                trace.replied(now, replied);
                self.tracer.stepped(trace);
            }
        }
    }

    /// Bins that are about to be answered, for live subscribers; nothing where there are none.
    fn news(
        &self,
        core: &Core,
        parts: &[Part],
        cause: Option<&Cause>,
        lag: v1::Lag,
        now_ns: i64,
    ) -> Option<News> {
        if !self.fanout.is_heard() {
            return None;
        }
        let parts = parts.iter().filter(|part| part.n() > 0 || part.skipped_bins > 0);
        let parts: Vec<_> = parts.map(|part| (part.clone(), self.age_us(core, part, now_ns))).collect();
        let head = v1::Output {
            signal: cause.map(|cause| self.signals[cause.signal].name.to_string()).unwrap_or_default(),
            seq: cause.map(|cause| cause.seq),
            lag_us: Some(lag),
            echo: cause.map(|cause| cause.echo.clone()).unwrap_or_default(),
            ..Default::default()
        };
        (!parts.is_empty()).then_some(News::Bins { head, parts })
    }

    fn publish(&self, news: Option<News>) {
        if let Some(news) = news {
            self.fanout.publish(news);
        }
    }

    /// Measures and judges stepped bins: by their age once the session's clock was probed, before that by the lag of the
    /// frame that closed them, where one did.
    fn judge(&self, core: &mut Core, parts: &mut [Part], lag: Option<Duration>, now_ns: i64) {
        if let Some(lag) = lag {
            core.lag.add(lag.as_secs_f64() * 1e6);
            self.meter.step(lag);
        }
        let missed = self.judge_ages(core, parts, now_ns).unwrap_or_else(|| {
            if self.deadline.zip(lag).is_none_or(|(deadline, lag)| lag <= deadline) {
                return 0;
            }
            parts.iter_mut().for_each(|part| part.flag_all(Flags::DEADLINE_MISSED));
            parts.iter().map(Part::n).sum()
        });
        core.tally.deadline_missed += missed;
        self.meter.deadline_missed(missed);
        self.tell_uncertainty(core, parts.first().map_or(0, |part| part.first_bin), now_ns);
    }

    /// Bins that closed without a frame: to the attached streams that read, or kept for the next answer.
    pub(super) fn push(&self, core: &mut Core, ticket: Option<Ticket>, parts: Vec<Part>, now: Stamp) {
        self.end_overrun(core, now);
        if core.outboxes().next().is_none() {
            core.held.extend(parts);
            return;
        }
        let message = |part: Part| {
            let age_us = self.age_us(core, &part, now.unix_ns);
            v1::Output { age_us, ..part.message(&self.wanted) }
        };
        let pushed = parts.into_iter().map(message).collect();
        if self.ack == Ack::Durable && self.recorder.is_some() {
            core.awaiting.push_back(Awaiting { ticket, due: Due::Push(pushed) });
            self.durable_due.notify_one();
        } else {
            self.give(core, Due::Push(pushed));
        }
    }

    /// Hands over what is due.
    fn give(&self, core: &mut Core, due: Due) {
        match due {
            Due::Answer { signal, seq, answer } => core.orders[signal].answer(seq, answer),
            Due::Push(outputs) => {
                for (_, outbox) in core.outboxes() {
                    for output in &outputs {
                        let output = v1::Output { durable_seq: self.durable_seq(), ..output.clone() };
                        outbox.put(Outgoing::Message(v1::down::Message::Output(output)));
                    }
                }
            }
        }
    }

    /// Hands the answer's bins and its frame to the recorder; flags the bins that it has no room for.
    pub(super) fn record(
        &self,
        core: &mut Core,
        end: &End,
        parts: &mut [Part],
        now_ns: i64,
    ) -> Option<Ticket> {
        let recorder = self.recorder.as_ref()?;
        let mut records: Vec<Record> = Vec::with_capacity(parts.len() + 2);
        self.note_waiting(core);
        let t0 = core.standing.grid().filter(|_| !core.t0_told);
        records.extend(t0.map(|grid| Record::T0 { t0_ns: grid.t0_ns }));
        records.extend(parts.iter().map(|part| self.bins_record(part)));
        if let Some(cause) = &end.cause {
            records.push(Record::Frame {
                signal: cause.signal,
                seq: cause.seq,
                arrived_ns: end.received.unix_ns,
                bytes: cause.data.clone(),
                bins_until: cause.bins_until,
            });
        }
        let Some(room) = recorder.reserve(records.iter().map(Record::size_bytes).sum()) else {
            for part in &mut *parts {
                part.flag_all(Flags::NOT_RECORDED);
                recorder.not_recorded(part.first_bin, part.first_bin + part.n());
            }
            if parts.is_empty()
                && let Some(cause) = end.cause.as_ref().filter(|cause| !cause.data.is_empty())
            {
                self.tell(core, frame_not_recorded(&self.signals[cause.signal].name, cause, now_ns));
            }
            return None;
        };
        core.t0_told |= t0.is_some();
        let ticket = recorder.put_all(room, records);
        core.last_ticket = Some(ticket);
        Some(ticket)
    }

    /// Records what replay must do at this place; if there is no room, the run says so, as of a frame's data.
    pub(super) fn record_act(&self, core: &mut Core, act: Act) {
        let Some(recorder) = &self.recorder else { return };
        self.note_waiting(core);
        let record = Record::Act(act);
        match recorder.reserve(record.size_bytes()) {
            Some(room) => {
                core.last_ticket = Some(recorder.put(room, record));
            }
            None => {
                let bin = Some(core.standing.next_bin());
                let detail = "the disk is behind: what replay needs is not in the run".into();
                let (kind, t_ns) = (EventKind::NotRecorded, core.received().unix_ns);
                let notice =
                    Notice { kind, signal: None, from_bin: bin, to_bin: bin, count: 1, detail, t_ns };
                self.tell(core, notice);
            }
        }
    }

    pub(super) fn bins_record(&self, part: &Part) -> Record {
        let recorded = part.values.iter().filter(|values| self.recorded[values.number as usize]);
        Record::Bins {
            first_bin: part.first_bin,
            n: part.n() as u32,
            flags: part.flags.clone(),
            outputs: recorded
                .map(|values| OutputColumn {
                    number: values.number,
                    dtype: values.dtype,
                    bytes: values.raw.clone(),
                })
                .collect(),
        }
    }

    /// By signal: up to which frame results survive a crash.
    pub fn durable_seq(&self) -> std::collections::HashMap<String, u64> {
        let Some(recorder) = &self.recorder else { return Default::default() };
        let durable = |at: usize| recorder.durable_seq(at);
        let by_signal = self.signals.iter().enumerate();
        by_signal.filter_map(|(at, spec)| Some((spec.name.to_string(), durable(at)?))).collect()
    }

    /// Gives each answer once the journal holds it, until the session is gone; runs for as long as a session with
    /// `ack = "durable"` is open.
    pub async fn give_durable(self: Arc<Self>) {
        let Some(recorder) = &self.recorder else { return };
        loop {
            let due = self.durable_due.notified();
            let next = self.core.lock().awaiting.front().map(|waiting| waiting.ticket);
            let Some(ticket) = next else {
                if self.gone.load(Ordering::Acquire) {
                    return;
                }
                due.await;
                continue;
            };
            if let Some(ticket) = ticket {
                // A run whose recording stopped is answered all the same: `durable_seq` tells, and an event did.
                let _ = recorder.durable(ticket).await;
            }
            let mut core = self.core.lock();
            let Some(Awaiting { mut due, .. }) = core.awaiting.pop_front() else { continue };
            if let Due::Answer { answer: Answer::Outputs(outputs), .. } = &mut due {
                let durable_seq = self.durable_seq();
                outputs.iter_mut().for_each(|output| output.durable_seq.clone_from(&durable_seq));
            }
            self.give(&mut core, due);
            self.stirred.notify_waiters();
        }
    }
}
