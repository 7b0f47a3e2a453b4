//! Runs that do not end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::fake::*;
use crate::batch::{LaneSpec, Pool, PoolConfig, RowFault, Silent};

/// Short, and long enough for a thread of a busy machine to notice an interrupt before it is given up.
fn short(max_batch: usize) -> LaneSpec {
    LaneSpec { run_limit: Duration::from_millis(150), ..spec(max_batch) }
}

#[test]
fn a_run_over_the_limit_is_interrupted_and_the_instance_goes_on() {
    let (fake, pool) = (Fake::new(), pool(1));
    let lane = fake.lane(&pool, short(8), 1);
    let (owner, told) = Teller::new();
    lane.submit(row(0.0, HANG), owner.clone(), false);
    assert_eq!(next(&told).outcome, Err(RowFault::Limit));
    lane.submit(row(1.0, GOOD), owner, false);
    assert_eq!(next(&told).y(), 3.0);
    assert_eq!((fake.rebuilds.load(Ordering::SeqCst), pool.stuck()), (0, 0));
}

#[test]
fn the_neighbours_of_a_row_that_hangs_are_tried_alone() {
    let (fake, pool) = (Fake::new(), pool(1));
    let lane = fake.lane(&pool, short(8), 1);
    let (owner, told) = Teller::new();
    lane.submit(row(-1.0, HANG), owner.clone(), false);
    fake.wait_running();
    for (i, order) in [GOOD, HANG, GOOD].into_iter().enumerate() {
        lane.submit(row(i as f32, order), owner.clone(), false);
    }
    let mut all = all(&told, 4);
    all.sort_by(|a, b| a.value().total_cmp(&b.value()));
    assert_eq!(all[2].outcome, Err(RowFault::Limit));
    assert_eq!((all[1].y(), all[3].y()), (1.0, 5.0));
}

#[test]
fn a_batch_in_which_every_row_hangs_is_not_tried_to_its_end() {
    let (fake, pool) = (Fake::new(), pool(1));
    let lane = fake.lane(&pool, short(64), 1);
    let (owner, told) = Teller::new();
    lane.submit(row(-1.0, HANG), owner.clone(), false);
    fake.wait_running();
    (0..64).for_each(|i| lane.submit(row(i as f32, HANG), owner.clone(), false));
    assert!(all(&told, 65).iter().all(|told| told.outcome == Err(RowFault::Limit)));
    assert_eq!(fake.sizes(), [1, 64, 1, 1]);
}

#[test]
fn a_run_over_twice_the_limit_is_abandoned_its_thread_replaced_and_its_late_return_ignored() {
    let (fake, pool) = (Fake::new(), pool(1));
    let lane = fake.lane(&pool, short(8), 1);
    let (owner, told) = Teller::new();
    fake.stuck.shut();
    lane.submit(row(0.0, STUCK), owner.clone(), false);
    let limit = next(&told);
    assert_eq!(limit.outcome, Err(RowFault::Limit));
    assert_eq!(pool.stuck(), 1);
    lane.submit(row(1.0, GOOD), owner.clone(), false);
    let after = next(&told);
    assert_eq!(after.y(), 3.0, "by a new worker, on a rebuilt instance");
    assert_eq!(fake.rebuilds.load(Ordering::SeqCst), 1);
    fake.stuck.open();
    until("the stuck thread came back", || pool.stuck() == 0);
    lane.submit(row(2.0, GOOD), owner, false);
    assert_eq!(next(&told).y(), 5.0);
    assert!(told.try_recv().is_err(), "nobody is told twice");
    assert!(pool.stop(Instant::now() + LIMIT), "no thread is left behind");
}

#[test]
fn a_callers_thread_that_is_stuck_is_answered_too() {
    let (fake, pool) = (Fake::new(), Arc::new(pool(1)));
    let lane = fake.lane(&pool, short(8), 1);
    lane.learn(1, Duration::from_micros(1));
    let (owner, told) = Teller::new();
    fake.stuck.shut();
    let caller = {
        let (lane, owner) = (lane.clone(), owner.clone());
        std::thread::spawn(move || lane.submit(row(0.0, STUCK), owner, true))
    };
    let limit = next(&told);
    assert_eq!(limit.outcome, Err(RowFault::Limit));
    assert_ne!(limit.thread, caller.thread().id());
    lane.submit(row(1.0, GOOD), owner, false);
    assert_eq!(next(&told).y(), 3.0);
    fake.stuck.open();
    caller.join().expect("it comes back");
    assert!(told.try_recv().is_err(), "nobody is told twice");
}

#[test]
fn past_max_abandoned_the_fatal_hook_is_called_once_after_the_rows_were_answered() {
    let fake = Fake::new();
    let (owner, told) = Teller::new();
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&calls);
    let config = PoolConfig {
        max_abandoned: 1,
        fatal: Arc::new(move |sentence| {
            assert!(sentence.contains("2 runs are stuck"), "{sentence}");
            seen.fetch_add(1, Ordering::SeqCst);
        }),
        ..PoolConfig::default()
    };
    let pool = Pool::start(1, config, Arc::new(Silent)).expect("threads start");
    let lane = fake.lane(&pool, short(1), 1);
    fake.stuck.shut();
    for turn in 0..3 {
        lane.submit(row(turn as f32, STUCK), owner.clone(), false);
        assert_eq!(next(&told).outcome, Err(RowFault::Limit));
    }
    until("the hook was called", || calls.load(Ordering::SeqCst) > 0);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    fake.stuck.open();
}
