//! Signals, inputs and frames for the tests of this room.

use std::num::NonZeroU64;

use super::act::Act;
use super::aligner::Aligner;
use super::clock::Relation;
use super::exchange::Probe;
use super::input::{ChannelSpec, Fill, InputChannels, InputSpec};
use super::plan::Plan;
use super::refusal::Refusal;
use super::step::{Bin, Step};
use super::trial::ResetOn;
use crate::domain::frame::{Frame, FrameBody, Markers, Samples, Spikes};
use crate::domain::output::{EventKind, Notice};
use crate::domain::settings::{BinsBy, ChannelsBy, GapPolicy, LatePolicy, NanPolicy, Policies, ResetScope};
use crate::domain::signal::{Channel, ClockBy, SignalRole, SignalSpec, SignalType};
use crate::domain::tensor::{Dtype, Tensor};

/// Width of the tests' bins.
pub const WIDTH_NS: u64 = 20_000_000;

pub fn width() -> NonZeroU64 {
    NonZeroU64::new(WIDTH_NS).unwrap()
}

pub fn binned_signal(names: &[&str]) -> SignalSpec {
    SignalSpec {
        name: "spikes".into(),
        kind: SignalType::Binned,
        channels: names.iter().map(|name| Channel { name: (*name).into(), ..Channel::default() }).collect(),
        unit: String::new(),
        rate: None,
        bin_ms: Some(20.0),
        clock: "device".into(),
        clock_by: ClockBy::Exchange,
        clock_offset_ns: None,
        role: SignalRole::Input,
        scale: 1.0,
        offset: 0.0,
        source_delay_ms: 0.0,
        own_writer: false,
    }
}

pub fn event_signal(names: &[&str]) -> SignalSpec {
    SignalSpec { kind: SignalType::SpikeEvents, bin_ms: None, ..binned_signal(names) }
}

pub fn named_input(names: &[&str]) -> InputSpec {
    let channel = |name: &&str| ChannelSpec { name: (*name).into(), ..ChannelSpec::default() };
    InputSpec {
        name: "spikes".into(),
        kind: SignalType::Binned,
        bin_width_ns: width(),
        channels: InputChannels::Named(names.iter().map(channel).collect()),
        image: None,
        missing_ok: 0,
        fill: Fill::Zero,
        required: true,
        wants_mask: false,
        chain: Vec::new(),
        rate: None,
    }
}

pub fn policies() -> Policies {
    Policies {
        gap: GapPolicy::Hold,
        max_gap_ns: 200_000_000,
        late: LatePolicy::Drop,
        lateness_ns: 0,
        wait_ns: 40_000_000,
        nan: NanPolicy::Mask,
        clock_tolerance_ns: 2_000_000,
        bins: BinsBy::Whole,
    }
}

pub fn frame(body: FrameBody) -> Frame {
    Frame {
        signal: "spikes".into(),
        seq: 0,
        t_device_ns: None,
        body,
        mask: None,
        acked_seq: None,
        epoch: false,
        lost: false,
        reply: true,
        echo: Default::default(),
        last_of_trial: false,
    }
}

/// Rows of f32 from `first_index` on, `[count, channels]`.
pub fn rows(first_index: u64, channels: usize, values: &[f32]) -> Frame {
    let count = values.len() / channels;
    let tensor = Tensor::from_f32(&[count, channels], values);
    frame(FrameBody::Samples(Samples { first_index, count: count as u32, tensor }))
}

/// Rows of f64 from `first_index` on, `[count, channels]`.
pub fn wide_rows(first_index: u64, channels: usize, values: &[f64]) -> Frame {
    let count = values.len() / channels;
    let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    let tensor = Tensor::from_bytes(Dtype::F64, &[count, channels], &bytes).unwrap();
    frame(FrameBody::Samples(Samples { first_index, count: count as u32, tensor }))
}

/// One row of u8, whatever the dtype's width.
pub fn bytes(first_index: u64, values: &[u8]) -> Frame {
    let tensor = Tensor::from_bytes(Dtype::U8, &[1, values.len()], values).unwrap();
    frame(FrameBody::Samples(Samples { first_index, count: 1, tensor }))
}

/// Events `(unit, t_ns)` in the stretch [`from`, `to`).
pub fn spikes(from: i64, to: i64, events: &[(u32, i64)]) -> Frame {
    frame(FrameBody::Spikes(Spikes {
        t_start_ns: from,
        span_ns: to - from,
        unit: events.iter().map(|e| e.0).collect(),
        t_ns: events.iter().map(|e| e.1).collect(),
    }))
}

pub fn marks(values: &[(&str, i64)]) -> Frame {
    let markers = Markers {
        t_ns: values.iter().map(|m| m.1).collect(),
        value: values.iter().map(|m| m.0.into()).collect(),
    };
    frame(FrameBody::Markers(markers))
}

/// A device with a clock of its own, which reads `ahead_ns` more than the server's at its 0, and drifts.
#[derive(Clone, Copy)]
pub struct Device {
    pub ahead_ns: i64,
    pub drift_ppm: f64,
}

impl Device {
    /// What it reads at a server time.
    pub fn reads(&self, server_ns: i64) -> i64 {
        server_ns + self.ahead_ns + (server_ns as f64 * self.drift_ppm * 1e-6).round() as i64
    }

    /// The server time at which it has gone on by so much of its own since the server's 0.
    pub fn goes_on(&self, own_ns: i64) -> i64 {
        (own_ns as f64 / (1.0 + self.drift_ppm * 1e-6)).round() as i64
    }

    /// A probe sent at a server time, by how long it was on the way up, with the server and on the way down.
    pub fn probe(&self, sent_ns: i64, up_ns: i64, held_ns: i64, down_ns: i64) -> Probe {
        let (t2_ns, t3_ns) = (sent_ns + up_ns, sent_ns + up_ns + held_ns);
        Probe { t1_ns: self.reads(sent_ns), t2_ns, t3_ns, t4_ns: self.reads(t3_ns + down_ns) }
    }

    /// How far a relation is from the truth at a server time, and how far it says it may be (ns).
    pub fn off(&self, relation: &Relation, server_ns: i64) -> (i128, u64) {
        let reading = i128::from(self.reads(server_ns));
        let off = relation.to_server(reading) - i128::from(server_ns);
        (off.abs(), relation.uncertainty_at(reading))
    }
}

/// An aligner and what came out of it.
#[derive(Clone)]
pub struct Rig {
    pub aligner: Aligner,
    pub out: Vec<Step>,
    /// The server's clock.
    pub now_ns: i64,
}

impl Rig {
    pub fn of(plan: Plan) -> Self {
        let aligner = Aligner::new(plan).unwrap_or_else(|error| panic!("{error}")).0;
        Self { aligner, out: Vec::new(), now_ns: 0 }
    }

    /// One binned signal `spikes` of two channels, one input.
    pub fn binned(change: impl FnOnce(&mut Plan)) -> Self {
        let mut plan = plan(vec![binned_signal(&["a", "b"])]);
        change(&mut plan);
        Self::of(plan)
    }

    /// One events signal `spikes` of two channels, t0 at 0.
    pub fn events(change: impl FnOnce(&mut Plan)) -> Self {
        let mut plan = plan(vec![event_signal(&["a", "b"])]);
        plan.t0_ns = Some(0);
        change(&mut plan);
        Self::of(plan)
    }

    pub fn try_push(&mut self, signal: usize, frame: Frame) -> Result<(), Refusal> {
        self.aligner.push(signal, &frame, self.now_ns, &mut self.out)
    }

    pub fn push(&mut self, frame: Frame) {
        self.push_to(0, frame);
    }

    pub fn push_to(&mut self, signal: usize, frame: Frame) {
        self.try_push(signal, frame).unwrap_or_else(|refusal| panic!("{refusal}"));
    }

    pub fn act(&mut self, act: Act) {
        self.aligner.act(&act, &mut self.out).unwrap_or_else(|refusal| panic!("{refusal}"));
    }

    pub fn reset(&mut self, scope: ResetScope, at_bin: Option<u64>) {
        let at_bin = at_bin.unwrap_or(self.aligner.next_bin());
        self.act(Act::Reset { scope, at_bin });
    }

    pub fn relate(&mut self, clock: &str, offset_ns: i64, stepped_ns: i64) {
        let relation = Relation { offset_ns, drift_ppm: 0.0, at_ns: 0, uncertainty_ns: 0, growth_ppm: 0.0 };
        self.act(Act::Relate { clock: clock.into(), relation, stepped_ns });
    }

    pub fn expire(&mut self, now_ns: i64) {
        self.now_ns = now_ns;
        if let Some(before) = self.aligner.due(now_ns) {
            self.act(Act::Close { before, now_ns });
        }
    }

    pub fn finish(&mut self) {
        self.aligner.finish(self.now_ns, &mut self.out);
    }

    pub fn bins(&self) -> Vec<&Bin> {
        self.out.iter().filter_map(|step| if let Step::Bin(bin) = step { Some(bin) } else { None }).collect()
    }

    /// Number and values of the first input of every bin.
    pub fn values(&self) -> Vec<(u64, Vec<f32>)> {
        self.bins().iter().map(|bin| (bin.k, bin.inputs[0].values.clone())).collect()
    }

    pub fn bin(&self, k: u64) -> &Bin {
        self.bins().into_iter().find(|bin| bin.k == k).unwrap_or_else(|| panic!("bin {k} is not answered"))
    }

    pub fn skipped(&self) -> Vec<(u64, u64)> {
        let skipped =
            |step: &Step| if let Step::Skipped { from, to } = step { Some((*from, *to)) } else { None };
        self.out.iter().filter_map(skipped).collect()
    }

    pub fn notices(&self, kind: EventKind) -> Vec<&Notice> {
        let notices =
            self.out.iter().filter_map(|step| if let Step::Notice(n) = step { Some(n) } else { None });
        notices.filter(|notice| notice.kind == kind).collect()
    }
}

/// Each signal feeds one input of its own.
pub fn plan(signals: Vec<SignalSpec>) -> Plan {
    let input = |(s, signal): (usize, &SignalSpec)| {
        let names: Vec<&str> = signal.channels.iter().map(|channel| channel.name.as_str()).collect();
        let input = InputSpec { name: signal.name.to_string(), kind: signal.kind, ..named_input(&names) };
        (input, Some(s))
    };
    let inputs = signals.iter().enumerate().map(input).collect();
    Plan {
        width_ns: width(),
        t0_ns: None,
        policies: policies(),
        channels_by: ChannelsBy::Name,
        signals,
        inputs,
        trials: None,
        reset_on: ResetOn::default(),
    }
}

/// Two signals that the model needs: `spikes` (binned, two channels) and `eeg` (events on the same clock).
pub fn two_signals(change: impl FnOnce(&mut Plan)) -> Rig {
    let mut second = event_signal(&["c"]);
    second.name = "eeg".into();
    let mut plan = plan(vec![binned_signal(&["a", "b"]), second]);
    plan.t0_ns = Some(0);
    change(&mut plan);
    Rig::of(plan)
}
