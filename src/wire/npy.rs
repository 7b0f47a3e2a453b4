//! `.npy` arrays: what recordings keep samples in and what scientists load.
//!
//! Read: versions 1 to 3, C order, little-endian f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8 and b1. Written: version 1.

use crate::domain::tensor::{Dtype, Tensor};

/// First bytes of every file.
const MAGIC: &[u8] = b"\x93NUMPY";
/// The data start at a multiple of so many bytes.
const ALIGN_BYTES: usize = 64;
/// Dtypes by numpy's word for them, without the mark of byte order.
const DESCR: [(&str, Dtype); 12] = [
    ("f2", Dtype::F16),
    ("f4", Dtype::F32),
    ("f8", Dtype::F64),
    ("i1", Dtype::I8),
    ("i2", Dtype::I16),
    ("i4", Dtype::I32),
    ("i8", Dtype::I64),
    ("u1", Dtype::U8),
    ("u2", Dtype::U16),
    ("u4", Dtype::U32),
    ("u8", Dtype::U64),
    ("b1", Dtype::Bool),
];

/// Why bytes are no array that is read: at which byte, what was expected, what was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("byte {offset}: expected {expected}, found {found}")]
pub struct NpyError {
    /// Where, from the start of the file.
    pub offset: usize,
    /// What should stand there.
    pub expected: String,
    /// What stands there.
    pub found: String,
}

impl NpyError {
    fn new(offset: usize, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self { offset, expected: expected.into(), found: found.into() }
    }
}

/// Reads an array.
pub fn read(bytes: &[u8]) -> Result<Tensor, NpyError> {
    if !bytes.starts_with(MAGIC) {
        let found = format!("{:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(MAGIC.len())]));
        return Err(NpyError::new(0, "an .npy file, which starts with \"\\x93NUMPY\"", found));
    }
    let short = |offset| NpyError::new(offset, "a header", "the end of the file");
    let version = bytes.get(6..8).ok_or_else(|| short(6))?;
    let (header_at, header_len) = match version[0] {
        1 => {
            let len = bytes.get(8..10).ok_or_else(|| short(8))?;
            (10, usize::from(u16::from_le_bytes([len[0], len[1]])))
        }
        2 | 3 => {
            let len = bytes.get(8..12).ok_or_else(|| short(8))?;
            (12, u32::from_le_bytes([len[0], len[1], len[2], len[3]]) as usize)
        }
        other => return Err(NpyError::new(6, "format version 1, 2 or 3", format!("version {other}"))),
    };
    let data_at = header_at + header_len;
    let header = bytes.get(header_at..data_at).ok_or_else(|| {
        let found = format!("{} bytes to the end of the file", bytes.len() - header_at);
        NpyError::new(header_at, format!("a header of {header_len} bytes"), found)
    })?;
    let Header { dtype, shape } = Header::read(header, header_at)?;
    let elements = shape.iter().try_fold(1usize, |product, &axis| product.checked_mul(axis));
    let wanted = elements.and_then(|elements| elements.checked_mul(dtype.size_bytes()));
    let wanted = wanted
        .ok_or_else(|| NpyError::new(header_at, "a shape that fits in memory", format!("{shape:?}")))?;
    let data = &bytes[data_at..];
    Tensor::from_bytes(dtype, &shape, data).ok_or_else(|| {
        let expected = format!("{wanted} bytes of data for {dtype} {shape:?}");
        NpyError::new(data_at, expected, format!("{} bytes", data.len()))
    })
}

/// Writes an array. `bf16` has no form in numpy: it is widened to f32, which loses nothing.
pub fn write(tensor: &Tensor) -> Vec<u8> {
    let widened;
    let tensor = match tensor.dtype {
        Dtype::Bf16 => {
            let values: Vec<f32> = tensor.to_f64().iter().map(|&value| value as f32).collect();
            widened = Tensor::from_f32(&tensor.shape, &values);
            &widened
        }
        _ => tensor,
    };
    let descr = DESCR.iter().find(|(_, dtype)| *dtype == tensor.dtype).map_or("f4", |(descr, _)| descr);
    let order = if tensor.dtype.size_bytes() == 1 { '|' } else { '<' };
    let axes: Vec<String> = tensor.shape.iter().map(usize::to_string).collect();
    let comma = if axes.len() == 1 { "," } else { "" };
    let mut header = format!(
        "{{'descr': '{order}{descr}', 'fortran_order': False, 'shape': ({}{comma}), }}",
        axes.join(", ")
    );
    let unpadded = MAGIC.len() + 4 + header.len() + 1;
    header.extend(std::iter::repeat_n(' ', unpadded.next_multiple_of(ALIGN_BYTES) - unpadded));
    header.push('\n');
    let mut bytes = Vec::with_capacity(MAGIC.len() + 4 + header.len() + tensor.data.bytes().len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&[1, 0]);
    bytes.extend_from_slice(&u16::try_from(header.len()).expect("a shape of a few axes").to_le_bytes());
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(tensor.data.bytes());
    bytes
}

/// What the header says.
struct Header {
    dtype: Dtype,
    shape: Vec<usize>,
}

impl Header {
    /// Reads the header: a Python dictionary of three literals. `at`: where it stands in the file.
    fn read(header: &[u8], at: usize) -> Result<Self, NpyError> {
        let mut literal = Literal { text: header, at: 0, start: at };
        let (mut dtype, mut fortran, mut shape) = (None, None, None);
        literal.take(b'{')?;
        while !literal.skips(b'}') {
            let key_at = literal.place();
            let key = literal.text()?;
            literal.take(b':')?;
            match key.as_str() {
                "descr" => dtype = Some(literal.dtype()?),
                "fortran_order" => fortran = Some((literal.place(), literal.boolean()?)),
                "shape" => shape = Some(literal.tuple()?),
                _ => {
                    let expected = "one of 'descr', 'fortran_order', 'shape'";
                    return Err(NpyError::new(key_at, expected, format!("'{key}'")));
                }
            }
            literal.skips(b',');
        }
        if let Some((place, true)) = fortran {
            let expected = "C order (fortran_order False; numpy.ascontiguousarray makes it so)";
            return Err(NpyError::new(place, expected, "Fortran order"));
        }
        match (dtype, fortran, shape) {
            (Some(dtype), Some(_), Some(shape)) => Ok(Self { dtype, shape }),
            _ => Err(NpyError::new(at, "a header with descr, fortran_order and shape", "one without them")),
        }
    }
}

/// A reader of Python literals, as far as headers have them.
struct Literal<'a> {
    text: &'a [u8],
    at: usize,
    /// Where the text starts in the file.
    start: usize,
}

impl Literal<'_> {
    /// Skips blanks; the byte that comes then.
    fn peek(&mut self) -> Option<u8> {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    fn place(&mut self) -> usize {
        self.peek();
        self.start + self.at
    }

    fn wrong(&mut self, expected: &str) -> NpyError {
        let found = match self.peek() {
            Some(byte) => format!("`{}`", char::from(byte)),
            None => "the end of the header".into(),
        };
        NpyError::new(self.place(), expected, found)
    }

    fn skips(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn take(&mut self, byte: u8) -> Result<(), NpyError> {
        if self.skips(byte) { Ok(()) } else { Err(self.wrong(&format!("`{}`", char::from(byte)))) }
    }

    fn text(&mut self) -> Result<String, NpyError> {
        let Some(quote @ (b'\'' | b'"')) = self.peek() else {
            return Err(self.wrong("a quoted word"));
        };
        let rest = &self.text[self.at + 1..];
        let Some(end) = rest.iter().position(|&byte| byte == quote) else {
            return Err(self.wrong("a closed quotation"));
        };
        self.at += end + 2;
        Ok(String::from_utf8_lossy(&rest[..end]).into_owned())
    }

    fn dtype(&mut self) -> Result<Dtype, NpyError> {
        let place = self.place();
        let expected = "little-endian f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8 or b1";
        if self.peek() == Some(b'[') {
            return Err(NpyError::new(place, expected, "a record of several fields"));
        }
        let descr = self.text()?;
        let word = descr.strip_prefix(['<', '|', '=']).unwrap_or(&descr);
        let known = DESCR.iter().find(|(known, _)| *known == word).map(|(_, dtype)| *dtype);
        known.ok_or_else(|| NpyError::new(place, expected, format!("'{descr}'")))
    }

    fn boolean(&mut self) -> Result<bool, NpyError> {
        self.peek();
        for (word, value) in [("True", true), ("False", false)] {
            if self.text[self.at..].starts_with(word.as_bytes()) {
                self.at += word.len();
                return Ok(value);
            }
        }
        Err(self.wrong("True or False"))
    }

    fn tuple(&mut self) -> Result<Vec<usize>, NpyError> {
        let mut axes = Vec::new();
        self.take(b'(')?;
        while !self.skips(b')') {
            axes.push(self.whole()?);
            if !self.skips(b',') && self.peek() != Some(b')') {
                return Err(self.wrong("`,` or `)`"));
            }
        }
        Ok(axes)
    }

    fn whole(&mut self) -> Result<usize, NpyError> {
        self.peek();
        let digits = self.text[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let number = std::str::from_utf8(&self.text[self.at..self.at + digits]).unwrap_or_default();
        let number = number.parse().map_err(|_| self.wrong("the length of an axis"))?;
        self.at += digits;
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(text: &str) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&[1, 0]);
        bytes.extend_from_slice(&(text.len() as u16).to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
        bytes
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_bit_for_bit(
            dtype in proptest::sample::select(DESCR.map(|(_, dtype)| dtype).to_vec()),
            shape in proptest::collection::vec(0usize..5, 0..4),
            seed in any::<u64>(),
        ) {
            let mut tensor = Tensor::zeros(dtype, &shape);
            for (i, byte) in tensor.data.bytes_mut().iter_mut().enumerate() {
                *byte = (seed.rotate_left(i as u32) & 1) as u8;
            }
            let bytes = write(&tensor);
            prop_assert_eq!((bytes.len() - tensor.data.bytes().len()) % ALIGN_BYTES, 0);
            prop_assert_eq!(read(&bytes).unwrap(), tensor);
        }

        #[test]
        fn no_bytes_make_the_reader_panic(tail in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = MAGIC.to_vec();
            bytes.extend(tail);
            let _ = read(&bytes);
        }
    }

    #[test]
    fn a_header_of_version_2_is_read() {
        let text = "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }";
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&[2, 0]);
        bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
        bytes.extend_from_slice(&1.5f32.to_le_bytes());
        assert_eq!(read(&bytes).unwrap(), Tensor::from_f32(&[1], &[1.5]));
    }

    #[test]
    fn what_is_not_read_is_refused_with_place_found_and_expected() {
        let sentence = |bytes: &[u8]| read(bytes).unwrap_err().to_string();
        assert_eq!(
            sentence(b"PK\x03\x04 a zip"),
            "byte 0: expected an .npy file, which starts with \"\\x93NUMPY\", found \"PK\\u{3}\\u{4} a\""
        );
        assert_eq!(
            sentence(&header("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }")),
            "byte 44: expected C order (fortran_order False; numpy.ascontiguousarray makes it so), found Fortran order"
        );
        assert_eq!(
            sentence(&header("{'descr': '>f8', 'fortran_order': False, 'shape': (2,), }")),
            "byte 20: expected little-endian f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8 or b1, found '>f8'"
        );
        assert_eq!(
            sentence(&header("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,), }")),
            "byte 20: expected little-endian f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8 or b1, found a record of several fields"
        );
        assert_eq!(
            sentence(&header("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }")),
            "byte 69: expected 24 bytes of data for f32 [2, 3], found 0 bytes"
        );
        let huge = "{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999, 9999999999), }";
        assert!(sentence(&header(huge)).contains("expected a shape that fits in memory"));
        let mut newer = header("{}");
        newer[6] = 4;
        assert_eq!(sentence(&newer), "byte 6: expected format version 1, 2 or 3, found version 4");
    }
}
