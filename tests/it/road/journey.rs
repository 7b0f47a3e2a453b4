//! What a rig has to say, whatever the road: an open and its frames, drawn from a seed.

use latentd::wire::v1;

use crate::recordings::Random;
use crate::support::{binned, pipeline, recorded, signal, spikes};

/// Unanswered frames that the server of these tests grants; few, so that the window is often full.
pub const WINDOW: u64 = 6;
/// Where the index of sampled signals begins: at 0 or, for a device that was switched on long ago, later.
const FIRST_INDEX: u64 = 1_000;
const MS: i64 = 1_000_000;

/// A session's open and its frames in the order of their making.
#[derive(Clone, Debug)]
pub struct Journey {
    /// What it was drawn from.
    pub seed: u64,
    /// The open; recorded.
    pub ask: v1::OpenRequest,
    /// The frames. Where a rig has lost some before it could send them, their `seq`s are missing and the next is `lost`.
    pub frames: Vec<v1::Frame>,
    /// Which frame closes a bin, and how many messages answer a frame, is the same by every road.
    pub one_signal: bool,
}

impl Journey {
    /// The journey of a seed.
    pub fn of(seed: u64) -> Self {
        let mut random = Random::of(seed);
        let kind = random.below(6);
        let (name, signals) = match kind {
            0..3 => ("linear", vec![signal("spikes", "binned", &["a", "b"])]),
            3 | 4 => ("events", vec![signal("spikes", "spike_events", &["b", "a"])]),
            _ => ("pair", ["left", "right"].map(|name| signal(name, "binned", &["a", "b"])).into()),
        };
        let one_signal = kind < 5;
        let mut ask = recorded(pipeline(name, signals));
        // What a gap that is not filled divides is told by one signal's order; two signals are waited for.
        let gaps = if one_signal { &["hold", "zero", "skip", "reset"][..] } else { &["hold", "zero"] };
        ask.gap = random.of_these(gaps).into();
        ask.late = random.of_these(&["drop", "next"]).into();
        ask.max_gap_ms = (one_signal && random.one_in(2)).then_some(40.0);
        ask.lateness_ms = if random.one_in(3) { 20.0 } else { 0.0 };
        ask.wait_ms = Some(600_000.0);
        ask.nan = if kind < 3 { random.of_these(&["mask", "reject"]) } else { "mask" }.into();
        ask.ack = if random.one_in(8) { "durable" } else { "none" }.into();
        let n = 12 + random.below(8);
        let frames = match kind {
            0..3 => rows("spikes", n, &mut random),
            3 | 4 => events(n, &mut random),
            _ => {
                let (left, right) = (rows("left", n, &mut random), rows("right", n, &mut random));
                let pairs = left.into_iter().zip(right);
                let frames: Vec<_> = pairs.flat_map(|(left, right)| [left, right]).collect();
                level(frames)
            }
        };
        Self { seed, ask, frames, one_signal }
    }
}

/// So many frames of rows, some of them lost, empty, of samples that came already, or not finite.
fn rows(signal: &str, n: u64, random: &mut Random) -> Vec<v1::Frame> {
    let (mut seq, mut index) = (0, FIRST_INDEX);
    let mut frames = Vec::new();
    for at in 0..n {
        // The first is whole, so that bin 0 is where the index begins; the last ones drain what a gap left behind.
        let calm = at == 0 || at + 4 > n;
        let mut frame_rows = if calm { 2 } else { random.below(4) };
        let mut lost = false;
        match random.below(10) {
            0 if !calm => {
                let frames_lost = 1 + random.below(3);
                (seq, index, lost) = (seq + frames_lost, index + 2 * frames_lost, true);
            }
            1 if !calm => index += 1 + random.below(6),
            // Whether a hole can still be filled is for the other signal to say, where there is one.
            2 if !calm && signal == "spikes" => {
                index -= (1 + random.below(3)).min(index - FIRST_INDEX);
                frame_rows += 1;
            }
            _ => {}
        }
        let mut row = || [random.below(5) as f32, random.below(5) as f32];
        let mut values: Vec<[f32; 2]> = (0..frame_rows).map(|_| row()).collect();
        if !calm && signal == "spikes" && random.one_in(8) {
            values.iter_mut().take(1).for_each(|row| row[1] = f32::NAN);
        }
        let mask = if random.one_in(10) { vec![!random.one_in(2), true] } else { Vec::new() };
        let echo = if random.one_in(5) { seq.to_le_bytes().to_vec() } else { Vec::new() };
        let frame = binned(signal, seq, index, &values);
        frames.push(v1::Frame { lost, mask, echo: echo.into(), ..frame });
        index = FIRST_INDEX.max(index + frame_rows);
        seq += 1;
    }
    frames
}

/// So many frames of events in stretches of any length, some lost, some covered already.
fn events(n: u64, random: &mut Random) -> Vec<v1::Frame> {
    const T0_NS: i64 = 1_795_621_286_661_653_697;
    let (mut seq, mut t) = (0, T0_NS);
    let mut frames = Vec::new();
    for at in 0..n {
        let calm = at == 0 || at + 4 > n;
        let mut span = if calm { 20 * MS } else { random.below(25_000_000) as i64 };
        let mut lost = false;
        match random.below(10) {
            0 if !calm => {
                let frames_lost = 1 + random.below(3);
                (seq, t, lost) = (seq + frames_lost, t + 15 * MS * frames_lost as i64, true);
            }
            1 if !calm => t += random.below(40_000_000) as i64,
            2 if !calm => {
                let back = (random.below(30_000_000) as i64).min(t - T0_NS);
                (t, span) = (t - back, span + back);
            }
            _ => {}
        }
        let count = if span == 0 { 0 } else { random.below(5) };
        let mut event = || (random.below(2) as u32, t + random.below(span as u64) as i64);
        let inside: Vec<(u32, i64)> = (0..count).map(|_| event()).collect();
        frames.push(v1::Frame { lost, ..spikes("spikes", seq, t, span, &inside) });
        (seq, t) = (seq + 1, t + span);
    }
    frames
}

/// The frames of two signals, with one more of the signal that ends first, so that both end alike.
fn level(mut frames: Vec<v1::Frame>) -> Vec<v1::Frame> {
    let end = |frame: &v1::Frame| frame.first_index + u64::from(frame.count);
    let [a, b] = [frames.len() - 2, frames.len() - 1];
    let (behind, until) =
        if end(&frames[a]) < end(&frames[b]) { (a, end(&frames[b])) } else { (b, end(&frames[a])) };
    let last = &frames[behind];
    let rows = vec![[1.0, 3.0]; (until + 1 - end(last)) as usize];
    let more = binned(&last.signal, last.seq + 1, end(last), &rows);
    frames.push(more);
    frames
}
