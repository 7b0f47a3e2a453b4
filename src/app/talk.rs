//! A rig's stream, whatever carries it: what comes up is fed to its session, what is due goes down.
//! Enters: what is heard of the rig, in order. Leaves: `attached`, then messages down, then the end.
//! Owns: the attachment. Must hold: no more is read than the window has room for; a rig that has ended its side still
//! gets every answer that it is owed; what comes is fed where the talk is polled, so that a lone row runs and is answered
//! without a hop between threads, unless its preprocessing would hold that thread up. Must not know: gRPC, WebSocket.

use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{FutureExt as _, Stream, StreamExt as _};

use super::live::data_bytes;
use super::{App, beside, is_large};
use crate::domain::caller::Caller;
use crate::domain::time::Stamp;
use crate::error::{Fault, Kind};
use crate::metrics::Metrics;
use crate::session::{Attachment, Outgoing};
use crate::wire::v1;
use crate::wire::v1::down::Message as Down;
use crate::wire::v1::up::Message as Up;

/// What is heard of a rig. The end of a stream of these says that the rig has ended its side.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are messages; a box would be an allocation for each frame"
)]
pub enum Heard {
    /// A message.
    Message(Up),
    /// A message that could not be read, and why. It is answered with that, and the stream goes on.
    Unreadable(Fault),
    /// Nothing more will be heard, for this reason. It ends the stream.
    BrokeOff(Fault),
}

impl Heard {
    /// What was read of a stream: a message, or one that says nothing.
    pub fn of(up: v1::Up) -> Self {
        match up.message {
            Some(message) => Heard::Message(message),
            None => {
                let detail = "the message is no Up with attach, frame or probe";
                Heard::Unreadable(Fault::new(Kind::Malformed, detail))
            }
        }
    }
}

/// An attached stream that nothing has been heard of. Dropped, it detaches; the session goes on.
pub struct Attached {
    attachment: Attachment,
    metrics: Arc<Metrics>,
    farewell: Farewell,
}

/// One attached stream. Dropped, it detaches; the session goes on.
pub struct Talk<S> {
    attachment: Arc<Attachment>,
    ups: S,
    /// Frames that are being fed beside the runtime's threads. Nothing more is heard meanwhile.
    feeding: Option<BoxFuture<'static, Result<(), Fault>>>,
    state: State,
    metrics: Arc<Metrics>,
    farewell: Farewell,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// `attached` is still to be sent.
    Fresh,
    Open,
    /// The rig has ended its side: what is unanswered is still answered.
    HalfClosed,
    Over,
}

impl App {
    /// Attaches a stream to the signals that `attach` names. Errors: `not_found`, `conflict`, `unavailable`.
    pub fn attach(&self, who: &Caller, attach: &v1::Attach) -> Result<Attached, Fault> {
        let attachment = self.live.attach(who, attach)?;
        Ok(Attached {
            attachment,
            metrics: Arc::clone(&self.metrics),
            farewell: Farewell { who: who.clone() },
        })
    }
}

impl Attached {
    /// Begins to hear the rig; the talk goes on for as long as it is polled.
    pub fn talk<S: Stream<Item = Heard> + Unpin>(self, ups: S) -> Talk<S> {
        let Self { attachment, metrics, farewell } = self;
        let attachment = Arc::new(attachment);
        Talk { attachment, ups, feeding: None, state: State::Fresh, metrics, farewell }
    }
}

impl<S: Stream<Item = Heard> + Unpin> Talk<S> {
    /// The next message down; a fault is the stream's end, `None` its good end. Cancel-safe: nothing is taken from
    /// either side unless it is dealt with.
    pub async fn next(&mut self) -> Option<Result<Down, Fault>> {
        match self.state {
            State::Fresh => {
                self.state = State::Open;
                return Some(Ok(Down::Attached(self.attachment.attached())));
            }
            State::Over => return None,
            State::Open | State::HalfClosed => {}
        }
        loop {
            if self.state == State::HalfClosed && self.feeding.is_none() && self.attachment.is_answered() {
                self.state = State::Over;
                return None;
            }
            // Why read here and not in the `select!`: the guard of a branch is fixed when it begins.
            let listens = self.listens();
            // Cancel-safe: neither side gives anything up unless it is returned.
            tokio::select! {
                biased;
                outgoing = self.attachment.next() => match outgoing {
                    Outgoing::Message(mut message) => {
                        self.count(&message);
                        if let Down::Fault(fault) = &mut message {
                            // A session knows no requests; this is the one that the stream is.
                            fault.request_id.clone_from(&self.farewell.who.request_id);
                        }
                        return Some(Ok(message));
                    }
                    Outgoing::Room => {}
                    Outgoing::Finished => {
                        self.state = State::Over;
                        return None;
                    }
                    Outgoing::End(refused) => return Some(Err(self.over(refused))),
                },
                fed = async {
                    match &mut self.feeding {
                        Some(feeding) => feeding.await,
                        None => std::future::pending().await,
                    }
                } => {
                    self.feeding = None;
                    if let Err(refused) = fed {
                        return Some(Err(self.over(refused)));
                    }
                }
                heard = self.ups.next(), if listens => {
                    if let Err(refused) = self.take(heard, Stamp::now()) {
                        return Some(Err(self.over(refused)));
                    }
                }
            }
        }
    }

    /// Whether the rig is listened to: not while its window is full or its frames are being fed, and not once it has
    /// ended its side.
    pub fn listens(&self) -> bool {
        let is_open = matches!(self.state, State::Fresh | State::Open);
        is_open && self.feeding.is_none() && self.attachment.may_read()
    }

    /// Detaches, once what is being fed is taken, and gives the rig's side back.
    pub fn into_ups(self) -> S {
        self.ups
    }

    /// Takes what was heard, and whatever lies ready behind it, so that a backlog is stepped as one chunk.
    fn take(&mut self, first: Option<Heard>, received: Stamp) -> Result<(), Fault> {
        let mut frames = Vec::new();
        let mut broken = None;
        let mut heard = first;
        let room = self.attachment.room();
        // What is refused counts, too: each leaves a fault in the outbox.
        for taken in 1.. {
            match heard {
                Some(Heard::Message(Up::Frame(frame))) => frames.push(frame),
                Some(Heard::Message(Up::Attach(_))) => {
                    self.attachment.refuse(Fault::new(Kind::Invalid, "this stream is attached already"));
                }
                Some(Heard::Message(Up::Probe(ask))) => self.attachment.probe(&ask, Stamp::now()),
                Some(Heard::Unreadable(why)) => self.attachment.refuse(why),
                Some(Heard::BrokeOff(why)) => {
                    broken = Some(why);
                    break;
                }
                None => {
                    self.state = State::HalfClosed;
                    break;
                }
            }
            if taken >= room {
                break;
            }
            match self.ups.next().now_or_never() {
                Some(ready) => heard = ready,
                None => break,
            }
        }
        let fed = self.feed(frames, received);
        broken.map_or(fed, Err)
    }

    /// Feeds frames: here, so that a lone row is answered without a hop, or beside the runtime's threads where that takes
    /// long.
    fn feed(&mut self, frames: Vec<v1::Frame>, received: Stamp) -> Result<(), Fault> {
        let is_long = || self.attachment.is_long(frames.len());
        if frames.is_empty() || !is_long().unwrap_or_else(|| is_large(frames.iter().map(data_bytes).sum())) {
            self.attachment.feed(frames, received);
            return Ok(());
        }
        // Held until all is fed: a stream that breaks off has sent these frames before.
        let attachment = Arc::clone(&self.attachment);
        let mut feeding = beside(true, move || {
            attachment.feed(frames, received);
            Ok(())
        })
        .boxed();
        // Begun here, whether or not the talk is polled again.
        match feeding.as_mut().now_or_never() {
            Some(fed) => fed,
            None => {
                self.feeding = Some(feeding);
                Ok(())
            }
        }
    }
}

impl<S> Talk<S> {
    fn over(&mut self, refused: Fault) -> Fault {
        self.state = State::Over;
        self.metrics.rejected(refused.kind);
        refused
    }

    fn count(&self, message: &Down) {
        if let Down::Fault(refused) = message
            && let Some(kind) = Kind::parse(&refused.kind)
        {
            self.metrics.rejected(kind);
        }
    }
}

/// The last word about a stream, however it ends.
struct Farewell {
    who: Caller,
}

impl Drop for Farewell {
    fn drop(&mut self) {
        tracing::debug!(request.id = %self.who.request_id, "stream ended");
    }
}
