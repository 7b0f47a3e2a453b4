//! Who is run when, where, and with whom.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::fake::*;
use crate::batch::{
    Lane, LaneObserver, Observer, Onward, Owner, Pool, PoolConfig, Ran, Row, RowFault, Silent,
};

/// One row runs and holds the only instance; what is submitted then waits.
fn hold(fake: &Arc<Fake>, lane: &Arc<Lane>, owner: &Arc<Teller>) {
    fake.gate.shut();
    lane.submit(row(-1.0, GOOD), owner.clone(), false);
    fake.wait_running();
}

#[test]
fn what_gathers_while_a_run_goes_on_is_the_next_batch() {
    let (fake, pool) = (Fake::new(), pool(1));
    let lane = fake.lane(&pool, spec(16), 1);
    let (owner, told) = Teller::new();
    hold(&fake, &lane, &owner);
    for i in 0..20 {
        lane.submit(row(i as f32, GOOD), owner.clone(), true);
    }
    assert_eq!(lane.waiting(), 20);
    fake.gate.open();
    for told in all(&told, 21) {
        assert_eq!(told.y(), 2.0 * told.value() + 1.0);
    }
    assert_eq!(fake.sizes(), [1, 16, 4]);
}

#[test]
fn the_earliest_due_row_of_a_lane_is_run_first_and_equals_in_order() {
    let (fake, pool) = (Fake::new(), pool(1));
    let lane = fake.lane(&pool, spec(1), 1);
    let (owner, told) = Teller::new();
    hold(&fake, &lane, &owner);
    let base = Instant::now();
    for (value, due_ms) in [(0, 50), (1, 10), (2, 40), (3, 10), (4, 20)] {
        lane.submit(row_due(value as f32, GOOD, base, due_ms), owner.clone(), false);
    }
    fake.gate.open();
    let order: Vec<f32> = all(&told, 6).iter().skip(1).map(Told::value).collect();
    assert_eq!(order, [1.0, 3.0, 4.0, 2.0, 0.0]);
}

#[test]
fn the_lane_with_the_earliest_due_row_is_run_first() {
    let (fake, pool) = (Fake::new(), pool(1));
    let lanes: Vec<_> = (0..4).map(|_| fake.lane(&pool, spec(8), 1)).collect();
    let (owner, told) = Teller::new();
    hold(&fake, &lanes[0], &owner);
    let base = Instant::now() + Duration::from_secs(1);
    for (at, due_ms) in [(1, 30), (2, 20), (3, 10)] {
        lanes[at].submit(row_due(at as f32, GOOD, base, due_ms), owner.clone(), false);
    }
    lanes[1].submit(row_due(10.0, GOOD, base, 5), owner.clone(), false);
    fake.gate.open();
    let order: Vec<f32> = all(&told, 5).iter().skip(1).map(Told::value).collect();
    assert_eq!(order, [10.0, 1.0, 3.0, 2.0], "lane 1 became the most urgent when a more urgent row came");
}

#[test]
fn several_instances_of_a_lane_run_at_the_same_time() {
    let (fake, pool) = (Fake::new(), pool(2));
    let lane = fake.lane(&pool, spec(1), 2);
    let (owner, told) = Teller::new();
    fake.gate.shut();
    lane.submit(row(0.0, GOOD), owner.clone(), false);
    lane.submit(row(1.0, GOOD), owner, false);
    until("both run", || fake.running.load(Ordering::SeqCst) == 2);
    fake.gate.open();
    all(&told, 2);
}

#[test]
fn a_lone_row_runs_in_place_only_on_an_idle_lane_that_is_known_to_be_fast() {
    let (fake, pool) = (Fake::new(), pool(1));
    let lane = fake.lane(&pool, spec(8), 1);
    let (owner, told) = Teller::new();
    let here = thread::current().id();
    let runs_here = |inline| {
        lane.submit(row(0.0, GOOD), owner.clone(), inline);
        next(&told).thread == here
    };
    assert!(!runs_here(true), "nothing is known of the lane");
    let other = fake.lane(&pool, spec(8), 1);
    other.learn(1, Duration::from_millis(1));
    other.submit(row(0.0, GOOD), owner.clone(), true);
    assert_ne!(next(&told).thread, here, "a slow lane");
    let fast = fake.lane(&pool, spec(8), 1);
    fast.learn(1, Duration::from_micros(5));
    fast.submit(row(0.0, GOOD), owner.clone(), true);
    assert_eq!(told.try_recv().expect("answered before submit returns").thread, here);
    fast.submit(row(0.0, GOOD), owner.clone(), false);
    assert_ne!(next(&told).thread, here, "not asked for");
    fast.learn(1, Duration::from_micros(5));
    hold(&fake, &fast, &owner);
    fast.submit(row(0.0, GOOD), owner.clone(), true);
    assert!(told.try_recv().is_err(), "a busy lane");
    fake.gate.open();
    assert!(all(&told, 2).iter().all(|told| told.thread != here));
}

#[test]
fn stages_of_one_row_are_run_on_by_the_same_thread() {
    // A caller's time is generous here, so that a busy machine does not move a stage to a worker.
    let config = PoolConfig { inline_us: 1_000_000, ..PoolConfig::default() };
    let (fake, pool) = (Fake::new(), Pool::start(2, config, Arc::new(Silent)).expect("threads start"));
    let lanes: Vec<_> = (0..3).map(|_| fake.lane(&pool, spec(8), 1)).collect();
    for lane in &lanes {
        (0..20).for_each(|_| lane.learn(1, Duration::from_micros(5)));
    }
    let (owner, told) = Teller::through(&lanes[1..]);
    lanes[0].submit(row(1.0, GOOD), owner, true);
    let told = told.try_recv().expect("all stages in place");
    assert_eq!(told.thread, thread::current().id());
    assert_eq!(fake.sizes(), [1, 1, 1]);
}

/// Hands each row on to a lane, once.
struct Twice {
    teller: Arc<Teller>,
    then: Arc<Lane>,
}

impl Owner for Twice {
    fn finished(self: Arc<Self>, row: Box<Row>, outcome: Result<Ran, RowFault>) -> Option<Onward> {
        let was_first = row.inputs[0].values::<f32>()[1] == GOOD;
        if !was_first || outcome.is_err() {
            return self.teller.clone().finished(row, outcome);
        }
        let mut row = row;
        row.inputs[0].values_mut::<f32>()[1] = 0.5;
        Some(Onward { lane: self.then.clone(), row })
    }
}

#[test]
fn rows_that_are_handed_on_together_are_gathered_into_one_batch() {
    let (fake, then, pool) = (Fake::new(), Fake::new(), pool(1));
    let lane = fake.lane(&pool, spec(64), 1);
    let next_lane = then.lane(&pool, spec(64), 1);
    let (teller, told) = Teller::new();
    hold(&fake, &lane, &teller);
    let owner = Arc::new(Twice { teller, then: next_lane });
    for i in 0..12 {
        lane.submit(row(i as f32, GOOD), owner.clone(), false);
    }
    fake.gate.open();
    let told = all(&told, 13);
    assert_eq!(then.sizes(), [12]);
    assert!(told[1..].iter().all(|told| told.outcome.as_ref().is_ok_and(|ran| ran.rows == 12)));
}

/// Submits its row again from inside, so many times.
struct Again {
    lane: Arc<Lane>,
    left: parking_lot::Mutex<usize>,
    teller: Arc<Teller>,
    by_submit: bool,
}

impl Owner for Again {
    fn finished(self: Arc<Self>, row: Box<Row>, outcome: Result<Ran, RowFault>) -> Option<Onward> {
        let mut left = self.left.lock();
        if *left == 0 {
            return self.teller.clone().finished(row, outcome);
        }
        *left -= 1;
        drop(left);
        let lane = self.lane.clone();
        if self.by_submit {
            lane.submit(row, self.clone(), true);
            return None;
        }
        Some(Onward { lane, row })
    }
}

#[test]
fn rows_submitted_by_an_owner_that_is_told_never_pile_up_on_the_stack() {
    for by_submit in [false, true] {
        for is_closed in [false, true] {
            let (fake, pool) = (Fake::new(), pool(1));
            let lane = fake.lane(&pool, spec(8), 1);
            lane.learn(1, Duration::from_micros(1));
            if is_closed {
                assert!(pool.stop(Instant::now() + LIMIT));
            }
            let (teller, told) = Teller::new();
            let left = parking_lot::Mutex::new(5_000);
            let owner = Arc::new(Again { lane: lane.clone(), left, teller, by_submit });
            lane.submit(row(0.0, GOOD), owner, true);
            assert_eq!(next(&told).outcome.is_err(), is_closed);
        }
    }
}

/// Counts what it is told, and panics when a run had 3 rows.
#[derive(Default)]
struct Counter {
    queued: AtomicUsize,
    rows: AtomicUsize,
    waiting: AtomicI64,
    lost: AtomicUsize,
}

struct Counting(Arc<Counter>);

impl Observer for Counting {
    fn lane(&self, name: &str) -> Arc<dyn LaneObserver> {
        assert_eq!(name, "fake/1");
        self.0.clone()
    }
}

impl LaneObserver for Counter {
    fn queued(&self, _: Duration) {
        self.queued.fetch_add(1, Ordering::SeqCst);
    }

    fn ran(&self, _: Duration, rows: usize) {
        self.rows.fetch_add(rows, Ordering::SeqCst);
        if rows == 3 {
            std::panic::resume_unwind(Box::new("as ordered"));
        }
    }

    fn waiting(&self, change: i64) {
        self.waiting.fetch_add(change, Ordering::SeqCst);
    }

    fn lost(&self, _: &str) {
        self.lost.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn the_observer_is_told_of_rows_runs_and_waits_and_may_even_panic() {
    let (fake, counter) = (Fake::new(), Arc::new(Counter::default()));
    let observer = Arc::new(Counting(counter.clone()));
    let pool = Pool::start(1, PoolConfig::default(), observer).expect("threads start");
    let lane = fake.lane(&pool, spec(8), 1);
    let (owner, told) = Teller::new();
    for size in [5, 3, 2] {
        hold(&fake, &lane, &owner);
        (0..size).for_each(|i| lane.submit(row(i as f32, GOOD), owner.clone(), false));
        assert_eq!(counter.waiting.load(Ordering::SeqCst), size);
        fake.gate.open();
        let all = all(&told, size as usize + 1);
        assert!(all[1..].iter().all(|told| told.outcome.is_ok() != (size == 3)), "answered by being dropped");
    }
    let counts = [&counter.queued, &counter.rows, &counter.lost].map(|count| count.load(Ordering::SeqCst));
    assert_eq!((counts, counter.waiting.load(Ordering::SeqCst)), ([13, 13, 1], 0));
}

#[test]
fn a_callers_thread_is_given_back_after_a_few_runs() {
    let (fake, pool) = (Fake::new(), pool(1));
    let lane = fake.lane(&pool, spec(8), 1);
    fake.delay_us.store(20, Ordering::SeqCst);
    (0..50).for_each(|_| lane.learn(1, Duration::from_micros(20)));
    let (teller, told) = Teller::new();
    let left = parking_lot::Mutex::new(2_000);
    let owner = Arc::new(Again { lane: lane.clone(), left, teller, by_submit: false });
    lane.submit(row(0.0, GOOD), owner, true);
    assert_ne!(next(&told).thread, thread::current().id(), "the last of 2,000 runs of 20 us");
}
