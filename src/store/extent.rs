//! Unbroken rows of bins, and how they lie in chunks.

use bytes::{Bytes, BytesMut};

use crate::domain::tensor::Dtype;

/// What a chunk aims to hold.
const CHUNK_BYTES: usize = 64 * 1024;

/// What a row of bins holds: the flags, or one output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Track(pub i32);

impl Track {
    /// Flags, which every recorded bin has; of frames: what is not a frame.
    pub const OWN: Track = Track(-1);

    /// An output by its number, or a signal by its index.
    pub fn number(number: u32) -> Self {
        Self(i32::try_from(number).unwrap_or(i32::MAX))
    }
}

/// Bins `first_bin .. first_bin + n` of one track; `bytes` is `[n, row_bytes]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The first bin.
    pub first_bin: u64,
    /// How many; at least 1.
    pub n: u32,
    /// Bytes of one bin; may be 0.
    pub row_bytes: u32,
    /// Element type.
    pub dtype: Dtype,
    /// The rows.
    pub bytes: Bytes,
}

/// Bins of a chunk of rows of that length: about 64 KiB of them, at least one bin.
pub fn bins_per_chunk(row_bytes: u32) -> u64 {
    (CHUNK_BYTES / (row_bytes as usize).max(1)).max(1) as u64
}

impl Extent {
    /// One past the last bin.
    pub fn end_bin(&self) -> u64 {
        self.first_bin.saturating_add(u64::from(self.n))
    }

    /// The chunk that it begins in.
    pub fn chunk(&self) -> u64 {
        self.first_bin / bins_per_chunk(self.row_bytes)
    }

    /// Whether its last bin is its chunk's last.
    pub fn fills_chunk(&self) -> bool {
        self.end_bin().is_multiple_of(bins_per_chunk(self.row_bytes))
    }

    /// What of it lies in `from .. to`; `None`: nothing.
    pub fn within(&self, from: u64, to: u64) -> Option<Extent> {
        let (first, end) = (self.first_bin.max(from), self.end_bin().min(to));
        if first >= end {
            return None;
        }
        let row = self.row_bytes as usize;
        let skip = (first - self.first_bin) as usize * row;
        let n = (end - first) as u32;
        Some(Extent {
            first_bin: first,
            n,
            bytes: self.bytes.slice(skip..skip + n as usize * row),
            ..self.clone()
        })
    }

    fn goes_on_with(&self, next: &Extent) -> bool {
        (self.end_bin(), self.row_bytes, self.dtype) == (next.first_bin, next.row_bytes, next.dtype)
    }
}

/// Cuts at the borders of chunks.
pub fn cut_into_chunks(extent: Extent) -> Vec<Extent> {
    let width = bins_per_chunk(extent.row_bytes);
    let mut pieces = Vec::new();
    let mut from = extent.first_bin;
    while from < extent.end_bin() {
        let border = (from / width + 1).saturating_mul(width);
        pieces.extend(extent.within(from, border));
        from = border;
    }
    pieces
}

/// Joins what adjoins; with `by_chunk`, only inside a chunk. `extents` are in order and do not overlap.
pub fn join(extents: Vec<Extent>, by_chunk: bool) -> Vec<Extent> {
    let mut joined: Vec<Extent> = Vec::new();
    // Rows of the extent in the making, where it is made of more than one.
    let mut rows = BytesMut::new();
    for next in extents {
        match joined.last_mut() {
            Some(last) if last.goes_on_with(&next) && (!by_chunk || last.chunk() == next.chunk()) => {
                if rows.is_empty() {
                    rows.extend_from_slice(&last.bytes);
                }
                rows.extend_from_slice(&next.bytes);
                last.n += next.n;
            }
            last => {
                if let (Some(last), false) = (last, rows.is_empty()) {
                    last.bytes = rows.split().freeze();
                }
                joined.push(next);
            }
        }
    }
    if let (Some(last), false) = (joined.last_mut(), rows.is_empty()) {
        last.bytes = rows.freeze();
    }
    joined
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn extent(first_bin: u64, n: u32, row_bytes: u32) -> Extent {
        let bytes = (0..n as usize * row_bytes as usize).map(|i| (i as u64 + first_bin) as u8).collect();
        Extent { first_bin, n, row_bytes, dtype: Dtype::U8, bytes }
    }

    #[test]
    fn a_chunk_is_about_64_kib_and_at_least_a_bin() {
        assert_eq!(bins_per_chunk(64), 1024);
        assert_eq!(bins_per_chunk(1 << 20), 1);
        assert_eq!(bins_per_chunk(0), 65536);
    }

    #[test]
    fn what_does_not_adjoin_is_not_joined() {
        let parts = vec![extent(0, 2, 1), extent(2, 2, 1), extent(5, 1, 1), extent(6, 1, 2)];
        let joined = join(parts, false);
        assert_eq!(joined.iter().map(|e| (e.first_bin, e.n)).collect::<Vec<_>>(), [(0, 4), (5, 1), (6, 1)]);
        assert_eq!(joined[0].bytes.len(), 4);
    }

    proptest! {
        #[test]
        fn cut_and_joined_again_is_the_same(first in 0u64..200_000, n in 1u32..40_000, row in 1u32..9) {
            let whole = extent(first, n, row);
            let pieces = cut_into_chunks(whole.clone());
            let width = bins_per_chunk(row);
            prop_assert!(pieces.iter().all(|p| p.first_bin / width == (p.end_bin() - 1) / width));
            prop_assert_eq!(join(pieces.clone(), true).len(), pieces.len());
            prop_assert_eq!(join(pieces, false), vec![whole]);
        }
    }
}
