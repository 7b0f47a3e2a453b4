//! Random sessions against a plain model of what the contract says: order, window, gaps, overlaps, writers, resets.

use std::collections::VecDeque;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::support::{Latentd, Line, Linear, Rig, Setup, binned, blocks, counts, linear};
use latentd::wire::v1;

const WINDOW: usize = 4;

/// What a rig does next.
#[derive(Clone, Debug)]
enum Act {
    /// The next frame, with so many rows.
    Frame { rows: u8 },
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
    /// The next frame, of a wrong shape.
    Misshapen,
    /// A stream attaches, and takes over from one that is attached.
    Attach,
    /// The stream ends.
    Detach,
    /// The state starts anew.
    Reset,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (1..4u8).prop_map(|rows| Act::Frame { rows }),
        3 => (1..8u8).prop_map(|back| Act::Again { back }),
        1 => (1..4u8).prop_map(|by| Act::Ahead { by }),
        2 => (1..7u8, 1..3u8).prop_map(|(by, rows)| Act::Lost { by, rows }),
        2 => (1..6u8).prop_map(|by| Act::Gap { by }),
        2 => (1..5u8, 0..3u8).prop_map(|(by, rows)| Act::Overlap { by, rows }),
        1 => (1..5u8).prop_map(|back| Act::Acked { back }),
        1 => Just(Act::Misshapen),
        2 => Just(Act::Attach),
        1 => Just(Act::Detach),
        1 => Just(Act::Reset),
    ]
}

/// What the answer to a frame must be.
#[derive(Clone, Debug, PartialEq)]
enum Expected {
    Bins { seq: u64, first_bin: u64, rows: Vec<[f32; 2]>, flags: Vec<u32> },
    Refused { kind: &'static str, expected_seq: u64 },
}

/// The contract as a plain model: one signal, `gap = "hold"`, rows that are bins.
struct Plain {
    next_seq: u64,
    next_index: u64,
    /// The index of bin 0: that of the first frame.
    t0_index: Option<u64>,
    /// Answers of the `seq`s up to `next_seq`; nothing for those that were given up.
    kept: VecDeque<Option<Expected>>,
    model: Linear,
    last: [f32; 2],
    reset_due: bool,
    bins: u64,
    gaps: u64,
    late: u64,
}

impl Plain {
    fn new() -> Self {
        Self {
            next_seq: 0,
            next_index: 0,
            t0_index: None,
            kept: VecDeque::new(),
            model: Linear::new(),
            last: [0.0; 2],
            reset_due: false,
            bins: 0,
            gaps: 0,
            late: 0,
        }
    }

    fn next_bin(&self) -> u64 {
        self.next_index - self.t0_index.unwrap_or(self.next_index)
    }

    /// Rows of a frame are told by its seq, so that a repetition with other data is seen.
    fn rows(seq: u64, n: u64) -> Vec<[f32; 2]> {
        (0..n).map(|i| [((seq + i) % 3) as f32, (i % 2) as f32]).collect()
    }

    fn judge(&mut self, frame: &v1::Frame, rows: &[[f32; 2]]) -> Expected {
        let refused = |kind| Expected::Refused { kind, expected_seq: self.next_seq };
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
        for _ in self.next_seq..frame.seq {
            self.kept.push_back(None);
        }
        let answer = self.consume(frame, rows);
        self.kept.push_back(Some(answer.clone()));
        self.kept.drain(..self.kept.len().saturating_sub(WINDOW));
        self.next_seq = frame.seq + 1;
        answer
    }

    fn consume(&mut self, frame: &v1::Frame, rows: &[[f32; 2]]) -> Expected {
        if self.t0_index.is_none() {
            (self.t0_index, self.next_index) = (Some(frame.first_index), frame.first_index);
        }
        let (first_bin, mut answered, mut flags) = (self.next_bin(), Vec::new(), Vec::new());
        let mut step = |plain: &mut Self, row: [f32; 2], flag: u32| {
            let mut flag = flag;
            if std::mem::take(&mut plain.reset_due) {
                plain.model = Linear::new();
                flag |= 1 << 7;
            }
            answered.push(plain.model.step(row));
            flags.push(flag);
            plain.last = row;
        };
        let again = (self.next_index.saturating_sub(frame.first_index)).min(rows.len() as u64);
        self.late += again;
        let missing = frame.first_index.saturating_sub(self.next_index);
        self.gaps += u64::from(missing > 0);
        for _ in 0..missing {
            step(self, self.last, 1);
        }
        for row in &rows[again as usize..] {
            step(self, *row, 0);
        }
        self.next_index = self.next_index.max(frame.first_index + rows.len() as u64);
        self.bins += answered.len() as u64;
        Expected::Bins { seq: frame.seq, first_bin, rows: answered, flags }
    }
}

/// The session as it is driven: by HTTP, or by a stream while one is attached.
struct Driven {
    rig: Rig,
    line: Option<Line>,
}

impl Driven {
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
}

fn same(output: Result<v1::Output, v1::Fault>, expected: &Expected) -> Result<(), TestCaseError> {
    match (output, expected) {
        (Ok(output), Expected::Bins { seq, first_bin, rows, flags }) => {
            prop_assert_eq!((output.seq, output.first_bin), (Some(*seq), *first_bin));
            prop_assert_eq!(&output.flags, flags);
            prop_assert_eq!((output.n as usize, output.skipped_bins), (rows.len(), 0));
            if rows.is_empty() {
                return Ok(());
            }
            for (got, want) in blocks::<2>(&output, 0).iter().zip(rows) {
                for (got, want) in got.iter().zip(want) {
                    prop_assert!((got - want).abs() <= 1e-5 * want.abs().max(1.0), "{} is not {}", got, want);
                }
            }
        }
        (Err(fault), Expected::Refused { kind, expected_seq }) => {
            prop_assert_eq!((&fault.kind[..], fault.expected_seq), (*kind, Some(*expected_seq)));
            prop_assert!(!fault.consumed);
        }
        (got, want) => prop_assert!(false, "got {:?}, not {:?}", got, want),
    }
    Ok(())
}

async fn play(server: &Latentd, acts: &[Act]) -> Result<(), TestCaseError> {
    let rig = server.open(linear()).await;
    let (mut driven, mut plain) = (Driven { rig, line: None }, Plain::new());
    for act in acts {
        let (seq, index) = (plain.next_seq, plain.next_index);
        let rows = |n: u8| Plain::rows(seq, n.into());
        let frame = |seq, index, rows: &[[f32; 2]]| (counts(seq, index, rows), rows.to_vec());
        let (frame, rows) = match act.clone() {
            Act::Frame { rows: n } => frame(seq, index, &rows(n)),
            Act::Again { back } => frame(seq.saturating_sub(back.into()), index, &[[7.0, 7.0]]),
            Act::Ahead { by } => frame(seq + u64::from(by), index, &rows(1)),
            Act::Lost { by, rows: n } => {
                let (frame, rows) = frame(seq + u64::from(by), index + u64::from(by), &rows(n));
                (v1::Frame { lost: true, ..frame }, rows)
            }
            Act::Gap { by } => frame(seq, index + u64::from(by), &rows(1)),
            Act::Overlap { by, rows: n } => {
                let by = u64::from(by).min(plain.next_bin());
                let n = (by as u8 + n).max(1);
                frame(seq, index - by, &rows(n))
            }
            Act::Acked { back } => {
                let (frame, rows) = frame(seq, index, &rows(1));
                let acked_seq = seq.checked_sub(back.into());
                (v1::Frame { acked_seq, ..frame }, rows)
            }
            Act::Misshapen => (binned("spikes", seq, index, &[[1.0, 2.0, 3.0]]), Vec::new()),
            Act::Attach => {
                let line = server.attach(&driven.rig.opened).await;
                prop_assert_eq!(line.attached.next_seq["spikes"], plain.next_seq);
                if let Some(mut old) = driven.line.replace(line) {
                    prop_assert_eq!(old.ended().await.code(), tonic::Code::Aborted);
                }
                continue;
            }
            Act::Detach => {
                if let Some(line) = driven.line.take() {
                    prop_assert_eq!(line.end().await, []);
                }
                continue;
            }
            Act::Reset => {
                prop_assert_eq!(driven.rig.reset("model", None).await.unwrap(), plain.next_bin());
                plain.reset_due = true;
                continue;
            }
        };
        let expected = plain.judge(&frame, &rows);
        same(driven.send(frame).await, &expected)?;
    }
    let closed = driven.rig.clone().close().await;
    if let Some(mut line) = driven.line.take() {
        prop_assert_eq!(line.next().await.unwrap(), None, "the stream of a closed session ends well");
    }
    prop_assert_eq!((closed.bins, closed.gaps), (plain.bins, plain.gaps));
    prop_assert_eq!((closed.late, closed.dropped), (plain.late, plain.late));
    prop_assert_eq!(closed.last_bin, plain.next_bin().checked_sub(1));
    Ok(())
}

#[test]
fn a_session_is_what_a_plain_model_of_the_contract_says() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let setup = Setup::new().key("window", WINDOW).key("log_level", "warn");
    let server = runtime.block_on(setup.start());
    let config = Config { cases: 200, failure_persistence: None, ..Config::default() };
    let acts = prop::collection::vec(act(), 1..20);
    let ran = TestRunner::new(config).run(&acts, |acts| runtime.block_on(play(&server, &acts)));
    runtime.block_on(server.stop());
    ran.unwrap_or_else(|error| panic!("{error}"));
}
