//! Frames of one track as they lie in the library: packed into one blob, in the session's order.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::codec::CodecError;

/// A frame of a run as the session gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptFrame {
    /// Its place in the session's order, over all signals and acts.
    pub at: u64,
    /// Its number in its signal; 0 for an act.
    pub seq: u64,
    /// When it came (Unix ns); 0 for an act.
    pub arrived_ns: i64,
    /// One past the last bin that it closed; 0 for an act.
    pub bins_until: u64,
    /// As the session encoded it; an act as `codec` does.
    pub bytes: Bytes,
}

/// Before the bytes of each frame in a pack: place, seq, arrival, `bins_until`, length.
const PACKED_BYTES: usize = 8 + 8 + 8 + 8 + 4;

/// Appends a frame to those of its track: place u64, seq u64, arrival i64, `bins_until` u64, length u32, bytes.
pub(super) fn pack_frame(pack: &mut BytesMut, frame: &KeptFrame) {
    pack.put_u64_le(frame.at);
    pack.put_u64_le(frame.seq);
    pack.put_i64_le(frame.arrived_ns);
    pack.put_u64_le(frame.bins_until);
    pack.put_u32_le(frame.bytes.len() as u32);
    pack.put_slice(&frame.bytes);
}

/// The next frame of a pack; `Ok(None)` at its end.
pub(super) fn unpack_frame(pack: &mut Bytes) -> Result<Option<KeptFrame>, CodecError> {
    if pack.is_empty() {
        return Ok(None);
    }
    if pack.len() < PACKED_BYTES {
        return Err(CodecError::Short);
    }
    let (at, seq, arrived_ns) = (pack.get_u64_le(), pack.get_u64_le(), pack.get_i64_le());
    let (bins_until, length) = (pack.get_u64_le(), pack.get_u32_le() as usize);
    if pack.len() < length {
        return Err(CodecError::Short);
    }
    Ok(Some(KeptFrame { at, seq, arrived_ns, bins_until, bytes: pack.split_to(length) }))
}
