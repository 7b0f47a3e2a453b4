//! Messages that wait for one subscriber.
//! Enters: what it is told, from the task that hands out. Leaves: the same, in order, to whoever carries it.
//! Must hold: it never grows past its limit; what finds no room is counted, and the next Output says so; there is always
//! room for the end.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::error::Fault;
use crate::wire::told::Told;

/// The messages of one subscriber.
pub(super) struct Mailbox {
    held: Mutex<Held>,
    filled: Notify,
    limit: usize,
}

#[derive(Default)]
struct Held {
    queue: VecDeque<Told>,
    /// Messages lost since the last Output.
    dropped: u64,
    end: Option<Told>,
    is_over: bool,
}

impl Mailbox {
    /// An empty box that holds at most `limit` messages.
    pub(super) fn new(limit: usize) -> Self {
        Self { held: Mutex::default(), filled: Notify::new(), limit }
    }

    /// Puts a message, and wakes nobody yet; false: there was no room. What an Output lacks itself is counted in.
    pub(super) fn put(&self, mut told: Told) -> bool {
        let mut held = self.held.lock();
        if let Told::Output { dropped, .. } = &mut told {
            held.dropped += std::mem::take(dropped);
        }
        if held.queue.len() >= self.limit {
            held.dropped += 1;
            return false;
        }
        if let Told::Output { dropped, .. } = &mut told {
            *dropped = std::mem::take(&mut held.dropped);
        }
        held.queue.push_back(told);
        true
    }

    /// Wakes the reader, if it waits.
    pub(super) fn wake(&self) {
        self.filled.notify_one();
    }

    /// Messages were lost before they could be put.
    pub(super) fn miss(&self, messages: u64) {
        self.held.lock().dropped += messages;
    }

    /// The end, behind what waits; wakes nobody yet.
    pub(super) fn end(&self, why: Told) {
        let mut held = self.held.lock();
        let lost = held.dropped;
        let said = |why: String| {
            if lost > 0 { format!("{why}; the last {lost} messages were dropped") } else { why }
        };
        held.end = Some(match why {
            Told::Closed(why) => Told::Closed(said(why)),
            Told::Ended(fault) => Told::Ended(Fault { detail: said(fault.detail), ..fault }),
            other => other,
        });
    }

    /// The next message; the last one is the end, and after it there is none. Cancel-safe: nothing is taken unless it is
    /// returned.
    pub(super) async fn next(&self) -> Option<Told> {
        loop {
            {
                let mut held = self.held.lock();
                if let Some(told) = held.queue.pop_front() {
                    return Some(told);
                }
                if let Some(end) = held.end.take() {
                    held.is_over = true;
                    return Some(end);
                }
                if held.is_over {
                    return None;
                }
            }
            self.filled.notified().await;
        }
    }
}
