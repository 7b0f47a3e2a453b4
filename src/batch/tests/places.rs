//! Admission and guests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::fake::*;
use crate::batch::{Full, Guests, Lane, Place, Pool, Refused};

/// Places of a session whose ingest costs nothing.
fn admit(pool: &Pool, lane: &Arc<Lane>, rows_per_s: f64) -> Result<Vec<Place>, Refused> {
    pool.admit(&[(Arc::clone(lane), rows_per_s)], Some(&pool.ingest("light", rows_per_s)))
}

#[test]
fn guests_are_refused_at_once_when_all_places_are_taken() {
    let guests = Guests::new(3);
    let (two, one) = (guests.enter(2), guests.enter(1));
    assert!(one.is_ok() && two.is_ok());
    let full = guests.enter(1).expect_err("there are three");
    assert_eq!(full, Full { asked: 1, limit: 3 });
    assert_eq!(full.to_string(), "fewer than 1 of the 3 places for rows without a session are free");
    drop(one);
    assert!(guests.enter(2).is_err() && guests.inside() == 2, "all or none");
    assert!(guests.enter(1).is_ok());
    assert!(guests.enter(usize::MAX).is_err());
}

#[test]
fn a_batch_with_guests_in_it_is_no_longer_than_a_session_can_wait_for() {
    let (fake, pool) = (Fake::new(), pool(1));
    let lane = fake.lane(&pool, spec(64), 1);
    // A row more costs 0.5 ms: four are 2 ms.
    for rows in [1, 2, 4, 8, 16, 32, 64] {
        (0..100).for_each(|_| lane.learn(rows, Duration::from_micros(500 * rows as u64)));
    }
    let guests = Guests::new(64);
    let (owner, told) = Teller::new();
    fake.gate.shut();
    lane.submit(row(-1.0, GOOD), owner.clone(), false);
    fake.wait_running();
    for place in guests.enter(10).expect("places") {
        let mut guest = row_due(1.0, GOOD, Instant::now(), 10_000);
        guest.hold(place);
        lane.submit(guest, owner.clone(), false);
    }
    for _ in 0..6 {
        lane.submit(row(2.0, GOOD), owner.clone(), false);
    }
    fake.gate.open();
    all(&told, 17).into_iter().for_each(|mut told| drop(told.row.release()));
    let batches = fake.batches.lock().clone();
    // Sessions ride together and first; no guest makes their batch longer.
    assert_eq!(batches[1], [2.0; 6]);
    assert!(batches[2..].iter().all(|batch| batch.len() <= 4), "{batches:?}");
}

#[test]
fn two_hundred_guests_on_eight_places_do_not_hold_up_a_session() {
    let (fake, pool) = (Fake::new(), pool(1));
    fake.delay_us.store(200, Ordering::SeqCst);
    let lane = fake.lane(&pool, spec(4), 1);
    let _place = lane.place().expect("the lane is open");
    let guests = Arc::new(Guests::new(8));
    let (full, served, most) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let enough = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..200 {
            scope.spawn(|| {
                while !enough.load(Ordering::SeqCst) {
                    let Ok(mut places) = guests.enter(1) else {
                        full.fetch_add(1, Ordering::SeqCst);
                        std::thread::park_timeout(Duration::from_millis(1));
                        continue;
                    };
                    let (owner, told) = Teller::new();
                    let mut row = row_due(1.0, GOOD, Instant::now(), 10_000);
                    row.hold(places.remove(0));
                    lane.submit(row, owner, false);
                    most.fetch_max(lane.waiting(), Ordering::SeqCst);
                    let mut back = next(&told);
                    assert_eq!(back.y(), 3.0);
                    served.fetch_add(1, Ordering::SeqCst);
                    drop(back.row.release());
                }
            });
        }
        let (owner, told) = Teller::new();
        let mut mine = row_due(2.0, GOOD, Instant::now(), 5);
        let mut runs_until_mine = Vec::new();
        for _ in 0..100 {
            fake.batches.lock().clear();
            mine.due = Instant::now() + Duration::from_millis(5);
            lane.submit(mine, owner.clone(), false);
            let before = fake.batches.lock().len();
            mine = next(&told).row;
            let runs = fake.batches.lock().iter().position(|rows| rows.contains(&2.0));
            runs_until_mine.push(runs.expect("it was run").saturating_sub(before));
        }
        enough.store(true, Ordering::SeqCst);
        // At most one run that was taken just before it came and had not begun: no guest goes first.
        assert!(runs_until_mine.iter().all(|&runs| runs <= 1), "{runs_until_mine:?}");
    });
    assert!(full.into_inner() > 0 && served.into_inner() > 0);
    let most = most.into_inner();
    assert!(most <= 9, "{most} rows waited at once on 8 guests' places and 1 session's");
    assert_eq!(guests.inside(), 0);
}

#[test]
fn while_a_session_is_open_one_of_several_workers_takes_no_guests() {
    let (slow, quick, pool) = (Fake::new(), Fake::new(), pool(2));
    let slow_lanes = [slow.lane(&pool, spec(1), 1), slow.lane(&pool, spec(1), 1)];
    let lane = quick.lane(&pool, spec(1), 1);
    let guests = Guests::new(4);
    let (owner, told) = Teller::new();
    let send = |lane: &Arc<Lane>| {
        let mut row = row_due(1.0, GOOD, Instant::now(), 10_000);
        row.hold(guests.enter(1).expect("a place").remove(0));
        lane.submit(row, owner.clone(), false);
    };
    slow.gate.shut();
    let place = lane.place().expect("the lane is open");
    slow_lanes.iter().for_each(send);
    slow.wait_running();
    // One guest runs and does not end, the other waits: a worker is free for the session.
    for _ in 0..3 {
        lane.submit(row(2.0, GOOD), owner.clone(), false);
        assert_eq!(next(&told).value(), 2.0);
    }
    assert_eq!(slow.running.load(Ordering::SeqCst), 1);
    drop(place);
    // Nobody is in: the next thing that happens lets the other one run, too.
    lane.submit(row(3.0, GOOD), owner.clone(), false);
    assert_eq!(next(&told).value(), 3.0);
    until("both run", || slow.running.load(Ordering::SeqCst) == 2);
    slow.gate.open();
    all(&told, 2).into_iter().for_each(|mut told| drop(told.row.release()));
    assert_eq!(guests.inside(), 0);
}

#[test]
fn opening_is_refused_when_the_load_would_pass_its_limit_and_allowed_again_after_a_close() {
    let (fake, pool) = (Fake::new(), pool(2));
    let lane = fake.lane(&pool, spec(1), 1);
    lane.learn(1, Duration::from_millis(4));
    // 100 rows/s of 4 ms: 0.4 of a thread; two threads at 0.8 bear 1.6.
    let mut open: Vec<_> =
        (0..4).map(|_| admit(&pool, &lane, 100.0).expect("1.6 threads are allowed")).collect();
    let refused = admit(&pool, &lane, 100.0).expect_err("2.0 threads are not");
    let said = refused.to_string();
    assert!(
        said.starts_with("load would be 2.00 of 1.60 threads: 2.00 for runs of models, 0.00 for ingest"),
        "{said}"
    );
    assert!((lane.load() - 1.6).abs() < 1e-9, "a refused session leaves nothing behind");
    open.pop();
    assert!(admit(&pool, &lane, 100.0).is_ok());
}

#[test]
fn sessions_whose_preprocessing_fills_the_load_keep_the_next_one_out() {
    let (fake, pool) = (Fake::new(), pool(2));
    let lane = fake.lane(&pool, spec(1), 1);
    lane.learn(1, Duration::from_millis(1));
    let open = |shape: &str| {
        let ingest = pool.ingest(shape, 50.0);
        pool.admit(&[(lane.clone(), 50.0)], Some(&ingest)).map(|places| (places, ingest))
    };
    let mut inside = vec![open("broadband").expect("nobody is in")];
    // 50 bins/s of 12 ms: 0.6 of a thread, and 0.05 for the model; two threads at 0.8 bear 1.6.
    (0..8).for_each(|_| inside[0].1.learn_bins(1, Duration::from_millis(12)));
    inside.push(open("broadband").expect("1.3 threads are allowed"));
    let said = open("broadband").expect_err("1.95 are not").to_string();
    assert_eq!(
        said,
        "load would be 1.95 of 1.60 threads: 0.15 for runs of models, 1.80 for ingest (preprocessing), of which 0.60 \
         for the new session, by what the last such took"
    );
    let light = open("counts").expect("1.35 threads are allowed");
    assert!((pool.load().ingest - 1.2).abs() < 1e-9, "a refused session leaves nothing behind");
    // Preprocessing has become slower than it was.
    (0..100).for_each(|_| inside[0].1.learn_bins(1, Duration::from_millis(20)));
    assert!(open("counts").is_err());
    drop(light);
    inside.pop();
    assert!(open("counts").is_ok());
}

#[test]
fn one_who_is_alone_is_let_in_whatever_its_preprocessing_takes() {
    let (fake, pool) = (Fake::new(), pool(1));
    let lane = fake.lane(&pool, spec(1), 1);
    let open = || {
        let ingest = pool.ingest("broadband", 50.0);
        pool.admit(&[(lane.clone(), 50.0)], Some(&ingest)).map(|places| (places, ingest))
    };
    for _ in 0..2 {
        let (places, ingest) = open().expect("nobody is in");
        (0..8).for_each(|_| ingest.learn_bins(1, Duration::from_millis(19)));
        assert!(open().is_err());
        drop((places, ingest));
    }
}

#[test]
fn one_who_is_alone_and_is_refused_for_its_runs_is_told_its_ingest_as_it_is() {
    let (fake, pool) = (Fake::new(), pool(1));
    let lane = fake.lane(&pool, spec(1), 1);
    lane.learn(1, Duration::from_millis(18));
    // 50 bins/s of 12 ms: 0.6 of a thread; the model's 0.9 alone are over 0.8.
    let ingest = pool.ingest("broadband", 50.0);
    (0..8).for_each(|_| ingest.learn_bins(1, Duration::from_millis(12)));
    let refused = pool.admit(&[(lane.clone(), 50.0)], Some(&ingest)).expect_err("1.5 threads of 0.8");
    assert_eq!(
        refused.to_string(),
        "load would be 1.50 of 0.80 threads: 0.90 for runs of models, 0.60 for ingest (preprocessing), of which 0.60 \
         for the new session, by what the last such took"
    );
    assert_eq!(pool.load().busy(), 0.0, "nothing is left of what was refused");
}

#[test]
fn where_nobody_is_a_slow_moment_does_not_shut_the_door_for_ever() {
    let (fake, pool) = (Fake::new(), pool(1));
    let lane = fake.lane(&pool, spec(1), 1);
    let open = || admit(&pool, &lane, 100.0);
    lane.learn(1, Duration::from_millis(5));
    let first = open().expect("0.5 threads are allowed");
    // The machine is busy otherwise: 100 rows/s of 50 ms are five threads.
    (0..100).for_each(|_| lane.learn(1, Duration::from_millis(50)));
    assert!(open().is_err());
    drop(first);
    let alone = open().expect("nobody is there, and it was quicker once");
    assert!(open().is_err(), "two at its best are 1.0 threads of 0.8");
    drop(alone);
    let lane = fake.lane(&pool, spec(1), 1);
    lane.learn(1, Duration::from_millis(9));
    assert!(admit(&pool, &lane, 100.0).is_err(), "one that never was quick enough stays out");
}

#[test]
fn the_load_counts_a_row_in_the_batch_that_it_will_ride_in() {
    let (fake, pool) = (Fake::new(), pool(1));
    let lane = fake.lane(&pool, spec(64), 1);
    lane.learn(1, Duration::from_millis(1));
    lane.learn(64, Duration::from_millis(2));
    // 64 sessions of 100 rows/s: 6.4 threads alone; half a bin is 5 ms, in which 32 rows come: as slow as 64, 2 ms.
    let open: Vec<_> = (0..64).map_while(|_| admit(&pool, &lane, 100.0).ok()).collect();
    assert_eq!(open.len(), 64);
    let load = pool.load();
    assert!(load.busy() <= load.limit && load.limit == 0.8, "{load:?}");
    drop(open);
    assert_eq!(pool.load().busy(), 0.0);
}

#[test]
fn a_closed_lane_gives_no_place() {
    let (fake, pool) = (Fake::new(), pool(1));
    let lane = fake.lane(&pool, spec(1), 1);
    assert!(lane.place().is_some());
    assert!(pool.stop(Instant::now() + LIMIT));
    assert!(lane.place().is_none());
    assert_eq!(admit(&pool, &lane, 1.0).expect_err("closed"), Refused::Closed);
}

#[test]
fn a_lane_that_nobody_holds_is_freed_and_its_model_with_it() {
    let (fake, pool) = (Fake::new(), pool(1));
    let lane = fake.lane(&pool, spec(8), 1);
    let (owner, told) = Teller::new();
    let place = lane.place().expect("open");
    lane.submit(row(1.0, GOOD), owner, false);
    let gone = Arc::downgrade(&lane);
    drop(lane);
    next(&told);
    assert!(gone.upgrade().is_some(), "a session holds it");
    drop(place);
    until("freed", || gone.upgrade().is_none());
    until("its instance, too", || Arc::strong_count(&fake) == 1);
}

#[test]
fn a_place_is_exchanged_for_one_on_another_lane_where_there_would_be_no_room_for_both() {
    let (fake, pool) = (Fake::new(), pool(2));
    let (old, new, dear) =
        (fake.lane(&pool, spec(1), 1), fake.lane(&pool, spec(1), 1), fake.lane(&pool, spec(1), 1));
    for (lane, ms) in [(&old, 4), (&new, 3), (&dear, 8)] {
        lane.learn(1, Duration::from_millis(ms));
    }
    let mut open: Vec<_> =
        (0..4).map(|_| admit(&pool, &old, 100.0).expect("1.6 threads are allowed")).collect();
    let leaves = open.pop().and_then(|mut places| places.pop()).expect("a place");
    let before = pool.load().busy();
    assert!(pool.exchange((dear, 100.0), &leaves).is_err(), "2.0 threads are not");
    assert_eq!(pool.load().busy(), before, "nothing is left of what was refused");
    let place = pool.exchange((new.clone(), 100.0), &leaves).expect("one comes, one goes");
    drop(leaves);
    assert!((pool.load().busy() - 1.5).abs() < 1e-9);
    drop((place, open));
    assert_eq!(pool.load().busy(), 0.0);
    pool.stop(Instant::now() + LIMIT);
}
