//! A subscriber: one who is told what a session gives, and never holds it up.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::fanout::{Next, Round};
use super::live::Session;
use super::mailbox::Mailbox;
use crate::domain::output::find_output;
use crate::error::{Fault, Kind};
use crate::wire::told::Told;
use crate::wire::v1;

/// Subscribers that are woken at once: a frame that comes meanwhile waits for no more of them than these.
const AT_ONCE: usize = 16;
/// A rarer message is as good as none.
const LONGEST_PERIOD: Duration = Duration::from_secs(24 * 3600);

/// A subscriber's place at a session. Dropped, it leaves.
pub struct Subscription {
    session: Arc<Session>,
    number: u64,
    mailbox: Arc<Mailbox>,
}

impl Subscription {
    /// The next message; the last one is the end. Cancel-safe: nothing is taken unless it is returned.
    pub async fn next(&self) -> Option<Told> {
        self.mailbox.next().await
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.session.fanout.leave(self.number);
    }
}

impl Session {
    /// Subscribes to these outputs (none: all), at most `max_hz` messages a second. The second value asks the caller to
    /// have `hand_out` run.
    /// Errors: `not_found` (output), `invalid` (a rate that is none), `unavailable` (closing).
    pub fn subscribe(
        self: &Arc<Self>,
        outputs: &[String],
        max_hz: Option<f64>,
    ) -> Result<(Subscription, bool), Fault> {
        let mut chosen = vec![outputs.is_empty(); self.outputs.len()];
        for name in outputs {
            let at = find_output(&self.outputs, name).ok_or_else(|| {
                let names = self.outputs.iter().map(|output| output.name.as_str());
                Fault::not_found("output", name, names)
            })?;
            chosen[at] = true;
        }
        let period = max_hz.map(period).transpose()?;
        self.still_open(&self.core.lock())?;
        let joined = self.fanout.join(chosen, period).ok_or_else(|| {
            Fault::new(Kind::Unavailable, format!("session {} has ended; its run stays", self.id))
        })?;
        let place =
            Subscription { session: Arc::clone(self), number: joined.number, mailbox: joined.mailbox };
        Ok((place, joined.is_first))
    }

    /// Hands out to the subscribers until there are none, or the session has ended.
    pub async fn hand_out(self: Arc<Self>) {
        loop {
            let finish = |output: &mut v1::Output| output.durable_seq = self.durable_seq();
            let Round { told, lost, next } = self.fanout.hand_out(Instant::now(), finish);
            self.meter.lost(lost);
            for few in told.chunks(AT_ONCE) {
                few.iter().for_each(|mailbox| mailbox.wake());
                tokio::task::yield_now().await;
            }
            match next {
                Next::Over => return,
                Next::Now => tokio::task::yield_now().await,
                // Why ignored: stirred or due, the next round looks at both.
                Next::Round(Some(due)) => _ = tokio::time::timeout_at(due, self.fanout.stirred()).await,
                Next::Round(None) => self.fanout.stirred().await,
            }
        }
    }
}

/// Least time between two messages.
fn period(max_hz: f64) -> Result<Duration, Fault> {
    if max_hz.is_finite() && max_hz > 0.0 {
        let period = Duration::try_from_secs_f64(1.0 / max_hz).unwrap_or(LONGEST_PERIOD);
        return Ok(period.min(LONGEST_PERIOD));
    }
    Err(Fault::mismatch("max_hz", "a finite number over 0", max_hz.to_string()))
}
