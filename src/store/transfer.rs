//! What goes from the journal to the library in one piece for one run.
//! Enters: the run's journal rows after `from`, in order. Leaves: a `Transfer`, the sum of what they say.
//! Must hold: it depends on the rows alone, so that a query can add the tail to what the library holds and see what
//! the library will hold. Pure.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use super::codec::{self, Placed};
use super::extent::{Extent, Track, cut_into_chunks, join};
use super::journal::Row;
use super::pack::{self, KeptFrame};
use super::record::{Annotation, Record, Since};
use super::run::{Close, Recording, RunHead, RunRecord, RunState};
use crate::domain::ids::RunId;
use crate::domain::output::{EventKind, Notice};
use crate::domain::tensor::Dtype;

/// The sum of some journal rows of one run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transfer {
    /// The last row before it (0: none), which the library must have as its mark.
    pub from: i64,
    /// The last row in it, which becomes the library's mark.
    pub to: i64,
    /// The run's beginning, if it is in these rows.
    pub head: Option<RunHead>,
    /// Start of bin 0, if these rows tell it.
    pub t0_ns: Option<i64>,
    /// The smallest recorded bin.
    pub first_bin: Option<u64>,
    /// One past the largest recorded bin.
    pub end_bin: Option<u64>,
    /// Recorded bins.
    pub bins: u64,
    /// Bins that were not answered.
    pub skipped_bins: u64,
    /// When the last row was committed (Unix ns).
    pub last_ns: i64,
    /// Recording ended before the session did.
    pub stopped: bool,
    /// The run's end, if it is in these rows.
    pub close: Option<Close>,
    /// Other versions.
    pub segments: Vec<Since>,
    /// Other settings.
    pub settings: Vec<Since>,
    /// Bins by track, cut at the borders of chunks, in order.
    pub extents: BTreeMap<Track, Vec<Extent>>,
    /// Frames by track.
    pub frames: BTreeMap<Track, FramePack>,
    /// Events, one by one.
    pub events: Vec<Notice>,
    /// Labelled intervals.
    pub annotations: Vec<Annotation>,
}

/// Frames of one track, in the session's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FramePack {
    /// Place of the first one in the session's order.
    pub first_at: u64,
    /// How many.
    pub n: u32,
    /// Packed as `pack` says.
    pub bytes: Bytes,
}

impl Transfer {
    /// What `rows` say, which come after row `from`. A row that cannot be read becomes an event `not_recorded`, so
    /// that it neither stops what comes after it nor vanishes in silence.
    pub fn of(run: RunId, from: i64, rows: &[Row]) -> Self {
        let mut sum = Self { from, to: from, ..Self::default() };
        let mut extents: BTreeMap<Track, Vec<Extent>> = BTreeMap::new();
        let mut packs: BTreeMap<Track, (u64, u32, BytesMut)> = BTreeMap::new();
        for row in rows {
            (sum.to, sum.last_ns) = (row.ord, sum.last_ns.max(row.committed_ns));
            match codec::decode(row.records.clone()) {
                Ok(records) => {
                    for placed in records {
                        sum.take(placed, &mut extents, &mut packs);
                    }
                }
                Err(error) => {
                    tracing::error!(run.id = %run, journal.ord = row.ord, %error, "journal row cannot be read");
                    sum.events.push(Notice {
                        kind: EventKind::NotRecorded,
                        signal: None,
                        from_bin: None,
                        to_bin: None,
                        count: 0,
                        detail: format!("journal row {} could not be read: {error}", row.ord),
                        t_ns: row.committed_ns,
                    });
                }
            }
        }
        sum.extents = extents
            .into_iter()
            .map(|(track, extents)| {
                let whole = join(extents, false);
                (track, whole.into_iter().flat_map(cut_into_chunks).collect())
            })
            .collect();
        sum.frames = packs
            .into_iter()
            .map(|(track, (first_at, n, bytes))| (track, FramePack { first_at, n, bytes: bytes.freeze() }))
            .collect();
        sum
    }

    fn take(
        &mut self,
        (at, record): Placed,
        extents: &mut BTreeMap<Track, Vec<Extent>>,
        packs: &mut BTreeMap<Track, (u64, u32, BytesMut)>,
    ) {
        let mut pack = |track, frame: KeptFrame| {
            let (_, n, pack) = packs.entry(track).or_insert((frame.at, 0, BytesMut::new()));
            *n += 1;
            pack::pack_frame(pack, &frame);
        };
        let at = at.unwrap_or(0);
        match record {
            Record::Bins { first_bin, n, flags, outputs } => {
                self.first_bin = self.first_bin.into_iter().chain([first_bin]).min();
                let end_bin = first_bin.saturating_add(u64::from(n));
                self.end_bin = self.end_bin.into_iter().chain([end_bin]).max();
                self.bins += u64::from(n);
                let flags: Bytes = flags.iter().flat_map(|flag| flag.to_le_bytes()).collect();
                let own = Extent { first_bin, n, row_bytes: 4, dtype: Dtype::U32, bytes: flags };
                extents.entry(Track::OWN).or_default().push(own);
                for column in outputs {
                    let row_bytes = (column.bytes.len() / n.max(1) as usize) as u32;
                    let extent = Extent { first_bin, n, row_bytes, dtype: column.dtype, bytes: column.bytes };
                    extents.entry(Track::number(column.number)).or_default().push(extent);
                }
            }
            Record::Frame { bytes, .. } if bytes.is_empty() => {}
            Record::Frame { signal, seq, arrived_ns, bytes, bins_until } => {
                pack(Track::number(signal as u32), KeptFrame { at, seq, arrived_ns, bins_until, bytes });
            }
            Record::Act(act) => {
                let mut bytes = Vec::new();
                codec::put_act(&mut bytes, &act);
                let bytes = bytes.into();
                pack(Track::OWN, KeptFrame { at, seq: 0, arrived_ns: 0, bins_until: 0, bytes });
            }
            Record::Event(notice) => self.events.push(notice),
            Record::Skipped { from_bin, to_bin } => self.skipped_bins += to_bin.saturating_sub(from_bin),
            Record::Annotation(annotation) => self.annotations.push(annotation),
            Record::Segment(since) => self.segments.push(since),
            Record::Setting(since) => self.settings.push(since),
            Record::T0 { t0_ns } => self.t0_ns = Some(t0_ns),
            Record::Head(head) => self.head = Some(*head),
            Record::Close(close) => self.close = Some(close),
            Record::Stopped => self.stopped = true,
        }
    }
}

impl RunRecord {
    /// The run after this transfer, whose `from` is the record's mark.
    pub fn advance(&mut self, sum: &Transfer) {
        debug_assert_eq!(self.moved_to, sum.from, "a transfer follows on the mark");
        self.moved_to = sum.to;
        self.t0_ns = sum.t0_ns.or(self.t0_ns);
        self.first_bin = self.first_bin.into_iter().chain(sum.first_bin).min();
        self.end_bin = self.end_bin.into_iter().chain(sum.end_bin).max();
        self.bins += sum.bins;
        self.skipped_bins += sum.skipped_bins;
        self.last_ns = self.last_ns.max(sum.last_ns);
        self.segments.extend_from_slice(&sum.segments);
        self.settings.extend_from_slice(&sum.settings);
        if sum.stopped {
            self.recording = Recording::Stopped;
        }
        if let Some(close) = &sum.close {
            self.state = RunState::Closed;
            self.ended_ns = Some(close.ended_ns);
            self.summary = Some(close.summary.clone());
        }
    }
}
