//! JSON that is none.

use serde_json::error::Category;

/// An error of the reader without the place that it adds, which `line` and `column` say.
pub fn message(error: &serde_json::Error) -> String {
    let words = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    words.strip_suffix(&place).unwrap_or(&words).to_owned()
}

/// What is not known otherwise.
const SOMETHING: &str = "what is none";

/// What was found in a text that is no JSON; `None` where it is, and a value of it is wrong.
pub fn syntax(error: &serde_json::Error) -> Option<&'static str> {
    let at_end = match error.classify() {
        Category::Data => return None,
        Category::Io => return Some("a text that could not be read"),
        Category::Eof => true,
        Category::Syntax => false,
    };
    Some(match message(error).as_str() {
        "EOF while parsing a list" => "a list without its `]` at the end of the text",
        "EOF while parsing an object" => "an object without its `}` at the end of the text",
        "EOF while parsing a string" => "a quoted text without its `\"` at the end of the text",
        _ if at_end => "the end of the text where a value is due",
        "expected `:`" => "the name of a field without `:` behind it",
        "expected `,` or `]`" => "values of a list without `,` between them, or a list without its `]`",
        "expected `,` or `}`" => "fields of an object without `,` between them, or an object without its `}`",
        "expected value" | "expected ident" => {
            "no value (an object, a list, a quoted text, a number, true, false or null) where one is due"
        }
        "invalid escape" | "unexpected end of hex escape" => "a `\\` with what is no escape",
        "lone leading surrogate in hex escape" => "an escape that is half of a pair",
        "invalid unicode code point" => "a quoted text that is not UTF-8",
        "invalid number" => "what begins like a number and is none",
        "number out of range" => "a number beyond what 64 bits hold (about 1.8e308)",
        words if words.starts_with("control character") => "a control character in a quoted text",
        "key must be a string" | "expected `\"`" => "the name of a field without quotes",
        "trailing comma" => "a `,` with nothing behind it",
        "trailing characters" => "more behind the value",
        "recursion limit exceeded" => "lists and objects deeper than 128 in one another",
        _ => SOMETHING,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn said(text: &str) -> &'static str {
        syntax(&serde_json::from_str::<Value>(text).unwrap_err()).expect("no JSON")
    }

    #[test]
    fn each_way_to_be_no_json_has_its_words() {
        let deep = "[".repeat(200);
        let cases = [
            ("", "end of the text where a value"),
            ("[1", "without its `]` at the end"),
            ("{\"a\": 1", "without its `}` at the end"),
            ("\"a", "without its `\"` at the end"),
            ("{\"a\"", "without its `}` at the end"),
            ("{\"a\" 1}", "without `:`"),
            ("[1 2]", "without `,`"),
            ("{\"a\": 1 \"b\"}", "without `,`"),
            ("{\"a\": }", "no value"),
            ("nul", "end of the text where a value"),
            ("nuxl", "no value"),
            ("'a'", "no value"),
            ("\"\\q\"", "no escape"),
            ("\"\\u12xy\"", "no escape"),
            ("\"\\ud800\"", "escape"),
            ("01", "begins like a number"),
            ("1.", "end of the text where a value"),
            ("1.x", "begins like a number"),
            ("1e999", "64 bits"),
            ("\"\n\"", "control character"),
            ("{1: 2}", "without quotes"),
            ("[1,]", "nothing behind it"),
            ("{\"a\": 1,}", "nothing behind it"),
            ("1 2", "more behind"),
            (deep.as_str(), "deeper than 128"),
        ];
        for (text, part) in cases {
            assert!(said(text).contains(part), "{text}: {}", said(text));
        }
        let bytes = syntax(&serde_json::from_slice::<Value>(b"\"\xff\"").unwrap_err()).unwrap();
        assert!(bytes.contains("UTF-8"), "{bytes}");
        assert_eq!(syntax(&serde_json::from_str::<u32>("\"x\"").unwrap_err()), None);
    }

    proptest! {
        #[test]
        fn of_whatever_is_no_json_something_is_known(bytes in prop::collection::vec(
            prop_oneof![prop::sample::select(br#"{}[]:,"\u0123456789.eE+-truefalsn "#.to_vec()), any::<u8>()], 0..40,
        )) {
            if let Err(error) = serde_json::from_slice::<Value>(&bytes) {
                let said = syntax(&error).expect("any value is taken");
                prop_assert!(said != SOMETHING, "{error}");
            }
        }
    }
}
