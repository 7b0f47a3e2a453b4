//! Frames of the wire to domain: which fields a signal's type uses, and that they fit together.

use super::{tensor, v1};
use crate::domain::frame::{Addresses, Frame, FrameBody, Markers, Samples, Spikes};
use crate::domain::signal::{SignalSpec, SignalType};
use crate::domain::tensor::Dtype;
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
        SignalType::Binned | SignalType::Continuous | SignalType::Frames => samples(&wire, spec.kind)?,
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

fn samples(wire: &v1::Frame, kind: SignalType) -> Result<FrameBody, Fault> {
    let Some(data) = &wire.tensor else {
        return Err(Fault::mismatch("tensor", "a tensor [count, channels]", "none"));
    };
    let tensor = tensor::samples("tensor", data)?;
    if tensor.dtype == Dtype::Bool && kind != SignalType::Frames {
        return Err(Fault::mismatch(
            "tensor.dtype",
            format!("numbers, for a signal of type {kind}"),
            "`bool`",
        ));
    }
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

/// A field that the signal's type does not use is a mistake of the rig, and is said. 0 is as good as nothing: some
/// clients write every number.
fn foreign_fields(wire: &v1::Frame, kind: SignalType) -> Result<(), Fault> {
    let sampled = matches!(kind, SignalType::Binned | SignalType::Continuous | SignalType::Frames);
    let (events, addresses) = (kind == SignalType::SpikeEvents, kind == SignalType::AddressEvents);
    let fields = [
        ("tensor", i128::from(wire.tensor.is_some()), " tensor", sampled),
        ("first_index", wire.first_index.into(), "", sampled),
        ("count", wire.count.into(), "", sampled),
        ("t_start_ns", wire.t_start_ns.unwrap_or(0).into(), "", !sampled),
        ("span_ns", wire.span_ns.unwrap_or(0).into(), "", !sampled),
        ("unit", wire.unit.len() as i128, " values", events),
        ("t_ns", wire.t_ns.len() as i128, " values", !sampled),
        ("x", wire.x.len() as i128, " values", addresses),
        ("y", wire.y.len() as i128, " values", addresses),
        ("polarity", wire.polarity.len() as i128, " values", addresses),
        ("value", wire.value.len() as i128, " values", kind == SignalType::Markers),
    ];
    match fields.into_iter().find(|(_, found, _, used)| *found != 0 && !used) {
        Some((name, found, what, _)) => {
            let expected = format!("nothing, for a signal of type {kind}");
            Err(Fault::mismatch(name, expected, format!("{found}{what}")))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::tensor::Tensor;

    fn spec(kind: &str) -> SignalSpec {
        let wire = v1::SignalSpec {
            name: "s".into(),
            r#type: kind.into(),
            channels: vec![v1::Channel { name: "a".into(), ..Default::default() }],
            bin_ms: (kind == "binned").then_some(10.0),
            rate: (kind == "continuous").then_some(v1::Rate { num: 100, den: 1 }),
            ..Default::default()
        };
        let ask = v1::OpenRequest { signals: vec![wire], ..Default::default() };
        super::super::open::resolve(&ask, &Default::default()).unwrap().signals.remove(0)
    }

    fn rows(dtype: Dtype) -> v1::Frame {
        let tensor = Some(tensor::message(&Tensor::zeros(dtype, &[1, 1])));
        v1::Frame { signal: "s".into(), count: 1, tensor, ..Default::default() }
    }

    fn events() -> v1::Frame {
        v1::Frame { signal: "s".into(), t_start_ns: Some(0), span_ns: Some(5), ..Default::default() }
    }

    #[test]
    fn a_field_of_another_type_is_named_and_a_zero_is_as_good_as_nothing() {
        let cases = [
            (v1::Frame { t_start_ns: Some(3), ..rows(Dtype::F32) }, "binned", "t_start_ns", "3"),
            (v1::Frame { span_ns: Some(-1), ..rows(Dtype::F32) }, "continuous", "span_ns", "-1"),
            (v1::Frame { t_ns: vec![0], ..rows(Dtype::F32) }, "binned", "t_ns", "1 values"),
            (v1::Frame { count: 7, ..events() }, "spike_events", "count", "7"),
            (v1::Frame { first_index: 2, ..events() }, "spike_events", "first_index", "2"),
            (v1::Frame { tensor: rows(Dtype::F32).tensor, ..events() }, "spike_events", "tensor", "1 tensor"),
            (v1::Frame { count: 1, ..Default::default() }, "markers", "count", "1"),
        ];
        for (frame, kind, field, found) in cases {
            let fault = domain(frame, &spec(kind)).unwrap_err();
            assert_eq!((fault.tensor.as_str(), fault.found.as_str()), (field, found), "{kind}: {fault}");
        }
        let zeros = v1::Frame { t_start_ns: Some(0), span_ns: Some(0), ..rows(Dtype::F32) };
        assert!(domain(zeros, &spec("binned")).is_ok());
        assert!(domain(events(), &spec("spike_events")).is_ok());
    }

    #[test]
    fn rows_are_numbers_of_any_dtype_and_no_truth_values() {
        for dtype in Dtype::ALL {
            for kind in ["binned", "continuous"] {
                let read = domain(rows(dtype), &spec(kind));
                assert_eq!(read.is_ok(), dtype != Dtype::Bool, "{kind} {dtype}");
            }
        }
    }
}
