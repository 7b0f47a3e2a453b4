//! Frames and opens in a line, and the reading of outputs.

use latentd::domain::tensor::Tensor;
use latentd::wire::{tensor, v1};

/// The names of flags, bit 0 first.
const FLAGS: [&str; 15] = [
    "gap_filled",
    "late",
    "masked",
    "nan_replaced",
    "signal_missing",
    "warming_up",
    "output_invalid",
    "reset",
    "switched",
    "stale",
    "deadline_missed",
    "input_shift",
    "intervened",
    "free_run",
    "not_recorded",
];

/// An open of a pipeline with these signals. A long deadline, so that a busy machine flags nothing as missed.
pub fn pipeline(name: &str, signals: impl IntoIterator<Item = v1::SignalSpec>) -> v1::OpenRequest {
    v1::OpenRequest {
        pipeline: name.into(),
        rig: "it".into(),
        signals: signals.into_iter().collect(),
        deadline_ms: Some(60_000.0),
        ..Default::default()
    }
}

/// A signal of this type with these channels; `binned` gets rows of 10 ms.
pub fn signal(name: &str, kind: &str, channels: &[&str]) -> v1::SignalSpec {
    v1::SignalSpec {
        name: name.into(),
        r#type: kind.into(),
        channels: channels
            .iter()
            .map(|name| v1::Channel { name: (*name).into(), ..Default::default() })
            .collect(),
        bin_ms: (kind == "binned").then_some(10.0),
        ..Default::default()
    }
}

/// A frame of `binned` or `continuous` in f32.
pub fn binned<const C: usize>(signal: &str, seq: u64, first_index: u64, rows: &[[f32; C]]) -> v1::Frame {
    let tensor = Tensor::from_f32(&[rows.len(), C], rows.as_flattened());
    v1::Frame {
        signal: signal.into(),
        seq,
        first_index,
        count: rows.len() as u32,
        tensor: Some(tensor::message(&tensor)),
        ..Default::default()
    }
}

/// A frame of `spike_events` that covers `[t_start_ns, t_start_ns + span_ns)`; events are `(unit, t_ns)`.
pub fn spikes(signal: &str, seq: u64, t_start_ns: i64, span_ns: i64, events: &[(u32, i64)]) -> v1::Frame {
    v1::Frame {
        signal: signal.into(),
        seq,
        t_start_ns: Some(t_start_ns),
        span_ns: Some(span_ns),
        unit: events.iter().map(|event| event.0).collect(),
        t_ns: events.iter().map(|event| event.1).collect(),
        ..Default::default()
    }
}

/// A frame of `markers`: `(t_ns, text)`.
pub fn markers(signal: &str, seq: u64, marks: &[(i64, &str)]) -> v1::Frame {
    v1::Frame {
        signal: signal.into(),
        seq,
        t_ns: marks.iter().map(|mark| mark.0).collect(),
        value: marks.iter().map(|mark| mark.1.into()).collect(),
        ..Default::default()
    }
}

/// The values of output `number`, row-major over its bins.
pub fn block(output: &v1::Output, number: u32) -> Vec<f32> {
    let found = output.blocks.iter().find(|block| block.output == number);
    let block = found.unwrap_or_else(|| panic!("no block of output {number} in {output:?}"));
    let values = tensor::host("block", block.tensor.as_ref().expect("a tensor")).expect("a readable tensor");
    assert_eq!(values.shape[0], output.n as usize, "a block has a row per bin");
    values.to_f64().into_iter().map(|value| value as f32).collect()
}

/// The values of output `number` by bin.
pub fn blocks<const D: usize>(output: &v1::Output, number: u32) -> Vec<[f32; D]> {
    let values = block(output, number);
    assert_eq!(values.len(), output.n as usize * D, "D values in each of n bins");
    values.chunks_exact(D).map(|row| row.try_into().expect("D values")).collect()
}

/// The names of the flags of each bin.
pub fn flag_names(output: &v1::Output) -> Vec<Vec<&'static str>> {
    let names = |flags: &u32| {
        FLAGS.iter().enumerate().filter(|(bit, _)| flags >> bit & 1 == 1).map(|(_, name)| *name).collect()
    };
    assert_eq!(output.flags.len(), output.n as usize, "flags of each bin");
    output.flags.iter().map(names).collect()
}

/// The same open, recorded by the usual form.
pub fn recorded(ask: v1::OpenRequest) -> v1::OpenRequest {
    v1::OpenRequest { record: Some(v1::Record::default()), ..ask }
}

/// An open of `linear`: its input by name.
pub fn linear() -> v1::OpenRequest {
    pipeline("linear", [signal("spikes", "binned", &["a", "b"])])
}

/// A frame of `linear`.
pub fn counts(seq: u64, first_index: u64, rows: &[[f32; 2]]) -> v1::Frame {
    binned("spikes", seq, first_index, rows)
}

/// The bins of an answer: `first_bin .. first_bin + n`.
pub fn bins(output: &v1::Output) -> std::ops::Range<u64> {
    output.first_bin..output.first_bin + u64::from(output.n)
}
