//! The order of one signal's frames: which `seq` comes next, what was answered within the window, who may write.
//! Enters: a frame's `seq`, `lost`, `acked_seq`. Leaves: whether to consume it, answer it again, or refuse it.
//! Owns: the last answers, at most `window` of them. Must hold: no frame is consumed twice; no answer is computed twice.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::outbox::{Outbox, Outgoing};
use crate::domain::frame::Frame;
use crate::error::{Fault, Kind};
use crate::wire::v1;

/// Where a frame's answer goes.
#[derive(Debug)]
pub enum Sink {
    /// To an attached stream, as soon as it is there.
    Stream(Arc<Outbox>),
    /// To the one who waits for this frame alone (HTTP).
    Once(oneshot::Sender<Result<v1::Output, Fault>>),
}

impl Sink {
    /// Hands over a fault that concerns no `seq` of the order.
    pub fn fault(self, fault: Fault) {
        self.give(&Answer::Fault(fault), true);
    }

    /// Hands over an answer: all its messages to a stream, the first to a single caller.
    fn give(self, answer: &Answer, reply: bool) {
        match (self, answer) {
            (Sink::Stream(outbox), Answer::Outputs(_)) if !reply => outbox.put(Outgoing::Room),
            (Sink::Stream(outbox), Answer::Outputs(outputs)) => {
                for output in outputs {
                    outbox.put(Outgoing::Message(v1::down::Message::Output(output.clone())));
                }
            }
            (Sink::Stream(outbox), Answer::Fault(fault)) => {
                outbox
                    .put(Outgoing::Message(v1::down::Message::Fault(crate::wire::fault::message(fault, ""))));
            }
            (Sink::Once(caller), Answer::Outputs(outputs)) => {
                // Why ignored: the caller has left; the answer stays for the frame sent again.
                let _ = caller.send(Ok(outputs.first().cloned().unwrap_or_default()));
            }
            (Sink::Once(caller), Answer::Fault(fault)) => {
                let _ = caller.send(Err(fault.clone()));
            }
        }
    }
}

/// What a frame was answered with.
#[derive(Clone, Debug)]
pub enum Answer {
    /// One message, or several where an unfilled gap divides them.
    Outputs(Vec<v1::Output>),
    /// A fault that consumed the frame.
    Fault(Fault),
}

#[derive(Debug)]
enum Slot {
    /// Consumed, not answered yet; who waits for it, and whether each wants the outputs.
    Waiting(Vec<(Sink, bool)>),
    Answered(Answer),
}

/// What is to be done with a frame.
#[derive(Debug)]
pub enum Verdict {
    /// Its turn: consume it, then call `consumed`; the sink comes back for that.
    Take(Sink),
    /// It was dealt with here.
    Done,
}

/// The order of one signal.
#[derive(Debug)]
pub struct Order {
    next_seq: u64,
    /// Slots of `seq`s `next_seq − slots.len() .. next_seq`; a `seq` that was given up as lost has `None`.
    slots: VecDeque<Option<Slot>>,
    unanswered: usize,
    window: usize,
    /// The writer token of this signal.
    pub token: String,
    /// The attached stream, by its number, with its box.
    pub attached: Option<(u64, Arc<Outbox>)>,
}

impl Order {
    /// Nothing came yet.
    pub fn new(window: usize, token: String) -> Self {
        Self { next_seq: 0, slots: VecDeque::new(), unanswered: 0, window, token, attached: None }
    }

    /// The `seq` that must come next.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Frames consumed and not answered yet.
    pub fn unanswered(&self) -> usize {
        self.unanswered
    }

    /// Judges a frame; answers it here if it is a repetition or out of order.
    pub fn judge(&mut self, frame: &Frame, sink: Sink) -> Verdict {
        if let Some(acked) = frame.acked_seq {
            self.forget_through(acked);
        }
        let seq = frame.seq;
        if seq > self.next_seq && !frame.lost {
            let detail = format!(
                "signal {}: frame {seq} came, frame {} has not; send it, or say `lost`",
                frame.signal, self.next_seq
            );
            self.refuse(frame, sink, Fault::new(Kind::ExpectedSeq, detail));
            return Verdict::Done;
        }
        if seq >= self.next_seq {
            return Verdict::Take(sink);
        }
        let age = self.next_seq - seq;
        let slot = (age as usize <= self.slots.len())
            .then(|| self.slots.len() - age as usize)
            .and_then(|at| self.slots[at].as_mut());
        match slot {
            Some(Slot::Waiting(sinks)) => sinks.push((sink, frame.reply)),
            Some(Slot::Answered(answer)) => sink.give(answer, frame.reply),
            None => {
                let detail = format!(
                    "signal {}: frame {seq} was stepped and its answer is no longer kept (next is {})",
                    frame.signal, self.next_seq
                );
                self.refuse(frame, sink, Fault::new(Kind::AlreadyStepped, detail));
            }
        }
        Verdict::Done
    }

    /// Answers a frame with a fault that consumed nothing.
    pub fn refuse(&self, frame: &Frame, sink: Sink, fault: Fault) {
        let fault = fault.about(frame.signal.as_str(), frame.seq).expecting(self.next_seq);
        sink.give(&Answer::Fault(fault), true);
    }

    /// The frame was consumed; its answer will come.
    pub fn consumed(&mut self, frame: &Frame, sink: Sink) {
        let given_up = frame.seq - self.next_seq;
        for _ in 0..given_up.min(self.window as u64) {
            self.slots.push_back(None);
        }
        self.slots.push_back(Some(Slot::Waiting(vec![(sink, frame.reply)])));
        self.next_seq = frame.seq + 1;
        self.unanswered += 1;
        while self.slots.len() > self.window && !matches!(self.slots.front(), Some(Some(Slot::Waiting(_)))) {
            self.slots.pop_front();
        }
    }

    /// The answer of `seq`: to all who wait for it, and kept within the window.
    pub fn answer(&mut self, seq: u64, answer: Answer) {
        let age = self.next_seq.saturating_sub(seq) as usize;
        let Some(slot) = self.slots.len().checked_sub(age).and_then(|at| self.slots[at].as_mut()) else {
            return;
        };
        let waiting = std::mem::replace(slot, Slot::Answered(answer));
        if let (Slot::Waiting(sinks), Slot::Answered(answer)) = (waiting, &*slot) {
            self.unanswered -= 1;
            for (sink, reply) in sinks {
                sink.give(answer, reply);
            }
        }
    }

    /// The rig has all answers up to `acked`.
    fn forget_through(&mut self, acked: u64) {
        let kept = self.next_seq.saturating_sub(acked.saturating_add(1)) as usize;
        while self.slots.len() > kept && !matches!(self.slots.front(), Some(Some(Slot::Waiting(_)))) {
            self.slots.pop_front();
        }
    }
}
