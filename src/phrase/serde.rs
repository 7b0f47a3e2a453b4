//! A value that is not what a reader takes: the sentences that serde has for all formats, taken apart.

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
    /// A reader's own words: ours, or those of a parser of the text of one value.
    Else(String),
}

impl Said {
    /// Takes a sentence apart.
    pub fn of(message: &str) -> Self {
        let line = message.lines().next().unwrap_or_default();
        for (prefix, expected) in [("unknown field `", None), ("unknown variant `", Some(()))] {
            let Some(rest) = line.strip_prefix(prefix) else { continue };
            // The name is text from outside: only what follows its closing quote is serde's.
            let end = ["`, expected ", "`, there are "].iter().filter_map(|mark| rest.rfind(mark)).max();
            let (name, known) = rest.split_at(end.unwrap_or_else(|| rest.len().saturating_sub(1)));
            let known = known.get(1..).unwrap_or_default();
            let there_are: Vec<String> = known.split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect();
            return match expected {
                None => Said::Unknown { field: name.to_owned(), there_are },
                Some(()) => Said::Wrong {
                    expected: format!("one of {}", there_are.join(", ")),
                    found: format!("`{}`", clip(name)),
                },
            };
        }
        let quoted = |rest: &str| rest.strip_suffix('`').unwrap_or(rest).to_owned();
        if let Some(rest) = line.strip_prefix("missing field `") {
            return Said::Missing { field: quoted(rest) };
        }
        if let Some(rest) = line.strip_prefix("duplicate field `") {
            return Said::Twice { field: quoted(rest) };
        }
        for (prefix, what) in
            [("invalid type: ", ""), ("invalid value: ", ""), ("invalid length ", "a length of ")]
        {
            if let Some((found, expected)) =
                line.strip_prefix(prefix).and_then(|rest| rest.rsplit_once(", expected "))
            {
                return Said::Wrong {
                    expected: expected_words(expected),
                    found: format!("{what}{}", found_words(found)),
                };
            }
        }
        Said::Else(line.to_owned())
    }
}

/// What a reader takes.
fn expected_words(words: &str) -> String {
    match words {
        "f64" | "f32" => "a number".into(),
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, 0 or more".into(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".into(),
        "a boolean" => "true or false".into(),
        "a string" | "a borrowed string" | "a character" | "identifier" => "text".into(),
        "a sequence" => "a list".into(),
        "a map" => "an object".into(),
        "a base64 string" => "text in base64".into(),
        words if words.starts_with("struct ") || words.starts_with("tuple struct ") => "an object".into(),
        words if words.starts_with("a tuple of size ") => {
            words.replace("a tuple of size", "a list of length")
        }
        // A reader of ours says what it takes: whole, however long.
        words => words.replace('`', ""),
    }
}

/// What stood there. Texts and numbers are as they stood, in quotes.
fn found_words(words: &str) -> String {
    for kind in ["integer ", "floating point ", "boolean ", "character ", "number "] {
        if let Some(value) = words.strip_prefix(kind) {
            return clip(&value.replace('`', ""));
        }
    }
    if let Some(text) = words.strip_prefix("string ") {
        return clip(text);
    }
    match words {
        "sequence" => "a list".into(),
        "map" => "an object".into(),
        "unit value" | "Option value" | "null" => "null".into(),
        "byte array" => "bytes".into(),
        words => clip(&words.replace('`', "")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::serde::Deserialize;

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
}
