//! Room in the queue, counted in bytes, taken before an answer leaves so that what it says can be kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// What all sessions together may have waiting.
pub(super) struct Budget {
    limit_bytes: usize,
    taken_bytes: AtomicUsize,
    is_closed: AtomicBool,
}

impl Budget {
    pub(super) fn new(limit_bytes: usize) -> Self {
        Self { limit_bytes, taken_bytes: AtomicUsize::new(0), is_closed: AtomicBool::new(false) }
    }

    /// `None`: there is not so much left. An empty queue takes anything, so that one answer larger than the whole
    /// queue is not refused for ever.
    pub(super) fn take(self: &Arc<Self>, bytes: usize) -> Option<Room> {
        if self.is_closed.load(Ordering::Relaxed) {
            return None;
        }
        self.taken_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
                (taken == 0 || taken.saturating_add(bytes) <= self.limit_bytes).then(|| taken + bytes)
            })
            .ok()?;
        Some(Room { bytes, budget: self.clone() })
    }

    /// From now on there is no room.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(super) fn taken_bytes(&self) -> usize {
        self.taken_bytes.load(Ordering::Relaxed)
    }
}

/// Room for one answer's records. Dropped, it is free again.
#[must_use]
pub struct Room {
    bytes: usize,
    budget: Arc<Budget>,
}

impl Room {
    /// How much.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Makes it at least so large; a record that is larger than was thought is not turned away.
    pub(super) fn grow_to(&mut self, bytes: usize) {
        if bytes > self.bytes {
            self.budget.taken_bytes.fetch_add(bytes - self.bytes, Ordering::Relaxed);
            self.bytes = bytes;
        }
    }

    /// Both as one; of the same budget.
    pub(super) fn join(&mut self, mut other: Room) {
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.budget.taken_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_given_up_to_the_limit_and_comes_back_when_dropped() {
        let budget = Arc::new(Budget::new(100));
        let first = budget.take(60).unwrap();
        assert!(budget.take(41).is_none());
        let mut second = budget.take(40).unwrap();
        drop(first);
        second.join(budget.take(60).unwrap());
        assert_eq!((second.bytes(), budget.taken_bytes()), (100, 100));
        drop(second);
        assert_eq!(budget.taken_bytes(), 0);
        let whole = budget.take(1000).unwrap();
        assert!(budget.take(1).is_none());
        drop(whole);
        budget.close();
        assert!(budget.take(1).is_none());
    }
}
