//! A safetensors file that is none.

use ::safetensors::SafeTensorError;

use super::json;
use crate::error::clip;

/// What is not known otherwise.
const SOMETHING: &str = "what is none";

/// What was found in a file of so many bytes that is no safetensors.
pub fn broken(error: &SafeTensorError, len_bytes: usize) -> String {
    match error {
        SafeTensorError::HeaderTooSmall => {
            format!("{len_bytes} bytes, fewer than the 8 that say how long the header is")
        }
        SafeTensorError::HeaderTooLarge => "a header over 100 MB".into(),
        SafeTensorError::InvalidHeaderLength => {
            format!("a header that ends behind the file's {len_bytes} bytes")
        }
        SafeTensorError::InvalidHeader(_) => "a header that is not UTF-8".into(),
        SafeTensorError::InvalidHeaderDeserialization(error) | SafeTensorError::JsonError(error) => {
            match json::syntax(error) {
                Some(found) => format!("a header that is no JSON: {found}, byte {} of it", error.column()),
                None => "a header with an entry that is not {dtype, shape, data_offsets}".into(),
            }
        }
        SafeTensorError::TensorInvalidInfo => "a tensor whose bytes do not fit its shape and dtype".into(),
        SafeTensorError::InvalidOffset(name) => {
            format!("tensor {}, which does not begin where the one before it ends", named(name))
        }
        SafeTensorError::MetadataIncompleteBuffer => "other bytes behind the header than it says".into(),
        SafeTensorError::ValidationOverflow => "a tensor whose shape is beyond all memory".into(),
        SafeTensorError::TensorNotFound(name) => format!("no tensor {}", named(name)),
        _ => SOMETHING.into(),
    }
}

/// A tensor's name, which is text from outside.
fn named(name: &str) -> String {
    format!("`{}`", clip(&name.escape_debug().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::safetensors::SafeTensors;
    use proptest::prelude::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
    }

    fn said(bytes: &[u8]) -> Option<String> {
        SafeTensors::deserialize(bytes).err().map(|error| broken(&error, bytes.len()))
    }

    const ONE: &str = r#"{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;

    #[test]
    fn each_way_to_be_no_safetensors_has_its_words() {
        assert_eq!(said(&file(ONE, &[0; 8])), None);
        let cases = [
            (b"abc".to_vec(), "3 bytes, fewer than the 8"),
            (file(ONE, &[0; 8])[..20].to_vec(), "ends behind the file's 20 bytes"),
            (vec![0xff; 16], "a header over 100 MB"),
            (file(ONE, &[0; 7]), "other bytes behind the header"),
            (file("{", &[]), "a header that is no JSON: an object without its `}`"),
            (file(r#"{"x":{"dtype":"F32"}}"#, &[]), "an entry that is not {dtype, shape, data_offsets}"),
            (file(&ONE.replace("[2]", "[3]"), &[0; 8]), "do not fit its shape"),
            (file(&ONE.replace("[0,8]", "[4,12]"), &[0; 12]), "`x`, which does not begin where"),
        ];
        for (bytes, part) in cases {
            let said = said(&bytes).unwrap();
            assert!(said.contains(part), "{said}");
        }
    }

    proptest! {
        #[test]
        fn of_a_damaged_file_something_is_known_and_no_phrase_of_the_reader_passes(
            cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            keep in any::<prop::sample::Index>(),
        ) {
            let mut bytes = file(ONE, &[0; 8]);
            for (at, byte) in cuts {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let cut = bytes[..keep.index(bytes.len())].to_vec();
            for bytes in [bytes, cut] {
                if let Some(said) = said(&bytes) {
                    for phrase in [SOMETHING, "invalid", "Invalid", "error", "EOF", "overflow", "incomplete"] {
                        prop_assert!(!said.contains(phrase), "{said}");
                    }
                }
            }
        }
    }
}
