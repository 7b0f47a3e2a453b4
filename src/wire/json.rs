//! JSON by proto3's mapping, with the path of a wrong field in the fault's sentence.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Fault, Kind, clip};

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

/// The fault for a JSON error at `path`: in our words, since the generated readers speak of their own types.
fn sentence(path: &str, error: &serde_json::Error) -> Fault {
    let place = format!("line {}, column {}", error.line(), error.column());
    let at = if path == "." || path.is_empty() { String::new() } else { format!("`{}`: ", clip(path)) };
    let words = error.to_string();
    let words = words.split(" at line ").next().unwrap_or_default();
    let words = match words {
        w if w.starts_with("data did not match any variant of untagged enum") => {
            "expected a whole number in range (64-bit ones also as text), without point or exponent"
                .to_string()
        }
        w if w.starts_with("unknown field") => w.replace("expected one of", "there are"),
        w => w
            .replace("struct latentd.v1.", "a message ")
            .replace("invalid type: null", "null is not taken here"),
    };
    Fault::new(Kind::Malformed, format!("not the JSON of this message: {at}{} ({place})", shorten(&words)))
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
