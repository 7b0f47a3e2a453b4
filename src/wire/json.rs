//! JSON by proto3's mapping, with the path of a wrong field in the fault's sentence.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::schema;
use crate::error::{Fault, Kind, clip, there_is};
use crate::phrase::json;
use crate::phrase::serde::Said;

/// Reads a message. An empty body is an empty message.
pub fn read<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, Fault> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(T::default());
    }
    let mut reader = serde_json::Deserializer::from_slice(body);
    let message = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        malformed::<T>(&path, error.inner())
    })?;
    reader.end().map_err(|error| malformed::<T>(".", &error))?;
    Ok(message)
}

/// The fault for a JSON error at `path`.
fn malformed<T>(path: &str, error: &serde_json::Error) -> Fault {
    let place = format!("line {}, column {}", error.line(), error.column());
    // A `?` stands where the text ends before the name of a field does.
    let known = path.strip_suffix('?').filter(|known| known.is_empty() || known.ends_with('.'));
    let path = known.unwrap_or(path).trim_end_matches('.');
    let at = if path.is_empty() { String::new() } else { format!("`{}`: ", clip(path)) };
    let words = match json::syntax(error) {
        Some(found) => format!("found {found}"),
        None => wrong::<T>(&json::message(error)),
    };
    Fault::new(Kind::Malformed, format!("not the JSON of this message: {at}{words} ({place})"))
}

/// What a reader said of a value.
fn wrong<T>(message: &str) -> String {
    match Said::of(message) {
        Said::Unknown { field, there_are } => {
            // Those of the .proto files alone: the readers know each in two spellings.
            let is_ours = |name: &&str| !name.contains(|letter: char| letter.is_ascii_uppercase());
            let ours = there_are.iter().map(String::as_str).filter(is_ours);
            format!("unknown field `{}`; {}", clip(&field), there_is(&field, ours))
        }
        Said::Twice { field } => match schema::choice(schema::name_of::<T>(), &field) {
            Some(choice) => format!("expected one of {choice}, found `{field}` as the second"),
            None => format!("expected `{}` once, found it again", clip(&field)),
        },
        Said::Missing { field } => format!("expected `{}`, found nothing", clip(&field)),
        Said::Wrong { expected, found } if found == "null" => {
            format!("null is not taken here, expected {expected}")
        }
        Said::Wrong { expected, found } => format!("expected {expected}, found {found}"),
        // The generated readers' only type of several forms: a number, also as text.
        Said::NoForm { .. } | Said::NoNumber { is_whole: true } => {
            "expected a number in the field's range: a whole number without point or exponent, also as text, \
             unless the field is fractional"
                .into()
        }
        Said::NoNumber { is_whole: false } => "expected a number, also as text".into(),
        Said::NoBase64 { at: Some(at) } => {
            format!("expected text in base64, found what is none at offset {at}")
        }
        Said::NoBase64 { at: None } => {
            "expected text in base64, found a text that is cut off or wrongly padded".into()
        }
        Said::Else => "a value that the field does not take".into(),
    }
}

/// Writes a message.
pub fn write<T: Serialize>(message: &T) -> Vec<u8> {
    serde_json::to_vec(message).expect("a message of the schema always has a JSON form")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::v1;
    use proptest::prelude::*;

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
        let sentence = said(r#"{"tensor": {"dtype": "u8", "shap": [1]}}"#);
        assert!(
            sentence.contains("`tensor.shap`: unknown field `shap`; there are: shape, raw, dtype, values"),
            "{sentence}"
        );
    }

    #[test]
    fn of_a_choice_a_message_has_one_and_the_sentence_names_them() {
        let said = |body: &str| read::<v1::Up>(body.as_bytes()).unwrap_err().detail;
        let two = said(r#"{"frame": {}, "probe": {}}"#);
        assert!(two.contains("expected one of attach, frame, probe, found `probe` as the second"), "{two}");
        let twice = said(r#"{"frame": {"seq": 1, "seq": 1}}"#);
        assert!(twice.contains("`frame`: expected `seq` once, found it again"), "{twice}");
    }

    #[test]
    fn a_wrong_value_is_told_with_what_is_expected_and_what_was_found() {
        for (body, part) in [
            (r#"{"signal": 5}"#, "`signal`: expected text, found 5"),
            (r#"{"lost": "yes"}"#, "`lost`: expected true or false, found \"yes\""),
            (r#"{"unit": {}}"#, "`unit`: expected a list, found an object"),
            (r#"{"tensor": 1}"#, "`tensor`: expected a tensor: {dtype, shape, raw or values}, found 1"),
            (r#"{"tensor": {"values": [[1]]}}"#, "`tensor.values[0]`: "),
            (r#"{"echo": "a%cd"}"#, "`echo`: expected text in base64, found what is none at offset 1"),
            (r#"{"echo": "abcde"}"#, "`echo`: expected text in base64, found a text that is cut off"),
            (r#"{"tensor": {"values": [1], "#, "`tensor`: found the end of the text"),
            ("[]", "expected an object, found a list"),
            ("[1, 2]", "expected an object, found a list"),
            ("5", "expected an object, found 5"),
            (
                r#"{"seq": 1"#,
                "message: found an object without its `}` at the end of the text (line 1, column 9)",
            ),
        ] {
            assert!(said(body).contains(part), "{body}: {}", said(body));
        }
        let open = read::<v1::OpenRequest>(br#"{"wait_ms": "soon"}"#).unwrap_err().detail;
        assert!(open.contains("`wait_ms`: expected a number, also as text"), "{open}");
    }

    /// Phrases of the libraries that read JSON here.
    const THEIRS: &[&str] = &[
        "EOF",
        "invalid type",
        "invalid value",
        "trailing",
        "untagged",
        "struct ",
        "latentd.v1",
        "sequence",
        "duplicate",
        "Invalid",
        "expected ident",
        "expected value (",
        " at line ",
        "a map",
        "literal",
        "digit found",
        "variant",
        "recursion",
        "surrogate in",
        "hex escape",
        "code point",
        "a value that the field does not take",
        "another value",
        "(ours)",
        "found what is none (",
    ];

    proptest! {
        #[test]
        fn of_a_damaged_message_no_phrase_of_a_library_is_said(
            pieces in prop::collection::vec(prop::sample::select(vec![
                r#""seq": "#, r#""unit": "#, r#""tensor": "#, r#""echo": "#, r#""lost": "#, r#""frame": "#, r#""probe": "#,
                r#""attach": "#, r#""values": "#, r#""shape": "#, r#""raw": "#, r#""t_ns": "#, r#""mask": "#, r#""dtype": "#,
                "{", "}", "[", "]", ",", ":", "\"", "1", "-7", "1.5", "1e400", "99999999999999999999", "null", "true",
                r#""x""#, r#""a%""#, r#""abcde""#, r#""1e3""#, r#""\ud800""#, "\\", "nul", "é", "\n", "{}", "[]",
            ]), 0..12),
        ) {
            let text = pieces.concat();
            for body in [text.clone(), format!(r#"{{"frame": {{{text}}}}}"#), format!(r#"{{"frame": {{{text}"#)] {
                let Err(fault) = read::<v1::Up>(body.as_bytes()) else { continue };
                for phrase in THEIRS {
                    prop_assert!(!fault.detail.contains(phrase), "`{phrase}` in `{}` for `{body}`", fault.detail);
                }
            }
        }
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
