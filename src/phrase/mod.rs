//! What libraries say of bytes that they cannot read, in our words.
//! Enters: an error of a library, and the text that it is about where that is needed. Leaves: where it is, what was
//! found and what is expected, as parts of a sentence. Owns: nothing; pure. Must hold: no phrase of a library goes out,
//! not even one that is new to us; text from outside is quoted only clipped.
//! Must not know: who is told.
//!
//! Why by their texts: most of these libraries keep the kinds of their errors to themselves. Each text is looked at here and
//! nowhere else; a property of each file's tests reads many damaged inputs and lets none of the library's phrases pass.

pub mod json; // JSON that is none
pub mod protobuf; // protobuf that is none
pub mod safetensors; // a safetensors file that is none
pub mod serde; // a value that is not what a reader takes
pub mod toml; // TOML that is none
