//! What sessions cost before their rows reach a lane: reading, aligning and preprocessing what comes. Measured where it is
//! done, by the shape of the session; counted in the load beside the lanes.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::times::RunTimes;

/// Shapes that are kept in mind; past that, those that no session has are forgotten.
const SHAPES: usize = 1024;
/// A caller's thread feeds frames for up to so many `inline_us`: a hop to another thread and back costs about one, so that
/// it is then small beside the work.
const INLINE: u32 = 4;
/// A session is fed by one thread at a time, so that this is what it keeps busy at most.
const MOST: f64 = 1.0;
/// The newest measurements of a shape that are kept.
const KEPT: usize = 16;
/// Fewer say nothing yet: one bin that was out of the ordinary must not stand for all to come.
const FEW: usize = 8;

/// Sessions whose ingest costs alike: one pipeline, with its versions, fed by signals of one form.
#[derive(Debug)]
struct Shape {
    bin_times: BinTimes,
    bins_per_s: f64,
    /// Those that are counted.
    sessions: AtomicUsize,
}

impl Shape {
    /// Threads that one of its sessions keeps busy on average; 0 before enough was measured.
    fn busy_each(&self) -> f64 {
        (self.bins_per_s * self.bin_times.usual_ns().unwrap_or(0.0) * 1e-9).min(MOST)
    }
}

/// What one bin of signal has cost (ns), the newest measurements.
#[derive(Debug, Default)]
struct BinTimes(Mutex<VecDeque<f64>>);

impl BinTimes {
    /// Takes a measurement; none where another is being taken at this moment.
    fn learn(&self, bin_ns: f64) {
        let Some(mut kept) = self.0.try_lock() else { return };
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(bin_ns);
    }

    /// Their median: no one of them, however large, stands for the others. `None` while there are few.
    fn usual_ns(&self) -> Option<f64> {
        let mut kept: Vec<f64> = self.0.lock().iter().copied().collect();
        if kept.len() < FEW {
            return None;
        }
        let middle = kept.len() / 2;
        Some(*kept.select_nth_unstable_by(middle, f64::total_cmp).1)
    }
}

/// The shapes there are.
#[derive(Debug, Default)]
pub(super) struct Shapes(Mutex<HashMap<String, Arc<Shape>>>);

impl Shapes {
    /// A session's part in a shape by its name; it counts for nothing until it has entered.
    pub(super) fn ingest(&self, name: &str, bins_per_s: f64, inline: Duration) -> Ingest {
        let mut shapes = self.0.lock();
        if shapes.len() >= SHAPES && !shapes.contains_key(name) {
            shapes.retain(|_, shape| Arc::strong_count(shape) > 1);
        }
        let shape = shapes.entry(name.to_owned()).or_insert_with(|| {
            Arc::new(Shape {
                bin_times: BinTimes::default(),
                bins_per_s: if bins_per_s.is_finite() { bins_per_s } else { 0.0 },
                sessions: AtomicUsize::new(0),
            })
        });
        Ingest {
            shape: Arc::clone(shape),
            frame_times: RunTimes::default(),
            longest: inline * INLINE,
            has_entered: AtomicBool::new(false),
        }
    }

    /// Threads that the ingest of all sessions that have entered keeps busy, if each gets a second of signal in a second.
    pub(super) fn busy(&self) -> f64 {
        let shapes = self.0.lock();
        shapes.values().map(|shape| shape.sessions.load(Ordering::Acquire) as f64 * shape.busy_each()).sum()
    }
}

/// What the ingest of one session costs. It counts in the load from its admission until it leaves, at the latest when it
/// is dropped. Times are read and written without a lock.
#[derive(Debug)]
pub struct Ingest {
    shape: Arc<Shape>,
    /// Of one of this session's own frames that closes a bin or more.
    frame_times: RunTimes,
    longest: Duration,
    has_entered: AtomicBool,
}

impl Ingest {
    /// So many bins were closed, and that has taken so much of a processor's time, with all that came for them.
    pub fn learn_bins(&self, bins: usize, took: Duration) {
        if bins > 0 {
            self.shape.bin_times.learn(took.as_nanos() as f64 / bins as f64);
        }
    }

    /// So many frames were taken that closed a bin or more each, and that has taken so much of a processor's time.
    pub fn learn_frames(&self, frames: usize, took: Duration) {
        if frames > 0 {
            self.frame_times.learn(1, took.div_f64(frames as f64));
        }
    }

    /// Whether so many frames are known to take longer than a caller's thread may be held (4 · `inline_us`; with 0, it
    /// never may), if each closes a bin. `None` before one did.
    pub fn is_long(&self, frames: usize) -> Option<bool> {
        if self.longest.is_zero() {
            return Some(true);
        }
        let frames = u32::try_from(frames).unwrap_or(u32::MAX);
        self.frame_times.run(1).map(|one| one.saturating_mul(frames) >= self.longest)
    }

    /// Threads that this session keeps busy on average, by what bins of its shape last took; 0 where there were few.
    pub(super) fn busy(&self) -> f64 {
        self.shape.busy_each()
    }

    /// It counts in the load.
    pub(super) fn enter(&self) {
        if !self.has_entered.swap(true, Ordering::AcqRel) {
            self.shape.sessions.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// It counts in the load no longer; what was measured is kept for the next of its shape.
    pub fn leave(&self) {
        if self.has_entered.swap(false, Ordering::AcqRel) {
            self.shape.sessions.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INLINE: Duration = Duration::from_micros(50);

    #[test]
    fn frames_are_long_once_they_are_known_to_take_four_times_inline_us_together() {
        let shapes = Shapes::default();
        let ingest = shapes.ingest("a", 50.0, INLINE);
        assert_eq!(ingest.is_long(1_000_000), None, "nothing was measured");
        ingest.learn_frames(4, Duration::from_micros(400));
        assert_eq!((ingest.is_long(1), ingest.is_long(2)), (Some(false), Some(true)));
        assert_eq!(ingest.is_long(usize::MAX), Some(true));
        assert_eq!(
            shapes.ingest("a", 50.0, Duration::ZERO).is_long(1),
            Some(true),
            "with inline_us = 0 all are"
        );
    }

    #[test]
    fn bins_that_are_out_of_the_ordinary_stand_for_no_others() {
        let shapes = Shapes::default();
        let ingest = shapes.ingest("a", 50.0, INLINE);
        ingest.enter();
        ingest.learn_bins(1, Duration::from_secs(1));
        assert_eq!(shapes.busy(), 0.0, "one bin says nothing");
        for _ in 0..5 {
            (0..3).for_each(|_| ingest.learn_bins(1, Duration::from_micros(20)));
            ingest.learn_bins(1, Duration::from_secs(1));
        }
        assert!((shapes.busy() - 0.001).abs() < 1e-9, "50 bins of 20 us each second: {}", shapes.busy());
        (0..KEPT).for_each(|_| ingest.learn_bins(1, Duration::from_millis(2)));
        assert!((shapes.busy() - 0.1).abs() < 1e-9, "and what is so now is soon known");
    }

    #[test]
    fn sessions_of_a_shape_cost_what_the_last_of_them_took_and_no_more_than_a_thread() {
        let shapes = Shapes::default();
        let first = shapes.ingest("a", 50.0, INLINE);
        first.enter();
        assert_eq!(shapes.busy(), 0.0);
        (0..FEW).for_each(|_| first.learn_bins(2, Duration::from_millis(20)));
        assert!((shapes.busy() - 0.5).abs() < 1e-9, "50 bins of 10 ms each second");
        let second = shapes.ingest("a", 50.0, INLINE);
        assert!(
            (second.busy() - 0.5).abs() < 1e-9 && (shapes.busy() - 0.5).abs() < 1e-9,
            "known, not yet counted"
        );
        second.enter();
        second.enter();
        assert!((shapes.busy() - 1.0).abs() < 1e-9);
        let other = shapes.ingest("b", 50.0, INLINE);
        (0..FEW).for_each(|_| other.learn_bins(1, Duration::from_secs(1)));
        assert_eq!(shapes.ingest("b", 50.0, INLINE).busy(), 1.0);
        drop(first);
        second.leave();
        second.leave();
        assert_eq!(shapes.busy(), 0.0);
    }

    #[test]
    fn of_many_shapes_those_that_no_session_has_are_forgotten_first() {
        let shapes = Shapes::default();
        let held = shapes.ingest("held", 1.0, INLINE);
        (0..FEW).for_each(|_| held.learn_bins(1, Duration::from_millis(1)));
        (0..2 * SHAPES).for_each(|n| drop(shapes.ingest(&n.to_string(), 1.0, INLINE)));
        assert!(shapes.0.lock().len() <= SHAPES);
        assert!(shapes.ingest("held", 1.0, INLINE).busy() > 0.0);
    }
}
