//! A rig over HTTP JSON, and bare answers.

use latentd::wire::{json, v1};
use prost::Message as _;
use reqwest::header::HeaderMap;
use serde::de::DeserializeOwned;

use super::server::Latentd;

/// An answer of the server, whole.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Vec<u8>,
}

/// A problem+json with what HTTP says beside it.
#[derive(Clone, Debug)]
pub struct Refused {
    /// HTTP status.
    pub status: u16,
    /// The fault.
    pub fault: v1::Fault,
    /// The answer's headers.
    pub headers: HeaderMap,
}

impl Answer {
    /// Sends the request.
    pub async fn of(request: reqwest::RequestBuilder) -> Self {
        let response = request.send().await.expect("the server answers");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await.expect("the answer has a body").to_vec();
        Self { status, headers, body }
    }

    /// A header as text; empty where it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body of text")
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The body as a message of the schema; fails for a fault.
    pub fn message<T: DeserializeOwned + Default>(&self) -> T {
        assert!(self.status < 400, "refused with {}: {}", self.status, self.text());
        json::read(&self.body).unwrap_or_else(|fault| panic!("{fault}: {}", self.text()))
    }

    /// The fault; asserts that it is a whole problem+json that agrees with status and headers.
    pub fn refused(&self) -> Refused {
        assert!(self.status >= 400, "not refused: {} {}", self.status, self.text());
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text());
        let fault: v1::Fault = json::read(&self.body).expect("a fault");
        assert_eq!(fault.status, u32::from(self.status));
        assert_eq!(fault.r#type, format!("urn:latentd:{}", fault.kind));
        assert!(!fault.title.is_empty() && !fault.detail.is_empty() && fault.detail.len() <= 2048);
        assert_eq!(fault.request_id, self.header("x-request-id"));
        assert!(!fault.request_id.is_empty());
        assert_eq!(fault.retry_after_ms.is_some(), self.headers.contains_key("retry-after"));
        Refused { status: self.status, fault, headers: self.headers.clone() }
    }
}

impl Refused {
    /// Asserts status, kind, and that the sentence has every one of these parts; answers the fault.
    #[track_caller]
    pub fn is(&self, status: u16, kind: &str, parts: &[&str]) -> &v1::Fault {
        assert_eq!((self.status, self.fault.kind.as_str()), (status, kind), "{}", self.fault.detail);
        says(&self.fault.detail, parts);
        &self.fault
    }
}

/// Asserts that a sentence has every one of these parts.
#[track_caller]
pub fn says(sentence: &str, parts: &[&str]) {
    for part in parts {
        assert!(sentence.contains(part), "`{part}` is not in: {sentence}");
    }
}

/// A session whose frames go by HTTP JSON.
#[derive(Clone)]
pub struct Rig {
    /// What open answered.
    pub opened: v1::OpenReply,
    client: reqwest::Client,
    http: String,
    form: Form,
}

/// How frames are sent and answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// JSON both ways.
    Json,
    /// Protobuf both ways.
    Protobuf,
    /// Arrow up where a frame has rows, JSON down.
    Arrow,
}

impl Rig {
    /// A rig of an opened session.
    pub fn new(server: &Latentd, opened: v1::OpenReply) -> Self {
        Self::at(server.client.clone(), &server.http, opened)
    }

    /// A rig of a session that is open on the server at `http` (`host:port`).
    pub fn at(client: reqwest::Client, http: &str, opened: v1::OpenReply) -> Self {
        Self { opened, client, http: http.into(), form: Form::Json }
    }

    /// The same, its frames in another form.
    pub fn by(self, form: Form) -> Self {
        Self { form, ..self }
    }

    /// The session's id.
    pub fn session(&self) -> &str {
        &self.opened.session
    }

    /// The run's id.
    pub fn run(&self) -> &str {
        self.opened.run.as_deref().expect("a session that is recorded")
    }

    /// The URL of a call of this session: `/reset`.
    pub fn url(&self, call: &str) -> String {
        format!("http://{}/v1/sessions/{}{call}", self.http, self.opened.session)
    }

    /// Sends a frame as it is (the writer token apart, if it has none).
    pub async fn try_send(&self, mut frame: v1::Frame) -> Result<v1::Output, Refused> {
        if frame.writer.is_empty() {
            frame.writer = self.opened.writers.get(&frame.signal).cloned().unwrap_or_default();
        }
        if self.form == Form::Arrow && frame.tensor.is_some() {
            let body = super::arrow::stream(&[super::arrow::rows(&self.opened, &frame)]);
            let answer = super::arrow::post(self, &super::arrow::query(&frame), body).await;
            return if answer.status >= 400 { Err(answer.refused()) } else { Ok(answer.message()) };
        }
        let request = self.client.post(self.url("/frames"));
        if self.form == Form::Protobuf {
            const FORM: &str = "application/x-protobuf";
            let request = request.header("content-type", FORM).header("accept", FORM);
            let answer = Answer::of(request.body(frame.encode_to_vec())).await;
            if answer.status >= 400 {
                return Err(answer.refused());
            }
            assert_eq!(answer.header("content-type"), FORM);
            return Ok(v1::Output::decode(&answer.body[..]).expect("an Output in protobuf"));
        }
        let request = request.header("content-type", "application/json").body(json::write(&frame));
        let answer = Answer::of(request).await;
        if answer.status >= 400 { Err(answer.refused()) } else { Ok(answer.message()) }
    }

    /// Sends a frame; fails if it is refused.
    pub async fn send(&self, frame: v1::Frame) -> v1::Output {
        self.try_send(frame).await.unwrap_or_else(|refused| panic!("refused: {refused:?}"))
    }

    /// Sends a frame that must be refused.
    pub async fn refused(&self, frame: v1::Frame) -> Refused {
        match self.try_send(frame).await {
            Err(refused) => refused,
            Ok(output) => panic!("not refused: {output:?}"),
        }
    }

    /// `POST …/frames` of this body.
    pub async fn post(&self, query: &str, content_type: &str, body: Vec<u8>) -> Answer {
        let request = self.client.post(self.url(&format!("/frames?{query}")));
        Answer::of(request.header("content-type", content_type).body(body)).await
    }

    /// `POST …/reset`
    pub async fn reset(&self, scope: &str, at_bin: Option<u64>) -> Result<u64, Refused> {
        let ask = v1::ResetRequest { session: String::new(), scope: scope.into(), at_bin };
        let request = self.client.post(self.url("/reset")).body(json::write(&ask));
        let answer = Answer::of(request.header("content-type", "application/json")).await;
        if answer.status >= 400 {
            return Err(answer.refused());
        }
        Ok(answer.message::<v1::ResetReply>().at_bin)
    }

    /// `GET` of the session.
    pub async fn info(&self) -> v1::SessionInfo {
        Answer::of(self.client.get(self.url(""))).await.message()
    }

    /// Closes the session.
    pub async fn close(self) -> v1::CloseReply {
        Answer::of(self.client.delete(self.url(""))).await.message()
    }
}
