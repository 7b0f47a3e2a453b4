//! A rig's stream over WebSocket: messages of the schema, as JSON in text or as protobuf.
//! Enters: a request to upgrade, then messages up. Leaves: the same refusals as any other call before the upgrade; after
//! it messages down, and at the end why, as a fault and a close frame.
//! Owns: pings and the silence of a rig. Must hold: what rules a stream has are `app`'s; whoever does not read is given
//! up after the same silence; a rig that is not listened to is not called silent. Must not know: sessions.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{FutureExt as _, SinkExt as _, Stream, StreamExt as _};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use prost::Message as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{Error, ProtocolError};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};
use tokio_util::sync::CancellationToken;

use super::Streams;
use super::message::{Problem, Query};
use super::pulse::{Noted, Pulse};
use super::route::query;
use crate::app::App;
use crate::app::talk::{Attached, Heard, Talk};
use crate::domain::caller::Caller;
use crate::error::{Fault, Kind};
use crate::wire::{self, v1};

/// Bytes of the key that a client draws for its handshake.
const KEY_BYTES: usize = 16;
/// The subprotocol that asks for protobuf.
const PROTO: &str = "latentd.v1.proto";
/// Buffers of a connection, each way; a larger message has a larger one for its time.
const BUFFER_BYTES: usize = 16 << 10;
/// Messages that go out together before they are flushed.
const TOGETHER: usize = 32;
/// How long the last words of a stream may take, and how much of what still comes is read over meanwhile, so that they
/// are not lost in a reset.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 16 << 20;
/// How long a rig may be silent, once all is closing, before nothing more is expected of it: an idle one that never
/// answers the close frame must not hold the end of the server.
const QUIET: Duration = Duration::from_millis(250);

query! {
    /// `GET /v1/sessions/{s}/stream?`
    StreamQuery {
        /// The writer token; where no stream is attached, none is needed.
        writer: String,
        /// The one signal that it writes; else all of the token's.
        signal: String,
    }
}

pub async fn stream(
    State(app): State<App>,
    Extension(streams): Extension<Arc<Streams>>,
    Path(session): Path<String>,
    who: Caller,
    query: Query<StreamQuery>,
    mut request: Request,
) -> Result<Response, Problem> {
    // A session that is not there is told to whoever asks, also without an upgrade.
    app.live.knows(&who, &session)?;
    let key = handshake(request.headers())?;
    let form = Form::asked(request.headers());
    let StreamQuery { writer, signal } = query.0;
    let attach = v1::Attach { session, writer: writer.unwrap_or_default(), signal };
    let attached = app.attach(&who, &attach)?;
    let upgrade = hyper::upgrade::on(&mut request);
    let revoked = app.revoked(&who);
    streams.tasks.clone().spawn(hold(upgrade, attached, form, who, streams, revoked));

    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, key);
    if form == Form::Protobuf {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTO));
    }
    Ok(response)
}

/// Whether one of the comma-separated words of a header is this one.
fn has_word(headers: &HeaderMap, name: header::HeaderName, word: &str) -> bool {
    let texts = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).any(|found| found.trim().eq_ignore_ascii_case(word))
}

/// The answer to the key of a request that asks for WebSocket. Errors: `malformed`, naming the header that is wrong.
fn handshake(headers: &HeaderMap) -> Result<HeaderValue, Fault> {
    let wrong = |what: &str| {
        let detail = format!("this call is a WebSocket's: {what} (RFC 6455, version 13, over HTTP/1.1)");
        Fault::new(Kind::Malformed, detail)
    };
    if !has_word(headers, header::CONNECTION, "upgrade") || !has_word(headers, header::UPGRADE, "websocket") {
        return Err(wrong("the headers `connection: upgrade` and `upgrade: websocket` are not there"));
    }
    if !has_word(headers, header::SEC_WEBSOCKET_VERSION, "13") {
        return Err(wrong("the header `sec-websocket-version` is not 13"));
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY);
    let key = key.ok_or_else(|| wrong("the header `sec-websocket-key` is not there"))?;
    if STANDARD.decode(key.as_bytes()).map(|bytes| bytes.len()) != Ok(KEY_BYTES) {
        return Err(wrong("the header `sec-websocket-key` is not 16 bytes in base64"));
    }
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes()));
    Ok(accept.expect("base64 is what a header can hold"))
}

/// How messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// JSON in text messages.
    Json,
    /// Protobuf in binary messages.
    Protobuf,
}

impl Form {
    fn asked(headers: &HeaderMap) -> Self {
        if has_word(headers, header::SEC_WEBSOCKET_PROTOCOL, PROTO) { Form::Protobuf } else { Form::Json }
    }

    fn read(self, message: Message) -> Result<v1::Up, Fault> {
        match (self, message) {
            (Form::Json, Message::Text(text)) => wire::json::read(text.as_bytes()),
            (Form::Protobuf, Message::Binary(bytes)) => wire::codec::read(bytes),
            (Form::Json, _) => Err(Fault::new(
                Kind::Malformed,
                format!(
                    "a binary message on a stream of JSON: send text, or ask for the subprotocol `{PROTO}`"
                ),
            )),
            (Form::Protobuf, _) => Err(Fault::new(
                Kind::Malformed,
                format!("a text message on a stream of protobuf (`{PROTO}`): send binary messages"),
            )),
        }
    }

    fn write(self, down: v1::down::Message) -> Message {
        let down = v1::Down { message: Some(down) };
        match self {
            Form::Protobuf => Message::Binary(down.encode_to_vec().into()),
            Form::Json => {
                let text = String::from_utf8(wire::json::write(&down));
                Message::Text(text.expect("JSON is written in UTF-8").into())
            }
        }
    }
}

type Socket = WebSocketStream<Noted<TokioIo<Upgraded>>>;

/// What comes up, in the words of `app`. A close frame is the rig's end of its side.
struct Ups {
    socket: SplitStream<Socket>,
    form: Form,
    message_bytes: usize,
    /// The rig has closed it with a code that none may send.
    is_closed_badly: bool,
}

impl Stream for Ups {
    type Item = Heard;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Heard>> {
        loop {
            let message = match ready!(self.socket.poll_next_unpin(cx)) {
                None => return Poll::Ready(None),
                Some(Ok(message)) => message,
                Some(Err(error)) => {
                    let why = broke_off(&error, self.message_bytes);
                    return Poll::Ready(Some(Heard::BrokeOff(why)));
                }
            };
            match message {
                Message::Close(Some(frame)) if is_answered_by_the_library(&frame) => {
                    self.is_closed_badly = true;
                    return Poll::Ready(Some(Heard::BrokeOff(Fault::new(
                        Kind::Malformed,
                        "not WebSocket: found a close frame with a code that none may send, expected 1000 to 1003, \
                         1007 to 1013 or 3000 to 4999 (RFC 6455)",
                    ))));
                }
                Message::Close(_) => return Poll::Ready(None),
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
                message => {
                    return Poll::Ready(Some(
                        self.form.read(message).map_or_else(Heard::Unreadable, Heard::of),
                    ));
                }
            }
        }
    }
}

/// Whether this is not the rig's close frame but the library's answer to one whose code may not be sent.
/// Why by its phrase: that is all that the library lets be known of it.
fn is_answered_by_the_library(frame: &CloseFrame) -> bool {
    frame.code == CloseCode::Protocol && frame.reason.as_str() == "Protocol violation"
}

/// What ended a stream on the rig's side.
fn broke_off(error: &Error, message_bytes: usize) -> Fault {
    match error {
        Error::Capacity(_) => {
            Fault::new(Kind::TooLarge, format!("the message is over message_limit, {message_bytes} bytes"))
        }
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) | Error::Io(_) => {
            Fault::new(Kind::Unavailable, "the stream broke off")
        }
        Error::Utf8(_) => Fault::new(
            Kind::Malformed,
            "not WebSocket: the text of a message, or of a close frame, is not UTF-8",
        ),
        Error::Protocol(broken) => Fault::new(Kind::Malformed, format!("not WebSocket: {}", rule(broken))),
        _ => Fault::new(Kind::Malformed, "not WebSocket: the bytes are no frames of it"),
    }
}

/// The rule of RFC 6455 that a rig has broken.
fn rule(broken: &ProtocolError) -> String {
    let (found, expected) = match broken {
        ProtocolError::ReceivedAfterClosing => ("a frame behind the close frame", "nothing more"),
        ProtocolError::NonZeroReservedBits => {
            ("a frame with a reserved bit set", "all three 0: no extension is agreed on")
        }
        ProtocolError::UnmaskedFrameFromClient => {
            ("a frame that is not masked", "a mask on each frame of a client")
        }
        ProtocolError::FragmentedControlFrame => ("a control frame in pieces", "it whole"),
        ProtocolError::ControlFrameTooBig => ("a control frame over 125 bytes", "at most 125"),
        ProtocolError::UnexpectedContinueFrame => {
            ("a piece of a message that did not begin", "a text or binary frame")
        }
        ProtocolError::ExpectedFragment(_) => {
            ("a new message inside another that comes in pieces", "its next piece")
        }
        ProtocolError::InvalidCloseSequence => {
            ("a close frame that is none", "none, or a code and a reason in UTF-8")
        }
        ProtocolError::UnknownControlFrameType(code)
        | ProtocolError::UnknownDataFrameType(code)
        | ProtocolError::InvalidOpcode(code) => {
            return format!("found a frame with the opcode {code}, expected 0, 1, 2, 8, 9 or 10 (RFC 6455)");
        }
        _ => ("bytes that are no frame", "frames of version 13"),
    };
    format!("found {found}, expected {expected} (RFC 6455)")
}

/// The code of the close frame: RFC 6455 section 7.4.1, and where that has none, 4000 and the HTTP status.
fn close_code(kind: Kind) -> u16 {
    match kind {
        Kind::Unavailable => 1001,
        Kind::Malformed => 1002,
        Kind::TooLarge => 1009,
        Kind::Internal => 1011,
        other => 4000 + other.codes().0,
    }
}

/// One stream from its upgrade to its end, at the latest when the rig's key is revoked.
async fn hold(
    upgrade: OnUpgrade,
    attached: Attached,
    form: Form,
    who: Caller,
    streams: Arc<Streams>,
    revoked: impl Future<Output = Fault> + Send,
) {
    let hard = streams.hard.clone();
    let held = async {
        let Ok(Ok(upgraded)) = timeout(streams.first_byte, upgrade).await else { return };
        let config = WebSocketConfig::default()
            .max_message_size(Some(streams.message_bytes))
            .max_frame_size(Some(streams.message_bytes))
            .read_buffer_size(BUFFER_BYTES)
            .write_buffer_size(BUFFER_BYTES);
        let pulse = Pulse::new();
        let road = Noted { road: TokioIo::new(upgraded), pulse: Arc::clone(&pulse) };
        let (down, socket) = WebSocketStream::from_raw_socket(road, Role::Server, Some(config)).await.split();
        let ups = Ups { socket, form, message_bytes: streams.message_bytes, is_closed_badly: false };
        let line = Line { talk: attached.talk(ups), down, form, pulse, streams };
        line.hold(&who, revoked).await;
    };
    tokio::select! {
        () = hard.cancelled() => {}
        () = held => {}
    }
}

/// How a line ends.
enum End {
    /// With a fault to be told, or well.
    Said(Option<Fault>),
    /// There is nobody to tell.
    Gone,
}

/// An attached stream with the road under it.
struct Line {
    talk: Talk<Ups>,
    down: SplitSink<Socket, Message>,
    form: Form,
    pulse: Arc<Pulse>,
    streams: Arc<Streams>,
}

impl Line {
    async fn hold(mut self, who: &Caller, revoked: impl Future<Output = Fault> + Send) {
        match self.carry(revoked).await {
            End::Gone => tracing::debug!(request.id = %who.request_id, "a WebSocket went silent"),
            End::Said(why) => {
                // Why ignored: whoever has left hears no last words.
                let _ = timeout(LINGER, self.end(why, who)).await;
            }
        }
    }

    /// Carries messages both ways until one side has enough.
    async fn carry(&mut self, revoked: impl Future<Output = Fault> + Send) -> End {
        let Streams { ping, dead_after, .. } = *self.streams;
        let mut pings = interval_at(Instant::now() + ping, ping);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut silent = std::pin::pin!(sleep_until(self.pulse.last_came() + dead_after));
        let mut revoked = std::pin::pin!(revoked);
        loop {
            // Cancel-safe: a talk takes nothing that it has not dealt with, and clocks have nothing to lose.
            tokio::select! {
                biased;
                fault = &mut revoked => return End::Said(Some(fault)),
                next = self.talk.next() => match next {
                    Some(Ok(down)) => match self.say(down).await {
                        Ok(None) => {}
                        Ok(Some(end)) => return end,
                        // The rig has closed, and wants nothing more; its session goes on.
                        Err(Error::Protocol(ProtocolError::SendAfterClosing)) => return End::Said(None),
                        Err(_) => return End::Gone,
                    },
                    Some(Err(why)) => return End::Said(Some(why)),
                    None => return End::Said(None),
                },
                () = &mut silent => {
                    if !self.talk.listens() {
                        // What came lies unread behind the window.
                        self.pulse.came();
                    }
                    let dead_at = self.pulse.last_came() + dead_after;
                    if dead_at <= Instant::now() {
                        return End::Gone;
                    }
                    silent.as_mut().reset(dead_at);
                }
                _ = pings.tick() => {
                    if within(&self.streams, &self.pulse, self.down.send(Message::Ping(Bytes::new()))).await.is_err() {
                        return End::Gone;
                    }
                }
            }
        }
    }

    /// Sends a message, and whatever is ready behind it; that may be the end.
    async fn say(&mut self, first: v1::down::Message) -> Result<Option<End>, Error> {
        let mut down = first;
        for _ in 1..TOGETHER {
            within(&self.streams, &self.pulse, self.down.feed(self.form.write(down))).await?;
            match self.talk.next().now_or_never() {
                Some(Some(Ok(next))) => down = next,
                Some(Some(Err(why))) => return Ok(Some(End::Said(Some(why)))),
                Some(None) => return Ok(Some(End::Said(None))),
                None => {
                    within(&self.streams, &self.pulse, self.down.flush()).await?;
                    return Ok(None);
                }
            }
        }
        within(&self.streams, &self.pulse, self.down.send(self.form.write(down))).await?;
        Ok(None)
    }

    /// Detaches, says why it ends, and lets the last words arrive.
    async fn end(self, why: Option<Fault>, who: &Caller) -> Result<(), Error> {
        let Self { talk, mut down, form, streams, .. } = self;
        let Ups { socket, is_closed_badly, .. } = talk.into_ups();
        let (code, reason) =
            why.as_ref().map_or((1000, "closed"), |why| (close_code(why.kind), why.kind.word()));
        let close = CloseFrame { code: code.into(), reason: reason.into() };
        let fault = why.map(|why| {
            let fault = wire::fault::message(&why, who.request_id.as_str());
            form.write(v1::down::Message::Fault(fault))
        });
        // Behind a close frame the socket sends nothing but its own answer; to a bad one we have another, and what still
        // lies in its buffer is lost, as the rig wanted.
        let mut own = Vec::new();
        if is_closed_badly {
            if let Some(fault) = fault {
                frame(fault).format(&mut own)?;
            }
            Frame::close(Some(close)).format(&mut own)?;
        } else {
            if let Some(fault) = fault {
                down.feed(fault).await?;
            }
            // Why ignored: a rig that closed first has its answer already.
            let _ = down.send(Message::Close(Some(close))).await;
            let _ = down.flush().await;
        }
        let Ok(socket) = down.reunite(socket) else { return Ok(()) };
        let mut road = socket.into_inner();
        road.write_all(&own).await?;
        road.shutdown().await?;
        Ok(read_over(road, &streams.closing).await?)
    }
}

/// A message of ours as the one frame that carries it.
fn frame(message: Message) -> Frame {
    let kind = if message.is_text() { Data::Text } else { Data::Binary };
    Frame::message(message.into_data(), OpCode::Data(kind), true)
}

/// Reads what still comes until the rig closes its side, or is silent while all is closing.
async fn read_over(mut road: impl AsyncRead + Unpin, closing: &CancellationToken) -> io::Result<()> {
    let mut rest = [0; 4096];
    let mut passed = 0;
    while passed < LINGER_BYTES {
        let quiet = async {
            closing.cancelled().await;
            sleep(QUIET).await;
        };
        // Cancel-safe: what is read is of no use.
        tokio::select! {
            biased;
            read = road.read(&mut rest) => match read? {
                0 => break,
                read => passed += read,
            },
            () = quiet => break,
        }
    }
    Ok(())
}

/// A message on its way down; given up where nothing of it has moved for as long as silence is dead, or for long once
/// all is closing.
async fn within(
    streams: &Streams,
    pulse: &Pulse,
    sending: impl Future<Output = Result<(), Error>>,
) -> Result<(), Error> {
    let closed = async {
        streams.closing.cancelled().await;
        sleep(LINGER).await;
    };
    tokio::select! {
        biased;
        sent = sending => sent,
        () = pulse.stands_still(streams.dead_after) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
        () = closed => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn once_all_is_closing_a_rig_that_sends_nothing_and_does_not_close_is_not_waited_for() {
        let (road, _rig) = tokio::io::duplex(64);
        let closing = CancellationToken::new();
        let mut over = std::pin::pin!(read_over(road, &closing));
        // The clock stands still but for what is waited for.
        timeout(LINGER, &mut over).await.expect_err("before that, its close is waited for");
        closing.cancel();
        let begun = Instant::now();
        over.await.expect("a road");
        assert!((QUIET..2 * QUIET).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_rig_that_still_sends_is_read_on_so_that_the_last_words_reach_it() {
        let (road, mut rig) = tokio::io::duplex(64);
        let closing = CancellationToken::new();
        closing.cancel();
        let sends = async move {
            for _ in 0..10 {
                sleep(QUIET / 2).await;
                rig.write_all(&[7; 64]).await.expect("it is read on");
            }
            drop(rig);
            Instant::now()
        };
        let begun = Instant::now();
        let (over, closed) = tokio::join!(read_over(road, &closing), sends);
        over.expect("a road");
        assert_eq!(closed - begun, QUIET * 5);
        assert!(begun.elapsed() < QUIET * 6, "its close ends it");
    }
}
