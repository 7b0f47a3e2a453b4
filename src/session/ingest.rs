//! Frames in: judged by their order, aligned into bins, left as work.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;

use super::binning::Binning;
use super::core::{Cause, Core, End, Work};
use super::fanout::News;
use super::live::Session;
use super::order::{Sink, Verdict, Writer};
use crate::domain::frame::Frame;
use crate::domain::ids::SignalName;
use crate::domain::output::Notice;
use crate::domain::time::Stamp;
use crate::domain::trace::RequestSpan;
use crate::error::{Fault, Kind};
use crate::recorder::Record;
use crate::signal::step::Step;
use crate::trace::{StepTrace, Under};
use crate::wire::{self, v1};

/// Small records that wait for room; one more, and the oldest goes.
const UNNOTED_LIMIT: usize = 256;

/// Where a step stands: within the request that brought its frame alone, or that named a trace for all that it brings. A
/// stream that named none would else be one trace without end.
fn under(request: Option<RequestSpan>, is_lone: bool) -> Under {
    match request {
        None => Under::Nothing,
        Some(request) if is_lone || request.parent.is_some() => Under::Request(request.context),
        Some(request) => Under::Stream(request.context),
    }
}

/// A frame as far as it can be read without the session's lock.
pub(super) struct Read {
    signal: usize,
    seq: u64,
    /// The token that it shows, or nothing.
    writer: String,
    frame: Result<Frame, Fault>,
    /// As it is kept, or nothing.
    data: Bytes,
    sink: Sink,
}

impl Session {
    /// Reads a frame by its signal's type; one of an unknown signal is answered here.
    pub(super) fn read(&self, mut frame: v1::Frame, sink: Sink) -> Option<Read> {
        let signal = match self.signal(&frame.signal) {
            Ok(signal) => signal,
            Err(fault) => {
                sink.fault(fault.about(&frame.signal, frame.seq));
                return None;
            }
        };
        // The token is a secret of the rig; it is not recorded.
        let (seq, writer) = (frame.seq, std::mem::take(&mut frame.writer));
        let is_kept = self.recorder.is_some() && self.keeps_data[signal];
        let data = if is_kept { Bytes::from(frame.encode_to_vec()) } else { Bytes::new() };
        let frame = wire::frame::domain(frame, &self.signals[signal]);
        Some(Read { signal, seq, writer, frame, data, sink })
    }

    /// Judges a frame and aligns it into bins; what is to be done with them is laid down in `binning`. Answers how many
    /// bins it has closed.
    pub(super) fn ingest(
        &self,
        binning: &mut Binning,
        read: Read,
        by: Writer,
        received: Stamp,
        request: Option<RequestSpan>,
    ) -> usize {
        let Read { signal, seq, writer, frame, data, sink } = read;
        let Some((frame, sink)) = self.judge_frame(signal, seq, &writer, frame, sink, by) else { return 0 };
        let once = matches!(sink, Sink::Once(_));
        let pushed = binning.aligner.push(signal, &frame, received.unix_ns, &mut binning.steps);
        let mut core = self.core.lock();
        let newest_end_ns = binning.steps.iter().rev().find_map(|step| match step {
            Step::Bin(bin) => binning.aligner.grid().map(|grid| grid.end_ns(bin.k)),
            _ => None,
        });
        let bins_left = self.take_steps(binning, &mut core);
        let fault = match pushed {
            Ok(()) => None,
            Err(refusal) if refusal.consumed() => Some(
                Fault { consumed: true, ..Fault::from(refusal) }
                    .about(frame.signal.as_str(), frame.seq)
                    .expecting(frame.seq + 1),
            ),
            Err(refusal) => {
                core.orders[signal].refuse(&frame, sink, Fault::from(refusal));
                return bins_left;
            }
        };
        core.orders[signal].consumed(&frame, sink);
        let receive = received.instant.elapsed();
        self.meter.received(receive);
        let behind = newest_end_ns.is_some_and(|end_ns| core.is_behind(end_ns, received.unix_ns, self.width));
        let is_lone = by == Writer::Caller;
        let is_asked = is_lone && request.is_some_and(|request| request.parent.is_some());
        let trace = (bins_left > 0 && core.sampler.takes(is_asked)).then(|| {
            let pipeline = core.journey.plan().name.clone();
            let of = (frame.signal.clone(), frame.seq);
            Box::new(StepTrace::new(under(request, is_lone), self.id, pipeline, of, received, receive))
        });
        drop(core);
        let bins_until = binning.aligner.next_bin();
        binning.work.push_back(Work::End);
        binning.ends.push_back(End {
            cause: Some(Cause {
                signal,
                seq: frame.seq,
                echo: frame.echo,
                reply: frame.reply,
                once,
                data,
                bins_until,
                fault,
            }),
            received,
            behind,
            bins_left,
            queued: Duration::ZERO,
            compute: Duration::ZERO,
            trace,
        });
        bins_left
    }

    /// Whether a frame is to be taken: its writer may, it can be read, it is its turn, and there is room. One that is
    /// not is answered here.
    fn judge_frame(
        &self,
        signal: usize,
        seq: u64,
        writer: &str,
        frame: Result<Frame, Fault>,
        sink: Sink,
        by: Writer,
    ) -> Option<(Frame, Sink)> {
        let name = self.signals[signal].name.as_str();
        let mut core = self.core.lock();
        core.is_fed = true;
        let allowed = core.orders[signal].may_write(by, name, writer).and_then(|()| self.still_open(&core));
        if let Err(fault) = allowed {
            sink.fault(fault.about(name, seq).expecting(core.orders[signal].next_seq()));
            return None;
        }
        let frame = match frame {
            Ok(frame) => frame,
            Err(fault) => {
                sink.fault(fault.about(name, seq).expecting(core.orders[signal].next_seq()));
                return None;
            }
        };
        let Verdict::Take(sink) = core.orders[signal].judge(&frame, sink) else { return None };
        // A stream is not read past its window; a second window is for one that took over from another.
        let most = if matches!(sink, Sink::Once(_)) { self.window } else { 2 * self.window };
        if core.orders[signal].unanswered() >= most {
            let detail =
                format!("signal {}: {} frames are unanswered, the window is full", frame.signal, self.window);
            let fault = Fault::new(Kind::Overloaded, detail).retry_after(self.width.as_secs_f64() * 1e3);
            core.orders[signal].refuse(&frame, sink, fault);
            return None;
        }
        Some((frame, sink))
    }

    /// Bins and skips to the end of what is laid down, notices to whoever listens; answers how many bins.
    pub(super) fn take_steps(&self, binning: &mut Binning, core: &mut Core) -> usize {
        let Binning { aligner, steps, work, .. } = binning;
        let mut bins = 0;
        for step in steps.drain(..) {
            match step {
                Step::Bin(bin) => {
                    bins += 1;
                    work.push_back(Work::Bin(Box::new(bin)));
                }
                Step::Skipped { from, to } => work.push_back(Work::Skipped { to, bins: to - from }),
                Step::Notice(notice) => {
                    self.meter.happened(&notice);
                    self.tell(core, notice.placed(aligner.next_bin()));
                }
            }
        }
        let counts = aligner.counts();
        self.meter.late(std::mem::replace(&mut core.metered, counts), counts);
        bins
    }

    /// A notice to the run, to every attached stream and to whoever listens.
    pub(super) fn tell(&self, core: &mut Core, notice: Notice) {
        let notice = notice.placed(core.standing.next_bin());
        self.note(core, Record::Event(notice.clone()));
        let message = v1::Notice {
            kind: notice.kind.word().into(),
            signal: notice.signal.as_ref().map(SignalName::to_string).unwrap_or_default(),
            from_bin: notice.from_bin,
            to_bin: notice.to_bin,
            count: notice.count,
            detail: notice.detail,
            t_ns: notice.t_ns,
        };
        for (_, outbox) in core.outboxes() {
            outbox.put_notice(message.clone());
        }
        if self.fanout.is_heard() {
            self.fanout.publish(News::Notice(message));
        }
    }

    /// A small record that belongs to no answer. If the recorder has no room for it now, it waits for the next chance.
    pub(super) fn note(&self, core: &mut Core, record: Record) {
        if self.recorder.is_none() || self.gone.load(Ordering::Acquire) {
            return;
        }
        if core.unnoted.len() >= UNNOTED_LIMIT {
            core.unnoted.pop_front();
            tracing::warn!(session.id = %self.id, "the disk is behind: an event is not in the run");
        }
        core.unnoted.push_back(record);
        self.note_waiting(core);
    }

    /// Records what waits, as far as there is room.
    pub(super) fn note_waiting(&self, core: &mut Core) {
        let Some(recorder) = &self.recorder else { return };
        while let Some(record) = core.unnoted.front() {
            let Some(room) = recorder.reserve(record.size_bytes()) else { return };
            if let Some(record) = core.unnoted.pop_front() {
                recorder.put(room, record);
            }
        }
    }
}
