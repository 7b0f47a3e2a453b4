//! Protobuf that is none.

use std::fmt;

/// Why bytes are no message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The fields to where it is, outermost first, by their names in the schema; empty: at the top.
    pub path: String,
    /// What is wrong there.
    pub why: &'static str,
    /// The bytes end inside a field.
    pub is_cut_short: bool,
}

impl Broken {
    /// By what the reader said: `Message.field: ` from the innermost out, then what is wrong.
    pub fn of(error: &prost::DecodeError) -> Self {
        let words = error.to_string();
        let words = words.rsplit_once("Protobuf message: ").map_or(words.as_str(), |(_, words)| words);
        let mut fields: Vec<&str> = Vec::new();
        let mut rest = words;
        while let Some((place, after)) = rest.split_once(": ") {
            let Some((message, field)) = place.split_once('.') else { break };
            if [message, field].iter().any(|name| name.is_empty() || name.contains(' ')) {
                break;
            }
            // The reader names them as the code does, where a word of the schema is one of Rust's.
            fields.push(field.strip_prefix("r#").unwrap_or(field));
            rest = after;
        }
        fields.reverse();
        Self { path: fields.join("."), why: why(rest), is_cut_short: rest == "buffer underflow" }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(self.why)
        } else {
            write!(f, "in `{}` {}", self.path, self.why)
        }
    }
}

/// The reader's words for what is wrong, in ours.
fn why(words: &str) -> &'static str {
    match words {
        "buffer underflow" => "the bytes end inside a field",
        "invalid varint" => "a number does not end within ten bytes, or at all",
        "delimited length exceeded" => "a field is longer than the message that holds it",
        "length delimiter exceeds maximum usize value" => "a field's length is beyond all memory",
        "recursion limit reached" => "messages lie deeper than 100 in one another",
        "invalid tag value: 0" => "a field has the number 0; expected 1 or more",
        "unexpected end group tag" => "a group ends that did not begin",
        "invalid string value: data is not UTF-8 encoded" => "a text is not UTF-8",
        words if words.starts_with("invalid wire type value") => "a field has a wire type over 5",
        words if words.starts_with("invalid key value") => "a field has a number over 2^29 - 1",
        words => match words.rsplit_once("(expected ") {
            Some((_, "Varint)")) => "a field comes in another form; expected a varint",
            Some((_, "SixtyFourBit)")) => "a field comes in another form; expected 8 bytes",
            Some((_, "ThirtyTwoBit)")) => "a field comes in another form; expected 4 bytes",
            Some((_, "LengthDelimited)")) => {
                "a field comes in another form; expected a length and so many bytes"
            }
            _ => "a field cannot be read",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use prost::Message;

    #[derive(Clone, PartialEq, Message)]
    struct Outer {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(message, optional, tag = "2")]
        inner: Option<Inner>,
        #[prost(uint64, tag = "3")]
        level: u64,
        #[prost(bool, tag = "5")]
        r#final: bool,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Inner {
        #[prost(double, repeated, tag = "1")]
        values: Vec<f64>,
        #[prost(uint32, tag = "2")]
        count: u32,
    }

    fn said(bytes: &[u8]) -> String {
        Broken::of(&Outer::decode(bytes).unwrap_err()).to_string()
    }

    #[test]
    fn each_way_to_be_no_message_has_its_words_and_its_path() {
        let endless = [0x18, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 1];
        let cases: [(&[u8], &str); 12] = [
            (&[0x0a, 5, b'a'], "in `name` the bytes end inside a field"),
            (&[0x0a, 1, 0xff], "in `name` a text is not UTF-8"),
            (&[0x08, 1], "in `name` a field comes in another form; expected a length and so many bytes"),
            (&[0x12, 2, 0x0a, 7], "in `inner.values` "),
            (&[0x12, 2, 0x12, 0], "in `inner.count` a field comes in another form; expected a varint"),
            (&[0x12, 2, 0x08, 0], "in `inner.values` a field comes in another form; expected 8 bytes"),
            (&[0x2a, 0], "in `final` a field comes in another form; expected a varint"),
            (&endless, "in `level` a number does not end"),
            (&[0xff, 0xff], "a number does not end"),
            (&[0x00], "a field has the number 0"),
            (&[0x0f], "a field has a wire type over 5"),
            (&[0x24], "a group ends that did not begin"),
        ];
        for (bytes, part) in cases {
            let said = said(bytes);
            assert!(said.starts_with(part), "{bytes:02x?}: {said}");
        }
        assert!(Broken::of(&Outer::decode(&[0x0a, 5][..]).unwrap_err()).is_cut_short);
    }

    proptest! {
        #[test]
        fn of_whatever_is_no_message_something_is_known_and_no_phrase_of_the_reader_passes(
            name in ".{0,9}",
            values in prop::collection::vec(any::<f64>(), 0..5),
            cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            keep in any::<prop::sample::Index>(),
            random in prop::collection::vec(any::<u8>(), 0..24),
        ) {
            let inner = Inner { values, count: 7 };
            let mut damaged = Outer { name, inner: Some(inner), level: 900, r#final: true }.encode_to_vec();
            for (at, byte) in cuts {
                let at = at.index(damaged.len());
                damaged[at] = byte;
            }
            damaged.truncate(keep.index(damaged.len()) + 1);
            for bytes in [damaged, random] {
                let Err(error) = Outer::decode(&bytes[..]) else { continue };
                let said = Broken::of(&error).to_string();
                prop_assert!(!said.contains("a field cannot be read"), "{error}");
                for phrase in ["Protobuf", "underflow", "varint:", "wire type:", "delimited", "tag value", "r#"] {
                    prop_assert!(!said.contains(phrase), "{said}");
                }
            }
        }
    }
}
