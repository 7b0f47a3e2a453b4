//! A stream that writes: its messages up become frames, its outbox is what goes down.

use std::sync::Arc;

use super::core::Core;
use super::live::Session;
use super::order::{Sink, Writer, same_token};
use super::outbox::{Outbox, Outgoing};
use crate::domain::ids::SignalName;
use crate::domain::output::{EventKind, Notice};
use crate::domain::time::Stamp;
use crate::domain::trace::RequestSpan;
use crate::error::{Fault, Kind};
use crate::wire::v1;

/// Why a stream that does not read is ended.
const OVERRUN: &str = "bins that closed without a frame of this stream wait for it, and it does not read them; \
    attach again, what it did not get is in the run";

/// An attached stream. Dropped, it detaches; the session goes on.
pub struct Attachment {
    pub(super) session: Arc<Session>,
    /// Its number in the session.
    stream: u64,
    pub(super) outbox: Arc<Outbox>,
    /// The span of the request that it began with.
    request: Option<RequestSpan>,
}

impl Session {
    /// Makes a stream the writer of `signal`, or of all signals of the token, or of all. Where another stream is
    /// attached, the token is needed, and takes over: the old stream ends `replaced`.
    /// Errors: `not_found` (signal), `conflict` (token), `unavailable` (closing).
    pub fn attach(
        self: &Arc<Self>,
        writer: &str,
        signal: Option<&str>,
        request: Option<RequestSpan>,
        now: Stamp,
    ) -> Result<Attachment, Fault> {
        let asked = signal.map(|name| self.signal(name)).transpose()?;
        let mut core = self.core.lock();
        self.still_open(&core)?;
        let signals: Vec<usize> = match asked {
            Some(signal) => vec![signal],
            None => {
                let of_token = (0..core.orders.len())
                    .filter(|&at| same_token(&core.orders[at].token, writer))
                    .collect::<Vec<_>>();
                if of_token.is_empty() { (0..core.orders.len()).collect() } else { of_token }
            }
        };
        for &at in &signals {
            let order = &core.orders[at];
            if order.attached.is_some() && !same_token(&order.token, writer) {
                let name = &self.signals[at].name;
                return Err(Fault::new(
                    Kind::Conflict,
                    format!(
                        "signal {name}: another stream writes it; to take over, attach with its writer token"
                    ),
                ));
            }
        }
        core.stream_count += 1;
        core.last_sign = now;
        let stream = core.stream_count;
        let outbox = Arc::new(Outbox::new(self.window));
        for &at in &signals {
            if let Some((_, old)) = core.orders[at].attached.replace((stream, Arc::clone(&outbox))) {
                let name = self.signals[at].name.clone();
                old.put(Outgoing::End(Fault::new(
                    Kind::Replaced,
                    format!("signal {name}: another stream took over with the writer token"),
                )));
                let detail = format!("stream {stream} took over");
                self.tell(&mut core, self.notice(EventKind::WriterReplaced, &name, detail, now));
            }
        }
        Ok(Attachment { session: Arc::clone(self), stream, outbox, request })
    }

    /// Ends the streams that do not read what is pushed to them: they are detached, and told why behind what waits.
    pub(super) fn end_overrun(&self, core: &mut Core, now: Stamp) {
        let overrun = core.outboxes().filter(|(_, outbox)| outbox.is_overrun());
        let overrun: Vec<(u64, Arc<Outbox>)> =
            overrun.map(|(stream, outbox)| (stream, Arc::clone(outbox))).collect();
        for (stream, outbox) in overrun {
            outbox.put(Outgoing::End(Fault::new(Kind::Overloaded, OVERRUN)));
            self.detach(core, stream, format!("stream {stream} was ended: {OVERRUN}"), now);
        }
    }

    /// A stream writes nothing any more, if it still did.
    fn detach(&self, core: &mut Core, stream: u64, detail: String, now: Stamp) {
        core.left = Some(now.instant);
        for at in 0..core.orders.len() {
            if core.orders[at].attached.take_if(|(attached, _)| *attached == stream).is_some() {
                let name = &self.signals[at].name;
                self.tell(core, self.notice(EventKind::Detached, name, detail.clone(), now));
            }
        }
    }

    fn notice(&self, kind: EventKind, signal: &SignalName, detail: String, now: Stamp) -> Notice {
        let (signal, t_ns) = (Some(signal.clone()), now.unix_ns);
        Notice { kind, signal, from_bin: None, to_bin: None, count: 1, detail, t_ns }
    }
}

impl Attachment {
    /// Where each signal stands: the first message down.
    pub fn attached(&self) -> v1::Attached {
        let info = self.session.standing();
        v1::Attached { durable_seq: self.session.durable_seq(), window: self.session.window as u32, ..info }
    }

    /// Whether so many frames, fed together, are known to hold a thread for longer than one of the runtime's may be held.
    /// `None`: nothing was measured yet.
    pub fn is_long(&self, frames: usize) -> Option<bool> {
        self.session.is_long(frames)
    }

    /// Takes frames that came together. One of a signal that this stream does not write needs the signal's token.
    pub fn feed(&self, frames: Vec<v1::Frame>, received: Stamp) {
        let frames = frames.into_iter().map(|frame| (frame, Sink::Stream(Arc::clone(&self.outbox))));
        self.session.feed(frames, Writer::Stream(self.stream), received, self.request);
    }

    /// Answers a message that could not be read.
    pub fn refuse(&self, fault: Fault) {
        Sink::Stream(Arc::clone(&self.outbox)).fault(fault);
    }

    /// The next message down; a probe's reply is stamped here, so that its wait behind others is none of the road's.
    /// Cancel-safe.
    pub async fn next(&self) -> Outgoing {
        let mut outgoing = self.outbox.next().await;
        if let Outgoing::Message(v1::down::Message::Probe(reply)) = &mut outgoing {
            self.session.stamp(reply);
        }
        outgoing
    }

    /// How many more frames may be read: `window`, less those that are unanswered or wait to be sent.
    pub fn room(&self) -> usize {
        self.session.window.saturating_sub(self.outbox.pending())
    }

    /// Whether another frame may be read.
    pub fn may_read(&self) -> bool {
        self.room() > 0
    }

    /// Whether all that came was answered and sent.
    pub fn is_answered(&self) -> bool {
        self.outbox.pending() == 0
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let mut core = self.session.core.lock();
        let detail = format!("stream {} ended", self.stream);
        self.session.detach(&mut core, self.stream, detail, Stamp::now());
    }
}
