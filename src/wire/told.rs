//! What a live subscriber is told, in the forms in which it goes out. A form is made once, by whoever needs it first,
//! and shared by all who are told the same.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde::Serialize;

use super::{json, v1};
use crate::error::Fault;

/// A message for many.
#[derive(Debug)]
pub struct Shared<T> {
    /// The message.
    pub message: T,
    event: OnceLock<Bytes>,
}

impl<T> Shared<T> {
    /// A message in no form yet.
    pub fn new(message: T) -> Arc<Self> {
        Arc::new(Self { message, event: OnceLock::new() })
    }
}

/// What a subscriber is told.
#[derive(Clone, Debug)]
pub enum Told {
    /// Bins.
    Output {
        /// Of all who chose alike.
        output: Arc<Shared<v1::Output>>,
        /// Messages that this subscriber did not get directly before.
        dropped: u64,
    },
    /// Something happened.
    Notice(Arc<Shared<v1::Notice>>),
    /// The last: the session was closed, and why.
    Closed(String),
    /// The last: something ended it.
    Ended(Fault),
}

/// `data` of the last event.
#[derive(Serialize)]
struct End<'a> {
    kind: &'a str,
    detail: &'a str,
}

impl Told {
    /// As one event of `text/event-stream`: `output`, `notice` or `end`.
    pub fn event(&self) -> Bytes {
        match self {
            Told::Output { output, dropped: 0 } => {
                output.event.get_or_init(|| event("output", &output.message)).clone()
            }
            Told::Output { output, dropped } => {
                event("output", &v1::Output { dropped: *dropped, ..output.message.clone() })
            }
            Told::Notice(notice) => notice.event.get_or_init(|| event("notice", &notice.message)).clone(),
            Told::Closed(detail) => event("end", &End { kind: "closed", detail }),
            Told::Ended(fault) => event("end", &End { kind: fault.kind.word(), detail: &fault.detail }),
        }
    }

    /// As a message down; `None` and a fault are the end.
    pub fn down(self) -> Result<Option<v1::down::Message>, Fault> {
        match self {
            Told::Output { output, dropped } => {
                Ok(Some(v1::down::Message::Output(v1::Output { dropped, ..output.message.clone() })))
            }
            Told::Notice(notice) => Ok(Some(v1::down::Message::Notice(notice.message.clone()))),
            Told::Closed(_) => Ok(None),
            Told::Ended(fault) => Err(fault),
        }
    }
}

/// JSON has no line breaks of its own, so that one `data` line holds it.
fn event<T: Serialize>(name: &str, message: &T) -> Bytes {
    let data = json::write(message);
    let mut text = Vec::with_capacity(name.len() + data.len() + 16);
    text.extend_from_slice(b"event: ");
    text.extend_from_slice(name.as_bytes());
    text.extend_from_slice(b"\ndata: ");
    text.extend_from_slice(&data);
    text.extend_from_slice(b"\n\n");
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn text(told: &Told) -> String {
        String::from_utf8(told.event().to_vec()).unwrap()
    }

    #[test]
    fn an_event_is_made_once_for_all_who_lost_nothing() {
        let output = Shared::new(v1::Output { first_bin: 7, ..Default::default() });
        let whole = Told::Output { output: Arc::clone(&output), dropped: 0 };
        assert!(text(&whole).starts_with("event: output\ndata: {") && text(&whole).ends_with("}\n\n"));
        assert_eq!(whole.event().as_ptr(), whole.clone().event().as_ptr());
        let slow = Told::Output { output, dropped: 3 };
        assert!(text(&slow).contains(r#""dropped":"3""#), "{}", text(&slow));
    }

    #[test]
    fn the_end_says_why() {
        let closed = Told::Closed("closed by its rig".into());
        assert_eq!(
            text(&closed),
            "event: end\ndata: {\"kind\":\"closed\",\"detail\":\"closed by its rig\"}\n\n"
        );
        let fault = Fault::new(Kind::Unavailable, "two\nlines");
        let ended = Told::Ended(fault.clone());
        assert_eq!(
            text(&ended),
            "event: end\ndata: {\"kind\":\"unavailable\",\"detail\":\"two\\nlines\"}\n\n"
        );
        assert_eq!(ended.down().unwrap_err(), fault);
        assert!(closed.down().unwrap().is_none());
    }
}
