//! `Fault`: what a caller is told when something is wrong; its kind, its sentence, and the one table to HTTP and gRPC.
//! Enters: a kind and a sentence, from the room that knows. Leaves: status, code and retry, the same on every transport.
//! Owns: the table. Must hold: every kind is in it by name; a sentence is at most 2 KiB.
//! Must not know: axum, tonic's services, or any room's own errors (rooms convert into it, one by one).

use crate::domain::signal::word;

word!(
    /// The kinds of fault, as the wire names them.
    Kind {
        /// No such model, session, run; the sentence names what there is.
        NotFound = "not_found",
        /// Not JSON, protobuf or Arrow; an unknown field.
        Malformed = "malformed",
        /// Shape, dtype, channels, word, a missing static input.
        Invalid = "invalid",
        /// Body, message or header over its limit.
        TooLarge = "too_large",
        /// A frame is missing on the way.
        ExpectedSeq = "expected_seq",
        /// A `seq` older than the window.
        AlreadyStepped = "already_stepped",
        /// Policy `fail` met a gap.
        Gap = "gap",
        /// Policy `fail` met late data.
        Late = "late",
        /// Two clocks without a known relation.
        ClockUnknown = "clock_unknown",
        /// A foreign writer token, another digest, a past bin.
        Conflict = "conflict",
        /// The stream was taken over.
        Replaced = "replaced",
        /// No key.
        Unauthenticated = "unauthenticated",
        /// A key without the scope.
        Forbidden = "forbidden",
        /// Full; try again later.
        Overloaded = "overloaded",
        /// A thing we know and don't do, or a content type we don't take.
        Unsupported = "unsupported",
        /// Draining, or something needed is away.
        Unavailable = "unavailable",
        /// The run or the caller's time limit passed.
        Deadline = "deadline",
        /// A fault of ours.
        Internal = "internal",
    }
);

/// gRPC codes by number, so that this table needs no transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are gRPC's own")]
pub enum GrpcCode {
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

impl Kind {
    /// HTTP status, gRPC code and title of the kind. `unsupported` is 415 for content types (`Fault::content_type`).
    pub const fn codes(self) -> (u16, GrpcCode, &'static str) {
        match self {
            Kind::NotFound => (404, GrpcCode::NotFound, "not found"),
            Kind::Malformed => (400, GrpcCode::InvalidArgument, "malformed message"),
            Kind::Invalid => (422, GrpcCode::InvalidArgument, "invalid request"),
            Kind::TooLarge => (413, GrpcCode::ResourceExhausted, "too large"),
            Kind::ExpectedSeq => (409, GrpcCode::FailedPrecondition, "a frame is missing on the way"),
            Kind::AlreadyStepped => (409, GrpcCode::FailedPrecondition, "already stepped"),
            Kind::Gap => (409, GrpcCode::FailedPrecondition, "gap in the data"),
            Kind::Late => (409, GrpcCode::FailedPrecondition, "late data"),
            Kind::ClockUnknown => (409, GrpcCode::FailedPrecondition, "clock relation unknown"),
            Kind::Conflict => (409, GrpcCode::Aborted, "conflict"),
            Kind::Replaced => (409, GrpcCode::Aborted, "stream was taken over"),
            Kind::Unauthenticated => (401, GrpcCode::Unauthenticated, "a key is needed"),
            Kind::Forbidden => (403, GrpcCode::PermissionDenied, "not allowed"),
            Kind::Overloaded => (429, GrpcCode::ResourceExhausted, "overloaded"),
            Kind::Unsupported => (501, GrpcCode::Unimplemented, "not supported"),
            Kind::Unavailable => (503, GrpcCode::Unavailable, "not available now"),
            Kind::Deadline => (504, GrpcCode::DeadlineExceeded, "out of time"),
            Kind::Internal => (500, GrpcCode::Internal, "internal fault"),
        }
    }
}

/// What a caller is told. Fields that do not apply are empty or `None`.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// The kind, which decides status and code.
    pub kind: Kind,
    /// HTTP status; by the table, but 415 for content types.
    pub status: u16,
    /// A sentence: what was found, what was expected. At most 2 KiB.
    pub detail: String,
    /// The signal it concerns.
    pub signal: String,
    /// The frame it concerns.
    pub seq: Option<u64>,
    /// The `seq` that must come next.
    pub expected_seq: Option<u64>,
    /// Whether the frame's `seq` was consumed all the same.
    pub consumed: bool,
    /// When to try again (ms).
    pub retry_after_ms: Option<f64>,
    /// The tensor or field it concerns.
    pub tensor: String,
    /// What was expected there.
    pub expected: String,
    /// What was found there.
    pub found: String,
}

/// Longest sentence of a fault, in bytes.
const DETAIL_LIMIT_BYTES: usize = 2048;

impl Fault {
    /// A fault with its sentence.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        if detail.len() > DETAIL_LIMIT_BYTES {
            let cut = (0..=DETAIL_LIMIT_BYTES - 4).rev().find(|&at| detail.is_char_boundary(at));
            detail.truncate(cut.unwrap_or(0));
            detail.push_str(" ...");
        }
        Self {
            kind,
            status: kind.codes().0,
            detail,
            signal: String::new(),
            seq: None,
            expected_seq: None,
            consumed: false,
            retry_after_ms: None,
            tensor: String::new(),
            expected: String::new(),
            found: String::new(),
        }
    }

    /// `not_found` that names what there is, the nearest first.
    pub fn not_found<'a>(what: &str, asked: &str, there_are: impl IntoIterator<Item = &'a str>) -> Self {
        Self::new(Kind::NotFound, format!("no {what} `{}`; {}", clip(asked), there_is(asked, there_are)))
    }

    /// `invalid` about a tensor or field: what was expected, what was found.
    pub fn mismatch(
        tensor: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        let (tensor, expected, found) = (tensor.into(), expected.into(), found.into());
        let mut fault = Self::new(Kind::Invalid, format!("{tensor}: expected {expected}, found {found}"));
        (fault.tensor, fault.expected, fault.found) = (tensor, expected, found);
        fault
    }

    /// `invalid` about a word that is not among the known ones.
    pub fn unknown_word(field: &str, found: &str, there_are: &str) -> Self {
        Self::mismatch(field, format!("one of {there_are}"), format!("`{}`", clip(found)))
    }

    /// `unsupported` as HTTP 415.
    pub fn content_type(detail: impl Into<String>) -> Self {
        Self { status: 415, ..Self::new(Kind::Unsupported, detail) }
    }

    /// `internal`: something of ours panicked. What it said is in the log alone.
    pub fn panicked() -> Self {
        Self::new(Kind::Internal, "a fault of ours ended this call; the server's log says which")
    }

    /// The same fault about this frame.
    pub fn about(mut self, signal: &str, seq: u64) -> Self {
        self.signal = signal.into();
        self.seq = Some(seq);
        self
    }

    /// The same fault, saying which `seq` must come next.
    pub fn expecting(mut self, expected_seq: u64) -> Self {
        self.expected_seq = Some(expected_seq);
        self
    }

    /// The same fault with a hint when to try again.
    pub fn retry_after(mut self, ms: f64) -> Self {
        self.retry_after_ms = Some(ms);
        self
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.kind, self.detail)
    }
}

impl std::error::Error for Fault {}

/// A text from outside, short enough to be quoted.
pub fn clip(text: &str) -> String {
    const LIMIT_CHARS: usize = 80;
    if text.chars().count() <= LIMIT_CHARS {
        return text.into();
    }
    text.chars().take(LIMIT_CHARS).chain("...".chars()).collect()
}

/// "there are: a, b, c" with the five names nearest to `asked`, and how many more.
pub fn there_is<'a>(asked: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    const NEAREST: usize = 5;
    let mut names: Vec<&str> = names.into_iter().collect();
    if names.is_empty() {
        return "there are none".into();
    }
    names.sort_by_key(|name| (distance(asked, name), *name));
    let more = names.len().saturating_sub(NEAREST);
    names.truncate(NEAREST);
    let list = names.iter().map(|name| clip(name)).collect::<Vec<_>>().join(", ");
    if more > 0 { format!("there are: {list} and {more} more") } else { format!("there are: {list}") }
}

/// Levenshtein distance of the first 40 characters, enough to find a slip of the finger.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(40).collect(), b.chars().take(40).collect());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_not_there_is_answered_with_the_nearest_that_are() {
        let names =
            ["receptor-envelope", "cortex", "reach", "reach-sae", "reach-decoder", "cortex-encoder", "demo"];
        let fault = Fault::not_found("pipeline", "reech", names);
        assert_eq!(
            fault.detail,
            "no pipeline `reech`; there are: reach, demo, cortex, reach-sae, reach-decoder and 2 more"
        );
    }

    #[test]
    fn a_sentence_is_at_most_2_kib_and_ends_on_a_character() {
        let fault = Fault::new(Kind::Invalid, "µ".repeat(3000));
        assert!(fault.detail.len() <= 2048 && fault.detail.ends_with(" ..."));
    }

    #[test]
    fn the_table_of_kinds_is_the_wires() {
        let table: Vec<String> = Kind::ALL
            .iter()
            .map(|kind| {
                let (status, code, _) = kind.codes();
                format!("{kind} {status} {code:?}")
            })
            .collect();
        assert_eq!(
            table,
            [
                "not_found 404 NotFound",
                "malformed 400 InvalidArgument",
                "invalid 422 InvalidArgument",
                "too_large 413 ResourceExhausted",
                "expected_seq 409 FailedPrecondition",
                "already_stepped 409 FailedPrecondition",
                "gap 409 FailedPrecondition",
                "late 409 FailedPrecondition",
                "clock_unknown 409 FailedPrecondition",
                "conflict 409 Aborted",
                "replaced 409 Aborted",
                "unauthenticated 401 Unauthenticated",
                "forbidden 403 PermissionDenied",
                "overloaded 429 ResourceExhausted",
                "unsupported 501 Unimplemented",
                "unavailable 503 Unavailable",
                "deadline 504 DeadlineExceeded",
                "internal 500 Internal",
            ]
        );
    }
}
