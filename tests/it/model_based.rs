//! Random sessions beside each other against a plain model of what the contract says: open and close, order, window, gaps
//! by every policy, overlaps, refusals, writers, takeovers, resets.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::support::{Latentd, Line, Linear, Rig, Setup, binned, blocks, carried, counts, linear, recorded};
use latentd::wire::v1;

const WINDOW: usize = 4;
/// Bins of `max_gap_ms`.
const MAX_GAP: u64 = 4;

/// What a rig does next with one of its sessions, or with none.
#[derive(Clone, Debug)]
enum Act {
    /// Another session, under this `gap` and `nan`.
    Open { gap: &'static str, nan: &'static str },
    /// The next frame, with so many rows.
    Frame { rows: u8 },
    /// The same by HTTP, also where a stream is attached.
    Aside { rows: u8 },
    /// The frame so many before the next, again, with other data.
    Again { back: u8 },
    /// A frame so many after the next.
    Ahead { by: u8 },
    /// The same, saying that those between are lost; each would have had one row.
    Lost { by: u8, rows: u8 },
    /// The next frame, so many rows of the index later.
    Gap { by: u8 },
    /// The next frame, with rows that came already before its own.
    Overlap { by: u8, rows: u8 },
    /// The next frame, which acknowledges the one so many before it.
    Acked { back: u8 },
    /// The next frame, with a value that is not finite.
    NotFinite,
    /// The next frame, of a wrong shape.
    Misshapen,
    /// The next frame by HTTP, with another's token or none.
    Forged { is_signed: bool },
    /// A stream attaches, and takes over from one that is attached.
    Attach,
    /// A stream without the token attaches where none is attached, and is refused where one is.
    Intrude,
    /// The stream ends.
    Detach,
    /// The stream breaks off; the server may not know it yet.
    BreakOff,
    /// The state starts anew, now or so many bins ahead; with `all` also what is held, and what `fail` asks for is forgiven.
    Reset { all: bool, ahead: Option<u8> },
    /// The state is to start anew before a bin that has closed.
    ResetPast,
    /// The session is closed.
    Close,
    /// Everything that can be asked of a session, of the one that was closed last.
    Haunt,
}

fn act() -> impl Strategy<Value = Act> {
    let gaps = prop::sample::select(vec!["hold", "zero", "skip", "reset", "fail"]);
    let nans = prop::sample::select(vec!["mask", "reject"]);
    prop_oneof![
        2 => (gaps, nans).prop_map(|(gap, nan)| Act::Open { gap, nan }),
        8 => (1..4u8).prop_map(|rows| Act::Frame { rows }),
        2 => (1..4u8).prop_map(|rows| Act::Aside { rows }),
        4 => (1..8u8).prop_map(|back| Act::Again { back }),
        1 => (1..4u8).prop_map(|by| Act::Ahead { by }),
        3 => (1..7u8, 1..3u8).prop_map(|(by, rows)| Act::Lost { by, rows }),
        3 => (1..7u8).prop_map(|by| Act::Gap { by }),
        2 => (1..5u8, 0..3u8).prop_map(|(by, rows)| Act::Overlap { by, rows }),
        1 => (1..5u8).prop_map(|back| Act::Acked { back }),
        1 => Just(Act::NotFinite),
        1 => Just(Act::Misshapen),
        1 => any::<bool>().prop_map(|is_signed| Act::Forged { is_signed }),
        3 => Just(Act::Attach),
        1 => Just(Act::Intrude),
        1 => Just(Act::Detach),
        1 => Just(Act::BreakOff),
        2 => (any::<bool>(), prop::option::of(0..4u8)).prop_map(|(all, ahead)| Act::Reset { all, ahead }),
        1 => Just(Act::ResetPast),
        1 => Just(Act::Close),
        1 => Just(Act::Haunt),
    ]
}

/// What the answer to a frame must be.
#[derive(Clone, Debug, PartialEq)]
enum Expected {
    Bins { seq: u64, first_bin: u64, skipped: u64, rows: Vec<[f32; 2]>, flags: Vec<u32> },
    Refused { kind: &'static str, expected_seq: u64, consumed: bool },
}

const GAP_FILLED: u32 = 1;
const MASKED: u32 = 1 << 2;
const NAN_REPLACED: u32 = 1 << 3;
const RESET: u32 = 1 << 7;

/// The contract as a plain model: one signal, rows that are bins, `max_gap_ms` of four bins.
struct Plain {
    gap: &'static str,
    nan: &'static str,
    next_seq: u64,
    next_index: u64,
    /// The index of bin 0: that of the first frame.
    t0_index: Option<u64>,
    /// Data have come, not only such as were refused.
    has_begun: bool,
    /// What was refused as not finite ends here; it is not asked for again.
    rejected_to: u64,
    is_forgiven: bool,
    /// Answers of the `seq`s up to `next_seq`; nothing for those that were given up.
    kept: VecDeque<Option<Expected>>,
    model: Linear,
    last: [f32; 2],
    /// Resets that are due, by bin; whether of all.
    resets: BTreeMap<u64, bool>,
    /// A gap was not filled.
    reset_owed: bool,
    last_bin: Option<u64>,
    bins: u64,
    gaps: u64,
    late: u64,
}

impl Plain {
    fn new(gap: &'static str, nan: &'static str) -> Self {
        Self {
            gap,
            nan,
            next_seq: 0,
            next_index: 0,
            t0_index: None,
            has_begun: false,
            rejected_to: 0,
            is_forgiven: false,
            kept: VecDeque::new(),
            model: Linear::new(),
            last: [0.0; 2],
            resets: BTreeMap::new(),
            reset_owed: false,
            last_bin: None,
            bins: 0,
            gaps: 0,
            late: 0,
        }
    }

    fn open(&self) -> v1::OpenRequest {
        let (gap, nan) = (self.gap.into(), self.nan.into());
        v1::OpenRequest { gap, nan, max_gap_ms: Some(10.0 * MAX_GAP as f64), ..recorded(linear()) }
    }

    fn next_bin(&self) -> u64 {
        self.next_index - self.t0_index.unwrap_or(self.next_index)
    }

    /// Rows of a frame are told by its seq, so that a repetition with other data is seen.
    fn rows(seq: u64, n: u64) -> Vec<[f32; 2]> {
        (0..n).map(|i| [((seq + i) % 3) as f32, (i % 2) as f32]).collect()
    }

    fn judge(&mut self, frame: &v1::Frame, rows: &[[f32; 2]]) -> Expected {
        let refused = |kind| Expected::Refused { kind, expected_seq: self.next_seq, consumed: false };
        if rows.is_empty() {
            return refused("invalid");
        }
        if let Some(acked) = frame.acked_seq {
            let left = self.next_seq.saturating_sub(acked + 1) as usize;
            self.kept.drain(..self.kept.len().saturating_sub(left));
        }
        if frame.seq > self.next_seq && !frame.lost {
            return refused("expected_seq");
        }
        if frame.seq < self.next_seq {
            let back = (self.next_seq - frame.seq) as usize;
            let kept = self.kept.len().checked_sub(back).and_then(|at| self.kept[at].clone());
            return kept.unwrap_or_else(|| refused("already_stepped"));
        }
        let asked_for = self.next_index.max(self.rejected_to);
        if self.gap == "fail" && self.has_begun && !self.is_forgiven && frame.first_index > asked_for {
            return refused("gap");
        }
        for _ in self.next_seq..frame.seq {
            self.kept.push_back(None);
        }
        self.next_seq = frame.seq + 1;
        if self.t0_index.is_none() {
            (self.t0_index, self.next_index) = (Some(frame.first_index), frame.first_index);
        }
        let is_finite = rows.iter().flatten().all(|x| x.is_finite());
        let answer = if is_finite || self.nan == "mask" {
            self.consume(frame, rows)
        } else {
            self.reject(frame, rows)
        };
        self.kept.push_back(Some(answer.clone()));
        self.kept.drain(..self.kept.len().saturating_sub(WINDOW));
        answer
    }

    /// `nan = "reject"`: the samples are a gap, known with the next frame.
    fn reject(&mut self, frame: &v1::Frame, rows: &[[f32; 2]]) -> Expected {
        if self.has_begun {
            self.rejected_to = self.rejected_to.max(frame.first_index + rows.len() as u64);
        }
        Expected::Refused { kind: "invalid", expected_seq: self.next_seq, consumed: true }
    }

    fn consume(&mut self, frame: &v1::Frame, rows: &[[f32; 2]]) -> Expected {
        let again = (self.next_index.saturating_sub(frame.first_index)).min(rows.len() as u64);
        self.late += again;
        let missing = frame.first_index.saturating_sub(self.next_index);
        self.gaps += u64::from(missing > 0);
        let is_long = missing > MAX_GAP;
        let is_filled = !is_long && !matches!(self.gap, "skip" | "reset");
        self.reset_owed |= missing > 0 && (is_long || self.gap == "reset");
        let skipped = if is_filled { 0 } else { missing };
        let first_bin = self.next_bin() + skipped;
        let held = if self.gap == "zero" { Some([0.0; 2]) } else { None };
        let gap = (0..missing - skipped).map(|_| (None, GAP_FILLED));
        let own = rows[again as usize..].iter().map(|row| (Some(*row), 0));
        let (mut answered, mut flags) = (Vec::new(), Vec::new());
        for (bin, (row, mut flag)) in (first_bin..).zip(gap.chain(own)) {
            let mut is_reset = std::mem::take(&mut self.reset_owed);
            while let Some(due) = self.resets.first_entry().filter(|due| *due.key() <= bin) {
                is_reset = true;
                if due.remove() {
                    self.last = [0.0; 2];
                }
            }
            if is_reset {
                self.model = Linear::new();
                flag |= RESET;
            }
            let mut seen = row.or(held).unwrap_or(self.last);
            if row.is_some() {
                // What is not finite is masked, and what is masked is 0.
                if seen.iter().any(|x| !x.is_finite()) {
                    flag |= MASKED | NAN_REPLACED;
                    seen = seen.map(|x| if x.is_finite() { x } else { 0.0 });
                }
                self.last = seen;
            }
            answered.push(self.model.step(seen));
            flags.push(flag);
            self.last_bin = Some(bin);
        }
        self.next_index = self.next_index.max(frame.first_index + rows.len() as u64);
        self.bins += answered.len() as u64;
        (self.has_begun, self.is_forgiven, self.rejected_to) = (true, false, 0);
        Expected::Bins { seq: frame.seq, first_bin, skipped, rows: answered, flags }
    }
}

/// The session as it is driven: by HTTP, or by a stream while one is attached.
struct Driven {
    rig: Rig,
    line: Option<Line>,
    /// A stream broke off, and the server may not know.
    has_ghost: bool,
    plain: Plain,
}

impl Driven {
    async fn open(server: &Latentd, plain: Plain) -> Self {
        Self { rig: server.open(plain.open()).await, line: None, has_ghost: false, plain }
    }

    async fn send(&mut self, frame: v1::Frame) -> Result<v1::Output, v1::Fault> {
        match &mut self.line {
            None => self.rig.try_send(frame).await.map_err(|refused| refused.fault),
            Some(line) => {
                line.put(frame).await;
                match line.next().await {
                    Ok(Some(v1::down::Message::Output(output))) => Ok(output),
                    Ok(Some(v1::down::Message::Fault(fault))) => Err(fault),
                    other => panic!("an Output or a Fault is due, not {other:?}"),
                }
            }
        }
    }

    /// The frame that an act sends, if it sends one, and its rows (none: of a wrong shape).
    fn frame(&self, act: &Act) -> Option<(v1::Frame, Vec<[f32; 2]>)> {
        let (seq, index) = (self.plain.next_seq, self.plain.next_index);
        let rows = |n: u8| Plain::rows(seq, n.into());
        let frame = |seq, index, rows: Vec<[f32; 2]>| (counts(seq, index, &rows), rows);
        Some(match *act {
            Act::Frame { rows: n } | Act::Aside { rows: n } => frame(seq, index, rows(n)),
            Act::Again { back } => frame(seq.saturating_sub(back.into()), index, vec![[7.0, 7.0]]),
            Act::Ahead { by } => frame(seq + u64::from(by), index, rows(1)),
            Act::Lost { by, rows: n } => {
                let (frame, rows) = frame(seq + u64::from(by), index + u64::from(by), rows(n));
                (v1::Frame { lost: true, ..frame }, rows)
            }
            Act::Gap { by } => frame(seq, index + u64::from(by), rows(1)),
            Act::Overlap { by, rows: n } => {
                let by = u64::from(by).min(self.plain.next_bin());
                frame(seq, index - by, rows((by as u8 + n).max(1)))
            }
            Act::Acked { back } => {
                let (frame, rows) = frame(seq, index, rows(1));
                (v1::Frame { acked_seq: seq.checked_sub(back.into()), ..frame }, rows)
            }
            Act::NotFinite => frame(seq, index, vec![[1.0, 2.0], [f32::NAN, 1.0]]),
            Act::Misshapen => (binned("spikes", seq, index, &[[1.0, 2.0, 3.0]]), Vec::new()),
            _ => return None,
        })
    }

    async fn act(&mut self, server: &Latentd, act: &Act) -> Result<(), TestCaseError> {
        if let Some((frame, rows)) = self.frame(act) {
            let expected = self.plain.judge(&frame, &rows);
            let got = match act {
                Act::Aside { .. } => self.rig.try_send(frame).await.map_err(|refused| refused.fault),
                _ => self.send(frame).await,
            };
            return same(got, &expected);
        }
        let next_bin = self.plain.next_bin();
        match *act {
            Act::Forged { is_signed } => {
                let writer = if is_signed { "another's" } else { "" };
                let body =
                    v1::Frame { writer: writer.into(), ..counts(self.plain.next_seq, 0, &[[9.0, 9.0]]) };
                let path = format!("/v1/sessions/{}/frames", self.rig.session());
                let refused = server.post(&path, latentd::wire::json::write(&body)).await.refused();
                let kind = if is_signed { "conflict" } else { "invalid" };
                prop_assert_eq!((&refused.fault.kind[..], refused.fault.consumed), (kind, false));
            }
            Act::Attach => {
                let line = server.attach(&self.rig.opened).await;
                self.takes_over(line).await?;
            }
            Act::Intrude => {
                let session = self.rig.session().to_owned();
                let attach = v1::Attach { session, writer: "another's".into(), signal: None };
                match Line::attach(server.live().await, attach).await {
                    Ok(line) => {
                        prop_assert!(self.line.is_none(), "a stream is attached, and the token is another's");
                        self.takes_over(line).await?;
                    }
                    Err(status) => {
                        prop_assert!(self.line.is_some() || self.has_ghost, "{:?}", status);
                        carried(&status, tonic::Code::Aborted, "conflict");
                    }
                }
            }
            Act::Detach => {
                if let Some(line) = self.line.take() {
                    prop_assert_eq!(line.end().await, []);
                }
            }
            Act::BreakOff => self.has_ghost |= self.line.take().is_some(),
            Act::Reset { all, ahead } => {
                let at_bin = ahead.map(|ahead| next_bin + u64::from(ahead));
                let scope = if all { "all" } else { "model" };
                prop_assert_eq!(self.rig.reset(scope, at_bin).await.unwrap(), at_bin.unwrap_or(next_bin));
                *self.plain.resets.entry(at_bin.unwrap_or(next_bin)).or_insert(all) |= all;
                self.plain.is_forgiven |= all;
            }
            Act::ResetPast if next_bin > 0 => {
                let refused = self.rig.reset("model", Some(next_bin - 1)).await.unwrap_err();
                refused.is(409, "conflict", &["is closed"]);
            }
            _ => {}
        }
        Ok(())
    }

    async fn takes_over(&mut self, line: Line) -> Result<(), TestCaseError> {
        prop_assert_eq!(line.attached.next_seq["spikes"], self.plain.next_seq);
        prop_assert_eq!(line.attached.last_bin, self.plain.last_bin);
        self.has_ghost = false;
        if let Some(mut old) = self.line.replace(line) {
            prop_assert_eq!(old.ended().await.code(), tonic::Code::Aborted);
        }
        Ok(())
    }

    /// Closes the session; its totals are the plain model's, and so is its run.
    async fn close(self, server: &Latentd) -> Result<Rig, TestCaseError> {
        let Self { rig, line, plain, .. } = self;
        let closed = rig.clone().close().await;
        if let Some(mut line) = line {
            prop_assert_eq!(line.next().await.unwrap(), None, "the stream of a closed session ends well");
        }
        prop_assert_eq!((closed.bins, closed.gaps), (plain.bins, plain.gaps));
        prop_assert_eq!((closed.late, closed.dropped), (plain.late, plain.late));
        prop_assert_eq!(closed.last_bin, plain.last_bin);
        prop_assert_eq!(closed.durable_seq.get("spikes").copied(), plain.next_seq.checked_sub(1));
        let run: v1::RunInfo = server.get(&format!("/v1/runs/{}", rig.run())).await.message();
        prop_assert_eq!((&run.state[..], run.bins), ("closed", plain.bins));
        Ok(rig)
    }
}

/// Asks a closed session for everything: there is none.
async fn haunt(server: &Latentd, closed: &Rig) -> Result<(), TestCaseError> {
    closed.refused(counts(0, 0, &[[1.0, 2.0]])).await.is(404, "not_found", &["no session"]);
    closed.reset("model", None).await.unwrap_err().is(404, "not_found", &["no session"]);
    let path = format!("/v1/sessions/{}", closed.session());
    server.get(&path).await.refused().is(404, "not_found", &["no session"]);
    server.delete(&path).await.refused().is(404, "not_found", &["no session"]);
    let writer = closed.opened.writers["spikes"].clone();
    let attach = v1::Attach { session: closed.session().into(), writer, signal: None };
    let refused = Line::attach(server.live().await, attach).await.err();
    prop_assert_eq!(refused.map(|status| status.code()), Some(tonic::Code::NotFound));
    Ok(())
}

fn same(output: Result<v1::Output, v1::Fault>, expected: &Expected) -> Result<(), TestCaseError> {
    match (output, expected) {
        (Ok(output), Expected::Bins { seq, first_bin, skipped, rows, flags }) => {
            prop_assert_eq!((output.seq, output.first_bin), (Some(*seq), *first_bin));
            prop_assert_eq!(&output.flags, flags);
            prop_assert_eq!((output.n as usize, output.skipped_bins), (rows.len(), *skipped));
            if rows.is_empty() {
                return Ok(());
            }
            for (got, want) in blocks::<2>(&output, 0).iter().zip(rows) {
                for (got, want) in got.iter().zip(want) {
                    prop_assert!((got - want).abs() <= 1e-5 * want.abs().max(1.0), "{} is not {}", got, want);
                }
            }
        }
        (Err(fault), Expected::Refused { kind, expected_seq, consumed }) => {
            prop_assert_eq!((&fault.kind[..], fault.expected_seq), (*kind, Some(*expected_seq)));
            prop_assert_eq!(fault.consumed, *consumed);
        }
        (got, want) => prop_assert!(false, "got {:?}, not {:?}", got, want),
    }
    Ok(())
}

/// Plays the acts, each with the session that its number picks, in the order in which they stand.
async fn play(server: &Latentd, acts: &[(u8, Act)]) -> Result<(), TestCaseError> {
    let mut open: Vec<Driven> = Vec::new();
    let mut closed = None;
    for (on, act) in acts {
        if open.is_empty() {
            open.push(Driven::open(server, Plain::new("hold", "mask")).await);
        }
        let at = usize::from(*on) % open.len();
        match act {
            Act::Open { gap, nan } => open.push(Driven::open(server, Plain::new(gap, nan)).await),
            Act::Close => closed = Some(open.swap_remove(at).close(server).await?),
            Act::Haunt => {
                if let Some(closed) = &closed {
                    haunt(server, closed).await?;
                }
            }
            act => open[at].act(server, act).await?,
        }
    }
    for driven in open {
        driven.close(server).await?;
    }
    Ok(())
}

#[test]
fn a_session_is_what_a_plain_model_of_the_contract_says() {
    holds_to_the_model(200, 50);
}

#[test]
fn a_session_that_is_fed_beside_the_runtimes_threads_is_what_the_model_says_too() {
    holds_to_the_model(60, 0);
}

fn holds_to_the_model(cases: u32, inline_us: u32) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let setup = Setup::new().key("window", WINDOW).key("log_level", "warn").key("load_limit", 1);
    let setup = setup.key("inline_us", inline_us);
    let server = runtime.block_on(setup.start());
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let acts = prop::collection::vec((any::<u8>(), act()), 1..40);
    let ran = TestRunner::new(config).run(&acts, |acts| runtime.block_on(play(&server, &acts)));
    runtime.block_on(server.stop());
    ran.unwrap_or_else(|error| panic!("{error}"));
}
