//! Messages of a session that wait for one stream.
//! Enters: answers from whichever thread finished them. Leaves: the same, in order, to the stream that polls.
//! Must hold: an answer is never dropped, since the stream reads no frame while `window` messages wait; a notice is
//! dropped when the box is full (the run's events keep it). What is pushed answers no frame of the stream, so that its
//! window holds none of it back: whoever pushes asks `is_overrun` first.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::error::Fault;
use crate::wire::v1;

/// What a stream is to do next.
#[derive(Clone, Debug)]
pub enum Outgoing {
    /// Send this and go on.
    Message(v1::down::Message),
    /// Send this fault as the stream's end.
    End(Fault),
    /// Nothing to send: a frame that wanted no answer has been stepped, so that another may be read.
    Room,
    /// The session is over; end well.
    Finished,
}

/// Messages that may wait before more are pushed, in windows, but not fewer than `LEAST_PUSHED`.
const WINDOWS_PUSHED: usize = 8;
const LEAST_PUSHED: usize = 256;
/// Messages that may wait before notices are dropped, in windows.
const WINDOWS_OF_NOTICES: usize = 2;

/// The queue of one attached stream.
#[derive(Debug)]
pub struct Outbox {
    held: Mutex<Held>,
    filled: Notify,
    notice_limit: usize,
    pushed_limit: usize,
}

#[derive(Debug, Default)]
struct Held {
    queue: VecDeque<Outgoing>,
    /// Answers that this stream's frames will still get.
    owed: usize,
}

impl Outbox {
    /// An empty box for a stream with so many frames of window.
    pub fn new(window: usize) -> Self {
        Self {
            held: Mutex::default(),
            filled: Notify::new(),
            notice_limit: window * WINDOWS_OF_NOTICES,
            pushed_limit: LEAST_PUSHED.max(window * WINDOWS_PUSHED),
        }
    }

    /// Whether the reader is so far behind that nothing more may be pushed to it.
    pub(super) fn is_overrun(&self) -> bool {
        self.held.lock().queue.len() >= self.pushed_limit
    }

    /// An answer is owed to this stream.
    pub(super) fn expect(&self) {
        self.held.lock().owed += 1;
    }

    /// Puts the answer of one frame; `settles` one that was owed.
    /// Why in one hold of the lock: between the two, a half-closed stream would look answered and end.
    pub(super) fn answer(&self, settles: bool, put: impl FnOnce(&mut VecDeque<Outgoing>)) {
        let mut held = self.held.lock();
        put(&mut held.queue);
        held.owed -= usize::from(settles);
        drop(held);
        self.filled.notify_one();
    }

    /// Puts a message or the end.
    pub fn put(&self, outgoing: Outgoing) {
        self.answer(false, |queue| queue.push_back(outgoing));
    }

    /// Puts a notice, unless the reader is that far behind.
    pub fn put_notice(&self, notice: v1::Notice) {
        let mut held = self.held.lock();
        if held.queue.len() < self.notice_limit {
            held.queue.push_back(Outgoing::Message(v1::down::Message::Notice(notice)));
            drop(held);
            self.filled.notify_one();
        }
    }

    /// The next message, if one waits.
    pub fn try_next(&self) -> Option<Outgoing> {
        self.held.lock().queue.pop_front()
    }

    /// The next message. Cancel-safe: nothing is taken unless it is returned.
    pub async fn next(&self) -> Outgoing {
        loop {
            if let Some(outgoing) = self.try_next() {
                return outgoing;
            }
            self.filled.notified().await;
        }
    }

    /// Answers that are owed, and messages that wait to be sent.
    pub fn pending(&self) -> usize {
        let held = self.held.lock();
        held.owed + held.queue.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_is_overrun_once_more_than_its_window_allows_waits_for_it() {
        for (window, limit) in [(1, 256), (32, 256), (100, 800)] {
            let outbox = Outbox::new(window);
            for _ in 0..limit {
                assert!(!outbox.is_overrun());
                outbox.put(Outgoing::Room);
            }
            assert!(outbox.is_overrun());
            outbox.try_next();
            assert!(!outbox.is_overrun());
        }
    }
}
