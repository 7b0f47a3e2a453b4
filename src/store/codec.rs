//! A journal row's bytes.
//!
//! ```text
//! row    = version u8 (2) · first_at u64 · record* · crc32 u32 (of all before)
//! record = kind u8 · length u32 · payload (length bytes)
//! ```
//! Little-endian. `first_at` numbers the row's first `Frame` or `Act` in its run's order; each further one counts
//! up. A kind's payload is never changed: another payload is another kind. Text is its length (u32) and UTF-8.

use bytes::{Buf, BufMut, Bytes};

use super::record::{Annotation, OutputColumn, Record, Since};
use super::run::{Close, RunHead};
use crate::domain::ids::{Digest, SignalName, StageName, Version};
use crate::domain::output::{EventKind, Notice};
use crate::domain::settings::{ResetScope, SwitchState};
use crate::domain::tensor::Dtype;
use crate::signal::act::{Act, Switch};
use crate::signal::clock::Relation;

const VERSION: u8 = 2;
/// Version and `first_at` before the records, checksum after them.
const FRAME_BYTES: usize = 1 + 8 + 4;

/// Why a journal row cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Fewer bytes than its parts say.
    #[error("the row ends early")]
    Short,
    /// Written by a newer latentd.
    #[error("row version {0}, expected {VERSION}")]
    Version(u8),
    /// The bytes are not those that were written.
    #[error("checksum {found:08x}, expected {expected:08x}")]
    Checksum {
        /// As the row says.
        expected: u32,
        /// Of the row's bytes.
        found: u32,
    },
    /// A record of a kind that this version does not know.
    #[error("record of unknown kind {0}")]
    Kind(u8),
    /// A record's payload does not fit its kind.
    #[error("a record of kind {kind} has an odd {field}")]
    Field {
        /// The record's kind.
        kind: u8,
        /// What is odd.
        field: &'static str,
    },
}

const BINS: u8 = 1;
const EVENT: u8 = 4;
const SKIPPED: u8 = 5;
const ANNOTATION: u8 = 6;
const SEGMENT: u8 = 7;
const SETTING: u8 = 8;
const T0: u8 = 9;
const HEAD: u8 = 10;
const CLOSE: u8 = 11;
const STOPPED: u8 = 12;
// 2 and 3 were a frame without its arrival, and acts as the session's own text.
const FRAME: u8 = 13;
const ACT: u8 = 14;

const CLOSE_EARLY: u8 = 1;
const RESET: u8 = 2;
const RELATE: u8 = 3;
const SWITCH: u8 = 4;

/// The records of one run in one group commit as a row. `first_at`: the number of its first `Frame` or `Act`.
pub fn encode(first_at: u64, records: &[Record]) -> Vec<u8> {
    let size: usize = records.iter().map(Record::size_bytes).sum();
    let mut row = Vec::with_capacity(FRAME_BYTES + size);
    row.put_u8(VERSION);
    row.put_u64_le(first_at);
    for record in records {
        put_record(&mut row, record);
    }
    let checksum = crc32(&row);
    row.put_u32_le(checksum);
    row
}

/// Frames and acts among the records: how far `first_at` goes on.
pub fn places(records: &[Record]) -> u64 {
    records.iter().filter(|record| has_place(record)).count() as u64
}

fn has_place(record: &Record) -> bool {
    matches!(record, Record::Frame { .. } | Record::Act(_))
}

fn put_record(row: &mut Vec<u8>, record: &Record) {
    let start = row.len();
    row.put_u8(0);
    row.put_u32_le(0);
    let kind = match record {
        Record::Bins { first_bin, n, flags, outputs } => {
            row.put_u64_le(*first_bin);
            row.put_u32_le(*n);
            row.put_u32_le(outputs.len() as u32);
            flags.iter().for_each(|&flag| row.put_u32_le(flag));
            for column in outputs {
                row.put_u32_le(column.number);
                row.put_u8(code_of_dtype(column.dtype));
                put_bytes(row, &column.bytes);
            }
            BINS
        }
        Record::Frame { signal, seq, arrived_ns, bytes, bins_until } => {
            row.put_u32_le(*signal as u32);
            row.put_u64_le(*seq);
            row.put_i64_le(*arrived_ns);
            row.put_u64_le(*bins_until);
            put_bytes(row, bytes);
            FRAME
        }
        Record::Act(act) => {
            put_act(row, act);
            ACT
        }
        Record::Event(notice) => {
            put_text(row, notice.kind.word());
            put_text(row, notice.signal.as_ref().map_or("", SignalName::as_str));
            put_option(row, notice.from_bin);
            put_option(row, notice.to_bin);
            row.put_u64_le(notice.count);
            row.put_i64_le(notice.t_ns);
            put_text(row, &notice.detail);
            EVENT
        }
        Record::Skipped { from_bin, to_bin } => {
            row.put_u64_le(*from_bin);
            row.put_u64_le(*to_bin);
            SKIPPED
        }
        Record::Annotation(annotation) => {
            row.put_u64_le(annotation.from_bin);
            row.put_u64_le(annotation.to_bin);
            put_text(row, &annotation.label);
            put_text(row, &annotation.body);
            ANNOTATION
        }
        Record::Segment(since) => {
            put_since(row, since);
            SEGMENT
        }
        Record::Setting(since) => {
            put_since(row, since);
            SETTING
        }
        Record::T0 { t0_ns } => {
            row.put_i64_le(*t0_ns);
            T0
        }
        Record::Head(head) => {
            put_text(row, &head.to_json());
            HEAD
        }
        Record::Close(close) => {
            row.put_i64_le(close.ended_ns);
            put_text(row, &close.summary);
            CLOSE
        }
        Record::Stopped => STOPPED,
    };
    let length = (row.len() - start - 5) as u32;
    row[start] = kind;
    row[start + 1..start + 5].copy_from_slice(&length.to_le_bytes());
}

/// An act as it stands in a journal row, and among a run's frames.
pub(super) fn put_act(row: &mut Vec<u8>, act: &Act) {
    match act {
        Act::Close { before, now_ns } => {
            row.put_u8(CLOSE_EARLY);
            row.put_u64_le(*before);
            row.put_i64_le(*now_ns);
        }
        Act::Reset { scope, at_bin } => {
            row.put_u8(RESET);
            put_text(row, scope.word());
            row.put_u64_le(*at_bin);
        }
        Act::Relate { clock, relation, stepped_ns } => {
            row.put_u8(RELATE);
            put_text(row, clock);
            row.put_i64_le(relation.offset_ns);
            row.put_f64_le(relation.drift_ppm);
            row.put_i64_le(relation.at_ns);
            row.put_u64_le(relation.uncertainty_ns);
            row.put_f64_le(relation.growth_ppm);
            row.put_i64_le(*stepped_ns);
        }
        Act::Switch(Switch { stage, version, digest, state, at_bin }) => {
            row.put_u8(SWITCH);
            put_text(row, stage.as_str());
            row.put_u32_le(version.0);
            row.put_slice(&digest.0);
            put_text(row, state.word());
            row.put_u64_le(*at_bin);
        }
    }
}

/// Reads what `put_act` wrote.
pub(super) fn act(bytes: Bytes) -> Result<Act, CodecError> {
    Payload { kind: ACT, bytes }.act()
}

fn put_bytes(row: &mut Vec<u8>, bytes: &[u8]) {
    row.put_u32_le(bytes.len() as u32);
    row.put_slice(bytes);
}

fn put_text(row: &mut Vec<u8>, text: &str) {
    put_bytes(row, text.as_bytes());
}

fn put_option(row: &mut Vec<u8>, number: Option<u64>) {
    row.put_u8(u8::from(number.is_some()));
    row.put_u64_le(number.unwrap_or(0));
}

fn put_since(row: &mut Vec<u8>, since: &Since) {
    row.put_u64_le(since.from_bin);
    put_text(row, &since.body);
}

/// A record and its place in its run's order (which only frames and acts have).
pub type Placed = (Option<u64>, Record);

/// The records of a row, in order. Their data are slices of `row`, not copies.
pub fn decode(mut row: Bytes) -> Result<Vec<Placed>, CodecError> {
    if row.len() < FRAME_BYTES {
        return Err(CodecError::Short);
    }
    let expected = row.split_off(row.len() - 4).get_u32_le();
    let found = crc32(&row);
    if expected != found {
        return Err(CodecError::Checksum { expected, found });
    }
    let version = row.get_u8();
    if version != VERSION {
        return Err(CodecError::Version(version));
    }
    let mut at = row.get_u64_le();
    let mut records = Vec::new();
    while !row.is_empty() {
        if row.len() < 5 {
            return Err(CodecError::Short);
        }
        let kind = row.get_u8();
        let length = row.get_u32_le() as usize;
        if row.len() < length {
            return Err(CodecError::Short);
        }
        let record = Payload { kind, bytes: row.split_to(length) }.record()?;
        let place = has_place(&record).then_some(at);
        at += u64::from(place.is_some());
        records.push((place, record));
    }
    Ok(records)
}

/// What is left of one record's payload.
struct Payload {
    kind: u8,
    bytes: Bytes,
}

impl Payload {
    fn record(mut self) -> Result<Record, CodecError> {
        Ok(match self.kind {
            BINS => {
                let (first_bin, n, columns) = (self.u64()?, self.u32()?, self.u32()?);
                let flags = (0..n).map(|_| self.u32()).collect::<Result<Vec<u32>, CodecError>>()?;
                let mut outputs = Vec::new();
                for _ in 0..columns {
                    let number = self.u32()?;
                    let code = self.take(1)?[0];
                    let dtype = *Dtype::ALL.get(usize::from(code)).ok_or(self.odd("dtype"))?;
                    let bytes = self.blob()?;
                    if n == 0 || !bytes.len().is_multiple_of(n as usize) {
                        return Err(self.odd("column"));
                    }
                    outputs.push(OutputColumn { number, dtype, bytes });
                }
                Record::Bins { first_bin, n, flags, outputs }
            }
            FRAME => Record::Frame {
                signal: self.u32()? as usize,
                seq: self.u64()?,
                arrived_ns: self.i64()?,
                bins_until: self.u64()?,
                bytes: self.blob()?,
            },
            ACT => Record::Act(self.act()?),
            EVENT => {
                let kind = EventKind::parse(&self.text()?).ok_or(self.odd("kind of event"))?;
                let signal = self.text()?;
                Record::Event(Notice {
                    kind,
                    signal: (!signal.is_empty()).then(|| SignalName::new(signal)),
                    from_bin: self.option()?,
                    to_bin: self.option()?,
                    count: self.u64()?,
                    t_ns: self.i64()?,
                    detail: self.text()?,
                })
            }
            SKIPPED => Record::Skipped { from_bin: self.u64()?, to_bin: self.u64()? },
            ANNOTATION => Record::Annotation(Annotation {
                from_bin: self.u64()?,
                to_bin: self.u64()?,
                label: self.text()?,
                body: self.text()?,
            }),
            SEGMENT => Record::Segment(self.since()?),
            SETTING => Record::Setting(self.since()?),
            T0 => Record::T0 { t0_ns: self.i64()? },
            HEAD => {
                let head = RunHead::from_json(&self.text()?).map_err(|_| self.odd("head"))?;
                Record::Head(Box::new(head))
            }
            CLOSE => Record::Close(Close { ended_ns: self.i64()?, summary: self.text()? }),
            STOPPED => Record::Stopped,
            kind => return Err(CodecError::Kind(kind)),
        })
    }

    fn act(&mut self) -> Result<Act, CodecError> {
        Ok(match self.take(1)?[0] {
            CLOSE_EARLY => Act::Close { before: self.u64()?, now_ns: self.i64()? },
            RESET => {
                let scope = ResetScope::parse(&self.text()?).ok_or(self.odd("scope"))?;
                Act::Reset { scope, at_bin: self.u64()? }
            }
            RELATE => {
                let clock = self.text()?;
                let (offset_ns, drift_ppm, at_ns) = (self.i64()?, self.f64()?, self.i64()?);
                let (uncertainty_ns, growth_ppm) = (self.u64()?, self.f64()?);
                let relation = Relation { offset_ns, drift_ppm, at_ns, uncertainty_ns, growth_ppm };
                Act::Relate { clock, relation, stepped_ns: self.i64()? }
            }
            SWITCH => {
                let (stage, version) = (StageName::new(self.text()?), Version(self.u32()?));
                let digest = self.take(32)?.as_ref().try_into().map_err(|_| self.odd("digest"))?;
                let state = SwitchState::parse(&self.text()?).ok_or(self.odd("state"))?;
                Act::Switch(Switch { stage, version, digest: Digest(digest), state, at_bin: self.u64()? })
            }
            _ => return Err(self.odd("act")),
        })
    }

    fn odd(&self, field: &'static str) -> CodecError {
        CodecError::Field { kind: self.kind, field }
    }

    fn take(&mut self, length: usize) -> Result<Bytes, CodecError> {
        if self.bytes.len() < length {
            return Err(self.odd("length"));
        }
        Ok(self.bytes.split_to(length))
    }

    fn u32(&mut self) -> Result<u32, CodecError> {
        Ok(self.take(4)?.get_u32_le())
    }

    fn u64(&mut self) -> Result<u64, CodecError> {
        Ok(self.take(8)?.get_u64_le())
    }

    fn i64(&mut self) -> Result<i64, CodecError> {
        Ok(self.take(8)?.get_i64_le())
    }

    fn f64(&mut self) -> Result<f64, CodecError> {
        Ok(self.take(8)?.get_f64_le())
    }

    fn option(&mut self) -> Result<Option<u64>, CodecError> {
        let there = self.take(1)?[0] != 0;
        let number = self.u64()?;
        Ok(there.then_some(number))
    }

    fn blob(&mut self) -> Result<Bytes, CodecError> {
        let length = self.u32()? as usize;
        self.take(length)
    }

    fn text(&mut self) -> Result<String, CodecError> {
        let bytes = self.blob()?;
        String::from_utf8(bytes.to_vec()).map_err(|_| self.odd("text"))
    }

    fn since(&mut self) -> Result<Since, CodecError> {
        Ok(Since { from_bin: self.u64()?, body: self.text()? })
    }
}

/// A dtype's place in `Dtype::ALL`, which is the wire's list and so is never reordered.
fn code_of_dtype(dtype: Dtype) -> u8 {
    Dtype::ALL.iter().position(|&known| known == dtype).unwrap_or(0) as u8
}

/// Eight tables, so that eight bytes are taken per step; table 0 is the usual one.
const CRC_TABLES: [[u32; 256]; 8] = {
    let mut tables = [[0u32; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut table = 1;
    while table < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[table - 1][byte];
            tables[table][byte] = (before >> 8) ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        table += 1;
    }
    tables
};

/// CRC-32 as in IEEE 802.3 and zlib.
fn crc32(bytes: &[u8]) -> u32 {
    let t = &CRC_TABLES;
    let mut crc = !0u32;
    let mut eights = bytes.chunks_exact(8);
    for eight in &mut eights {
        let low = crc ^ u32::from_le_bytes([eight[0], eight[1], eight[2], eight[3]]);
        crc = t[7][(low & 0xff) as usize]
            ^ t[6][(low >> 8 & 0xff) as usize]
            ^ t[5][(low >> 16 & 0xff) as usize]
            ^ t[4][(low >> 24) as usize]
            ^ t[3][usize::from(eight[4])]
            ^ t[2][usize::from(eight[5])]
            ^ t[1][usize::from(eight[6])]
            ^ t[0][usize::from(eight[7])];
    }
    for &byte in eights.remainder() {
        crc = (crc >> 8) ^ t[0][((crc ^ u32::from(byte)) & 0xff) as usize];
    }
    !crc
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::testing::{head, relate, switch};

    fn one_of_each() -> Vec<Record> {
        let column = |number, dtype, bytes: &'static [u8]| OutputColumn {
            number,
            dtype,
            bytes: Bytes::from_static(bytes),
        };
        let since = Since { from_bin: 7, body: "{\"a\":1}".into() };
        vec![
            Record::Head(Box::new(head())),
            Record::T0 { t0_ns: -5 },
            Record::Bins {
                first_bin: 3,
                n: 2,
                flags: vec![1, 1 << 14],
                outputs: vec![column(0, Dtype::F32, &[0; 16]), column(4, Dtype::U8, &[9, 8])],
            },
            Record::Frame {
                signal: 1,
                seq: 9,
                arrived_ns: -3,
                bytes: Bytes::from_static(b"frame"),
                bins_until: 5,
            },
            Record::Act(Act::Close { before: 7, now_ns: i64::MAX }),
            Record::Act(Act::Reset { scope: ResetScope::All, at_bin: 8 }),
            Record::Act(relate("amp")),
            Record::Act(switch("decoder")),
            Record::Event(Notice {
                kind: EventKind::Gap,
                signal: Some("spikes".into()),
                from_bin: Some(1),
                to_bin: None,
                count: 3,
                detail: "µ".into(),
                t_ns: i64::MIN,
            }),
            Record::Skipped { from_bin: 5, to_bin: 50 },
            Record::Annotation(Annotation {
                label: "rest".into(),
                from_bin: 0,
                to_bin: 9,
                body: String::new(),
            }),
            Record::Segment(since.clone()),
            Record::Setting(since),
            Record::Stopped,
            Record::Close(Close { ended_ns: 1, summary: "{}".into() }),
        ]
    }

    #[test]
    fn every_record_comes_back_with_its_place_in_the_order() {
        let records = one_of_each();
        let read = decode(encode(40, &records).into()).unwrap();
        assert_eq!(read.iter().map(|(_, record)| record.clone()).collect::<Vec<_>>(), records);
        let places_read: Vec<u64> = read.iter().filter_map(|(at, _)| *at).collect();
        assert_eq!(places_read, [40, 41, 42, 43, 44]);
        assert_eq!(places(&records), 5);
    }

    #[test]
    fn the_checksum_is_the_usual_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn a_column_that_is_not_whole_rows_is_refused() {
        let bytes = Bytes::from_static(&[0; 5]);
        let outputs = vec![OutputColumn { number: 0, dtype: Dtype::U8, bytes }];
        let row = encode(0, &[Record::Bins { first_bin: 0, n: 2, flags: vec![0, 0], outputs }]);
        assert_eq!(decode(row.into()), Err(CodecError::Field { kind: BINS, field: "column" }));
    }

    proptest! {
        #[test]
        fn one_changed_byte_is_always_noticed(place in any::<prop::sample::Index>(), change in 1u8..) {
            let mut row = encode(0, &one_of_each());
            let place = place.index(row.len());
            row[place] ^= change;
            prop_assert!(decode(row.into()).is_err());
        }

        #[test]
        fn bytes_of_any_origin_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let checksum = crc32(&bytes);
            bytes.put_u32_le(checksum);
            let _ = decode(bytes.into());
        }
    }
}
