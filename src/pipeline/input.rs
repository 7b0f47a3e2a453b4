//! A streamed input of a pipeline: what its manifest and its graph ask of the signal that feeds it.

use std::num::NonZeroU64;

use super::successor::same;
use crate::domain::ids::SignalName;
use crate::domain::signal::{Channel, ClockBy, SignalRole, SignalSpec, SignalType};
use crate::domain::time::{Rate, ns_from_ms};
use crate::error::Fault;
use crate::registry::manifest::{self, Channels, Input};
use crate::registry::ready::ReadyVersion;
use crate::registry::surface::BoundInput;
use crate::signal::image::Image;
use crate::signal::input::{ChannelSpec, Fill, InputChannels, InputSpec};
use crate::signal::op::{Op, channels_for};

/// A streamed input of a plan.
#[derive(Clone, Debug)]
pub struct PlanInput {
    /// The signal that feeds it.
    pub signal: SignalName,
    /// `input`, or `stage.input` where that is not unique.
    pub name: String,
    /// The kind of signal it takes; `None`: whatever the session's signal is.
    pub kind: Option<SignalType>,
    /// Width of a bin, if the model fixes it (ns).
    pub width_ns: Option<NonZeroU64>,
    channels: InputChannels,
    image: Option<Image>,
    missing_ok: usize,
    fill: Fill,
    required: bool,
    wants_mask: bool,
    chain: Vec<Op>,
    rate: Option<Rate>,
}

impl PlanInput {
    /// An input of a version, fed by that signal.
    pub(super) fn new(
        name: String,
        signal: SignalName,
        version: &ReadyVersion,
        input: &Input,
        bound: &BoundInput,
    ) -> Result<Self, Fault> {
        let width_ns = input.bin_ms.and_then(ns_from_ms).and_then(NonZeroU64::new);
        let channels = match (&version.channels[bound.input], &input.channels) {
            (Some(rows), _) => InputChannels::Named(
                rows.iter()
                    .map(|row| ChannelSpec {
                        name: row.name.clone(),
                        unit: row.unit.clone(),
                        electrode: row.electrode.clone(),
                        source: row.source.clone(),
                        group: row.group.clone(),
                    })
                    .collect(),
            ),
            // Ports have fixed rows: a model of any montage takes as many channels as its graph has.
            // Where a chain makes other values of them, so many as make a row, or as the manifest says.
            (None, Some(Channels::Count(n))) => InputChannels::Count(*n as usize),
            (None, Some(Channels::Any) | None) => match channels_for(&input.preprocess, bound.channels) {
                Some(n) => InputChannels::Count(n),
                None => InputChannels::Any,
            },
        };
        Ok(Self {
            signal,
            name,
            kind: version.has_manifest.then(|| input.kind.signal()).flatten(),
            width_ns,
            channels,
            image: bound.image,
            missing_ok: input.missing_ok as usize,
            fill: match input.fill {
                manifest::Fill::Zero => Fill::Zero,
                manifest::Fill::Mean => Fill::Mean,
                manifest::Fill::Hold => Fill::Hold,
            },
            required: input.required,
            wants_mask: bound.mask_port.is_some(),
            chain: input.preprocess.clone(),
            rate: input.rate.as_ref().and_then(|rate| Rate::new(rate.num, rate.den)),
        })
    }

    /// Whether each of its channels is an image.
    pub fn is_image(&self) -> bool {
        self.image.is_some()
    }

    /// Whether a session must feed it.
    pub fn is_required(&self) -> bool {
        self.required
    }

    /// Whether what was made for this input will do for that one. Errors: `invalid`, naming what differs.
    pub(super) fn same_as(&self, other: &Self) -> Result<(), Fault> {
        let what = |key: &str| format!("input `{}`: {key}", self.name);
        same(&what("signal"), &self.signal, &other.signal)?;
        same(&what("type"), &self.kind, &other.kind)?;
        same(&what("bin width (ns)"), &self.width_ns, &other.width_ns)?;
        if let (InputChannels::Named(old), InputChannels::Named(new)) = (&self.channels, &other.channels)
            && let Some(at) = old.iter().zip(new).position(|(old, new)| old != new)
        {
            same(&what(&format!("channel {at}")), &old[at], &new[at])?;
        }
        same(&what("channels"), &self.channels, &other.channels)?;
        same(&what("image"), &self.image, &other.image)?;
        same(&what("missing_ok"), &self.missing_ok, &other.missing_ok)?;
        same(&what("fill"), &self.fill, &other.fill)?;
        same(&what("required"), &self.required, &other.required)?;
        same(&what("mask_tensor"), &self.wants_mask, &other.wants_mask)?;
        for (at, (old, new)) in self.chain.iter().zip(&other.chain).enumerate() {
            same(&what(&format!("preprocess[{at}]")), old, new)?;
        }
        same(&what("preprocess"), &self.chain, &other.chain)?;
        same(&what("rate"), &self.rate, &other.rate)
    }

    /// The input as the aligner needs it, for bins of this width and a signal of this kind.
    pub fn spec(&self, width_ns: NonZeroU64, signal_kind: SignalType) -> InputSpec {
        InputSpec {
            name: self.name.clone(),
            kind: self.kind.unwrap_or(signal_kind),
            bin_width_ns: width_ns,
            channels: self.channels.clone(),
            image: self.image,
            missing_ok: self.missing_ok,
            fill: self.fill,
            required: self.required,
            wants_mask: self.wants_mask,
            chain: self.chain.clone(),
            rate: self.rate,
        }
    }

    /// The input as a signal, its channels in the manifest's order.
    pub(super) fn declared_signal(&self) -> SignalSpec {
        let channels = match &self.channels {
            InputChannels::Any => Vec::new(),
            InputChannels::Count(count) => vec![Channel::default(); *count],
            InputChannels::Named(rows) => rows
                .iter()
                .map(|row| Channel {
                    name: row.name.clone(),
                    unit: row.unit.clone(),
                    electrode: row.electrode.clone(),
                    group: row.group.clone(),
                    ..Default::default()
                })
                .collect(),
        };
        let kind = self.kind.unwrap_or(SignalType::Binned);
        SignalSpec {
            name: self.signal.clone(),
            kind,
            channels,
            unit: String::new(),
            rate: self.rate.filter(|_| matches!(kind, SignalType::Continuous | SignalType::Frames)),
            bin_ms: (kind == SignalType::Binned)
                .then(|| self.width_ns.map(|width| width.get() as f64 / 1e6))
                .flatten(),
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
}
