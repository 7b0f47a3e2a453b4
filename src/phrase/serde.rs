//! A value that is not what a reader takes: the sentences that serde has for all formats, taken apart.

use std::fmt;

use ::serde::de::Expected;

use crate::error::clip;

/// What a reader said of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// A name that it does not know, and those that it does.
    Unknown {
        /// The name.
        field: String,
        /// The known ones; empty if it knows none.
        there_are: Vec<String>,
    },
    /// A name that is not there.
    Missing {
        /// The name.
        field: String,
    },
    /// A name that is there twice.
    Twice {
        /// The name.
        field: String,
    },
    /// Another value than it takes.
    Wrong {
        /// What it takes.
        expected: String,
        /// What was there.
        found: String,
    },
    /// A value that fits none of the forms of a type.
    NoForm {
        /// The type's name in Rust.
        of: String,
    },
    /// A text that is no number, or not one of its range.
    NoNumber {
        /// It is to be a whole one.
        is_whole: bool,
    },
    /// A text that is no base64.
    NoBase64 {
        /// Where a character stands that is none of it, in bytes; `None`: the text is cut off or wrongly padded.
        at: Option<usize>,
    },
    /// Something that is not known here.
    Else,
}

/// What a reader of ours takes. It comes out of `Said` word by word; of all other readers the words are known, or not said.
pub struct Takes<'a>(pub &'a str);

/// Stands before the words of `Takes`, within serde's sentence.
const OURS: &str = "(ours) ";

impl fmt::Display for Takes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{OURS}{}", self.0)
    }
}

impl Expected for Takes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a reader takes, where that is not known otherwise.
const ANOTHER: &str = "another value";

impl Said {
    /// Takes a sentence apart.
    pub fn of(message: &str) -> Self {
        for (prefix, is_variant) in [("unknown field `", false), ("unknown variant `", true)] {
            let Some(rest) = message.strip_prefix(prefix) else { continue };
            // The name is text from outside: only what follows its closing quote is serde's.
            let end = ["`, expected ", "`, there are "].iter().filter_map(|mark| rest.rfind(mark)).max();
            let (name, known) = rest.split_at(end.unwrap_or(rest.len()));
            let there_are: Vec<String> = known.split('`').skip(2).step_by(2).map(ToOwned::to_owned).collect();
            if !is_variant {
                return Said::Unknown { field: name.to_owned(), there_are };
            }
            let expected = match &there_are[..] {
                [] => ANOTHER.to_owned(),
                there_are => format!("one of {}", there_are.join(", ")),
            };
            return Said::Wrong { expected, found: format!("`{}`", clip(name)) };
        }
        let quoted = |rest: &str| rest.strip_suffix('`').unwrap_or(rest).to_owned();
        if let Some(rest) = message.strip_prefix("missing field `") {
            return Said::Missing { field: quoted(rest) };
        }
        if let Some(rest) = message.strip_prefix("duplicate field `") {
            return Said::Twice { field: quoted(rest) };
        }
        for (prefix, what) in
            [("invalid type: ", ""), ("invalid value: ", ""), ("invalid length ", "a length of ")]
        {
            if let Some((found, expected)) =
                message.strip_prefix(prefix).and_then(|rest| rest.rsplit_once(", expected "))
            {
                return Said::Wrong {
                    expected: expected_words(expected),
                    found: format!("{what}{}", found_words(found)),
                };
            }
        }
        Said::of_parser(message)
    }

    /// What the parsers of one value's text say, and the readers of a type that has several forms.
    fn of_parser(message: &str) -> Self {
        if let Some(of) = message.strip_prefix("data did not match any variant of untagged enum ") {
            return Said::NoForm { of: of.to_owned() };
        }
        let begins = |starts: &[&str]| starts.iter().any(|start| message.starts_with(start));
        if begins(&["invalid digit found in string", "number too", "cannot parse integer"]) {
            return Said::NoNumber { is_whole: true };
        }
        if begins(&["invalid float literal", "cannot parse float"]) {
            return Said::NoNumber { is_whole: false };
        }
        if begins(&["Invalid symbol", "Invalid last symbol"]) {
            let offset = message.rsplit_once("offset ").map(|(_, offset)| offset.trim_end_matches('.'));
            return Said::NoBase64 { at: offset.and_then(|offset| offset.parse().ok()) };
        }
        if begins(&["Invalid input length", "Invalid padding"]) {
            return Said::NoBase64 { at: None };
        }
        Said::Else
    }
}

/// What a reader takes.
fn expected_words(words: &str) -> String {
    if let Some(ours) = words.strip_prefix(OURS) {
        return ours.to_owned();
    }
    let counted =
        ["a tuple of size ", "an array of length "].iter().find_map(|what| words.strip_prefix(what));
    let counted = counted.or_else(|| words.strip_suffix(" elements in sequence"));
    if let Some(length) = counted.and_then(|length| length.parse::<u64>().ok()) {
        return format!("a list of length {length}");
    }
    let known = match words {
        "f64" | "f32" => "a number",
        "u8" | "u16" | "u32" | "u64" | "u128" | "usize" => "a whole number, 0 or more",
        "i8" | "i16" | "i32" | "i64" | "i128" | "isize" => "a whole number",
        "a boolean" => "true or false",
        "a string" | "a borrowed string" | "a character" | "identifier" => "text",
        "field identifier" | "variant identifier" => "text",
        "a sequence" => "a list",
        "a map" => "an object",
        "unit" => "null",
        "a base64 string" => "text in base64",
        words if words.starts_with("expected one of: ") => "text",
        words if words.starts_with("a nonzero u") => "a whole number, 1 or more",
        words if words.starts_with("a nonzero i") => "a whole number other than 0",
        "an empty array" => "an empty list",
        "1 element in sequence" => "a list of length 1",
        words if words.starts_with("tuple ") => "a list",
        words if words.starts_with("struct ") || words.contains(" tagged enum ") => "an object",
        _ => ANOTHER,
    };
    known.to_owned()
}

/// What stood there. Texts and numbers are as they stood, in quotes.
fn found_words(words: &str) -> String {
    for kind in ["integer `", "floating point `", "boolean `", "character `"] {
        if let Some(value) = words.strip_prefix(kind) {
            return clip(value.split('`').next().unwrap_or_default());
        }
    }
    if let Some(text) = words.strip_prefix("string ") {
        return clip(text);
    }
    let known = match words {
        "sequence" => "a list",
        "map" => "an object",
        "unit value" | "Option value" | "null" => "null",
        "byte array" => "bytes",
        // Ours, of what only TOML has.
        "a date" => "a date",
        // The length of a list.
        words if words.parse::<u64>().is_ok() => words,
        _ => ANOTHER,
    };
    known.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phrase::json;
    use ::serde::de::{DeserializeOwned, Error, Unexpected};
    use ::serde::{Deserialize, Deserializer};
    use proptest::prelude::*;
    use serde_json::Value;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Ask {
        #[expect(dead_code, reason = "read only")]
        count: u32,
        #[expect(dead_code, reason = "read only")]
        kind: Option<Kind>,
        #[expect(dead_code, reason = "read only")]
        list: Option<Vec<f64>>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        One,
        Two,
    }

    fn said(text: &str) -> Said {
        let error = serde_json::from_str::<Ask>(text).unwrap_err().to_string();
        Said::of(error.rsplit_once(" at line ").unwrap().0)
    }

    #[test]
    fn each_sentence_is_taken_apart_whatever_stands_in_the_text_from_outside() {
        let wrong =
            |expected: &str, found: &str| Said::Wrong { expected: expected.into(), found: found.into() };
        assert_eq!(said(r#"{"count": "x"}"#), wrong("a whole number, 0 or more", "\"x\""));
        assert_eq!(said(r#"{"count": -1}"#), wrong("a whole number, 0 or more", "-1"));
        assert_eq!(said(r#"{"count": 1.5}"#), wrong("a whole number, 0 or more", "1.5"));
        assert_eq!(said(r#"{"count": []}"#), wrong("a whole number, 0 or more", "a list"));
        assert_eq!(said(r#"{"list": {}, "count": 1}"#), wrong("a list", "an object"));
        assert_eq!(said(r#"{"list": [null], "count": 1}"#), wrong("a number", "null"));
        assert_eq!(
            said(r#"{"kind": "th`ree, expected x", "count": 1}"#),
            wrong("one of one, two", "`th`ree, expected x`")
        );
        assert_eq!(said("[1]"), wrong("an object", "a length of 1"));
        assert_eq!(said("{}"), Said::Missing { field: "count".into() });
        assert_eq!(said(r#"{"count": 1, "count": 2}"#), Said::Twice { field: "count".into() });
        let there_are = ["count", "kind", "list"].map(String::from).to_vec();
        for field in ["cuont", "a`, expected one", "a` b"] {
            let text = serde_json::json!({ field: 1 }).to_string();
            assert_eq!(said(&text), Said::Unknown { field: field.into(), there_are: there_are.clone() });
        }
    }

    /// A reader of ours.
    #[derive(Debug)]
    struct Axis;

    const AXIS: &str = "an axis from 0 to 15 or \"none\"";

    impl<'de> Deserialize<'de> for Axis {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            match Value::deserialize(from)? {
                Value::String(text) => Err(D::Error::invalid_value(Unexpected::Str(&text), &Takes(AXIS))),
                Value::Bool(truth) => Err(D::Error::invalid_type(Unexpected::Bool(truth), &Takes(AXIS))),
                _ => Ok(Axis),
            }
        }
    }

    #[derive(Debug, Deserialize)]
    #[serde(tag = "op", deny_unknown_fields, rename_all = "snake_case")]
    #[expect(dead_code, reason = "read only")]
    enum Op {
        Scale { factor: f32 },
        Bin { width: std::num::NonZeroU32, axis: Option<Axis> },
    }

    #[derive(Debug, Deserialize)]
    #[serde(untagged)]
    #[expect(dead_code, reason = "read only")]
    enum Numbers {
        Here(Vec<f64>),
        File(String),
    }

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "read only")]
    struct Pair(u8, i64);

    #[derive(Debug, Deserialize)]
    struct Nothing;

    /// What a reader of this type says of a value; `None`: it takes it, or the JSON's reader has words for it.
    fn of<T: DeserializeOwned>(value: &Value) -> Option<Said> {
        let error = serde_json::from_str::<T>(&value.to_string()).err()?;
        json::syntax(&error).is_none().then(|| Said::of(&json::message(&error)))
    }

    #[test]
    fn what_a_reader_of_ours_takes_comes_out_whole_and_what_an_unknown_one_takes_is_not_said() {
        let wrong = |expected: &str, found: &str| {
            Some(Said::Wrong { expected: expected.into(), found: found.into() })
        };
        assert_eq!(of::<Axis>(&"x, expected y".into()), wrong(AXIS, "\"x, expected y\""));
        assert_eq!(of::<Nothing>(&1.into()), wrong(ANOTHER, "1"));
        assert_eq!(of::<std::ops::Range<u8>>(&Value::from("a")), wrong("an object", "\"a\""));
        assert_eq!(of::<std::num::NonZeroU8>(&0.into()), wrong("a whole number, 1 or more", "0"));
        assert_eq!(of::<[u8; 3]>(&vec![1].into()), wrong("a list of length 3", "a length of 1"));
        assert_eq!(of::<(u8, u8)>(&vec![1].into()), wrong("a list of length 2", "a length of 1"));
        assert_eq!(of::<Numbers>(&1.into()), Some(Said::NoForm { of: "Numbers".into() }));
        for (message, said) in [
            ("invalid digit found in string", Said::NoNumber { is_whole: true }),
            ("invalid float literal", Said::NoNumber { is_whole: false }),
            ("Invalid symbol 37, offset 12.", Said::NoBase64 { at: Some(12) }),
            ("Invalid padding", Said::NoBase64 { at: None }),
            ("a new phrase of a library", Said::Else),
        ] {
            assert_eq!(Said::of(message), said);
        }
    }

    /// Words of serde that no text from outside in the property below has.
    const THEIRS: &[&str] = &[
        OURS,
        "struct",
        "enum",
        "variant",
        "sequence",
        "map",
        "tuple",
        "array",
        "identifier",
        "nonzero",
        "unit",
        "u8",
        "u32",
        "i64",
        "f32",
        "f64",
        "boolean",
        "integer",
        "floating",
        "string",
        "option",
        "Option",
        "elements",
    ];

    fn value() -> impl Strategy<Value = Value> {
        let text = prop::sample::select(vec![
            "",
            "x",
            "scale",
            "bin",
            "one",
            "op",
            "`",
            "a`, expected `b",
            "`, there are no",
            ", expected ",
            "a\nb",
            "é\"",
        ]);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            text.clone().prop_map(Value::from),
        ];
        let name = prop_oneof![
            text.prop_map(String::from),
            prop::sample::select(vec!["op", "factor", "width", "axis", "count", "kind", "list"])
                .prop_map(String::from),
        ];
        leaf.prop_recursive(2, 12, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(name.clone(), inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn of_whatever_is_not_taken_something_is_known_and_no_phrase_of_the_reader_passes(value in value()) {
            let all = [
                of::<Ask>(&value), of::<Op>(&value), of::<Numbers>(&value), of::<Pair>(&value), of::<Axis>(&value),
                of::<Vec<Kind>>(&value), of::<(bool, String)>(&value), of::<[u32; 2]>(&value), of::<char>(&value),
                of::<std::collections::BTreeMap<String, u8>>(&value), of::<()>(&value), of::<f32>(&value),
            ];
            for said in all.into_iter().flatten() {
                let words = match &said {
                    Said::Unknown { there_are, .. } => {
                        prop_assert!(there_are.iter().all(|name| name.chars().all(char::is_alphabetic)), "{said:?}");
                        continue;
                    }
                    Said::Missing { field } | Said::Twice { field } => field.clone(),
                    Said::Wrong { expected, found } => format!("{expected}; {found}"),
                    Said::NoForm { of } => of.clone(),
                    Said::NoNumber { .. } | Said::NoBase64 { .. } | Said::Else => {
                        return Err(TestCaseError::fail(format!("{said:?} of {value}")));
                    }
                };
                prop_assert!(!words.contains(ANOTHER), "{said:?} of {value}");
                for phrase in THEIRS {
                    prop_assert!(!words.contains(phrase), "`{phrase}` in {said:?} of {value}");
                }
            }
        }

        #[test]
        fn any_sentence_is_taken_apart_to_an_end(
            prefix in prop::sample::select(vec![
                "", "unknown field `", "unknown variant `", "missing field `", "invalid type: ", "invalid length ",
                "data did not match any variant of untagged enum ", "Invalid symbol ",
            ]),
            rest in "[`, a-zé0-9]{0,9}(, expected )?[`, a-zé0-9]{0,9}(`, expected |offset )?[`, a-zé0-9]{0,9}",
        ) {
            Said::of(&format!("{prefix}{rest}"));
        }
    }
}
