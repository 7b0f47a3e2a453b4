//! Traces: what requests and steps spent their time on, for whoever collects it.
//! Enters: requests that were answered, steps that were chosen. Leaves: spans, to whoever exports them (`telemetry`).
//! Owns: the queue between the two, and the choice of steps. Must hold: nobody waits for the exporter; what finds the
//! queue full is dropped and counted; where nothing is traced, a step pays for one comparison; the spans of a step are
//! made beside the step path. Must not know: any room that is traced, OTLP.

mod step; // one frame's way, from stamps to spans

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::domain::ids::SessionId;
use crate::domain::time::Stamp;
use crate::domain::trace::{RequestSpan, SpanContext, TraceParent};
use crate::metrics::Metrics;

pub use step::{StepTrace, Under};

/// The header, and the key of gRPC's metadata, in which a caller names its span.
pub const TRACEPARENT: &str = "traceparent";

/// One stretch of time, named.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Its place.
    pub context: SpanContext,
    /// The span that it is part of; it began not before that.
    pub parent: Option<SpanContext>,
    /// A span of another trace that it has to do with.
    pub link: Option<SpanContext>,
    /// What was done.
    pub name: &'static str,
    /// Whether it stands for a call from outside.
    pub is_call: bool,
    /// From when (Unix time, ns).
    pub from_ns: i64,
    /// Until when (Unix time, ns).
    pub to_ns: i64,
    /// What is known of it: `noun.attribute`.
    pub attributes: Vec<(&'static str, Value)>,
    /// Whether it failed by a fault of ours.
    pub failed: bool,
}

/// An attribute's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A number.
    Whole(i64),
    /// A number.
    Float(f64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.into())
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Value::Whole(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

/// What waits to be exported.
#[derive(Debug)]
pub enum Traced {
    /// A request.
    Request(Box<Span>),
    /// A step, as its stamps.
    Step(Box<StepTrace>),
}

impl Traced {
    /// Its spans, behind those that are there; a parent before its parts.
    pub fn spans(self, spans: &mut Vec<Span>) {
        match self {
            Traced::Request(span) => spans.push(*span),
            Traced::Step(step) => step.spans(spans),
        }
    }

    /// How many spans it is.
    pub fn count(&self) -> usize {
        match self {
            Traced::Request(_) => 1,
            Traced::Step(step) => step.count(),
        }
    }
}

/// Takes what is to be traced; cheap to clone. The default traces nothing.
#[derive(Clone, Debug, Default)]
pub struct Tracer(Option<Arc<On>>);

#[derive(Debug)]
struct On {
    queue: mpsc::Sender<Traced>,
    /// The share of steps that are traced.
    steps: f64,
    metrics: Arc<Metrics>,
}

impl Tracer {
    /// Traces all requests, and `steps` (from 0 to 1) of all steps, into a queue of `places`.
    pub fn new(steps: f64, places: usize, metrics: Arc<Metrics>) -> (Self, mpsc::Receiver<Traced>) {
        let (queue, waiting) = mpsc::channel(places);
        (Self(Some(Arc::new(On { queue, steps, metrics }))), waiting)
    }

    /// The span of a request that begins, whose caller sent this `traceparent`; `None` where it is not traced, be it that
    /// the caller says so.
    pub fn request(&self, traceparent: Option<&str>) -> Option<RequestSpan> {
        self.0.as_ref()?;
        match traceparent.and_then(TraceParent::parse) {
            None => Some(RequestSpan { context: SpanContext::root(), parent: None }),
            Some(TraceParent { sampled: false, .. }) => None,
            Some(TraceParent { context, .. }) => {
                Some(RequestSpan { context: context.child(), parent: Some(context) })
            }
        }
    }

    /// A request was answered.
    pub fn answered(
        &self,
        request: RequestSpan,
        name: &'static str,
        begun: Stamp,
        took: Duration,
        attributes: Vec<(&'static str, Value)>,
        failed: bool,
    ) {
        let RequestSpan { context, parent } = request;
        let to_ns = begun.unix_ns.saturating_add(i64::try_from(took.as_nanos()).unwrap_or(i64::MAX));
        let span = Span {
            context,
            parent,
            link: None,
            name,
            is_call: true,
            from_ns: begun.unix_ns,
            to_ns,
            attributes,
            failed,
        };
        self.put(Traced::Request(Box::new(span)));
    }

    /// A step was answered.
    pub fn stepped(&self, step: Box<StepTrace>) {
        self.put(Traced::Step(step));
    }

    fn put(&self, traced: Traced) {
        let Some(on) = &self.0 else { return };
        if let Err(mpsc::error::TrySendError::Full(traced) | mpsc::error::TrySendError::Closed(traced)) =
            on.queue.try_send(traced)
        {
            on.metrics.spans_dropped(traced.count() as u64);
        }
    }

    /// The choice of a session's steps. Where it begins differs by session, so that sessions opened together are not
    /// traced together.
    pub fn sampler(&self, session: SessionId) -> Sampler {
        let phase = f64::from(session.0.as_u128() as u32) / (f64::from(u32::MAX) + 1.0);
        Sampler { share: self.0.as_ref().map(|on| on.steps), due: phase }
    }
}

/// Which steps of one session are traced: evenly, so many of all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    share: Option<f64>,
    due: f64,
}

impl Sampler {
    /// Whether the step at hand is traced; `asked`: its caller wants it.
    pub fn takes(&mut self, asked: bool) -> bool {
        let Some(share) = self.share else { return false };
        self.due += share;
        let is_due = self.due >= 1.0;
        if is_due {
            self.due -= 1.0;
        }
        is_due || asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tracer(steps: f64, places: usize) -> (Tracer, mpsc::Receiver<Traced>, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::new());
        let (tracer, waiting) = Tracer::new(steps, places, Arc::clone(&metrics));
        (tracer, waiting, metrics)
    }

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_request_is_part_of_its_callers_trace_or_begins_one_unless_the_caller_keeps_none() {
        let (tracer, _waiting, _) = tracer(0.0, 1);
        let given = TraceParent::parse(PARENT).unwrap().context;
        let under = tracer.request(Some(PARENT)).unwrap();
        assert_eq!((under.context.trace, under.parent), (given.trace, Some(given)));
        assert_ne!(under.context.span, given.span);
        assert_eq!(tracer.request(Some(&PARENT.replace("-01", "-00"))), None);
        for none in [None, Some("nonsense")] {
            assert_eq!(tracer.request(none).unwrap().parent, None);
        }
        assert_eq!(Tracer::default().request(Some(PARENT)), None);
    }

    #[test]
    fn what_finds_the_queue_full_or_its_reader_gone_is_dropped_and_counted() {
        let (tracer, mut waiting, metrics) = tracer(1.0, 2);
        let answer = || {
            let request = tracer.request(None).unwrap();
            tracer.answered(request, "http.request", Stamp::now(), Duration::ZERO, Vec::new(), false);
        };
        let dropped = || {
            let text = metrics.render();
            let line = text.lines().find(|line| line.starts_with("latentd_spans_dropped_total ")).unwrap();
            line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
        };
        (0..5).for_each(|_| answer());
        assert_eq!(dropped(), 3);
        assert!(waiting.try_recv().is_ok() && waiting.try_recv().is_ok() && waiting.try_recv().is_err());
        drop(waiting);
        answer();
        assert_eq!(dropped(), 4);
    }

    #[test]
    fn where_nothing_is_traced_no_step_is_taken_whoever_asks() {
        let mut sampler = Tracer::default().sampler(SessionId::new());
        assert!((0..1000).all(|_| !sampler.takes(true)));
    }

    proptest! {
        #[test]
        fn of_any_steps_in_a_row_the_share_is_taken_to_one(share in 0.0..=1.0f64, skip in 0..500usize, steps in 1..500usize) {
            let (tracer, _waiting, _) = tracer(share, 1);
            let mut sampler = tracer.sampler(SessionId::new());
            (0..skip).for_each(|_| _ = sampler.takes(false));
            let taken = (0..steps).filter(|_| sampler.takes(false)).count() as f64;
            prop_assert!((taken - share * steps as f64).abs() <= 1.0 + 1e-9, "{taken} of {steps} at {share}");
        }

        #[test]
        fn a_step_that_is_asked_for_is_taken(share in 0.0..=1.0f64) {
            let (tracer, _waiting, _) = tracer(share, 1);
            let mut sampler = tracer.sampler(SessionId::new());
            prop_assert!((0..100).all(|_| sampler.takes(true)));
        }
    }
}
