//! A rig over WebSocket.

use futures::{SinkExt as _, StreamExt as _};
use latentd::wire::v1::down::Message as Down;
use latentd::wire::v1::up::Message as Up;
use latentd::wire::{json, v1};
use prost::Message as _;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::http::Answer;
use super::server::Latentd;
use super::within;

/// The subprotocol of protobuf.
pub const PROTO: &str = "latentd.v1.proto";

/// How its messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// JSON in text messages.
    Text,
    /// Protobuf in binary messages.
    Binary,
}

/// An attached WebSocket.
pub struct Socket {
    /// The first message down.
    pub attached: v1::Attached,
    /// Notices that came on the way to what was asked for.
    pub notices: Vec<v1::Notice>,
    /// How its messages are written.
    pub form: Form,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

/// The path of a session's stream.
pub fn path(session: &str, writer: &str) -> String {
    format!("/v1/sessions/{session}/stream?writer={writer}")
}

impl Socket {
    /// Attaches to all signals of an open session, by its first signal's token.
    pub async fn attach(server: &Latentd, opened: &v1::OpenReply, form: Form) -> Self {
        let writer = opened.writers.values().next().expect("a writer");
        Self::at(server, &path(&opened.session, writer), form).await
    }

    /// Attaches by this path.
    pub async fn at(server: &Latentd, path: &str, form: Form) -> Self {
        Self::over(TcpStream::connect(&server.http).await.expect("a connection"), path, form).await
    }

    /// Attaches over this road.
    pub async fn over(road: TcpStream, path: &str, form: Form) -> Self {
        let mut request = format!("ws://latentd{path}").into_client_request().expect("a request");
        if form == Form::Binary {
            request.headers_mut().insert("sec-websocket-protocol", PROTO.parse().expect("a header"));
        }
        let upgraded = tokio_tungstenite::client_async(request, MaybeTlsStream::Plain(road));
        let (socket, answer) = within("an upgrade", upgraded).await.expect("the upgrade is taken");
        let chosen = answer.headers().get("sec-websocket-protocol").map(|name| name.to_str().expect("text"));
        assert_eq!(chosen, (form == Form::Binary).then_some(PROTO));
        let mut socket = Self { attached: v1::Attached::default(), notices: Vec::new(), form, socket };
        match socket.next().await {
            Ok(Down::Attached(attached)) => Self { attached, ..socket },
            other => panic!("the first message down is `attached`, not {other:?}"),
        }
    }

    /// Sends a frame and waits for nothing.
    pub async fn put(&mut self, frame: v1::Frame) {
        let up = v1::Up { message: Some(Up::Frame(frame)) };
        self.raw(match self.form {
            Form::Text => Message::text(String::from_utf8(json::write(&up)).expect("text")),
            Form::Binary => Message::binary(up.encode_to_vec()),
        })
        .await;
    }

    /// Sends a message as it is.
    pub async fn raw(&mut self, message: Message) {
        within("a message up", self.socket.send(message)).await.expect("the stream takes messages");
    }

    /// Pings, and waits for the pong; nothing else may come.
    pub async fn ping(&mut self) {
        self.raw(Message::Ping(vec![7].into())).await;
        loop {
            match within("a pong", self.socket.next()).await.expect("a pong first").expect("a message") {
                Message::Pong(payload) => return assert_eq!(payload[..], [7]),
                Message::Ping(_) => {}
                other => panic!("a pong is due, not {other:?}"),
            }
        }
    }

    /// The next message down but notices, which are kept; the close frame is the error.
    pub async fn next(&mut self) -> Result<Down, Option<CloseFrame>> {
        loop {
            let message = within("a message down", self.socket.next()).await;
            let down: v1::Down = match (self.form, message.expect("a close frame first").expect("a message"))
            {
                (Form::Text, Message::Text(text)) => json::read(text.as_bytes()).expect("a Down"),
                (Form::Binary, Message::Binary(bytes)) => v1::Down::decode(bytes).expect("a Down"),
                (_, Message::Ping(_) | Message::Pong(_)) => continue,
                (_, Message::Close(frame)) => return Err(frame),
                (form, other) => panic!("{other:?} on a stream of {form:?}"),
            };
            match down.message.expect("no empty message") {
                Down::Notice(notice) => self.notices.push(notice),
                message => return Ok(message),
            }
        }
    }

    /// The next Output; fails for anything else.
    pub async fn output(&mut self) -> v1::Output {
        match self.next().await {
            Ok(Down::Output(output)) => output,
            other => panic!("an Output is due, not {other:?}"),
        }
    }

    /// The next Fault; fails for anything else.
    pub async fn fault(&mut self) -> v1::Fault {
        match self.next().await {
            Ok(Down::Fault(fault)) => fault,
            other => panic!("a Fault is due, not {other:?}"),
        }
    }

    /// Sends a frame and takes its Output.
    pub async fn send(&mut self, frame: v1::Frame) -> v1::Output {
        self.put(frame).await;
        self.output().await
    }

    /// The fault and the close frame with which the server ends the stream: code and reason.
    pub async fn ended(&mut self) -> (v1::Fault, u16, String) {
        let mut last = None;
        loop {
            match self.next().await {
                Ok(Down::Fault(fault)) => last = Some(fault),
                Ok(_) => last = None,
                Err(frame) => {
                    let frame = frame.expect("a close frame says why");
                    let fault = last.expect("a fault comes last");
                    return (fault, frame.code.into(), frame.reason.to_string());
                }
            }
        }
    }

    /// Asserts that the server closes it well.
    pub async fn closed(mut self) {
        match self.next().await {
            Err(Some(frame)) => assert_eq!((u16::from(frame.code), &*frame.reason), (1000, "closed")),
            other => panic!("the end is due, not {other:?}"),
        }
    }

    /// Closes it.
    pub async fn close(mut self) {
        within("a close", self.socket.close(None)).await.expect("the close is sent");
        while let Some(Ok(_)) = within("the end", self.socket.next()).await {}
    }
}

/// Asks for a stream that is refused before the upgrade.
pub async fn refused(server: &Latentd, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = server.client.get(server.url(path));
    let own = [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    for (name, value) in own.iter().filter(|(name, _)| headers.iter().all(|(other, _)| other != name)) {
        request = request.header(*name, *value);
    }
    for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
        request = request.header(*name, *value);
    }
    Answer::of(request).await
}
