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
    /// An answer is owed to it.
    fn expect(&self) {
        if let Sink::Stream(outbox) = self {
            outbox.expect();
        }
    }

    /// Hands over a fault that concerns no `seq` of the order.
    pub fn fault(self, fault: Fault) {
        self.give(Answer::Fault(fault), true, false);
    }

    /// Hands over an answer, one that was `owed` or not: all its messages to a stream. A single caller gets the first,
    /// since one message has no hole, and by `dropped` how many more there are: only of a frame that came by a stream
    /// and is asked for again (`cause.once`).
    fn give(self, answer: Answer, reply: bool, owed: bool) {
        match self {
            Sink::Stream(outbox) => outbox.answer(owed, |queue| match answer {
                Answer::Outputs(_) if !reply => queue.push_back(Outgoing::Room),
                Answer::Outputs(outputs) => queue.extend(
                    outputs.into_iter().map(|output| Outgoing::Message(v1::down::Message::Output(output))),
                ),
                Answer::Fault(fault) => {
                    let fault = crate::wire::fault::message(&fault, "");
                    queue.push_back(Outgoing::Message(v1::down::Message::Fault(fault)));
                }
            }),
            Sink::Once(caller) => {
                let answer = match answer {
                    Answer::Outputs(outputs) => {
                        let dropped = outputs.len().saturating_sub(1) as u64;
                        Ok(v1::Output { dropped, ..outputs.into_iter().next().unwrap_or_default() })
                    }
                    Answer::Fault(fault) => Err(fault),
                };
                // Why ignored: the caller has left; the answer stays for the frame sent again.
                let _ = caller.send(answer);
            }
        }
    }
}

/// Who brings a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// The attached stream of this number.
    Stream(u64),
    /// One who is attached to nothing (HTTP): every frame shows its token.
    Caller,
}

/// Whether two tokens are equal, in a time that does not tell where they differ.
pub(super) fn same_token(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |sum, (x, y)| sum | (x ^ y)) == 0
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
    /// Consumed frames by their `seq`, ascending; a `seq` that was given up as lost has none.
    slots: VecDeque<(u64, Slot)>,
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

    /// Whether `by` may write this signal with the token that the frame has.
    /// Errors: `invalid` (a caller without one), `conflict` (another signal's, nobody's, another stream's signal).
    pub fn may_write(&self, by: Writer, signal: &str, token: &str) -> Result<(), Fault> {
        let detail = match by {
            Writer::Stream(stream) => {
                let mine = self.attached.as_ref().is_some_and(|(attached, _)| *attached == stream);
                if mine && token.is_empty() {
                    return Ok(());
                }
                "the frame's writer token is not this signal's, or it has none and another stream writes it"
            }
            Writer::Caller if token.is_empty() => {
                let expected = "the token that open answered (a frame by HTTP needs it)";
                return Err(Fault::mismatch("writer", expected, "none"));
            }
            Writer::Caller => "that writer token is not this signal's",
        };
        if same_token(&self.token, token) {
            return Ok(());
        }
        Err(Fault::new(Kind::Conflict, format!("signal {signal}: {detail}")))
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
        match self.slot(seq) {
            Some(Slot::Waiting(sinks)) => {
                sink.expect();
                sinks.push((sink, frame.reply));
            }
            Some(Slot::Answered(answer)) => {
                let answer = answer.clone();
                sink.give(answer, frame.reply, false);
            }
            None => {
                let detail = format!(
                    "signal {}: frame {seq} was stepped or given up, and its answer is no longer kept (next is {})",
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
        sink.fault(fault);
    }

    fn slot(&mut self, seq: u64) -> Option<&mut Slot> {
        let at = self.slots.binary_search_by_key(&seq, |(of, _)| *of).ok()?;
        Some(&mut self.slots[at].1)
    }

    /// The frame was consumed; its answer will come.
    pub fn consumed(&mut self, frame: &Frame, sink: Sink) {
        sink.expect();
        self.slots.push_back((frame.seq, Slot::Waiting(vec![(sink, frame.reply)])));
        self.next_seq = frame.seq + 1;
        self.unanswered += 1;
        let oldest = self.next_seq.saturating_sub(self.window as u64);
        while self.front_is_answered() && self.slots.front().is_some_and(|(seq, _)| *seq < oldest) {
            self.slots.pop_front();
        }
    }

    fn front_is_answered(&self) -> bool {
        matches!(self.slots.front(), Some((_, Slot::Answered(_))))
    }

    /// The answer of `seq`: to all who wait for it, and kept within the window.
    pub fn answer(&mut self, seq: u64, answer: Answer) {
        let Some(slot) = self.slot(seq) else { return };
        let Slot::Waiting(sinks) = std::mem::replace(slot, Slot::Answered(answer.clone())) else { return };
        self.unanswered -= 1;
        let mut sinks = sinks.into_iter();
        let last = sinks.next_back();
        sinks.for_each(|(sink, reply)| sink.give(answer.clone(), reply, true));
        if let Some((sink, reply)) = last {
            sink.give(answer, reply, true);
        }
    }

    /// The rig has all answers up to `acked`.
    fn forget_through(&mut self, acked: u64) {
        while self.front_is_answered() && self.slots.front().is_some_and(|(seq, _)| *seq <= acked) {
            self.slots.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::frame::{FrameBody, Markers};

    const WINDOW: usize = 32;

    fn frame(seq: u64, lost: bool) -> Frame {
        Frame {
            signal: "spikes".into(),
            seq,
            t_device_ns: None,
            body: FrameBody::Markers(Markers { t_ns: vec![], value: vec![] }),
            mask: None,
            acked_seq: None,
            epoch: false,
            lost,
            reply: true,
            echo: Default::default(),
            last_of_trial: false,
        }
    }

    fn take(order: &mut Order, seq: u64, lost: bool) -> oneshot::Receiver<Result<v1::Output, Fault>> {
        let (give, taken) = oneshot::channel();
        let frame = frame(seq, lost);
        match order.judge(&frame, Sink::Once(give)) {
            Verdict::Take(sink) => order.consumed(&frame, sink),
            Verdict::Done => panic!("frame {seq} was not taken"),
        }
        taken
    }

    fn output(seq: u64) -> Answer {
        Answer::Outputs(vec![v1::Output { seq: Some(seq), ..Default::default() }])
    }

    #[test]
    fn however_many_frames_are_given_up_each_caller_gets_its_own_answer() {
        for jump in [1, 33, 40, 1000, u64::MAX / 2] {
            let mut order = Order::new(WINDOW, String::new());
            let mut callers: Vec<_> = (0..20).map(|seq| (seq, take(&mut order, seq, false))).collect();
            callers.push((20 + jump, take(&mut order, 20 + jump, true)));
            for (seq, caller) in &mut callers {
                order.answer(*seq, output(*seq));
                assert_eq!(caller.try_recv().unwrap().unwrap().seq, Some(*seq), "jump {jump}");
            }
            assert_eq!(order.unanswered(), 0);
        }
    }

    #[test]
    fn a_repeated_frame_gets_the_first_answer_until_it_is_acknowledged_or_too_old() {
        let mut order = Order::new(WINDOW, String::new());
        for seq in 0..40 {
            let mut caller = take(&mut order, seq, false);
            order.answer(seq, output(seq));
            assert_eq!(caller.try_recv().unwrap().unwrap().seq, Some(seq));
        }
        let again = |order: &mut Order, frame: Frame| {
            let (give, mut taken) = oneshot::channel();
            assert!(matches!(order.judge(&frame, Sink::Once(give)), Verdict::Done));
            taken.try_recv().unwrap()
        };
        assert_eq!(again(&mut order, frame(8, false)).unwrap().seq, Some(8));
        assert_eq!(again(&mut order, frame(7, false)).unwrap_err().kind, Kind::AlreadyStepped);
        let acked = Frame { acked_seq: Some(20), ..frame(20, false) };
        assert_eq!(again(&mut order, acked).unwrap_err().kind, Kind::AlreadyStepped);
        assert_eq!(again(&mut order, frame(21, false)).unwrap().seq, Some(21));
    }

    #[test]
    fn what_a_stream_is_owed_is_counted_by_that_stream_copies_too() {
        let (old, new) = (Arc::new(Outbox::new(8)), Arc::new(Outbox::new(8)));
        let mut order = Order::new(WINDOW, String::new());
        let first = frame(0, false);
        let Verdict::Take(sink) = order.judge(&first, Sink::Stream(Arc::clone(&old))) else { panic!() };
        order.consumed(&first, sink);
        order.judge(&first, Sink::Stream(Arc::clone(&old)));
        assert_eq!((old.pending(), new.pending()), (2, 0), "two answers are owed");
        order.answer(0, output(0));
        for left in [1, 0] {
            assert!(old.try_next().is_some());
            assert_eq!(old.pending(), left, "until the answers were taken");
        }
    }
}
