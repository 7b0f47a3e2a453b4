//! Recordings in the open format: `recording.json` and the arrays and tables that it names.
//!
//! What reads the bytes of a file is an argument: `replay` reads a folder, an import what was sent, a model's `parity/`
//! what was read of its version.

use std::io;
use std::num::NonZeroU64;

use serde_json::{Map, Value};

use super::table::{Table, TableError, ns_from_decimal_s};
use super::{npy, v1};
use crate::domain::signal::{SignalRole, SignalType};
use crate::domain::tensor::Tensor;
use crate::domain::time::{Rate, ns_from_ms};
use crate::error::clip;
use crate::phrase::json;

/// The file that makes a folder a recording.
pub const RECORDING_FILE: &str = "recording.json";

/// A recording, read whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Recording {
    /// Its name.
    pub name: String,
    /// Where its time starts (device ns); 0 if it does not say.
    pub t0_ns: i64,
    /// Its signals, in the order of the file.
    pub signals: Vec<Signal>,
    /// Under which terms it may be used.
    pub licence: String,
    /// Where it comes from.
    pub source: String,
    /// Whom to cite.
    pub citation: String,
}

/// One signal of a recording.
#[derive(Clone, Debug, PartialEq)]
pub struct Signal {
    /// What a rig announces of it.
    pub spec: v1::SignalSpec,
    /// Input or target.
    pub role: SignalRole,
    /// Its samples or events.
    pub data: Data,
}

/// What a signal holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// `binned`, `continuous`, `frames`: `[T, channels…]` from sample 0.
    Samples {
        /// Raw values.
        tensor: Tensor,
        /// When each row starts.
        timing: Timing,
    },
    /// `spike_events`, sorted by time.
    Spikes {
        /// The signal's channel of each.
        unit: Vec<u32>,
        /// When it was (device ns).
        t_ns: Vec<i64>,
    },
    /// `markers`, sorted by time.
    Markers {
        /// When it was (device ns).
        t_ns: Vec<i64>,
        /// Its text.
        value: Vec<String>,
    },
}

/// When the rows of a sampled signal start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timing {
    /// At an exact rate.
    Rate(Rate),
    /// Every so many ns.
    Bins(NonZeroU64),
}

impl Timing {
    /// Start of row `i` after the recording's start (ns).
    pub fn start_ns(self, i: u64) -> i64 {
        match self {
            Timing::Rate(rate) => rate.start_ns(i),
            Timing::Bins(width) => i64::try_from(u128::from(i) * u128::from(width.get())).unwrap_or(i64::MAX),
        }
    }

    /// The first row that starts at or after `ns` from the recording's start.
    pub fn first_at_or_after(self, ns: i64) -> u64 {
        match self {
            Timing::Rate(rate) => rate.first_at_or_after(ns),
            Timing::Bins(width) => u64::try_from(ns).map_or(0, |ns| ns.div_ceil(width.get())),
        }
    }
}

/// Why a recording is not read.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// A file cannot be read.
    #[error("{file} cannot be read")]
    Read {
        /// The file.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// `recording.json` is not what it should be.
    #[error("{file}: {place}: expected {expected}, found {found}")]
    Description {
        /// The file.
        file: String,
        /// Line and column, or the path of the key.
        place: String,
        /// What should stand there.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// An array is not read.
    #[error("{file}: {source}")]
    Array {
        /// The file.
        file: String,
        /// At which byte, expected, found.
        source: npy::NpyError,
    },
    /// A table is not read.
    #[error("{file}: {source}")]
    Table {
        /// The file.
        file: String,
        /// At which line, expected, found.
        source: TableError,
    },
    /// It cannot be played several times over.
    #[error(
        "{name} cannot be repeated: signal {signal} ends {end_ns} ns after the start, others {expected_ns} ns"
    )]
    Uneven {
        /// The recording.
        name: String,
        /// The signal that ends elsewhere.
        signal: String,
        /// Where it ends.
        end_ns: i64,
        /// Where the recording ends.
        expected_ns: i64,
    },
}

impl Signal {
    /// Where its last row ends, or just past its last event (ns after `t0_ns`).
    pub fn end_ns(&self, t0_ns: i64) -> i64 {
        match &self.data {
            Data::Samples { tensor, timing } => timing.start_ns(tensor.shape[0] as u64),
            Data::Spikes { t_ns, .. } | Data::Markers { t_ns, .. } => {
                t_ns.last().map_or(0, |t_ns| t_ns.saturating_sub(t0_ns).saturating_add(1))
            }
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Scale and offset of a channel: physical = scale · raw + offset.
    pub fn scaling(&self, channel: usize) -> (f64, f64) {
        let own = self.spec.channels.get(channel);
        let scale = own.and_then(|channel| channel.scale).or(self.spec.scale).unwrap_or(1.0);
        let offset = own.and_then(|channel| channel.offset).or(self.spec.offset).unwrap_or(0.0);
        (scale, offset)
    }
}

impl Recording {
    /// Reads a recording. `file`: name of the description, for messages; `read`: the bytes of a file beside it.
    pub fn read(
        file: &str,
        description: &[u8],
        mut read: impl FnMut(&str) -> io::Result<Vec<u8>>,
    ) -> Result<Self, RecordingError> {
        let description: Value = serde_json::from_slice(description).map_err(|error| {
            let found = json::syntax(&error).unwrap_or("a value that is none").into();
            let place = format!("line {}, column {}", error.line(), error.column());
            RecordingError::Description { file: file.into(), place, expected: "JSON".into(), found }
        })?;
        let page = Page { file };
        let mut keys = page.object("the whole file", description)?;
        let recording = Recording {
            name: page.text(&mut keys, "name", "name")?.unwrap_or_default(),
            t0_ns: page.instant(&mut keys, "t0_ns")?,
            licence: page.text(&mut keys, "licence", "licence")?.unwrap_or_default(),
            source: page.text(&mut keys, "source", "source")?.unwrap_or_default(),
            citation: page.text(&mut keys, "citation", "citation")?.unwrap_or_default(),
            signals: Vec::new(),
        };
        let signals = match keys.remove("signals") {
            Some(Value::Array(signals)) => signals,
            other => return Err(page.wrong("signals", "a list of signals", other.as_ref())),
        };
        if let Some(key) = keys.keys().next() {
            let expected = "one of name, t0_ns, signals, licence, source, citation";
            return Err(page.error(key, expected, format!("`{}`", clip(key))));
        }
        let t0_ns = recording.t0_ns;
        let signals = signals
            .into_iter()
            .enumerate()
            .map(|(i, value)| page.signal(&format!("signals[{i}]"), value, t0_ns, &mut read));
        let recording = Recording { signals: signals.collect::<Result<_, _>>()?, ..recording };
        if t0_ns.checked_add(recording.end_ns()).is_none() {
            return Err(page.error(
                "t0_ns",
                "a start whose recording ends before the year 2262",
                t0_ns.to_string(),
            ));
        }
        Ok(recording)
    }

    /// The named signal.
    pub fn signal(&self, name: &str) -> Option<&Signal> {
        self.signals.iter().find(|signal| signal.spec.name == name)
    }

    /// Where its last signal ends (ns after `t0_ns`).
    pub fn end_ns(&self) -> i64 {
        self.signals.iter().map(|signal| signal.end_ns(self.t0_ns)).max().unwrap_or(0)
    }

    /// Its first `ns` nanoseconds: rows that start before then, events that lie before then.
    pub fn first(mut self, ns: i64) -> Self {
        let until = self.t0_ns.saturating_add(ns);
        for signal in &mut self.signals {
            match &mut signal.data {
                Data::Samples { tensor, timing } => {
                    let rows = usize::try_from(timing.first_at_or_after(ns)).unwrap_or(usize::MAX);
                    if rows < tensor.shape[0] {
                        let row_bytes = tensor.data.bytes().len() / tensor.shape[0];
                        tensor.data.resize(rows * row_bytes);
                        tensor.shape[0] = rows;
                    }
                }
                Data::Spikes { unit, t_ns } => {
                    let events = t_ns.partition_point(|&t_ns| t_ns < until);
                    unit.truncate(events);
                    t_ns.truncate(events);
                }
                Data::Markers { t_ns, value } => {
                    let events = t_ns.partition_point(|&t_ns| t_ns < until);
                    value.truncate(events);
                    t_ns.truncate(events);
                }
            }
        }
        self
    }

    /// What begins `ns` nanoseconds after its start or later, moved so that it begins at the start. A sampled signal moves
    /// by whole samples, so that `ns` should be some.
    pub fn after(mut self, ns: i64) -> Self {
        let from = self.t0_ns.saturating_add(ns);
        let moved = |t_ns: &[i64]| t_ns.iter().map(|t| t - ns).collect::<Vec<_>>();
        for signal in &mut self.signals {
            match &mut signal.data {
                Data::Samples { tensor, timing } => {
                    let rows = usize::try_from(timing.first_at_or_after(ns)).unwrap_or(usize::MAX);
                    let rows = rows.min(tensor.shape[0]);
                    let row_bytes = tensor.data.bytes().len() / tensor.shape[0].max(1);
                    let mut shape = tensor.shape.clone();
                    shape[0] -= rows;
                    *tensor =
                        Tensor::from_bytes(tensor.dtype, &shape, &tensor.data.bytes()[rows * row_bytes..])
                            .expect("as many bytes as rows times their width");
                }
                Data::Spikes { unit, t_ns } => {
                    let events = t_ns.partition_point(|&t_ns| t_ns < from);
                    unit.drain(..events);
                    *t_ns = moved(&t_ns[events..]);
                }
                Data::Markers { t_ns, value } => {
                    let events = t_ns.partition_point(|&t_ns| t_ns < from);
                    value.drain(..events);
                    *t_ns = moved(&t_ns[events..]);
                }
            }
        }
        self
    }

    /// The recording played `times` times over, as one. Errors: a sampled signal that ends before the others, since its
    /// samples would slip from the rest.
    pub fn repeated(mut self, times: u32) -> Result<Self, RecordingError> {
        let (t0_ns, end_ns) = (self.t0_ns, self.end_ns());
        let uneven = self.signals.iter().find(|signal| {
            matches!(signal.data, Data::Samples { .. }) && signal.end_ns(t0_ns) != end_ns && times > 1
        });
        if let Some(signal) = uneven {
            let (signal, end) = (signal.spec.name.clone(), signal.end_ns(t0_ns));
            return Err(RecordingError::Uneven { name: self.name, signal, end_ns: end, expected_ns: end_ns });
        }
        let shifted = |t_ns: &[i64]| -> Vec<i64> {
            (0..i64::from(times)).flat_map(|i| t_ns.iter().map(move |t| t + i * end_ns)).collect()
        };
        for signal in &mut self.signals {
            match &mut signal.data {
                Data::Samples { tensor, .. } => {
                    let bytes = tensor.data.bytes().repeat(times as usize);
                    tensor.shape[0] *= times as usize;
                    *tensor = Tensor::from_bytes(tensor.dtype, &tensor.shape, &bytes)
                        .expect("as many bytes as rows times their width");
                }
                Data::Spikes { unit, t_ns } => {
                    *unit = unit.repeat(times as usize);
                    *t_ns = shifted(t_ns);
                }
                Data::Markers { t_ns, value } => {
                    *value = vec![value.as_slice(); times as usize].concat();
                    *t_ns = shifted(t_ns);
                }
            }
        }
        Ok(self)
    }
}

/// The description as it is read: it names itself in every error.
struct Page<'a> {
    file: &'a str,
}

impl Page<'_> {
    fn error(&self, place: &str, expected: impl Into<String>, found: impl Into<String>) -> RecordingError {
        let (expected, found) = (expected.into(), found.into());
        RecordingError::Description { file: self.file.into(), place: clip(place), expected, found }
    }

    fn wrong(&self, place: &str, expected: &str, found: Option<&Value>) -> RecordingError {
        let found = found.map_or("nothing".into(), |value| format!("`{}`", clip(&value.to_string())));
        self.error(place, expected, found)
    }

    fn object(&self, place: &str, value: Value) -> Result<Map<String, Value>, RecordingError> {
        match value {
            Value::Object(keys) => Ok(keys),
            other => Err(self.wrong(place, "an object", Some(&other))),
        }
    }

    fn text(
        &self,
        keys: &mut Map<String, Value>,
        key: &str,
        place: &str,
    ) -> Result<Option<String>, RecordingError> {
        match keys.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(place, "a text", Some(&other))),
        }
    }

    /// A 64-bit integer, as a number or as text.
    fn instant(&self, keys: &mut Map<String, Value>, key: &str) -> Result<i64, RecordingError> {
        let value = keys.remove(key).unwrap_or(Value::Null);
        let number = match &value {
            Value::Null => Some(0),
            Value::Number(number) => number.as_i64(),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        number.ok_or_else(|| self.wrong(key, "a whole number of nanoseconds", Some(&value)))
    }

    fn signal(
        &self,
        place: &str,
        value: Value,
        t0_ns: i64,
        read: &mut impl FnMut(&str) -> io::Result<Vec<u8>>,
    ) -> Result<Signal, RecordingError> {
        let mut keys = self.object(place, value)?;
        let file = self.text(&mut keys, "file", &format!("{place}.file"))?;
        let column = self.text(&mut keys, "value", &format!("{place}.value"))?;
        let spec: v1::SignalSpec =
            serde_path_to_error::deserialize(Value::Object(keys)).map_err(|error| {
                let place = format!("{place}.{}", error.path());
                let words = error.inner().to_string();
                self.error(&place, "a field of a signal (or file, value)", clip(&words))
            })?;
        let kind = SignalType::parse(&spec.r#type).ok_or_else(|| {
            let expected = format!("one of {}", SignalType::words());
            self.error(&format!("{place}.type"), expected, format!("`{}`", clip(&spec.r#type)))
        })?;
        let role = match spec.role.as_str() {
            "" => SignalRole::Input,
            word => SignalRole::parse(word).ok_or_else(|| {
                let expected = format!("one of {}", SignalRole::words());
                self.error(&format!("{place}.role"), expected, format!("`{}`", clip(word)))
            })?,
        };
        let Some(file) = file.filter(|file| is_plain(file)) else {
            let expected = "the plain name of a file beside this one";
            return Err(self.error(&format!("{place}.file"), expected, "none, or a path"));
        };
        let bytes = read(&file).map_err(|source| RecordingError::Read { file: file.clone(), source })?;
        let data = match kind {
            SignalType::Binned | SignalType::Continuous | SignalType::Frames => {
                let timing = self.timing(place, &spec, kind)?;
                let tensor = npy::read(&bytes)
                    .map_err(|source| RecordingError::Array { file: file.clone(), source })?;
                Data::Samples { tensor: rows(&file, tensor, &spec, kind)?, timing }
            }
            SignalType::SpikeEvents => spikes(&file, &bytes, spec.channels.len(), t0_ns)?,
            SignalType::Markers => markers(&file, &bytes, column.as_deref().unwrap_or("value"), t0_ns)?,
            SignalType::AddressEvents => {
                let expected = "a type that the open format has: all but address_events";
                return Err(self.error(&format!("{place}.type"), expected, "`address_events`"));
            }
        };
        Ok(Signal { spec, role, data })
    }

    fn timing(&self, place: &str, spec: &v1::SignalSpec, kind: SignalType) -> Result<Timing, RecordingError> {
        if kind == SignalType::Binned {
            let width = spec.bin_ms.and_then(ns_from_ms).and_then(NonZeroU64::new);
            let found = spec.bin_ms.map_or("nothing".into(), |bin_ms| bin_ms.to_string());
            let expected = "a width of bins over 0";
            let place = format!("{place}.bin_ms");
            return width.map(Timing::Bins).ok_or_else(|| self.error(&place, expected, found));
        }
        let rate = spec.rate.as_ref();
        let found = rate.map_or("nothing".into(), |rate| format!("{} / {}", rate.num, rate.den));
        let exact = rate.and_then(|rate| Rate::new(rate.num, rate.den));
        exact
            .map(Timing::Rate)
            .ok_or_else(|| self.error(&format!("{place}.rate"), "num and den, each at least 1", found))
    }
}

/// Whether a file's name names nothing but a file in the same folder.
fn is_plain(file: &str) -> bool {
    !file.is_empty() && file != "." && file != ".." && !file.contains(['/', '\\', ':', '\0'])
}

/// The array as `[T, channels…]`. One of a single axis is that of a single channel.
fn rows(
    file: &str,
    mut tensor: Tensor,
    spec: &v1::SignalSpec,
    kind: SignalType,
) -> Result<Tensor, RecordingError> {
    let channels = spec.channels.len();
    let found = format!("{:?}", tensor.shape);
    let fits = match (kind, tensor.shape.as_slice()) {
        (_, [_]) if channels <= 1 => {
            tensor.shape.push(1);
            true
        }
        (SignalType::Frames, [_, _, ..]) => true,
        (_, [_, width]) => channels == 0 || *width == channels,
        _ => false,
    };
    if fits {
        return Ok(tensor);
    }
    let expected = match channels {
        0 => format!("[T, channels] for signal {}", spec.name),
        _ => format!("[T, {channels}] for the {channels} channels of signal {}", spec.name),
    };
    Err(RecordingError::Array { file: file.into(), source: npy::NpyError { offset: 0, expected, found } })
}

fn text<'a>(file: &str, bytes: &'a [u8]) -> Result<&'a str, RecordingError> {
    std::str::from_utf8(bytes).map_err(|error| {
        let line = 1 + bytes[..error.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count();
        wrong(file, TableError::new(line, "UTF-8 text", "other bytes"))
    })
}

fn wrong(file: &str, source: TableError) -> RecordingError {
    RecordingError::Table { file: file.into(), source }
}

fn instant(file: &str, line: usize, time_s: &str, t0_ns: i64) -> Result<i64, RecordingError> {
    ns_from_decimal_s(time_s)
        .and_then(|ns| ns.checked_add(t0_ns))
        .ok_or_else(|| wrong(file, TableError::new(line, "a time in seconds", format!("`{}`", clip(time_s)))))
}

fn spikes(file: &str, bytes: &[u8], channels: usize, t0_ns: i64) -> Result<Data, RecordingError> {
    let table = Table::read(text(file, bytes)?, ["unit", "time_s"]).map_err(|error| wrong(file, error))?;
    let mut events = Vec::new();
    for record in table {
        let record = record.map_err(|error| wrong(file, error))?;
        let [unit, time_s] = &record.fields;
        let number = unit.trim().parse::<u32>().ok().filter(|&unit| (unit as usize) < channels);
        let number = number.ok_or_else(|| {
            let expected = format!("a unit from 0 to {}", channels as i64 - 1);
            wrong(file, TableError::new(record.line, expected, format!("`{}`", clip(unit))))
        })?;
        events.push((instant(file, record.line, time_s, t0_ns)?, number));
    }
    events.sort_by_key(|(t_ns, _)| *t_ns);
    let (t_ns, unit) = events.into_iter().unzip();
    Ok(Data::Spikes { unit, t_ns })
}

fn markers(file: &str, bytes: &[u8], column: &str, t0_ns: i64) -> Result<Data, RecordingError> {
    let table = Table::read(text(file, bytes)?, ["time_s", column]).map_err(|error| wrong(file, error))?;
    let mut events = Vec::new();
    for record in table {
        let record = record.map_err(|error| wrong(file, error))?;
        let line = record.line;
        let [time_s, value] = record.fields;
        events.push((instant(file, line, &time_s, t0_ns)?, value));
    }
    events.sort_by_key(|(t_ns, _)| *t_ns);
    let (t_ns, value) = events.into_iter().unzip();
    Ok(Data::Markers { t_ns, value })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use super::*;
    use crate::domain::tensor::Dtype;

    fn read(description: &str, files: &[(&str, &[u8])]) -> Result<Recording, RecordingError> {
        let files: BTreeMap<&str, &[u8]> = files.iter().copied().collect();
        Recording::read("recording.json", description.as_bytes(), |file| {
            let bytes = files.get(file).ok_or(io::Error::from(io::ErrorKind::NotFound))?;
            Ok(bytes.to_vec())
        })
    }

    fn sentence(description: &str, files: &[(&str, &[u8])]) -> String {
        read(description, files).unwrap_err().to_string()
    }

    const SPIKES: &str = r#"{"name": "s", "type": "spike_events", "file": "s.csv", "channels": [{"name": "a"}, {"name": "b"}]}"#;

    #[test]
    fn a_recording_is_read_with_exact_times() {
        let description = format!(
            r#"{{"name": "r", "t0_ns": "1792233720123456789", "signals": [{SPIKES},
              {{"name": "m", "type": "markers", "file": "m.csv", "value": "type"}},
              {{"name": "v", "type": "continuous", "file": "v.npy", "channels": [{{"name": "x", "scale": 2}}],
                "rate": {{"num": 60, "den": 1}}, "role": "target"}}]}}"#
        );
        let array = npy::write(&Tensor::from_f32(&[3], &[1.0, 2.0, 3.0]));
        let files: [(&str, &[u8]); 3] = [
            ("s.csv", b"unit,time_s\n1,0.3\n0,0.000000001\n"),
            ("m.csv", b"position,time_s,type\n2,1.000068,square\n"),
            ("v.npy", &array),
        ];
        let recording = read(&description, &files).unwrap();
        let t0_ns = 1_792_233_720_123_456_789;
        assert_eq!(recording.t0_ns, t0_ns);
        let spikes = Data::Spikes { unit: vec![0, 1], t_ns: vec![t0_ns + 1, t0_ns + 300_000_000] };
        assert_eq!(recording.signals[0].data, spikes);
        let markers = Data::Markers { t_ns: vec![t0_ns + 1_000_068_000], value: vec!["square".into()] };
        assert_eq!(recording.signals[1].data, markers);
        let velocity = &recording.signals[2];
        assert_eq!(velocity.role, SignalRole::Target);
        assert_eq!(velocity.scaling(0), (2.0, 0.0));
        assert_eq!(velocity.end_ns(t0_ns), 50_000_000);
        assert_eq!(recording.end_ns(), 1_000_068_001);
    }

    #[test]
    fn the_first_part_and_repeats_keep_rows_and_events_together() {
        let description = format!(
            r#"{{"name": "r", "t0_ns": 7, "signals": [{SPIKES},
              {{"name": "v", "type": "binned", "file": "v.npy", "channels": [{{"name": "x"}}], "bin_ms": 20}}]}}"#
        );
        let array = npy::write(&Tensor::from_f32(&[3, 1], &[1.0, 2.0, 3.0]));
        let files: [(&str, &[u8]); 2] =
            [("s.csv", b"unit,time_s\n0,0.01\n1,0.0399\n1,0.05\n"), ("v.npy", &array)];
        let whole = read(&description, &files).unwrap();
        let rest = whole.clone().after(20_000_000);
        let Data::Samples { tensor, .. } = &rest.signals[1].data else { panic!() };
        assert_eq!(tensor, &Tensor::from_f32(&[2, 1], &[2.0, 3.0]));
        let t_ns = vec![19_900_007, 30_000_007];
        assert_eq!(rest.signals[0].data, Data::Spikes { unit: vec![1, 1], t_ns });
        let part = whole.first(40_000_000);
        let Data::Samples { tensor, .. } = &part.signals[1].data else { panic!() };
        assert_eq!(tensor, &Tensor::from_f32(&[2, 1], &[1.0, 2.0]));
        let twice = part.repeated(2).unwrap();
        let Data::Samples { tensor, .. } = &twice.signals[1].data else { panic!() };
        assert_eq!(tensor, &Tensor::from_f32(&[4, 1], &[1.0, 2.0, 1.0, 2.0]));
        let t_ns = vec![10_000_007, 39_900_007, 50_000_007, 79_900_007];
        assert_eq!(twice.signals[0].data, Data::Spikes { unit: vec![0, 1, 0, 1], t_ns });
    }

    #[test]
    fn what_is_wrong_is_named_with_file_place_found_and_expected() {
        assert_eq!(
            sentence("{\"name\": \"r\",", &[]),
            "recording.json: line 1, column 13: expected JSON, found the end of the text where a value is due"
        );
        assert_eq!(
            sentence(r#"{"signal": [], "signals": []}"#, &[]),
            "recording.json: signal: expected one of name, t0_ns, signals, licence, source, citation, found `signal`"
        );
        let one = |signal: &str| format!(r#"{{"name": "r", "signals": [{signal}]}}"#);
        assert!(
            sentence(&one(r#"{"name": "s", "type": "spike_events", "file": "f", "bim_ms": 2}"#), &[])
                .starts_with("recording.json: signals[0].bim_ms: expected a field of a signal"),
        );
        assert_eq!(
            sentence(&one(r#"{"name": "s", "type": "spikes", "file": "f"}"#), &[]),
            "recording.json: signals[0].type: expected one of spike_events, binned, continuous, frames, \
             address_events, markers, found `spikes`"
        );
        assert_eq!(
            sentence(&one(r#"{"name": "s", "type": "markers", "file": "../m.csv"}"#), &[]),
            "recording.json: signals[0].file: expected the plain name of a file beside this one, found none, or a path"
        );
        assert_eq!(sentence(&one(SPIKES), &[]), "s.csv cannot be read");
        assert_eq!(
            sentence(&one(SPIKES), &[("s.csv", b"unit,time_s\n0,0.1\n2,0.2\n")]),
            "s.csv: line 3: expected a unit from 0 to 1, found `2`"
        );
        assert_eq!(
            sentence(&one(SPIKES), &[("s.csv", b"unit,time_s\n0,soon\n")]),
            "s.csv: line 2: expected a time in seconds, found `soon`"
        );
        let binned =
            r#"{"name": "c", "type": "binned", "file": "c.npy", "bin_ms": 20, "channels": [{"name": "u"}]}"#;
        let array = npy::write(&Tensor::zeros(Dtype::U8, &[4, 2]));
        assert_eq!(
            sentence(&one(binned), &[("c.npy", &array)]),
            "c.npy: byte 0: expected [T, 1] for the 1 channels of signal c, found [4, 2]"
        );
        assert_eq!(
            sentence(&one(&binned.replace("\"bin_ms\": 20, ", "")), &[("c.npy", &array)]),
            "recording.json: signals[0].bin_ms: expected a width of bins over 0, found nothing"
        );
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "tests find recordings by the environment")]
    fn every_recording_of_the_shared_folder_is_read() {
        let folder = std::env::var_os("LATENTD_RECORDINGS").map_or_else(
            || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/recordings")),
            PathBuf::from,
        );
        let Ok(entries) = std::fs::read_dir(&folder) else {
            println!("not run: reading the shared recordings, no {}", folder.display());
            return;
        };
        let mut ends_s = BTreeMap::new();
        for entry in entries.flatten() {
            let Ok(description) = std::fs::read(entry.path().join(RECORDING_FILE)) else { continue };
            let recording =
                Recording::read(RECORDING_FILE, &description, |file| std::fs::read(entry.path().join(file)))
                    .unwrap_or_else(|error| panic!("{}: {error}", entry.path().display()));
            ends_s.insert(recording.name.clone(), recording.end_ns() as f64 / 1e9);
        }
        assert!(ends_s.len() >= 6, "{ends_s:?}");
        assert_eq!(ends_s["grasshopper_receptor"], 10.0);
        assert_eq!(ends_s["m1_bci_decoder"], 1104.0 * 0.045);
    }
}
