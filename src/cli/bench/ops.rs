//! The ops of preprocessing alone, on one core: how many samples they take in a second.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use crate::domain::frame::{Frame, FrameBody, Samples};
use crate::domain::settings::{BinsBy, ChannelsBy, GapPolicy, LatePolicy, NanPolicy, Policies};
use crate::domain::signal::{Channel, ClockBy, SignalRole, SignalSpec, SignalType};
use crate::domain::tensor::{Dtype, Tensor};
use crate::domain::time::Rate;
use crate::signal::aligner::Aligner;
use crate::signal::chain::{Chain, ChainSite};
use crate::signal::input::{Fill, InputChannels, InputSpec};
use crate::signal::op::Op;
use crate::signal::pace::Pace;
use crate::signal::plan::Plan;
use crate::signal::trial::ResetOn;

/// Broadband of four arrays: what an implant gives today.
const BROADBAND: Stream = Stream { channels: 1024, rate_hz: 30_000 };
/// Field potentials of the same electrodes.
const FIELD: Stream = Stream { channels: 1024, rate_hz: 1_000 };
/// Width of the bins (ns).
const BIN_NS: u64 = 20_000_000;

/// What is streamed.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    /// Channels.
    pub channels: usize,
    /// Samples of each per second.
    pub rate_hz: u32,
}

/// A chain, and what runs through it.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// For the table.
    pub name: &'static str,
    /// What is streamed.
    pub stream: Stream,
    /// `preprocess`, as JSON.
    chain: &'static str,
    /// From frames of i16 through the whole room, or the chain alone.
    from_frames: bool,
}

/// Every op, then frames of i16 to counts.
pub fn cases() -> Vec<Case> {
    let broadband = |name, chain| Case { name, stream: BROADBAND, chain, from_frames: false };
    vec![
        broadband("bin (mean)", r#"[{"op": "bin"}]"#),
        broadband("scale", r#"[{"op": "scale", "factor": 0.195}]"#),
        broadband("reference (average)", r#"[{"op": "reference", "kind": "common_average"}]"#),
        broadband("reference (median)", r#"[{"op": "reference", "kind": "common_median"}]"#),
        broadband(
            "butterworth (band, order 4)",
            r#"[{"op": "butterworth", "kind": "band", "low_hz": 250, "high_hz": 5000}]"#,
        ),
        broadband("notch", r#"[{"op": "notch", "hz": 50}]"#),
        broadband("decimate (10, order 8)", r#"[{"op": "decimate", "factor": 10}]"#),
        broadband(
            "threshold_crossings",
            r#"[{"op": "threshold_crossings", "low_hz": 250, "high_hz": 5000, "calibrate_s": 0.02}]"#,
        ),
        broadband("smooth (exponential)", r#"[{"op": "smooth", "kernel": "exponential", "tau_ms": 2}]"#),
        broadband("zscore (running)", r#"[{"op": "zscore", "mode": "running", "tau_s": 1}]"#),
        Case {
            name: "band_power (500 ms)",
            stream: FIELD,
            chain: r#"[{"op": "band_power", "bands": [[8, 12], [13, 30], [70, 150]], "window_ms": 500}]"#,
            from_frames: false,
        },
        Case {
            name: "i16 frames to crossings",
            stream: BROADBAND,
            chain: r#"[{"op": "threshold_crossings", "low_hz": 250, "high_hz": 5000, "calibrate_s": 0.02}]"#,
            from_frames: true,
        },
    ]
}

/// Samples per second (all channels') that one core takes through the case.
pub fn measure(case: &Case, during: Duration) -> f64 {
    let ops: Vec<Op> = serde_json::from_str(case.chain).expect("a chain of this file is well formed");
    if case.from_frames {
        through_the_room(ops, case.stream, during)
    } else {
        alone(&ops, case.stream, during)
    }
}

/// One bin of noise, raw, `[samples, channels]`.
fn noise(stream: Stream) -> Vec<i16> {
    let mut state = 1u64;
    let samples = stream.samples_per_bin() * stream.channels;
    (0..samples)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 54) as i16 - 512
        })
        .collect()
}

fn alone(ops: &[Op], stream: Stream, during: Duration) -> f64 {
    let site = ChainSite {
        kind: SignalType::Continuous,
        sample: Some(Pace::of_rate(stream.rate())),
        bin_width_ns: stream.bin_ns(),
        channels: (0..stream.channels).map(|c| (c.to_string(), String::new(), vec![c])).collect(),
    };
    let mut chain = Chain::new(ops, site).expect("a chain of this file can be built");
    let source: Vec<f64> = noise(stream).into_iter().map(f64::from).collect();
    let (mut rows, mut out, mut index) = (Vec::new(), Vec::new(), Vec::new());
    repeat(stream, during, |k| {
        let n = stream.samples_per_bin() as i128;
        let first = i128::from(k) * n;
        index.clear();
        index.extend(first..first + n);
        rows.clone_from(&source);
        chain.sample(&mut rows, &index);
        chain.bin(&rows, &mut out);
    })
}

fn through_the_room(ops: Vec<Op>, stream: Stream, during: Duration) -> f64 {
    let mut aligner = Aligner::new(plan(ops, stream)).expect("a plan of this file fits together").0;
    let raw: Vec<u8> = noise(stream).into_iter().flat_map(i16::to_le_bytes).collect();
    let shape = [stream.samples_per_bin(), stream.channels];
    let tensor = Tensor::from_bytes(Dtype::I16, &shape, &raw).expect("as many bytes as the shape says");
    let mut frame = Frame {
        signal: "broadband".into(),
        seq: 0,
        t_device_ns: None,
        body: FrameBody::Samples(Samples { first_index: 0, count: shape[0] as u32, tensor }),
        mask: None,
        acked_seq: None,
        epoch: false,
        lost: false,
        reply: true,
        echo: Default::default(),
        last_of_trial: false,
    };
    let mut steps = Vec::new();
    repeat(stream, during, |k| {
        frame.seq = k;
        if let FrameBody::Samples(samples) = &mut frame.body {
            samples.first_index = k * shape[0] as u64;
        }
        steps.clear();
        aligner.push(0, &frame, 0, &mut steps).expect("frames without a gap are taken");
    })
}

fn plan(ops: Vec<Op>, stream: Stream) -> Plan {
    let channels = (0..stream.channels).map(|c| Channel { name: c.to_string(), ..Channel::default() });
    let signal = SignalSpec {
        name: "broadband".into(),
        kind: SignalType::Continuous,
        channels: channels.collect(),
        unit: "uV".into(),
        rate: Some(stream.rate()),
        bin_ms: None,
        clock: "device".into(),
        clock_by: ClockBy::Exchange,
        clock_offset_ns: None,
        role: SignalRole::Input,
        scale: 0.195,
        offset: 0.0,
        source_delay_ms: 0.0,
        own_writer: false,
    };
    let input = InputSpec {
        name: "broadband".into(),
        kind: SignalType::Continuous,
        bin_width_ns: stream.bin_ns(),
        channels: InputChannels::Any,
        image: None,
        missing_ok: 0,
        fill: Fill::Zero,
        required: true,
        wants_mask: false,
        chain: ops,
        rate: None,
    };
    Plan {
        width_ns: stream.bin_ns(),
        t0_ns: None,
        policies: Policies {
            gap: GapPolicy::Hold,
            max_gap_ns: 200_000_000,
            late: LatePolicy::Drop,
            lateness_ns: 0,
            wait_ns: 2 * BIN_NS,
            nan: NanPolicy::Mask,
            clock_tolerance_ns: 2_000_000,
            bins: BinsBy::Whole,
        },
        channels_by: ChannelsBy::Name,
        signals: vec![signal],
        inputs: vec![(input, Some(0))],
        trials: None,
        reset_on: ResetOn::default(),
    }
}

/// Bins until the time is over, at least one; answers samples per second.
fn repeat(stream: Stream, during: Duration, mut bin: impl FnMut(u64)) -> f64 {
    let (begun, mut bins) = (Instant::now(), 0);
    while bins == 0 || begun.elapsed() < during {
        bin(bins);
        bins += 1;
    }
    let samples = bins as f64 * (stream.samples_per_bin() * stream.channels) as f64;
    samples / begun.elapsed().as_secs_f64()
}

impl Stream {
    /// Samples of all channels in a second.
    pub fn samples_per_s(self) -> f64 {
        self.channels as f64 * f64::from(self.rate_hz)
    }

    fn rate(self) -> Rate {
        Rate { num: self.rate_hz, den: 1 }
    }

    fn bin_ns(self) -> NonZeroU64 {
        const { NonZeroU64::new(BIN_NS).expect("a width above 0") }
    }

    fn samples_per_bin(self) -> usize {
        (u64::from(self.rate_hz) * BIN_NS / 1_000_000_000) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_runs_and_every_op_is_among_them() {
        for case in cases() {
            let stream = Stream { channels: 4, ..case.stream };
            assert!(measure(&Case { stream, ..case }, Duration::ZERO) > 0.0, "{}", case.name);
        }
        let chains: String = cases().iter().map(|case| case.chain).collect();
        for op in [
            "bin",
            "scale",
            "reference",
            "butterworth",
            "notch",
            "decimate",
            "threshold_crossings",
            "band_power",
            "smooth",
            "zscore",
        ] {
            assert!(chains.contains(&format!("\"{op}\"")), "{op}");
        }
    }
}
