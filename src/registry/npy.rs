//! `.npy` files beside a manifest: a state's initial value, numbers of a z-score.

use crate::domain::tensor::{Dtype, Tensor};

/// The array in `bytes` (format 1.0 to 3.0, C order, little-endian). The error says what was expected and found.
pub fn parse(bytes: &[u8]) -> Result<Tensor, (String, String)> {
    let wrong = |expected: &str, found: &str| (expected.to_owned(), found.to_owned());
    let rest = bytes
        .strip_prefix(b"\x93NUMPY")
        .ok_or_else(|| wrong("an .npy file", "bytes that begin in another way"))?;
    let short = || wrong("a whole .npy file", "one that ends in its header");
    let (&[major, _minor], rest) = rest.split_first_chunk::<2>().ok_or_else(short)?;
    let (header_len, rest) = match major {
        1 => rest.split_first_chunk::<2>().map(|(len, rest)| (u16::from_le_bytes(*len) as usize, rest)),
        2 | 3 => rest.split_first_chunk::<4>().map(|(len, rest)| (u32::from_le_bytes(*len) as usize, rest)),
        _ => return Err(wrong("an .npy file of format 1, 2 or 3", &format!("format {major}"))),
    }
    .ok_or_else(short)?;
    let (header, data) = rest.split_at_checked(header_len).ok_or_else(short)?;
    let header = std::str::from_utf8(header).map_err(|_| wrong("a header of text", "bytes that are none"))?;

    let descr = quoted_value(header, "'descr'").ok_or_else(|| wrong("a header with 'descr'", "none"))?;
    let dtype = dtype(descr).ok_or_else(|| {
        wrong("little-endian f2, f4, f8, i1 to i8, u1 to u8 or bool", &format!("`{descr}`"))
    })?;
    if !after(header, "'fortran_order'").is_some_and(|value| value.starts_with("False")) {
        return Err(wrong("C order (fortran_order False)", "another order"));
    }
    let shape = after(header, "'shape'")
        .and_then(|value| value.strip_prefix('('))
        .and_then(|value| value.split_once(')'))
        .and_then(|(axes, _)| {
            axes.split(',')
                .map(str::trim)
                .filter(|axis| !axis.is_empty())
                .map(|axis| axis.parse::<usize>().ok())
                .collect::<Option<Vec<usize>>>()
        })
        .ok_or_else(|| wrong("a header with 'shape'", "none that can be read"))?;
    Tensor::from_bytes(dtype, &shape, data)
        .ok_or_else(|| wrong(&format!("the bytes of {dtype} {shape:?}"), &format!("{} bytes", data.len())))
}

fn after<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = header.split_once(key)?;
    Some(rest.trim_start().strip_prefix(':')?.trim_start())
}

fn quoted_value<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    after(header, key)?.strip_prefix('\'')?.split_once('\'').map(|(value, _)| value)
}

fn dtype(descr: &str) -> Option<Dtype> {
    Some(match descr {
        "<f4" => Dtype::F32,
        "<f8" => Dtype::F64,
        "<f2" => Dtype::F16,
        "|i1" => Dtype::I8,
        "<i2" => Dtype::I16,
        "<i4" => Dtype::I32,
        "<i8" => Dtype::I64,
        "|u1" => Dtype::U8,
        "<u2" => Dtype::U16,
        "<u4" => Dtype::U32,
        "<u8" => Dtype::U64,
        "|b1" => Dtype::Bool,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As NumPy 2 writes `numpy.save(f, numpy.array([[1, 2, 3]], "f4"))`.
    fn saved() -> Vec<u8> {
        let mut header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3), }".to_owned();
        while !(10 + header.len() + 1).is_multiple_of(64) {
            header.push(' ');
        }
        header.push('\n');
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend([1f32, 2.0, 3.0].iter().flat_map(|x| x.to_le_bytes()));
        bytes
    }

    #[test]
    fn a_saved_array_is_read_as_it_was() {
        assert_eq!(parse(&saved()).unwrap(), Tensor::from_f32(&[1, 3], &[1.0, 2.0, 3.0]));
    }

    #[test]
    fn a_cut_array_is_a_sentence() {
        let bytes = saved();
        let (expected, found) = parse(&bytes[..bytes.len() - 1]).unwrap_err();
        assert_eq!((expected.as_str(), found.as_str()), ("the bytes of f32 [1, 3]", "11 bytes"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(cut in 0usize..140, at in 0usize..140, byte: u8) {
            let mut bytes = saved();
            bytes.truncate(cut);
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            let _ = parse(&bytes);
        }
    }
}
