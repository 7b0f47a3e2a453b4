//! One frame's way from its receipt to its answer: stamps on the way, spans afterwards.

use std::time::{Duration, Instant};

use super::{Span, Value};
use crate::domain::ids::{ModelName, PipelineName, SessionId, SignalName, Version};
use crate::domain::time::Stamp;
use crate::domain::trace::SpanContext;

/// Stretches that one step keeps at most: of a frame that closes many bins, the first ones are shown.
const MOST_STRETCHES: usize = 256;

/// Where a step stands among traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Under {
    /// Part of the request that brought its frame.
    Request(SpanContext),
    /// A trace of its own, beside that of the stream that brought its frame.
    Stream(SpanContext),
    /// A trace of its own.
    Nothing,
}

/// The stamps of a step.
#[derive(Debug)]
pub struct StepTrace {
    under: Under,
    session: SessionId,
    pipeline: PipelineName,
    signal: SignalName,
    seq: u64,
    received: Stamp,
    /// From its receipt until its bins had closed.
    receive: Duration,
    stretches: Vec<Stretch>,
    /// Bins that it has closed.
    bins: u64,
    /// When its answer was at hand, and how long it took to hand it over.
    replied: Option<(Instant, Duration)>,
}

/// A stretch of one bin's way.
#[derive(Debug)]
struct Stretch {
    bin: u64,
    name: &'static str,
    from: Instant,
    took: Duration,
    /// Of a run: the model, and how many rows shared it.
    run: Option<(ModelName, Version, usize)>,
}

impl StepTrace {
    /// A frame was taken in; its bins wait.
    pub fn new(
        under: Under,
        session: SessionId,
        pipeline: PipelineName,
        (signal, seq): (SignalName, u64),
        received: Stamp,
        receive: Duration,
    ) -> Self {
        let (stretches, bins, replied) = (Vec::new(), 0, None);
        Self { under, session, pipeline, signal, seq, received, receive, stretches, bins, replied }
    }

    /// A model was run for a bin of it: `queued` before `started`, then `compute`, with so many `rows`.
    pub fn ran(
        &mut self,
        bin: u64,
        (model, version): (&ModelName, Version),
        started: Instant,
        (queued, compute): (Duration, Duration),
        rows: usize,
    ) {
        if self.stretches.len() + 2 > MOST_STRETCHES {
            return;
        }
        let run = Some((model.clone(), version, rows));
        let from = started.checked_sub(queued).unwrap_or(started);
        self.stretches.push(Stretch { bin, name: "queue", from, took: queued, run: run.clone() });
        self.stretches.push(Stretch { bin, name: "compute", from: started, took: compute, run });
    }

    /// A bin's outputs were read out of the models' tensors.
    pub fn read_out(&mut self, bin: u64, from: Instant, took: Duration) {
        self.bins += 1;
        if self.stretches.len() < MOST_STRETCHES {
            self.stretches.push(Stretch { bin, name: "readout", from, took, run: None });
        }
    }

    /// The answer was at hand at `from` and handed over after `took`.
    pub fn replied(&mut self, from: Instant, took: Duration) {
        self.replied = Some((from, took));
    }

    /// How many spans it is.
    pub(super) fn count(&self) -> usize {
        2 + self.stretches.len() + usize::from(self.replied.is_some())
    }

    /// Its spans: the step, and inside it what was done, as it came. All by one clock, so that they nest.
    pub(super) fn spans(self, spans: &mut Vec<Span>) {
        let at =
            |instant: Instant| after(self.received, instant.saturating_duration_since(self.received.instant));
        let (parent, link) = match self.under {
            Under::Request(context) => (Some(context), None),
            Under::Stream(context) => (None, Some(context)),
            Under::Nothing => (None, None),
        };
        let step = parent.map_or_else(SpanContext::root, SpanContext::child);
        let part = |name, from_ns, to_ns, attributes| Span {
            context: step.child(),
            parent: Some(step),
            link: None,
            name,
            is_call: false,
            from_ns,
            to_ns,
            attributes,
            failed: false,
        };
        let received_ns = self.received.unix_ns;
        let ingested_ns = after(self.received, self.receive);
        let last = self.stretches.last().map(|stretch| at(stretch.from + stretch.took));
        let answered = self.replied.map(|(from, took)| (at(from), at(from + took)));
        let to_ns = answered.map_or(last.unwrap_or(ingested_ns), |(_, to_ns)| to_ns);

        let mut attributes = vec![
            ("session.id", Value::Text(self.session.to_string())),
            ("pipeline.name", Value::from(self.pipeline.as_str())),
            ("signal.name", Value::from(self.signal.as_str())),
            ("frame.seq", Value::from(self.seq)),
            ("bin.count", Value::from(self.bins)),
        ];
        attributes.extend(self.stretches.first().map(|stretch| ("bin.index", Value::from(stretch.bin))));
        let run = self.stretches.iter().rev().find_map(|stretch| stretch.run.as_ref());
        attributes.extend(run.into_iter().flat_map(of_model));
        if let Some((from_ns, _)) = answered {
            attributes.push(("lag_us", Value::Float((from_ns - received_ns) as f64 / 1e3)));
        }
        spans.push(Span { context: step, parent, link, ..part("step", received_ns, to_ns, attributes) });
        spans.push(part("receive", received_ns, ingested_ns, Vec::new()));
        for stretch in &self.stretches {
            let mut attributes = vec![("bin.index", Value::from(stretch.bin))];
            if let Some(run) = &stretch.run {
                attributes.extend(of_model(run));
                attributes.push(("batch.rows", Value::from(run.2 as u64)));
            }
            spans.push(part(stretch.name, at(stretch.from), at(stretch.from + stretch.took), attributes));
        }
        spans.extend(answered.map(|(from_ns, to_ns)| part("reply", from_ns, to_ns, Vec::new())));
    }
}

fn of_model((model, version, _): &(ModelName, Version, usize)) -> [(&'static str, Value); 2] {
    [("model.name", Value::from(model.as_str())), ("model.version", Value::from(u64::from(version.0)))]
}

/// `took` after a stamp (Unix time, ns).
fn after(stamp: Stamp, took: Duration) -> i64 {
    stamp.unix_ns.saturating_add(i64::try_from(took.as_nanos()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn step(under: Under, bins: u64) -> StepTrace {
        let received = Stamp { unix_ns: 1_000_000_000_000, ..Stamp::now() };
        let of = ("spikes".into(), 7);
        let mut step = StepTrace::new(under, SessionId::new(), "reach".into(), of, received, MS);
        for bin in 0..bins {
            let begun = received.instant + MS * (2 + 10 * bin as u32);
            step.ran(40 + bin, (&"filter".into(), Version(1)), begun + MS, (MS, 2 * MS), 1);
            step.ran(40 + bin, (&"gru".into(), Version(3)), begun + 4 * MS, (MS, 2 * MS), 8);
            step.read_out(40 + bin, begun + 7 * MS, MS);
        }
        step.replied(received.instant + MS * (12 + 10 * bins as u32), MS);
        step
    }

    fn spans(step: StepTrace) -> Vec<Span> {
        let (mut spans, count) = (Vec::new(), step.count());
        step.spans(&mut spans);
        assert_eq!(spans.len(), count);
        spans
    }

    #[test]
    fn the_walk_stands_inside_its_step_in_order() {
        let spans = spans(step(Under::Nothing, 1));
        let names: Vec<_> = spans.iter().map(|span| span.name).collect();
        assert_eq!(names, ["step", "receive", "queue", "compute", "queue", "compute", "readout", "reply"]);
        let (whole, parts) = spans.split_first().unwrap();
        assert_eq!((whole.parent, whole.link), (None, None));
        assert_eq!((whole.from_ns, whole.to_ns), (1_000_000_000_000, 1_000_023_000_000));
        for (at, part) in parts.iter().enumerate() {
            assert_eq!((part.parent, part.context.trace), (Some(whole.context), whole.context.trace));
            assert!(whole.from_ns <= part.from_ns && part.to_ns <= whole.to_ns && part.from_ns <= part.to_ns);
            assert!(at == 0 || parts[at - 1].to_ns <= part.from_ns, "{}", part.name);
        }
        assert_eq!(parts[2].to_ns - parts[2].from_ns, 2_000_000, "compute");
    }

    #[test]
    fn a_step_says_what_it_is_of_and_a_run_by_which_model() {
        let spans = spans(step(Under::Nothing, 2));
        let of = |span: &Span, name: &str| {
            span.attributes.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone())
        };
        for (name, value) in [
            ("pipeline.name", Value::from("reach")),
            ("signal.name", Value::from("spikes")),
            ("frame.seq", Value::Whole(7)),
            ("bin.index", Value::Whole(40)),
            ("bin.count", Value::Whole(2)),
            ("model.name", Value::from("gru")),
            ("model.version", Value::Whole(3)),
            ("lag_us", Value::Float(32_000.0)),
        ] {
            assert_eq!(of(&spans[0], name), Some(value), "{name}");
        }
        assert!(of(&spans[0], "session.id").is_some());
        assert_eq!(of(&spans[2], "model.name"), Some(Value::from("filter")));
        assert_eq!(of(&spans[5], "batch.rows"), Some(Value::Whole(8)));
        assert_eq!(of(&spans[11], "bin.index"), Some(Value::Whole(41)));
    }

    #[test]
    fn a_step_is_part_of_a_request_and_beside_a_stream() {
        let request = SpanContext::root();
        let part = &spans(step(Under::Request(request), 1))[0];
        assert_eq!((part.context.trace, part.parent, part.link), (request.trace, Some(request), None));
        let beside = &spans(step(Under::Stream(request), 1))[0];
        assert_ne!(beside.context.trace, request.trace);
        assert_eq!((beside.parent, beside.link), (None, Some(request)));
    }

    #[test]
    fn of_a_frame_that_closes_many_bins_the_first_are_kept_and_all_are_counted() {
        let spans = spans(step(Under::Nothing, 10_000));
        assert!(spans.len() <= MOST_STRETCHES + 3);
        assert!(spans[0].attributes.contains(&("bin.count", Value::Whole(10_000))));
        assert_eq!(spans.last().unwrap().name, "reply");
        assert!(spans.iter().all(|span| span.to_ns <= spans[0].to_ns));
    }
}
