//! Errors, panics, losses, rebuilds.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::fake::*;
use crate::batch::{Lane, RowFault};

/// Runs `orders` as one batch, after a first row that holds the lane; the outcomes by row.
fn together(fake: &Arc<Fake>, lane: &Arc<Lane>, orders: &[f32]) -> Vec<Told> {
    let (owner, told) = Teller::new();
    fake.gate.shut();
    lane.submit(row(-1.0, GOOD), owner.clone(), false);
    fake.wait_running();
    for (i, &order) in orders.iter().enumerate() {
        lane.submit(row(i as f32, order), owner.clone(), false);
    }
    fake.gate.open();
    let mut all = all(&told, orders.len() + 1);
    all.sort_by(|a, b| a.value().total_cmp(&b.value()));
    all.remove(0);
    all
}

fn assert_only_fails(all: &[Told], bad: usize, fault: &RowFault) {
    for (i, told) in all.iter().enumerate() {
        match &told.outcome {
            Ok(ran) => {
                assert_ne!(i, bad);
                assert_eq!((told.y(), ran.rows), (2.0 * i as f32 + 1.0, 1));
            }
            Err(found) => assert_eq!((i, found), (bad, fault)),
        }
    }
}

#[test]
fn a_bad_row_fails_alone() {
    let (fake, pool) = (Fake::new(), pool(1));
    let lane = fake.lane(&pool, spec(8), 1);
    let all = together(&fake, &lane, &[GOOD, GOOD, BAD, GOOD]);
    assert_only_fails(&all, 2, &RowFault::Run("as ordered".into()));
    assert_eq!(fake.sizes(), [1, 4, 1, 1, 1, 1]);
    assert_eq!(fake.rebuilds.load(Ordering::SeqCst), 0);
}

#[test]
fn a_row_that_makes_the_engine_panic_fails_alone_and_the_instance_is_rebuilt() {
    let (fake, pool) = (Fake::new(), pool(1));
    let lane = fake.lane(&pool, spec(8), 1);
    let all = together(&fake, &lane, &[PANIC, GOOD, GOOD]);
    assert_only_fails(&all, 0, &RowFault::Panicked);
    until("rebuilt after the batch and after the row", || fake.rebuilds.load(Ordering::SeqCst) == 2);
    assert!(together(&fake, &lane, &[GOOD])[0].outcome.is_ok(), "the lane goes on");
}

#[test]
fn a_lost_instance_is_rebuilt_and_its_rows_are_tried_once_more() {
    let (fake, pool) = (Fake::new(), pool(1));
    let lane = fake.lane(&pool, spec(8), 1);
    let all = together(&fake, &lane, &[GOOD, LOST]);
    assert_only_fails(&all, 1, &RowFault::Lost("as ordered".into()));
}

#[test]
fn while_no_instance_can_be_rebuilt_rows_are_answered_lost_with_a_sentence_until_one_can() {
    let (fake, pool) = (Fake::new(), pool(1));
    let lane = fake.lane(&pool, spec(8), 1);
    let (owner, told) = Teller::new();
    fake.refuse_rebuild.store(true, Ordering::SeqCst);
    lane.submit(row(0.0, PANIC), owner.clone(), false);
    assert_eq!(next(&told).outcome, Err(RowFault::Panicked));
    let mut sentences = Vec::new();
    for _ in 0..200 {
        lane.submit(row(0.0, GOOD), owner.clone(), true);
        match next(&told).outcome {
            Err(RowFault::Lost(sentence)) => sentences.push(sentence),
            other => panic!("expected Lost, found {other:?}"),
        }
    }
    assert!(sentences[0].starts_with("instance is lost: no device; tried again in "), "{}", sentences[0]);
    assert!(lane.fault().is_some());
    let tries = fake.rebuilds.load(Ordering::SeqCst);
    assert!(tries < 100, "with back-off, not {tries} tries for 200 rows");
    fake.refuse_rebuild.store(false, Ordering::SeqCst);
    until("rows run again", || {
        lane.submit(row(0.0, GOOD), owner.clone(), false);
        next(&told).outcome.is_ok()
    });
    assert_eq!(lane.fault(), None);
}

#[test]
fn a_panic_in_place_is_answered_here_and_the_instance_rebuilt_elsewhere() {
    let (fake, pool) = (Fake::new(), pool(1));
    let lane = fake.lane(&pool, spec(8), 1);
    lane.learn(1, std::time::Duration::from_micros(1));
    let (owner, told) = Teller::new();
    lane.submit(row(0.0, PANIC), owner.clone(), true);
    assert_eq!(told.try_recv().expect("in place").outcome, Err(RowFault::Panicked));
    lane.submit(row(1.0, GOOD), owner, true);
    assert_eq!(next(&told).y(), 3.0);
}

#[test]
fn a_row_that_does_not_fit_is_told_so_and_its_neighbours_run() {
    let (fake, pool) = (Fake::new(), pool(1));
    let lane = fake.lane(&pool, spec(8), 1);
    let (owner, told) = Teller::new();
    let mut wrong = row(0.0, GOOD);
    wrong.inputs[0] = crate::domain::tensor::Tensor::from_f32(&[3], &[0.0, 0.0, 0.0]);
    lane.submit(wrong, owner.clone(), false);
    let Err(RowFault::Run(sentence)) = next(&told).outcome else { panic!("it was run") };
    assert_eq!(sentence, "x: expected f32 [2] of a row, found f32 [3] in 12 bytes");
    lane.submit(row(1.0, GOOD), owner, false);
    assert_eq!(next(&told).y(), 3.0);
}

#[test]
fn a_nan_in_an_output_is_no_fault_of_the_lane() {
    let (fake, pool) = (Fake::new(), pool(1));
    let lane = fake.lane(&pool, spec(8), 1);
    let all = together(&fake, &lane, &[GOOD, NAN]);
    assert!(all[1].outcome.is_ok() && all[1].y().is_nan());
    assert_eq!(all[0].y(), 1.0);
}

#[test]
fn rows_whose_owner_has_left_are_answered_without_being_run() {
    let (fake, pool) = (Fake::new(), pool(1));
    let lane = fake.lane(&pool, spec(8), 1);
    let (owner, told) = Teller::new();
    let (leaver, its_told) = Teller::new();
    fake.gate.shut();
    lane.submit(row(-1.0, GOOD), owner.clone(), false);
    fake.wait_running();
    lane.submit(row(1.0, GOOD), leaver.clone(), false);
    lane.submit(row(2.0, GOOD), owner, false);
    leaver.gone.store(true, Ordering::SeqCst);
    fake.gate.open();
    assert_eq!(next(&its_told).outcome, Err(RowFault::Gone));
    all(&told, 2);
    assert_eq!(*fake.batches.lock(), [vec![-1.0], vec![2.0]]);
}

struct Clumsy;

impl crate::batch::Owner for Clumsy {
    fn finished(
        self: Arc<Self>,
        _: Box<crate::batch::Row>,
        _: Result<crate::batch::Ran, RowFault>,
    ) -> Option<crate::batch::Onward> {
        std::panic::resume_unwind(Box::new("as ordered"));
    }
}

#[test]
fn an_owner_that_panics_takes_no_thread_and_no_neighbour_with_it() {
    let (fake, pool) = (Fake::new(), pool(1));
    let lane = fake.lane(&pool, spec(8), 1);
    let (owner, told) = Teller::new();
    fake.gate.shut();
    lane.submit(row(-1.0, GOOD), owner.clone(), false);
    fake.wait_running();
    lane.submit(row(1.0, GOOD), Arc::new(Clumsy), false);
    lane.submit(row(2.0, GOOD), owner, false);
    fake.gate.open();
    assert_eq!(all(&told, 2)[1].y(), 5.0);
}
