//! JSON by proto3's mapping, with the path of a wrong field in the fault's sentence.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Fault, Kind, clip, there_is};

/// Reads a message. An empty body is an empty message.
pub fn read<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, Fault> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(T::default());
    }
    let mut reader = serde_json::Deserializer::from_slice(body);
    let message = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        sentence(&path, error.inner())
    })?;
    reader.end().map_err(|error| sentence(".", &error))?;
    Ok(message)
}

/// How sentences about a wrong integer begin: of the generated readers, and of the standard library's parser.
const NO_WHOLE_NUMBER: [&str; 4] = [
    "data did not match any variant of untagged enum",
    "invalid digit found in string",
    "number too",
    "cannot parse integer",
];

/// The fault for a JSON error at `path`: in our words, since the generated readers speak of their own types.
fn sentence(path: &str, error: &serde_json::Error) -> Fault {
    let place = format!("line {}, column {}", error.line(), error.column());
    let at = if path == "." || path.is_empty() { String::new() } else { format!("`{}`: ", clip(path)) };
    let words = error.to_string();
    let words = words.split(" at line ").next().unwrap_or_default();
    let words = match words {
        w if NO_WHOLE_NUMBER.iter().any(|start| w.starts_with(start)) => {
            "expected a number in the field's range: a whole number without point or exponent, also as text, unless the field is fractional"
                .to_string()
        }
        w if w.starts_with("unknown field") => unknown_field(w),
        w => w
            .replace("struct latentd.v1.", "a message ")
            .replace("invalid type: null", "null is not taken here"),
    };
    Fault::new(Kind::Malformed, format!("not the JSON of this message: {at}{} ({place})", shorten(&words)))
}

/// `unknown field \`a\`, expected one of \`b\`, …` with the nearest names only, and those of the .proto files alone.
fn unknown_field(words: &str) -> String {
    let names: Vec<&str> = words.split('`').skip(1).step_by(2).collect();
    let Some((asked, known)) = names.split_first() else { return words.into() };
    let ours =
        known.iter().copied().filter(|name| !name.contains(|letter: char| letter.is_ascii_uppercase()));
    format!("unknown field `{}`; {}", clip(asked), there_is(asked, ours))
}

/// At most so much of a library's sentence.
fn shorten(words: &str) -> String {
    const LIMIT_CHARS: usize = 600;
    words.chars().take(LIMIT_CHARS).collect()
}

/// Writes a message.
pub fn write<T: Serialize>(message: &T) -> Vec<u8> {
    serde_json::to_vec(message).expect("a message of the schema always has a JSON form")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::v1;

    fn said(body: &str) -> String {
        read::<v1::Frame>(body.as_bytes()).unwrap_err().detail
    }

    #[test]
    fn a_wrong_field_is_named_by_its_path_and_the_nearest_names_are_offered() {
        let sentence = said(r#"{"sinal": "spikes"}"#);
        assert!(sentence.contains("unknown field `sinal`; there are: final, signal,"), "{sentence}");
        assert!(!sentence.contains("tDeviceNs"), "{sentence}");
        let sentence = said(r#"{"tensor": {"dtype": "u8", "shape": [1, "x"]}}"#);
        assert!(sentence.contains("`tensor.shape[1]`"), "{sentence}");
    }

    #[test]
    fn integers_are_read_from_numbers_and_text_but_not_with_a_point_or_an_exponent() {
        let frame: v1::Frame = read(
            br#"{"seq": "18446744073709551615", "first_index": 7, "t_start_ns": "1795621286661653696"}"#,
        )
        .unwrap();
        assert_eq!(
            (frame.seq, frame.first_index, frame.t_start_ns),
            (u64::MAX, 7, Some(1_795_621_286_661_653_696))
        );
        for wrong in [
            r#"{"seq": 1.0}"#,
            r#"{"seq": "1e3"}"#,
            r#"{"seq": 1e3}"#,
            r#"{"seq": -1}"#,
            r#"{"count": 4294967296}"#,
        ] {
            assert!(said(wrong).contains("whole number"), "{wrong}: {}", said(wrong));
        }
    }

    #[test]
    fn null_is_taken_where_a_field_is_optional_and_refused_elsewhere() {
        let frame: v1::Frame = read(br#"{"t_device_ns": null, "tensor": null}"#).unwrap();
        assert_eq!((frame.t_device_ns, frame.tensor), (None, None));
        assert!(said(r#"{"seq": null}"#).contains("seq"));
        assert!(said(r#"{"unit": null}"#).contains("unit"));
    }

    #[test]
    fn every_field_is_written_zeros_and_empty_lists_too_and_nothing_that_is_not_finite() {
        let text = String::from_utf8(write(&v1::CloseReply::default())).unwrap();
        for field in [r#""bins":"0""#, r#""gaps":"0""#, r#""durable_seq":{}"#, r#""deadline_missed":"0""#] {
            assert!(text.contains(field), "{text}");
        }
        let values = [1.5f32, f32::NAN, f32::INFINITY];
        let tensor = crate::wire::tensor::message(&crate::domain::tensor::Tensor::from_f32(&[3], &values));
        let text = String::from_utf8(write(&tensor)).unwrap();
        assert_eq!(text, r#"{"dtype":"f32","shape":[3],"raw":"","values":[1.5,null,null]}"#);
    }

    #[test]
    fn a_tensor_reads_the_words_for_what_is_not_finite() {
        let body = br#"{"dtype": "f32", "shape": [4], "values": [null, "NaN", "Infinity", "-Infinity"]}"#;
        let tensor: v1::Tensor = read(body).unwrap();
        assert!(tensor.values[0].is_nan() && tensor.values[1].is_nan());
        assert_eq!(tensor.values[2..], [f64::INFINITY, f64::NEG_INFINITY]);
    }
}
