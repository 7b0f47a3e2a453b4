//! Each row is answered exactly once, under any order of fault, panic, cancel, close and stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::fake::*;
use crate::batch::{Lane, LaneSpec, Onward, Owner, Pool, PoolConfig, Ran, Row, RowFault, Silent};

#[test]
fn rows_that_wait_are_answered_stopped_after_those_in_flight_finished() {
    let (fake, pool) = (Fake::new(), Arc::new(pool(1)));
    let lane = fake.lane(&pool, spec(1), 1);
    let (owner, told) = Teller::new();
    fake.gate.shut();
    lane.submit(row(-1.0, GOOD), owner.clone(), false);
    fake.wait_running();
    (0..5).for_each(|i| lane.submit(row(i as f32, GOOD), owner.clone(), false));
    let stopper = {
        let pool = Arc::clone(&pool);
        std::thread::spawn(move || pool.stop(Instant::now() + LIMIT))
    };
    until("closing", || lane.place().is_none());
    lane.submit(row(5.0, GOOD), owner.clone(), true);
    assert!(told.try_recv().is_err(), "nobody is told before the run in flight has ended");
    fake.gate.open();
    let all = all(&told, 7);
    assert_eq!((all[0].value(), all[0].y()), (-1.0, -1.0));
    assert!(all[1..].iter().all(|told| told.outcome == Err(RowFault::Stopped)));
    assert!(stopper.join().expect("no panic"), "every thread was joined");
    lane.submit(row(6.0, GOOD), owner, true);
    assert_eq!(next(&told).outcome, Err(RowFault::Stopped), "at once");
    assert_eq!(fake.sizes(), [1]);
}

#[test]
fn a_run_that_outlasts_the_stop_is_answered_and_left_behind() {
    let (fake, pool) = (Fake::new(), pool(1));
    let lane = fake.lane(&pool, spec(1), 1);
    let (owner, told) = Teller::new();
    fake.stuck.shut();
    lane.submit(row(0.0, STUCK), owner.clone(), false);
    fake.wait_running();
    lane.submit(row(1.0, GOOD), owner, false);
    assert!(!pool.stop(Instant::now()), "a thread is left behind");
    assert!(all(&told, 2).iter().all(|told| told.outcome == Err(RowFault::Stopped)));
    fake.stuck.open();
    until("the thread comes back", || pool.stuck() == 0);
    assert!(told.try_recv().is_err());
}

/// Counts how often each of its rows was answered; hands some on.
struct Ledger {
    answers: Vec<AtomicU32>,
    good: AtomicUsize,
    then: Arc<Lane>,
    is_gone: AtomicBool,
}

impl Owner for Ledger {
    fn finished(self: Arc<Self>, row: Box<Row>, outcome: Result<Ran, RowFault>) -> Option<Onward> {
        let id = row.inputs[0].values::<f32>()[0] as usize;
        let stage = self.answers[id].fetch_add(1, Ordering::SeqCst);
        if outcome.is_ok() {
            assert_eq!(row.outputs[0].values::<f32>()[0], 2.0 * id as f32 + 1.0);
            self.good.fetch_add(1, Ordering::SeqCst);
            // Every third row has a second stage, by both of the ways there are.
            if stage == 0 && id.is_multiple_of(3) {
                if id.is_multiple_of(2) {
                    return Some(Onward { lane: self.then.clone(), row });
                }
                self.then.clone().submit(row, self.clone(), true);
            }
        }
        None
    }

    fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::SeqCst)
    }
}

#[derive(Clone, Debug)]
struct Story {
    workers: usize,
    instances: usize,
    max_batch: usize,
    deterministic: bool,
    /// Orders of the rows, dealt out to the threads that submit them.
    orders: Vec<u8>,
    /// After so many submitted rows an owner leaves, the pool stops.
    leaves_after: usize,
    stops_after: Option<usize>,
    patience_ms: u64,
}

fn stories() -> impl Strategy<Value = Story> {
    let order =
        prop_oneof![12 => Just(0u8), 2 => Just(1), 1 => Just(2), 1 => Just(3), 1 => Just(4), 1 => Just(5)];
    (
        (1usize..4, 1usize..3, 1usize..9, any::<bool>()),
        proptest::collection::vec(order, 20..120),
        (0usize..200, proptest::option::of(0usize..100), 0u64..40),
    )
        .prop_map(|((workers, instances, max_batch, deterministic), orders, rest)| {
            let (leaves_after, stops_after, patience_ms) = rest;
            Story {
                workers,
                instances,
                max_batch,
                deterministic,
                orders,
                leaves_after,
                stops_after,
                patience_ms,
            }
        })
}

fn is_answered_exactly_once(story: &Story) {
    const THREADS: usize = 4;
    let (fake, second) = (Fake::new(), Fake::new());
    fake.stuck.shut();
    let config = PoolConfig {
        max_abandoned: usize::MAX,
        rebuild_backoff: Duration::from_micros(200),
        ..PoolConfig::default()
    };
    let pool = Pool::start(story.workers, config, Arc::new(Silent)).expect("threads start");
    let spec = LaneSpec {
        deterministic: story.deterministic,
        run_limit: Duration::from_millis(3),
        ..spec(story.max_batch)
    };
    let lane = fake.lane(&pool, spec.clone(), story.instances);
    let then = second.lane(&pool, spec, 1);
    lane.learn(1, Duration::from_micros(1));
    then.learn(1, Duration::from_micros(1));
    let owners: Vec<_> = (0..2)
        .map(|_| {
            Arc::new(Ledger {
                answers: story.orders.iter().map(|_| AtomicU32::new(0)).collect(),
                good: AtomicUsize::new(0),
                then: then.clone(),
                is_gone: AtomicBool::new(false),
            })
        })
        .collect();
    let submitted = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (lane, owners, submitted) = (&lane, &owners, &submitted);
            scope.spawn(move || {
                for (i, &order) in story.orders.iter().enumerate().filter(|(i, _)| i % THREADS == thread) {
                    // A row that gets stuck goes by a worker, since a caller's thread would be lost to the story.
                    let inline = i % 5 == 0 && order != 5;
                    let row = row_due(i as f32, f32::from(order), Instant::now(), (i % 7) as u64);
                    lane.submit(row, owners[i % 2].clone(), inline);
                    if submitted.fetch_add(1, Ordering::SeqCst) == story.leaves_after {
                        owners[1].is_gone.store(true, Ordering::SeqCst);
                    }
                }
            });
        }
        if let Some(after) = story.stops_after {
            until("enough rows were submitted", || {
                submitted.load(Ordering::SeqCst) >= after.min(story.orders.len())
            });
            pool.stop(Instant::now() + Duration::from_millis(story.patience_ms));
        }
    });
    let answers = |i: usize| owners[i % 2].answers[i].load(Ordering::SeqCst);
    if story.stops_after.is_none() {
        until("every row is answered", || (0..story.orders.len()).all(|i| answers(i) > 0));
        // What was handed on is in flight or waits, until it was answered too.
        assert!(pool.stop(Instant::now() + LIMIT) || pool.stuck() > 0);
    }
    fake.stuck.open();
    [&fake, &second].iter().for_each(|fake| fake.is_over.store(true, Ordering::SeqCst));
    until("stuck threads come back", || pool.stuck() == 0);
    let runs_of = |i: usize| {
        let may_have_second_stage = i.is_multiple_of(3);
        (1, if may_have_second_stage { 2 } else { 1 })
    };
    for i in 0..story.orders.len() {
        let (least, most) = runs_of(i);
        let found = answers(i);
        assert!(
            (least..=most).contains(&found),
            "row {i} (order {}) was answered {found} times",
            story.orders[i]
        );
    }
    // A second answer is owed to exactly the rows that were handed on after a good first stage.
    let total: usize = (0..story.orders.len()).map(|i| answers(i) as usize).sum();
    let second: usize = (0..story.orders.len()).filter(|&i| answers(i) == 2).count();
    assert_eq!(total, story.orders.len() + second);
    drop(pool);
    assert_eq!(lane.waiting() + then.waiting(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 60, ..ProptestConfig::default() })]

    #[test]
    fn each_row_is_answered_exactly_once_under_any_order_of_fault_panic_cancel_and_stop(story in stories()) {
        is_answered_exactly_once(&story);
    }
}

#[test]
fn many_threads_and_two_stages_lose_nothing_and_double_nothing() {
    const ROWS: usize = 20_000;
    let (fake, second) = (Fake::new(), Fake::new());
    let pool = pool(3);
    let lane = fake.lane(&pool, spec(32), 2);
    let then = second.lane(&pool, spec(32), 1);
    lane.learn(1, Duration::from_micros(1));
    then.learn(1, Duration::from_micros(1));
    let ledger = Arc::new(Ledger {
        answers: (0..ROWS).map(|_| AtomicU32::new(0)).collect(),
        good: AtomicUsize::new(0),
        then,
        is_gone: AtomicBool::new(false),
    });
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (lane, ledger) = (&lane, &ledger);
            scope.spawn(move || {
                for i in (thread..ROWS).step_by(4) {
                    lane.submit(row(i as f32, GOOD), ledger.clone(), i % 2 == 0);
                }
            });
        }
    });
    let owed = |i: usize| if i.is_multiple_of(3) { 2 } else { 1 };
    until("every stage of every row is answered", || {
        (0..ROWS).all(|i| ledger.answers[i].load(Ordering::SeqCst) == owed(i))
    });
    assert!(pool.stop(Instant::now() + LIMIT));
    assert_eq!(ledger.good.load(Ordering::SeqCst), (0..ROWS).map(|i| owed(i) as usize).sum::<usize>());
}
