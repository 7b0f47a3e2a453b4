//! Frames of the wire to domain: which fields a signal's type uses, and that they fit together.

use super::{tensor, v1};
use crate::domain::frame::{Addresses, Frame, FrameBody, Markers, Samples, Spikes};
use crate::domain::signal::{SignalSpec, SignalType};
use crate::error::Fault;

/// Longest `echo` (bytes).
const ECHO_LIMIT_BYTES: usize = 256;

/// The frame as its signal's type reads it. Fields of other types must be empty.
pub fn domain(wire: v1::Frame, spec: &SignalSpec) -> Result<Frame, Fault> {
    if wire.echo.len() > ECHO_LIMIT_BYTES {
        return Err(Fault::mismatch(
            "echo",
            format!("at most {ECHO_LIMIT_BYTES} bytes"),
            format!("{} bytes", wire.echo.len()),
        ));
    }
    if wire.seq == u64::MAX {
        return Err(Fault::mismatch(
            "seq",
            "below 2^64 - 1, so that another may follow",
            wire.seq.to_string(),
        ));
    }
    if !wire.mask.is_empty() && wire.mask.len() != spec.channels.len() {
        return Err(Fault::mismatch(
            "mask",
            format!("one per channel: {}", spec.channels.len()),
            wire.mask.len().to_string(),
        ));
    }
    foreign_fields(&wire, spec.kind)?;
    let body = match spec.kind {
        SignalType::Binned | SignalType::Continuous | SignalType::Frames => samples(&wire)?,
        SignalType::SpikeEvents => {
            let (t_start_ns, span_ns) = stretch(&wire)?;
            same_length("unit", wire.unit.len(), "t_ns", wire.t_ns.len())?;
            FrameBody::Spikes(Spikes { t_start_ns, span_ns, unit: wire.unit, t_ns: wire.t_ns })
        }
        SignalType::AddressEvents => {
            let (t_start_ns, span_ns) = stretch(&wire)?;
            same_length("x", wire.x.len(), "t_ns", wire.t_ns.len())?;
            same_length("y", wire.y.len(), "t_ns", wire.t_ns.len())?;
            same_length("polarity", wire.polarity.len(), "t_ns", wire.t_ns.len())?;
            let (x, y, polarity, t_ns) = (wire.x, wire.y, wire.polarity, wire.t_ns);
            FrameBody::Addresses(Addresses { t_start_ns, span_ns, x, y, polarity, t_ns })
        }
        SignalType::Markers => {
            same_length("value", wire.value.len(), "t_ns", wire.t_ns.len())?;
            FrameBody::Markers(Markers { t_ns: wire.t_ns, value: wire.value })
        }
    };
    Ok(Frame {
        signal: spec.name.clone(),
        seq: wire.seq,
        t_device_ns: wire.t_device_ns,
        body,
        mask: (!wire.mask.is_empty()).then_some(wire.mask),
        acked_seq: wire.acked_seq,
        epoch: wire.epoch,
        lost: wire.lost,
        reply: wire.reply.unwrap_or(true),
        echo: wire.echo,
        last_of_trial: wire.r#final,
    })
}

fn samples(wire: &v1::Frame) -> Result<FrameBody, Fault> {
    let Some(data) = &wire.tensor else {
        return Err(Fault::mismatch("tensor", "a tensor [count, channels]", "none"));
    };
    let tensor = tensor::host("tensor", data)?;
    if tensor.shape.first().copied() != Some(wire.count as usize) {
        return Err(Fault::mismatch(
            "tensor.shape",
            format!("[{}, channels], its first axis being count", wire.count),
            format!("{:?}", tensor.shape),
        ));
    }
    if wire.first_index.checked_add(u64::from(wire.count)).is_none() {
        return Err(Fault::mismatch(
            "first_index",
            "first_index + count within 64 bits",
            wire.first_index.to_string(),
        ));
    }
    Ok(FrameBody::Samples(Samples { first_index: wire.first_index, count: wire.count, tensor }))
}

fn stretch(wire: &v1::Frame) -> Result<(i64, i64), Fault> {
    let (Some(t_start_ns), Some(span_ns)) = (wire.t_start_ns, wire.span_ns) else {
        return Err(Fault::mismatch("t_start_ns, span_ns", "both: events cover a stated stretch", "none"));
    };
    if span_ns < 0 || t_start_ns.checked_add(span_ns).is_none() {
        return Err(Fault::mismatch("span_ns", "0 or more, its end within 64 bits", span_ns.to_string()));
    }
    Ok((t_start_ns, span_ns))
}

fn same_length(a: &str, len_a: usize, b: &str, len_b: usize) -> Result<(), Fault> {
    if len_a == len_b {
        return Ok(());
    }
    Err(Fault::mismatch(a, format!("as many as {b}: {len_b}"), len_a.to_string()))
}

/// A field that the signal's type does not use is a mistake of the rig, and is said.
fn foreign_fields(wire: &v1::Frame, kind: SignalType) -> Result<(), Fault> {
    let sampled = matches!(kind, SignalType::Binned | SignalType::Continuous | SignalType::Frames);
    let fields = [
        ("tensor", wire.tensor.is_some(), sampled),
        ("unit", !wire.unit.is_empty(), kind == SignalType::SpikeEvents),
        ("t_ns", !wire.t_ns.is_empty(), !sampled),
        ("x", !wire.x.is_empty(), kind == SignalType::AddressEvents),
        ("y", !wire.y.is_empty(), kind == SignalType::AddressEvents),
        ("polarity", !wire.polarity.is_empty(), kind == SignalType::AddressEvents),
        ("value", !wire.value.is_empty(), kind == SignalType::Markers),
    ];
    match fields.into_iter().find(|(_, filled, used)| *filled && !used) {
        Some((name, ..)) => {
            Err(Fault::mismatch(name, format!("empty for a signal of type {kind}"), "filled"))
        }
        None => Ok(()),
    }
}
