//! Whether a frame is what its signal announced: body, shapes, lengths, times inside their stretch.

use super::refusal::Refusal;
use crate::domain::frame::{Frame, FrameBody};
use crate::domain::signal::{SignalSpec, SignalType};

/// Checks a frame against its signal; looks at no state.
pub fn check(spec: &SignalSpec, frame: &Frame) -> Result<(), Refusal> {
    let refuse = |tensor: &'static str, expected: String, found: String| {
        Err(Refusal::Shape { signal: spec.name.clone(), tensor, expected, found })
    };
    let channels = spec.channels.len();
    if let Some(mask) = frame.mask.as_ref().filter(|mask| mask.len() != channels) {
        return refuse("mask", format!("{channels} values"), mask.len().to_string());
    }
    match (spec.kind, &frame.body) {
        (SignalType::Binned | SignalType::Continuous | SignalType::Frames, FrameBody::Samples(samples)) => {
            let shape = &samples.tensor.shape;
            let rows = shape.first().copied() == Some(samples.count as usize);
            let wide = match spec.kind {
                SignalType::Frames => shape.len() > 1,
                _ if channels == 0 => shape.len() <= 2,
                _ => shape.len() == 2 && shape[1] == channels,
            };
            if !(rows && wide) {
                let channels = if channels == 0 { "channels".into() } else { channels.to_string() };
                return refuse("tensor", format!("[{}, {channels}]", samples.count), format!("{shape:?}"));
            }
            if samples.first_index.checked_add(samples.count.into()).is_none() {
                let found = format!("{} + {}", samples.first_index, samples.count);
                return refuse("first_index", "indices below 2^64".into(), found);
            }
        }
        (SignalType::SpikeEvents, FrameBody::Spikes(spikes)) => {
            stretch(spec, spikes.t_start_ns, spikes.span_ns, &spikes.t_ns)?;
            if spikes.unit.len() != spikes.t_ns.len() {
                return refuse(
                    "unit",
                    format!("{} values, as in t_ns", spikes.t_ns.len()),
                    spikes.unit.len().to_string(),
                );
            }
            if let Some(unit) = spikes.unit.iter().find(|unit| **unit as usize >= channels) {
                return refuse(
                    "unit",
                    format!("numbers of the {channels} channels, from 0"),
                    unit.to_string(),
                );
            }
        }
        (SignalType::AddressEvents, FrameBody::Addresses(events)) => {
            stretch(spec, events.t_start_ns, events.span_ns, &events.t_ns)?;
            let n = events.t_ns.len();
            if events.x.len() != n || events.y.len() != n || events.polarity.len() != n {
                let found = format!("{}, {}, {}", events.x.len(), events.y.len(), events.polarity.len());
                return refuse("x, y, polarity", format!("{n} values each, as in t_ns"), found);
            }
        }
        (SignalType::Markers, FrameBody::Markers(markers)) => {
            if markers.t_ns.len() != markers.value.len() {
                let expected = format!("{} texts, as in t_ns", markers.t_ns.len());
                return refuse("value", expected, markers.value.len().to_string());
            }
        }
        (kind, body) => return refuse("frame", format!("data of a `{kind}` signal"), body.word().into()),
    }
    Ok(())
}

/// Every time must lie in [`start_ns`, `start_ns + span_ns`).
fn stretch(spec: &SignalSpec, start_ns: i64, span_ns: i64, t_ns: &[i64]) -> Result<(), Refusal> {
    let refuse = |tensor: &'static str, expected: String, found: i64| {
        Err(Refusal::Shape { signal: spec.name.clone(), tensor, expected, found: found.to_string() })
    };
    if span_ns < 0 {
        return refuse("span_ns", "0 or above".into(), span_ns);
    }
    let inside = |t: i64| t >= start_ns && i128::from(t) < i128::from(start_ns) + i128::from(span_ns);
    match t_ns.iter().find(|t| !inside(**t)) {
        Some(t) => refuse("t_ns", format!("times in [{start_ns}, {start_ns} + {span_ns})"), *t),
        None => Ok(()),
    }
}
