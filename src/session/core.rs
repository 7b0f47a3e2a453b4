//! What a session owns behind its lock, which is held to judge a frame, to lay work down or to commit a bin, never for
//! preprocessing (`binning`) or a run.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::clocks::Exchanges;
use super::lag::LagStats;
use super::order::{Answer, Order};
use super::outbox::{Outbox, Outgoing};
use super::part::{OpenPart, Part};
use super::switching::{Pending, Replaced};
use crate::batch::{Onward, Place};
use crate::domain::output::Flags;
use crate::domain::time::Stamp;
use crate::error::{Fault, Kind};
use crate::health::Health;
use crate::pipeline::journey::Journey;
use crate::pipeline::understudy::Understudy;
use crate::recorder::{Record, Ticket};
use crate::signal::act::Act;
use crate::signal::standing::Standing;
use crate::signal::step::{Bin, Counts, InputRow};
use crate::trace::{Sampler, StepTrace};
use crate::wire::v1;

/// What a road may be late without its bins being a backlog.
const ROAD_JITTER: Duration = Duration::from_millis(20);

/// All of it.
pub(super) struct Core {
    /// How the aligner stood when it last laid work down.
    pub(super) standing: Standing,
    /// Frames are on their way into bins, beside this lock.
    pub(super) is_fed: bool,
    pub(super) exchanges: Exchanges,
    pub(super) orders: Vec<Order>,
    pub(super) journey: Journey,
    pub(super) health: Health,
    pub(super) work: VecDeque<Work>,
    /// The ends in `work`, in order.
    pub(super) ends: VecDeque<End>,
    /// The bin that is being stepped; its row is in a lane.
    pub(super) in_flight: Option<InFlight>,
    /// Bins of the answer at the head of `work`.
    pub(super) parts: Vec<OpenPart>,
    /// Bins that no answer carried yet: pushed where no stream was attached, or behind a hole in an HTTP answer.
    pub(super) held: Vec<Part>,
    /// Length of the unfilled gap since the last bin.
    pub(super) skipped: u64,
    pub(super) invalid_in_row: u32,
    pub(super) reset_due: bool,
    pub(super) lag: LagStats,
    pub(super) tally: Tally,
    /// Smallest difference between a frame's arrival and the end of its newest bin: the road at its best (ns).
    pub(super) road_ns: Option<i64>,
    pub(super) last_sign: Stamp,
    /// When a stream was detached last.
    pub(super) left: Option<Instant>,
    pub(super) stream_count: u64,
    pub(super) closing: Option<&'static str>,
    /// By stage: its place in the lane that it runs on.
    pub(super) places: Vec<Arc<Place>>,
    /// Versions that will take over, in the order in which they do.
    pub(super) switches: VecDeque<Pending>,
    /// Rows of versions that are warmed, to be submitted once the lock is given back.
    pub(super) beside: Vec<(Arc<Understudy>, Onward)>,
    /// What versions that took over have replaced, and those that did not, until somebody has the time to drop them.
    pub(super) outgone: Vec<Replaced>,
    /// What of the aligner's totals the metrics have.
    pub(super) metered: Counts,
    /// Answers that wait for the journal, oldest first (`ack = "durable"`).
    pub(super) awaiting: VecDeque<Awaiting>,
    /// Small records that found no room yet, oldest first.
    pub(super) unnoted: VecDeque<Record>,
    /// Of what was recorded last.
    pub(super) last_ticket: Option<Ticket>,
    /// Whether the run knows where bin 0 lies.
    pub(super) t0_told: bool,
    /// Which steps are traced.
    pub(super) sampler: Sampler,
}

/// What waits for the journal before it leaves.
pub(super) struct Awaiting {
    /// `None`: for nothing of its own, only for its turn.
    pub(super) ticket: Option<Ticket>,
    pub(super) due: Due,
}

pub(super) enum Due {
    Answer { signal: usize, seq: u64, answer: Answer },
    Push(Vec<v1::Output>),
}

pub(super) struct InFlight {
    pub(super) k: u64,
    pub(super) flags: Flags,
    /// What came in, for versions that are warmed; `None`: there are none.
    pub(super) shown: Option<(Arc<[InputRow]>, Instant)>,
}

/// Totals of a session.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) bins: u64,
    pub(super) deadline_missed: u64,
    pub(super) last_bin: Option<u64>,
}

pub(super) enum Work {
    Bin(Box<Bin>),
    Skipped {
        to: u64,
        bins: u64,
    },
    /// Done to the aligner here, between what came before and what came after.
    Act(Act),
    /// The next of `ends`.
    End,
}

/// The end of what one frame (or one expiry) has closed.
pub(super) struct End {
    pub(super) cause: Option<Cause>,
    pub(super) received: Stamp,
    /// Whether the frame came long after the road at its best would have brought it.
    pub(super) behind: bool,
    /// Bins of it that have not begun.
    pub(super) bins_left: usize,
    pub(super) queued: Duration,
    pub(super) compute: Duration,
    /// Its stamps on the way, if it is traced.
    pub(super) trace: Option<Box<StepTrace>>,
}

pub(super) struct Cause {
    pub(super) signal: usize,
    pub(super) seq: u64,
    pub(super) echo: Bytes,
    pub(super) reply: bool,
    /// Whether one caller waits for this frame alone.
    pub(super) once: bool,
    /// The frame as it is kept, or nothing.
    pub(super) data: Bytes,
    /// One past the last bin that had closed once it was taken.
    pub(super) bins_until: u64,
    pub(super) fault: Option<Fault>,
}

impl Core {
    /// Nothing came yet.
    pub(super) fn new(
        standing: Standing,
        orders: Vec<Order>,
        journey: Journey,
        health: Health,
        places: Vec<Place>,
        sampler: Sampler,
        now: Stamp,
    ) -> Self {
        Self {
            standing,
            is_fed: false,
            exchanges: Exchanges::default(),
            orders,
            journey,
            health,
            work: VecDeque::new(),
            ends: VecDeque::new(),
            unnoted: VecDeque::new(),
            in_flight: None,
            parts: Vec::new(),
            held: Vec::new(),
            skipped: 0,
            invalid_in_row: 0,
            reset_due: false,
            lag: LagStats::default(),
            tally: Tally::default(),
            road_ns: None,
            last_sign: now,
            left: None,
            stream_count: 0,
            closing: None,
            places: places.into_iter().map(Arc::new).collect(),
            switches: VecDeque::new(),
            beside: Vec::new(),
            outgone: Vec::new(),
            metered: Counts::default(),
            awaiting: VecDeque::new(),
            last_ticket: None,
            t0_told: false,
            sampler,
        }
    }

    /// The attached streams by number, with their boxes, each once.
    pub(super) fn outboxes(&self) -> impl Iterator<Item = (u64, &Arc<Outbox>)> {
        let attached = |order: &Order| order.attached.as_ref().map(|(stream, _)| *stream);
        self.orders.iter().enumerate().filter_map(move |(at, order)| {
            let (stream, outbox) = order.attached.as_ref()?;
            let is_known = self.orders[..at].iter().any(|before| attached(before) == Some(*stream));
            (!is_known).then_some((*stream, outbox))
        })
    }

    pub(super) fn is_idle(&self) -> bool {
        !self.is_fed && self.in_flight.is_none() && self.work.is_empty() && self.awaiting.is_empty()
    }

    pub(super) fn is_detached(&self, now: Instant, dead_after: Duration) -> bool {
        self.orders.iter().all(|order| order.attached.is_none())
            && now.duration_since(self.last_sign.instant) > dead_after
    }

    /// Whether nobody has been there for so long: no stream, and nothing that came.
    pub(super) fn is_forsaken(&self, now: Instant, timeout: Duration) -> bool {
        let sign = self.last_sign.instant;
        let since = self.left.map_or(sign, |left| left.max(sign));
        self.outboxes().next().is_none() && now.duration_since(since) > timeout
    }

    /// A bin begins: when the frame behind it was received, and whether the bin is stale: brought late by a stall, with
    /// newer bins of later frames behind it.
    pub(super) fn take_bin(&mut self) -> (Stamp, bool) {
        let newer = self.ends.iter().skip(1).any(|end| end.bins_left > 0);
        let Some(own) = self.ends.front_mut() else { return (self.last_sign, false) };
        own.bins_left = own.bins_left.saturating_sub(1);
        (own.received, own.behind && newer)
    }

    /// When the frame behind the bin at hand was received.
    pub(super) fn received(&self) -> Stamp {
        self.ends.front().map_or(self.last_sign, |end| end.received)
    }

    /// Whether a bin that ends at `end_ns` came later than the road at its best would have brought it, by more than two
    /// bins and more than the road's jitter.
    pub(super) fn is_behind(&mut self, end_ns: i64, arrived_ns: i64, width: Duration) -> bool {
        let took_ns = arrived_ns.saturating_sub(end_ns);
        let best_ns = *self.road_ns.insert(self.road_ns.map_or(took_ns, |best| best.min(took_ns)));
        i128::from(took_ns) - i128::from(best_ns) > (2 * width).max(ROAD_JITTER).as_nanos() as i128
    }

    /// Steps nothing more; answers every frame that will not be stepped with a fault.
    pub(super) fn abandon(&mut self, kind: Kind, why: &'static str) {
        self.in_flight = None;
        self.closing.get_or_insert(why);
        self.work.clear();
        for end in std::mem::take(&mut self.ends) {
            if let Some(cause) = end.cause {
                self.orders[cause.signal].answer(cause.seq, Answer::Fault(Fault::new(kind, why)));
            }
        }
        for (_, outbox) in self.outboxes() {
            outbox.put(Outgoing::End(Fault::new(kind, why)));
        }
    }

    pub(super) fn summary(&self) -> v1::CloseReply {
        let counts = self.standing.counts();
        v1::CloseReply {
            bins: self.tally.bins,
            gaps: counts.gaps,
            late: counts.late,
            dropped: counts.dropped,
            last_bin: self.tally.last_bin,
            durable_seq: Default::default(),
            lag_us: Some(v1::LagSummary {
                p50: self.lag.quantile_us(0.5),
                p99: self.lag.quantile_us(0.99),
                max: Some(self.lag.max_us()),
            }),
            deadline_missed: self.tally.deadline_missed,
        }
    }
}
