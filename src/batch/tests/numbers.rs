//! Batched = alone, and who may share a batch.

use std::sync::Arc;

use super::fake::*;
use crate::batch::invariance::{measure, measure_run_time};
use crate::batch::{LaneSpec, Port};
use crate::domain::tensor::{Dtype, Tensor};

#[test]
fn a_row_among_63_neighbours_has_the_bits_that_it_has_alone() {
    let (fake, pool) = (Fake::new(), pool(1));
    let lane = fake.lane(&pool, spec(64), 1);
    let (owner, told) = Teller::new();
    let values: Vec<f32> = (0..64).map(|i| (i as f32).sin() * 1e3).collect();
    let alone: Vec<u32> = values
        .iter()
        .map(|&value| {
            lane.submit(row(value, GOOD), owner.clone(), false);
            next(&told).y().to_bits()
        })
        .collect();
    fake.gate.shut();
    lane.submit(row(0.0, GOOD), owner.clone(), false);
    fake.wait_running();
    values.iter().for_each(|&value| lane.submit(row(value, GOOD), owner.clone(), false));
    fake.gate.open();
    let batched: Vec<u32> = all(&told, 65)[1..].iter().map(|told| told.y().to_bits()).collect();
    assert_eq!(fake.sizes().last(), Some(&64));
    assert_eq!(batched, alone);
}

#[test]
fn invariance_is_measured_as_it_is() {
    let fake = Fake::new();
    let found = measure(fake.instance().as_mut(), &spec(256), &[1, 2]).expect("it runs");
    assert!(found.exact && found.padded_exact && found.max_error == 0.0, "{found:?}");
    let mut sizes = fake.sizes();
    sizes.sort_unstable();
    sizes.dedup();
    assert_eq!(sizes, [1, 2, 7, 8, 64]);
    *fake.leak.lock() = 0.25;
    let found = measure(fake.instance().as_mut(), &spec(256), &[1, 2]).expect("it runs");
    assert!(!found.exact && found.padded_exact, "{found:?}");
    assert!((found.max_error - 0.25 * 63.0).abs() < 1e-3, "{found:?}");
    let found = measure(fake.instance().as_mut(), &spec(1), &[1]).expect("it runs");
    assert!(found.exact, "alone there is nothing to differ from");
    *fake.leak.lock() = f32::NAN;
    let found = measure(fake.instance().as_mut(), &spec(8), &[1]).expect("it runs");
    assert!(found.exact || found.max_error == f64::INFINITY, "{found:?}");
}

#[test]
fn the_run_time_is_that_of_a_run() {
    let fake = Fake::new();
    fake.delay_us.store(300, std::sync::atomic::Ordering::SeqCst);
    let run = measure_run_time(fake.instance().as_mut(), &spec(8)).expect("it runs");
    assert!(run.as_micros() >= 300, "{run:?}");
}

#[test]
fn a_deterministic_lane_runs_batches_of_eight_whoever_comes() {
    let (fake, pool) = (Fake::new(), pool(1));
    *fake.leak.lock() = 0.5;
    let lane = fake.lane(&pool, LaneSpec { deterministic: true, ..spec(64) }, 1);
    let (owner, told) = Teller::new();
    lane.submit(row(3.0, GOOD), owner.clone(), false);
    let alone = next(&told).y();
    fake.gate.shut();
    lane.submit(row(0.0, GOOD), owner.clone(), false);
    fake.wait_running();
    (0..11).for_each(|i| lane.submit(row(i as f32, GOOD), owner.clone(), false));
    fake.gate.open();
    let all = all(&told, 12);
    assert!(fake.sizes().iter().all(|&rows| rows == 8), "{:?}", fake.sizes());
    assert_eq!(fake.batches.lock().last().map(|rows| rows[2..].to_vec()), Some(vec![10.0; 6]));
    assert_eq!(all[4].value(), 3.0);
    assert_eq!(all[4].y().to_bits(), alone.to_bits(), "whatever its neighbours");
    assert_eq!(all[4].outcome.as_ref().map(|ran| ran.rows), Ok(8));
    assert_eq!(all[11].outcome.as_ref().map(|ran| ran.rows), Ok(3), "padding is not counted");
}

#[test]
fn rows_share_a_batch_only_if_its_one_value_is_the_same() {
    let (fake, pool) = (Fake::new(), pool(1));
    let mut spec = spec(16);
    spec.inputs.push(Port { name: "k".into(), dtype: Dtype::F32, row_shape: vec![1], batch_axis: None });
    let lane = fake.lane(&pool, spec, 1);
    let (owner, told) = Teller::new();
    let with = |value: f32, k: f32| {
        let mut row = row(value, GOOD);
        row.inputs.push(Tensor::from_f32(&[1], &[k]));
        row
    };
    fake.gate.shut();
    lane.submit(with(-1.0, 0.0), owner.clone(), false);
    fake.wait_running();
    (0..9).for_each(|i| lane.submit(with(i as f32, (i % 3) as f32), owner.clone(), false));
    fake.gate.open();
    all(&told, 10);
    assert_eq!(
        *fake.batches.lock(),
        [vec![-1.0], vec![0.0, 3.0, 6.0], vec![1.0, 4.0, 7.0], vec![2.0, 5.0, 8.0]]
    );
}

#[test]
fn a_rows_box_and_buffers_come_back_to_be_used_again() {
    let (fake, pool) = (Fake::new(), pool(1));
    let lane = fake.lane(&pool, spec(8), 1);
    let (owner, told) = Teller::new();
    let mut row = row(1.0, GOOD);
    let place = std::ptr::from_ref(&*row);
    let mut buffer = None;
    for _ in 0..3 {
        lane.submit(row, Arc::clone(&owner) as _, false);
        row = next(&told).row;
        assert_eq!(std::ptr::from_ref(&*row), place);
        let output = row.outputs[0].data.bytes().as_ptr();
        assert_eq!(*buffer.get_or_insert(output), output);
    }
}
