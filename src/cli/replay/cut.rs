//! A recording cut into the frames of a rig: every signal with its own `seq`, in the order in which they are sent.

use std::collections::VecDeque;

use crate::domain::signal::SignalRole;
use crate::domain::tensor::Tensor;
use crate::wire::recording::{Data, Recording};
use crate::wire::v1;

/// A frame and when a rig would have it.
#[derive(Clone, Debug, PartialEq)]
pub struct Due {
    /// When its stretch is over (ns after the recording's start).
    pub at_ns: i64,
    /// The frame.
    pub frame: v1::Frame,
}

/// The frames of a recording, stretch by stretch. Within one, markers and targets go before inputs, so that a reset or a
/// truth is there before the bins that it concerns close.
#[derive(Clone, Debug)]
pub struct Cut<'a> {
    recording: &'a Recording,
    frame_ns: i64,
    end_ns: i64,
    /// Where the next stretch starts (ns after the recording's start).
    from_ns: i64,
    /// Signals in the order of sending: place in the recording, next `seq`.
    order: Vec<(usize, u64)>,
    ready: VecDeque<Due>,
}

impl<'a> Cut<'a> {
    /// Cuts `recording` every `frame_ns` (at least 1).
    pub fn new(recording: &'a Recording, frame_ns: i64) -> Self {
        let mut order: Vec<(usize, u64)> = (0..recording.signals.len()).map(|place| (place, 0)).collect();
        order.sort_by_key(|(place, _)| {
            let signal = &recording.signals[*place];
            match (&signal.data, signal.role) {
                (Data::Markers { .. }, _) => 0,
                (_, SignalRole::Target) => 1,
                (_, SignalRole::Input) => 2,
            }
        });
        let (frame_ns, end_ns) = (frame_ns.max(1), recording.end_ns());
        Self { recording, frame_ns, end_ns, from_ns: 0, order, ready: VecDeque::new() }
    }

    /// Fills `ready` with the frames of the next stretch.
    fn stretch(&mut self) {
        let (from_ns, at_ns) = (self.from_ns, self.from_ns.saturating_add(self.frame_ns).min(self.end_ns));
        for (place, seq) in &mut self.order {
            if let Some(frame) = frame(self.recording, *place, from_ns, at_ns) {
                let frame = v1::Frame { seq: *seq, ..frame };
                self.ready.push_back(Due { at_ns, frame });
                *seq += 1;
            }
        }
        self.from_ns = at_ns;
    }
}

impl Iterator for Cut<'_> {
    type Item = Due;

    fn next(&mut self) -> Option<Due> {
        while self.ready.is_empty() && self.from_ns < self.end_ns {
            self.stretch();
        }
        self.ready.pop_front()
    }
}

/// What a signal has in [`from_ns`, `to_ns`) of the recording's time; `None`: nothing to say. The first stretch takes
/// along the events before the recording's start.
fn frame(recording: &Recording, place: usize, from_ns: i64, to_ns: i64) -> Option<v1::Frame> {
    let signal = &recording.signals[place];
    let t0_ns = recording.t0_ns;
    let named = v1::Frame { signal: signal.spec.name.clone(), ..Default::default() };
    let within = |t_ns: &[i64]| {
        let first = if from_ns == 0 { 0 } else { t_ns.partition_point(|&t| t < t0_ns + from_ns) };
        first..t_ns.partition_point(|&t| t < t0_ns + to_ns)
    };
    match &signal.data {
        Data::Samples { tensor, timing } => {
            let rows = tensor.shape[0] as u64;
            let first = timing.first_at_or_after(from_ns).min(rows);
            let end = timing.first_at_or_after(to_ns).min(rows);
            if first == end {
                return None;
            }
            Some(v1::Frame {
                first_index: first,
                count: u32::try_from(end - first).expect("a frame holds less than 2^32 samples"),
                t_device_ns: Some(t0_ns.saturating_add(timing.start_ns(first))),
                tensor: Some(rows_of(tensor, first as usize, end as usize)),
                ..named
            })
        }
        Data::Spikes { unit, t_ns } => {
            let events = within(t_ns);
            let earliest = t_ns[events.clone()].first().copied().unwrap_or(i64::MAX);
            let start_ns = earliest.min(t0_ns + from_ns);
            Some(v1::Frame {
                t_start_ns: Some(start_ns),
                span_ns: Some(t0_ns + to_ns - start_ns),
                t_device_ns: Some(start_ns),
                unit: unit[events.clone()].to_vec(),
                t_ns: t_ns[events].to_vec(),
                ..named
            })
        }
        Data::Markers { t_ns, value } => {
            let events = within(t_ns);
            if events.is_empty() {
                return None;
            }
            Some(v1::Frame { value: value[events.clone()].to_vec(), t_ns: t_ns[events].to_vec(), ..named })
        }
    }
}

/// Rows [`first`, `end`) of an array.
fn rows_of(tensor: &Tensor, first: usize, end: usize) -> v1::Tensor {
    let row_bytes = tensor.shape[1..].iter().product::<usize>() * tensor.dtype.size_bytes();
    let mut shape: Vec<u32> = tensor.shape.iter().map(|&axis| axis as u32).collect();
    shape[0] = (end - first) as u32;
    let raw = tensor.data.bytes()[first * row_bytes..end * row_bytes].to_vec().into();
    v1::Tensor { dtype: tensor.dtype.word().into(), shape, raw, values: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::npy;
    use proptest::prelude::*;

    fn recording(spikes: &[(u32, &str)]) -> Recording {
        let description = r#"{"name": "r", "t0_ns": 1000, "signals": [
            {"name": "spikes", "type": "spike_events", "file": "s.csv", "channels": [{"name": "a"}, {"name": "b"}]},
            {"name": "counts", "type": "binned", "file": "c.npy", "channels": [{"name": "a"}], "bin_ms": 45},
            {"name": "sound", "type": "continuous", "file": "v.npy", "channels": [{"name": "x"}],
             "rate": {"num": 30000, "den": 1001}, "role": "target"},
            {"name": "marks", "type": "markers", "file": "m.csv"}]}"#;
        let events: String = spikes.iter().map(|(unit, time_s)| format!("{unit},{time_s}\n")).collect();
        Recording::read("recording.json", description.as_bytes(), |file| {
            Ok(match file {
                "s.csv" => format!("unit,time_s\n{events}").into_bytes(),
                "c.npy" => npy::write(&Tensor::from_f32(&[11, 1], &[0.5; 11])),
                "v.npy" => {
                    npy::write(&Tensor::from_f32(&[15, 1], &(0..15u8).map(f32::from).collect::<Vec<_>>()))
                }
                _ => b"time_s,value\n0.1,go\n0.3,stop\n".to_vec(),
            })
        })
        .unwrap()
    }

    #[test]
    fn markers_and_targets_go_first_and_events_cover_every_stretch() {
        let recording = recording(&[(1, "-0.5"), (0, "0.02")]);
        let frames: Vec<Due> = Cut::new(&recording, 45_000_000).collect();
        let first: Vec<&str> = frames.iter().take(3).map(|due| due.frame.signal.as_str()).collect();
        assert_eq!(first, ["sound", "spikes", "counts"]);
        let spikes: Vec<&v1::Frame> =
            frames.iter().map(|due| &due.frame).filter(|frame| frame.signal == "spikes").collect();
        assert_eq!(spikes[0].t_start_ns, Some(1000 - 500_000_000));
        assert_eq!(spikes[0].unit, [1, 0]);
        assert!(spikes[1..].iter().all(|frame| frame.unit.is_empty() && frame.span_ns.is_some()));
        let end = spikes.last().map(|frame| frame.t_start_ns.unwrap() + frame.span_ns.unwrap());
        assert_eq!(end, Some(1000 + recording.end_ns()));
        let go = frames.iter().find(|due| due.frame.signal == "marks").unwrap();
        assert_eq!((go.at_ns, go.frame.value.as_slice()), (135_000_000, ["go".to_string()].as_slice()));
    }

    proptest! {
        #[test]
        fn every_sample_and_event_is_sent_once_in_order_however_it_is_cut(frame_ns in 1_000_000i64..900_000_000) {
            let recording = recording(&[(1, "0.02"), (0, "0.02"), (0, "0.09"), (1, "0.27"), (0, "0.494")]);
            let (mut rows, mut units, mut marks, mut covered) = (vec![], vec![], vec![], 1000);
            let mut seqs = std::collections::BTreeMap::new();
            for Due { at_ns, frame } in Cut::new(&recording, frame_ns) {
                let seq = seqs.entry(frame.signal.clone()).or_insert(0u64);
                prop_assert_eq!(frame.seq, *seq);
                *seq += 1;
                match frame.signal.as_str() {
                    "sound" => {
                        let raw = frame.tensor.unwrap().raw;
                        prop_assert_eq!(frame.first_index as usize, rows.len());
                        rows.extend(raw.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())));
                    }
                    "spikes" => {
                        prop_assert_eq!(frame.t_start_ns, Some(covered));
                        covered += frame.span_ns.unwrap();
                        prop_assert_eq!(covered, 1000 + at_ns);
                        prop_assert!(frame.t_ns.iter().all(|&t| t < covered));
                        units.extend(frame.unit);
                    }
                    "marks" => marks.extend(frame.value),
                    _ => {}
                }
            }
            prop_assert_eq!(rows, (0..15u8).map(f32::from).collect::<Vec<_>>());
            prop_assert_eq!(units, [1, 0, 0, 1, 0]);
            prop_assert_eq!(marks, ["go", "stop"]);
        }
    }
}
