//! Messages of a session that wait for one stream.
//! Enters: answers from whichever thread finished them. Leaves: the same, in order, to the stream that polls.
//! Must hold: an answer is never dropped, since the stream reads no frame while `window` messages wait; a notice is
//! dropped when the box is full (the run's events keep it).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

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

/// The queue of one attached stream.
#[derive(Debug)]
pub struct Outbox {
    queue: Mutex<VecDeque<Outgoing>>,
    filled: Notify,
    notice_limit: usize,
    /// Answers that this stream's frames will still get.
    owed: AtomicUsize,
}

impl Outbox {
    /// An empty box that holds at most `notice_limit` messages before notices are dropped.
    pub fn new(notice_limit: usize) -> Self {
        Self { queue: Mutex::default(), filled: Notify::new(), notice_limit, owed: AtomicUsize::new(0) }
    }

    /// An answer is owed to this stream.
    pub(super) fn expect(&self) {
        self.owed.fetch_add(1, Ordering::Relaxed);
    }

    /// An answer that was owed is about to be put.
    pub(super) fn settle(&self) {
        self.owed.fetch_sub(1, Ordering::Relaxed);
    }

    /// Answers that are owed and not put yet.
    pub fn owed(&self) -> usize {
        self.owed.load(Ordering::Relaxed)
    }

    /// Puts an answer, a fault or the end.
    pub fn put(&self, outgoing: Outgoing) {
        self.queue.lock().push_back(outgoing);
        self.filled.notify_one();
    }

    /// Puts a notice, unless the reader is that far behind.
    pub fn put_notice(&self, notice: v1::Notice) {
        let mut queue = self.queue.lock();
        if queue.len() < self.notice_limit {
            queue.push_back(Outgoing::Message(v1::down::Message::Notice(notice)));
            drop(queue);
            self.filled.notify_one();
        }
    }

    /// The next message, if one waits.
    pub fn try_next(&self) -> Option<Outgoing> {
        self.queue.lock().pop_front()
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

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.queue.lock().len()
    }
}
