//! Whether a row has the same outputs in a batch as alone, and how long a run takes: measured once, at load.

use std::time::{Duration, Instant};

use super::gather;
use super::row::{LaneSpec, PADDED_ROWS, Port, Row};
use crate::domain::tensor::{Dtype, Tensor};
use crate::engine::{Batch, EngineError, Instance};

/// The largest batch that is tried.
const MOST_ROWS: usize = 64;
/// Timed runs of one size, after `WARM_UPS`; fewer if they fill `TIMING_LIMIT`.
const TIMED_RUNS: usize = 9;
const WARM_UPS: usize = 3;
const TIMING_LIMIT: Duration = Duration::from_millis(200);

/// What batching does to a row's numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Invariance {
    /// Every row had the same bits alone, at every batch size and position.
    pub exact: bool,
    /// Every row had the same bits in padded batches, whatever its position and neighbours: what `deterministic` needs.
    pub padded_exact: bool,
    /// Largest |batched − alone| of any element; infinite where only one of them is finite.
    pub max_error: f64,
}

/// Runs random finite rows alone and in batches of 1, 2, 7, 8 and `max_batch` (at most 64), every row at two positions
/// of each size (at every one of 8), and compares bits. A model with `max_batch` 1 is exact. Errors: the engine's, or `EngineError::Run`
/// for outputs that are not the spec's.
pub fn measure(
    instance: &mut dyn Instance,
    spec: &LaneSpec,
    seeds: &[u64],
) -> Result<Invariance, EngineError> {
    let most = spec.max_batch.clamp(1, MOST_ROWS);
    let padded = PADDED_ROWS.min(most);
    let mut sizes: Vec<usize> = [1, 2, 7, padded, most].into_iter().filter(|&rows| rows <= most).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let mut batch = Batch::default();
    let mut found = Invariance { exact: true, padded_exact: true, max_error: 0.0 };
    for &seed in seeds {
        let mut rows: Vec<Box<Row>> = (0..most).map(|i| random_row(&spec.inputs, seed, i as u64)).collect();
        let mut alone = Vec::with_capacity(most);
        for row in rows.chunks_mut(1) {
            run(instance, spec, row, &mut batch)?;
            alone.push(row[0].outputs.clone());
        }
        let mut in_padded: Vec<Option<Vec<Tensor>>> = vec![None; most];
        for &size in &sizes {
            // In the size of padded batches every row stands at every position, in the others at two.
            for first in (0..size).step_by(if size == padded { 1 } else { size.div_ceil(2) }) {
                let turns = most.div_ceil(size) * size;
                let order: Vec<usize> = (0..turns).map(|i| (i + first) % most).collect();
                for chosen in order.chunks_exact(size) {
                    let mut riding: Vec<Box<Row>> = chosen.iter().map(|&i| copy_of(&rows[i])).collect();
                    run(instance, spec, &mut riding, &mut batch)?;
                    for (row, &i) in riding.iter_mut().zip(chosen) {
                        let error = distance(&row.outputs, &alone[i]);
                        found.exact &= error.is_none();
                        found.max_error = found.max_error.max(error.unwrap_or(0.0));
                        if size == padded {
                            let before = in_padded[i].get_or_insert_with(|| row.outputs.clone());
                            found.padded_exact &= distance(&row.outputs, before).is_none();
                        }
                    }
                }
            }
        }
    }
    Ok(found)
}

/// Median time of a run of one lone row, as it would be run on a lane of this spec.
pub fn measure_run_time(instance: &mut dyn Instance, spec: &LaneSpec) -> Result<Duration, EngineError> {
    measure_run_time_of(instance, spec, 1)
}

/// Median time of a run of so many rows (at most `max_batch`), after a few to warm up. What it finds is for `Lane::learn`.
pub fn measure_run_time_of(
    instance: &mut dyn Instance,
    spec: &LaneSpec,
    rows: usize,
) -> Result<Duration, EngineError> {
    let rows = rows.clamp(1, spec.claim_rows());
    let rows: Vec<Box<Row>> = (0..rows).map(|i| random_row(&spec.inputs, 0, i as u64)).collect();
    let mut batch = Batch::default();
    let mut times = Vec::with_capacity(TIMED_RUNS);
    let t_begin = Instant::now();
    for turn in 0..WARM_UPS + TIMED_RUNS {
        gather::gather(&spec.inputs, &rows, spec.batch_rows(rows.len()), &mut batch.inputs);
        let t_start = Instant::now();
        instance.run(&mut batch)?;
        if turn >= WARM_UPS || t_begin.elapsed() > TIMING_LIMIT {
            times.push(t_start.elapsed());
        }
        if !times.is_empty() && t_begin.elapsed() > TIMING_LIMIT {
            break;
        }
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

fn run(
    instance: &mut dyn Instance,
    spec: &LaneSpec,
    rows: &mut [Box<Row>],
    batch: &mut Batch,
) -> Result<(), EngineError> {
    gather::gather(&spec.inputs, rows, rows.len(), &mut batch.inputs);
    instance.run(batch)?;
    gather::scatter(&spec.outputs, &batch.outputs, rows.len(), rows).map_err(EngineError::Run)
}

fn copy_of(row: &Row) -> Box<Row> {
    Box::new(Row::new(row.inputs.clone(), row.due))
}

/// `None` if all bits are equal; else the largest distance of two elements, 0 for two NaNs or two zeros.
fn distance(ones: &[Tensor], others: &[Tensor]) -> Option<f64> {
    let mut found: Option<f64> = None;
    for (one, other) in ones.iter().zip(others) {
        if one.data.bytes() == other.data.bytes() {
            continue;
        }
        for (a, b) in one.to_f64().into_iter().zip(other.to_f64()) {
            let error = if a == b || (a.is_nan() && b.is_nan()) {
                0.0
            } else if a.is_finite() && b.is_finite() {
                (a - b).abs()
            } else {
                f64::INFINITY
            };
            found = Some(found.unwrap_or(0.0).max(error));
        }
    }
    found
}

/// A row whose values are a function of seed, row, port and element alone. A port without batch axis has the same
/// value in all rows of a seed.
fn random_row(ports: &[Port], seed: u64, row: u64) -> Box<Row> {
    let inputs = ports.iter().enumerate().map(|(i, port)| {
        let row = if port.batch_axis.is_some() { row } else { 0 };
        let mut tensor = Tensor::zeros(port.dtype, &port.row_shape);
        fill(&mut tensor, hash(seed, hash(row, i as u64)));
        tensor
    });
    Box::new(Row::new(inputs.collect(), Instant::now()))
}

/// Floats in [-2, 2), integers 0 to 3, booleans.
fn fill(tensor: &mut Tensor, stream: u64) {
    let bits = |i: usize| hash(stream, i as u64);
    let real = |i: usize| (bits(i) >> 11) as f64 * (4.0 / (1u64 << 53) as f64) - 2.0;
    let small = |i: usize| (bits(i) & 3) as u8;
    match tensor.dtype {
        Dtype::F32 => set(tensor, |i| real(i) as f32),
        Dtype::F64 => set(tensor, real),
        Dtype::F16 => set(tensor, |i| half::f16::from_f64(real(i)).to_bits()),
        Dtype::Bf16 => set(tensor, |i| half::bf16::from_f64(real(i)).to_bits()),
        Dtype::I8 | Dtype::U8 => set(tensor, small),
        Dtype::I16 | Dtype::U16 => set(tensor, |i| u16::from(small(i))),
        Dtype::I32 | Dtype::U32 => set(tensor, |i| u32::from(small(i))),
        Dtype::I64 | Dtype::U64 => set(tensor, |i| u64::from(small(i))),
        Dtype::Bool => set(tensor, |i| small(i) & 1),
    }
}

fn set<T: bytemuck::Pod>(tensor: &mut Tensor, value: impl Fn(usize) -> T) {
    tensor.values_mut::<T>().iter_mut().enumerate().for_each(|(i, x)| *x = value(i));
}

/// SplitMix64's finaliser over a counter: stateless, so that no value depends on the order of drawing.
fn hash(key: u64, counter: u64) -> u64 {
    let mut z = key.wrapping_add(counter.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
