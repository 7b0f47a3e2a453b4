//! Queries that see the library and the journal's tail as one.
//! Must hold: each bin, frame and event once, at any moment of a move. How: the tail is read first. What leaves the
//! journal after that has come into the library before, so that both together miss nothing; what is in both is told
//! by its bin, by its place in the session's order, or by the mark that is read with it. Reads go chunk by chunk: a
//! long snapshot would keep the write-ahead log from being emptied.

use std::collections::VecDeque;

use bytes::Bytes;

use super::codec::CodecError;
use super::error::StoreError;
use super::event::{EventEntry, EventLog};
use super::extent::{Extent, Track, bins_per_chunk};
use super::journal::Row;
use super::pack::{self, KeptFrame};
use super::record::Annotation;
use super::run::{RunFilter, RunPage, RunRecord, RunState};
use super::transfer::Transfer;
use super::{Store, StoreOp};
use crate::domain::ids::RunId;
use crate::domain::output::{EventKind, OutputSpec};
use crate::domain::tensor::Dtype;

/// Chunks of one read of the library: about 1 MiB.
const CHUNKS_PER_READ: u64 = 16;

/// An unbroken row of bins of one output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The first bin.
    pub first_bin: u64,
    /// How many; at least 1.
    pub n: u32,
    /// One per bin.
    pub flags: Vec<u32>,
    /// Element type of the values.
    pub dtype: Dtype,
    /// Bytes of one bin's value.
    pub row_bytes: u32,
    /// `[n, dims…]`, row-major, little-endian.
    pub values: Bytes,
}

impl Stretch {
    /// One past the last bin.
    pub fn end_bin(&self) -> u64 {
        self.first_bin + u64::from(self.n)
    }

    /// Only these elements of each bin's value, in this order. `None`: an index is out of range.
    pub fn select(&self, dims: &[usize]) -> Option<Stretch> {
        let size = self.dtype.size_bytes();
        let row = self.row_bytes as usize;
        if dims.iter().any(|&dim| (dim + 1) * size > row) {
            return None;
        }
        let mut values = Vec::with_capacity(self.n as usize * dims.len() * size);
        for bin in self.values.chunks_exact(row.max(1)) {
            dims.iter().for_each(|&dim| values.extend_from_slice(&bin[dim * size..(dim + 1) * size]));
        }
        Some(Stretch { row_bytes: (dims.len() * size) as u32, values: values.into(), ..self.clone() })
    }
}

impl Store {
    /// A run, with what its session wrote last.
    pub async fn run(&self, run: RunId) -> Result<Option<RunRecord>, StoreError> {
        Ok(self.run_and_tail(run).await?.map(|(record, _)| record))
    }

    /// Runs, newest first. A run is listed some milliseconds after it opened.
    pub async fn runs(
        &self,
        filter: &RunFilter,
        after: Option<RunId>,
        limit: u32,
    ) -> Result<RunPage, StoreError> {
        let mut page = self.timed(StoreOp::Read, self.library.runs(filter, after, limit)).await?;
        for record in page.runs.iter_mut().filter(|record| record.state == RunState::Open) {
            if let Some(now) = self.run(record.head.run).await? {
                *record = now;
            }
        }
        // One that was closed since the library last heard of it is no longer open.
        page.runs.retain(|record| filter.state.is_none_or(|state| record.state == state));
        Ok(page)
    }

    /// Bins `from .. to` of an output, by its number in the run, to be read piece by piece. `None`: no such run.
    /// What came after this call is not in it.
    pub async fn outputs(
        &self,
        run: RunId,
        output: &OutputSpec,
        from: u64,
        to: u64,
    ) -> Result<Option<Stretches>, StoreError> {
        let Some((record, tail)) = self.run_and_tail(run).await? else { return Ok(None) };
        let track = Track::number(output.number);
        let row_bytes = output.dims.iter().product::<u32>() * output.dtype.size_bytes() as u32;
        let width = bins_per_chunk(row_bytes);
        // Up to this bin everything is in the tail or in the library, whenever it is read from now on.
        let to = to.min(record.end_bin.unwrap_or(0));
        let of_tail = |track| tail.extents.get(&track).cloned().unwrap_or_default();
        Ok(Some(Stretches {
            store: self.clone(),
            run,
            track,
            width,
            next_bin: from,
            to,
            next_chunk: Some(from / width),
            window: VecDeque::new(),
            tail: of_tail(track).into(),
            tail_flags: of_tail(Track::OWN),
            flags: Vec::new(),
            flag_chunks: 0..0,
        }))
    }

    /// A run's events, merged, in the order of their first; of one kind if asked. `None`: no such run.
    pub async fn events(
        &self,
        run: RunId,
        kind: Option<EventKind>,
    ) -> Result<Option<Vec<EventEntry>>, StoreError> {
        let rows = self.tail_rows(run).await?;
        let found = self.timed(StoreOp::Read, self.library.events(run)).await?;
        let (mark, entries) = found.unwrap_or_default();
        let tail = tail_after(run, mark, rows);
        if mark == 0 && tail.head.is_none() {
            return Ok(None);
        }
        let mut log = EventLog::resume(entries);
        tail.events.iter().for_each(|notice| _ = log.push(notice));
        log.entries.retain(|entry| kind.is_none_or(|kind| entry.kind == kind));
        Ok(Some(log.entries))
    }

    /// A run's annotations, as they came. `None`: no such run.
    pub async fn annotations(&self, run: RunId) -> Result<Option<Vec<Annotation>>, StoreError> {
        let rows = self.tail_rows(run).await?;
        let found = self.timed(StoreOp::Read, self.library.annotations(run)).await?;
        let (mark, mut annotations) = found.unwrap_or_default();
        let tail = tail_after(run, mark, rows);
        if mark == 0 && tail.head.is_none() {
            return Ok(None);
        }
        annotations.extend(tail.annotations);
        Ok(Some(annotations))
    }

    /// The frames of a track, in order. A run that is not there has none.
    pub(super) async fn frames(&self, run: RunId, track: Track) -> Result<Frames, StoreError> {
        let rows = self.tail_rows(run).await?;
        let mut tail = tail_after(run, 0, rows);
        let tail = tail.frames.remove(&track).map(|pack| pack.bytes).unwrap_or_default();
        Ok(Frames {
            store: self.clone(),
            run,
            track,
            after: None,
            pack: Bytes::new(),
            tail,
            in_library: true,
        })
    }

    /// The run, and what the journal holds of it that is not in the library at the moment of the record's reading.
    async fn run_and_tail(&self, run: RunId) -> Result<Option<(RunRecord, Transfer)>, StoreError> {
        let rows = self.tail_rows(run).await?;
        let found = self.timed(StoreOp::Read, self.library.run(run)).await?;
        let tail = tail_after(run, found.as_ref().map_or(0, |record| record.moved_to), rows);
        let record = match (found, &tail.head) {
            (Some(record), _) => record,
            (None, Some(head)) => RunRecord::begun(head.clone()),
            (None, None) => return Ok(None),
        };
        let mut now = record;
        now.advance(&tail);
        Ok(Some((now, tail)))
    }

    /// The journal's rows of a run; at least those that the library does not hold when it is asked later.
    async fn tail_rows(&self, run: RunId) -> Result<Vec<Row>, StoreError> {
        if !self.journal.has(run) {
            // What has left it is in the library, which is read after this.
            return Ok(Vec::new());
        }
        let mark = self.library.mark(run).await?.unwrap_or(0);
        self.timed(StoreOp::Read, self.journal.rows(run, mark, usize::MAX)).await
    }
}

fn tail_after(run: RunId, mark: i64, mut rows: Vec<Row>) -> Transfer {
    rows.retain(|row| row.ord > mark);
    Transfer::of(run, mark, &rows)
}

/// Bins of one output, piece by piece.
pub struct Stretches {
    store: Store,
    run: RunId,
    track: Track,
    /// Bins of a chunk of this output.
    width: u64,
    /// Every bin before it was given or is not there.
    next_bin: u64,
    to: u64,
    /// Where the library is read next; `None`: it has no more.
    next_chunk: Option<u64>,
    /// Read from the library, not yet given.
    window: VecDeque<Extent>,
    /// From the journal; some of it may be in the library by now.
    tail: VecDeque<Extent>,
    tail_flags: Vec<Extent>,
    /// The library's flags of `flag_chunks`.
    flags: Vec<Extent>,
    flag_chunks: std::ops::Range<u64>,
}

impl Stretches {
    /// The next piece, at most a chunk long; `None` at the end. Pieces are in order; one that begins where the last
    /// one ended belongs to the same unbroken row.
    pub async fn next(&mut self) -> Result<Option<Stretch>, StoreError> {
        let Some(extent) = self.next_extent().await? else { return Ok(None) };
        let flags = self.flags_of(extent.first_bin, extent.end_bin()).await?;
        Ok(Some(Stretch {
            first_bin: extent.first_bin,
            n: extent.n,
            flags,
            dtype: extent.dtype,
            row_bytes: extent.row_bytes,
            values: extent.bytes,
        }))
    }

    /// Whole unbroken rows, until about `limit_bytes` of values are gathered; then where to go on from.
    pub async fn gather(mut self, limit_bytes: usize) -> Result<(Vec<Stretch>, Option<u64>), StoreError> {
        let mut pieces: Vec<Vec<Stretch>> = Vec::new();
        let mut bytes = 0;
        let mut rest = None;
        while let Some(piece) = self.next().await? {
            bytes += piece.values.len() + 4 * piece.flags.len();
            let end_bin = piece.end_bin();
            match pieces.last_mut() {
                Some(row) if row.last().is_some_and(|last| last.end_bin() == piece.first_bin) => {
                    row.push(piece);
                }
                _ => pieces.push(vec![piece]),
            }
            if bytes >= limit_bytes && end_bin < self.to {
                rest = Some(end_bin);
                break;
            }
        }
        Ok((pieces.into_iter().filter_map(joined).collect(), rest))
    }

    async fn next_extent(&mut self) -> Result<Option<Extent>, StoreError> {
        while self.window.is_empty() && self.next_chunk.is_some() {
            self.fill_window().await?;
        }
        while self.tail.front().is_some_and(|extent| extent.end_bin() <= self.next_bin) {
            self.tail.pop_front();
        }
        let of_tail = self.tail.front().and_then(|extent| extent.within(self.next_bin, self.to));
        // Where both have a bin, the library's is taken; the tail fills what lies before.
        let extent = match (of_tail, self.window.front()) {
            (Some(tail), Some(kept)) if tail.first_bin < kept.first_bin => {
                tail.within(tail.first_bin, kept.first_bin)
            }
            (tail, None) => tail,
            (_, Some(_)) => self.window.pop_front(),
        };
        if let Some(extent) = &extent {
            self.next_bin = extent.end_bin();
        }
        Ok(extent)
    }

    async fn fill_window(&mut self) -> Result<(), StoreError> {
        let library = &self.store.library;
        let Some(from) = self.next_chunk else { return Ok(()) };
        let read = async {
            let Some(chunk) = library.next_chunk(self.run, self.track, from).await? else { return Ok(None) };
            if chunk.saturating_mul(self.width) >= self.to {
                return Ok(None);
            }
            let last = (self.to - 1) / self.width;
            let end = (chunk + CHUNKS_PER_READ).min(last + 1);
            let extents = library.extents(self.run, self.track, chunk, end).await?;
            Ok::<_, StoreError>(Some((end, extents)))
        };
        let found = self.store.timed(StoreOp::Read, read).await?;
        self.next_chunk = found.as_ref().map(|(end, _)| *end);
        let extents = found.map(|(_, extents)| extents).unwrap_or_default();
        self.window = extents.iter().filter_map(|extent| extent.within(self.next_bin, self.to)).collect();
        Ok(())
    }

    async fn flags_of(&mut self, from: u64, to: u64) -> Result<Vec<u32>, StoreError> {
        let width = bins_per_chunk(4);
        let (first, end) = (from / width, (to - 1) / width + 1);
        if first < self.flag_chunks.start || end > self.flag_chunks.end {
            let read = self.store.library.extents(self.run, Track::OWN, first, end);
            self.flags = self.store.timed(StoreOp::Read, read).await?;
            self.flag_chunks = first..end;
        }
        let mut flags = vec![0; (to - from) as usize];
        for extent in self.flags.iter().chain(&self.tail_flags) {
            let Some(part) = extent.within(from, to) else { continue };
            let place = (part.first_bin - from) as usize;
            for (flag, bytes) in flags[place..].iter_mut().zip(part.bytes.chunks_exact(4)) {
                *flag = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            }
        }
        Ok(flags)
    }
}

/// Pieces that follow each other as one stretch.
fn joined(mut pieces: Vec<Stretch>) -> Option<Stretch> {
    if pieces.len() < 2 {
        return pieces.pop();
    }
    let first = pieces.first()?;
    Some(Stretch {
        first_bin: first.first_bin,
        n: pieces.iter().map(|piece| piece.n).sum(),
        flags: pieces.iter().flat_map(|piece| piece.flags.iter().copied()).collect(),
        dtype: first.dtype,
        row_bytes: first.row_bytes,
        values: pieces.iter().map(|piece| &piece.values[..]).collect::<Vec<_>>().concat().into(),
    })
}

/// Frames of one signal, or acts, one by one.
pub(super) struct Frames {
    store: Store,
    run: RunId,
    track: Track,
    /// Place of the last frame given.
    after: Option<u64>,
    /// What is left of the pack that the library gave last.
    pack: Bytes,
    /// From the journal; some of it may be in the library by now.
    tail: Bytes,
    in_library: bool,
}

impl Frames {
    /// The next frame; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<KeptFrame>, StoreError> {
        loop {
            let pack = if self.in_library { &mut self.pack } else { &mut self.tail };
            match pack::unpack_frame(pack).map_err(odd)? {
                Some(frame) if self.after.is_some_and(|after| frame.at <= after) => {}
                Some(frame) => {
                    self.after = Some(frame.at);
                    return Ok(Some(frame));
                }
                None if !self.in_library => return Ok(None),
                None => {
                    let read = self.store.library.frames(self.run, self.track, self.after);
                    match self.store.timed(StoreOp::Read, read).await? {
                        Some(found) => self.pack = found.bytes,
                        None => self.in_library = false,
                    }
                }
            }
        }
    }
}

/// What stands among a run's frames is not what was written there.
pub(super) fn odd(error: CodecError) -> StoreError {
    StoreError::Inconsistent { table: "frame_chunk", column: "bytes", found: error.to_string() }
}
