//! TOML that is none.

use toml::de::Error;

/// Where a text is no TOML, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The line, from 1.
    pub line: usize,
    /// What was found there.
    pub why: &'static str,
}

impl Broken {
    /// By what the reader said of `text`.
    pub fn of(error: &Error, text: &str) -> Self {
        let at = error.span().map_or(0, |span| span.start.min(text.len()));
        let line = 1 + text.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count();
        Self { line, why: why(error.message()) }
    }
}

/// What is not known otherwise.
const SOMETHING: &str = "what is neither `key = value` nor `[table]`";

/// What the reader's words have in them, and what that means; the first that fits.
const MEANINGS: &[(&str, &str)] = &[
    ("duplicate key", "a key that is there twice"),
    ("cannot extend", "a key below one that has a value already"),
    ("recurs", "lists or tables too deep in one another"),
    (
        "string values must be quoted",
        "a value that is no number, no date, not true or false, and not in quotes",
    ),
    ("key with no value", "a key without `=` and a value"),
    ("missing assignment", "a key without `=` and a value"),
    ("missing value", "a key without its value"),
    ("unclosed", "a list or table that is not closed"),
    ("quot", "a text or key whose quotes are not right"),
    ("multi-line", "a text or key whose quotes are not right"),
    ("string", "a text whose quotes are not right, or with a character that it cannot have"),
    ("escape", "a `\\` with what is no escape"),
    ("unicode", "a `\\` with what is no escape"),
    ("radix", "a number that is none"),
    ("sign", "a number that is none"),
    ("zero", "a number that is none"),
    ("number", "a number that is none"),
    ("digit", "a number that is none"),
    ("prefix", "a number that is none"),
    ("float", "a number that is none"),
    ("mantissa", "a number that is none"),
    ("fraction", "a number that is none"),
    ("exponent", "a number that is none"),
    ("integer", "a number that is none"),
    ("too large", "a number that is too large"),
    ("too small", "a number that is too small"),
    ("date", "a date or time that is none"),
    ("time", "a date or time that is none"),
    ("comma", "a list or table whose values have no `,` between them, or one too many"),
    ("boolean", "a word that is neither true nor false"),
    ("carriage return", "a line that ends in \\r alone"),
    ("comment", "a comment with a character that it cannot have"),
    ("key", "a key that is none"),
    ("array", "a list that is none"),
    ("table", "a table that is none"),
    ("value", "a value that is none"),
    ("content", SOMETHING),
    ("invalid", SOMETHING),
    ("unexpected", SOMETHING),
    ("expected", SOMETHING),
];

fn why(words: &str) -> &'static str {
    MEANINGS.iter().find(|(part, _)| words.contains(part)).map_or("what is no TOML", |(_, meaning)| meaning)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use toml::Table;

    fn said(text: &str) -> Option<(Broken, String)> {
        let error = text.parse::<Table>().err()?;
        Some((Broken::of(&error, text), error.message().to_owned()))
    }

    #[test]
    fn each_way_to_be_no_toml_has_its_line_and_its_words() {
        let cases = [
            ("a = 1\na = 2", 2, "there twice"),
            ("a = 1\n[a]", 2, "twice"),
            ("a = 1\na.b = 2", 2, "has a value already"),
            ("a = many", 1, "not in quotes"),
            ("a", 1, "without `=`"),
            ("a =", 1, "not in quotes"),
            ("\n[a", 2, "not closed"),
            ("a = [1, 2", 1, "not closed"),
            ("a = \"b", 1, "quotes"),
            ("a = \"\\q\"", 1, "no escape"),
            ("a = 012", 1, "number"),
            ("a = 1__2", 1, "number"),
            ("a = 1.5.2", 1, "number"),
            ("a = 2020-13-41", 1, "date"),
            ("a b = 1", 1, "key"),
            ("a = [1 2]", 1, "not in quotes"),
            ("é = 1", 1, "key"),
        ];
        let all: Vec<_> = cases.iter().map(|(text, ..)| said(text).unwrap()).collect();
        for ((text, line, part), (broken, words)) in cases.into_iter().zip(all) {
            assert_eq!(broken.line, line, "{text:?}: {words}");
            assert!(broken.why.contains(part), "{text:?}: {} for {words}", broken.why);
        }
    }

    proptest! {
        #[test]
        fn of_whatever_is_no_toml_something_is_known(text in prop::collection::vec(
            prop_oneof![
                3 => prop::sample::select(vec![
                    "a", "b.c", " = ", "=", "1", "-", "_", "0x", "1.5", "e", "\"", "'", "\"\"\"", "[", "]", "[[", "]]",
                    "{", "}", ",", "\n", "#", "\\", "\\u12", "true", "inf", "1979-05-27", "T07:32", "\r", "\u{7}", "é",
                ]).prop_map(String::from),
                1 => any::<char>().prop_map(String::from),
            ], 0..14,
        )) {
            if let Some((broken, words)) = said(&text.concat()) {
                prop_assert!(broken.why != "what is no TOML", "{words}");
            }
        }
    }
}
