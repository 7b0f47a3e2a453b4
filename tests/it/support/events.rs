//! What a session gives, by server-sent events.

use latentd::wire::{json, v1};

use super::server::Latentd;
use super::within;

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// `event: output`
    Output(v1::Output),
    /// `event: notice`
    Notice(v1::Notice),
    /// `event: end`: kind and detail.
    End(String, String),
}

/// A response that goes on.
pub struct Events {
    /// Comments that came.
    pub comments: usize,
    /// Notices that came on the way to what was asked for.
    pub notices: Vec<v1::Notice>,
    response: reqwest::Response,
    unread: Vec<u8>,
}

impl Events {
    /// Subscribes: `query` is `outputs=v&max_hz=5`, or nothing.
    pub async fn of(server: &Latentd, session: &str, query: &str) -> Self {
        let url = server.url(&format!("/v1/sessions/{session}/live?{query}"));
        let response = within("the head of events", server.client.get(url).send()).await.expect("an answer");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { comments: 0, notices: Vec::new(), response, unread: Vec::new() }
    }

    /// The next event; `None`: the response ended.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            let Some(at) = self.unread.windows(2).position(|pair| pair == b"\n\n") else {
                let more = within("more events", self.response.chunk()).await.expect("the response goes on");
                match more {
                    Some(more) => self.unread.extend_from_slice(&more),
                    None => {
                        assert!(self.unread.is_empty(), "an event broke off");
                        return None;
                    }
                }
                continue;
            };
            let rest = self.unread.split_off(at + 2);
            let text = String::from_utf8(std::mem::replace(&mut self.unread, rest)).expect("text");
            if let Some(event) = self.read(&text) {
                return Some(event);
            }
        }
    }

    fn read(&mut self, text: &str) -> Option<Event> {
        if text == ":\n\n" {
            self.comments += 1;
            return None;
        }
        let mut lines = text.trim_end().lines();
        let name = lines.next().and_then(|line| line.strip_prefix("event: ")).expect("a name");
        let data = lines.next().and_then(|line| line.strip_prefix("data: ")).expect("data");
        assert_eq!(lines.next(), None);
        Some(match name {
            "output" => Event::Output(json::read(data.as_bytes()).expect("an Output")),
            "notice" => Event::Notice(json::read(data.as_bytes()).expect("a Notice")),
            "end" => {
                let end: serde_json::Value = serde_json::from_str(data).expect("an end");
                assert_eq!(end.as_object().expect("an object").len(), 2);
                let of = |key: &str| end[key].as_str().expect("a text").to_owned();
                Event::End(of("kind"), of("detail"))
            }
            other => panic!("no event is called {other}"),
        })
    }

    /// The next Output; fails at the end.
    pub async fn output(&mut self) -> v1::Output {
        loop {
            match self.next().await {
                Some(Event::Output(output)) => return output,
                Some(Event::Notice(notice)) => self.notices.push(notice),
                other => panic!("an Output is due, not {other:?}"),
            }
        }
    }

    /// All Outputs up to the end, and why it ended.
    pub async fn rest(mut self) -> (Vec<v1::Output>, String, String) {
        let mut outputs = Vec::new();
        loop {
            match self.next().await {
                Some(Event::Output(output)) => outputs.push(output),
                Some(Event::Notice(_)) => {}
                Some(Event::End(kind, detail)) => {
                    assert_eq!(self.next().await, None, "the end comes last");
                    return (outputs, kind, detail);
                }
                None => panic!("no event said why it ended"),
            }
        }
    }
}
