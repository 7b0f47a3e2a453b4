//! What is known of every bin: by the rig's answers, by the library, by a clean road; and that they are the same.

use std::collections::{BTreeMap, BTreeSet};

use latentd::domain::output::Flags;
use latentd::wire::{tensor, v1};

use super::journey::Journey;
use crate::support::{Latentd, Line};

/// A frame: its signal and `seq`.
pub type Key = (String, u64);

/// The key of a frame.
pub fn key(frame: &v1::Frame) -> Key {
    (frame.signal.clone(), frame.seq)
}

/// One bin as it was answered, or recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bin {
    /// Its flags.
    pub flags: u32,
    /// The bits of its outputs, by number.
    pub bits: Vec<Vec<u32>>,
}

impl Bin {
    /// Without what says how the road was: a backlog's `stale`.
    fn by_any_road(&self) -> Self {
        Self { flags: self.flags & !Flags::STALE.0, bits: self.bits.clone() }
    }
}

/// One message of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// Bins `first_bin ..`, behind an unfilled gap of `skipped` bins.
    Bins { first_bin: u64, skipped: u64, bins: Vec<Bin>, echo: Vec<u8> },
    /// A fault that consumed the frame.
    Fault { kind: String, detail: String },
}

impl Piece {
    /// Without what says how the road was.
    pub fn by_any_road(&self) -> Self {
        let mut piece = self.clone();
        if let Piece::Bins { bins, .. } = &mut piece {
            bins.iter_mut().for_each(|bin| *bin = bin.by_any_road());
        }
        piece
    }
}

/// The bits of a tensor `[n, …]`, by bin.
fn bits(message: Option<&v1::Tensor>) -> Vec<Vec<u32>> {
    let values = tensor::host("tensor", message.expect("a tensor")).expect("a readable tensor");
    let width = values.elements() / values.shape[0].max(1);
    let bits: Vec<u32> = values.to_f64().into_iter().map(|value| (value as f32).to_bits()).collect();
    bits.chunks(width.max(1)).map(<[u32]>::to_vec).collect()
}

/// The bins of an answer.
pub fn piece(output: &v1::Output) -> Piece {
    assert_eq!(output.flags.len(), output.n as usize, "flags of each bin");
    let mut bins: Vec<Bin> = output.flags.iter().map(|&flags| Bin { flags, bits: Vec::new() }).collect();
    for (number, block) in (0..).zip(&output.blocks) {
        assert_eq!(block.output, number, "blocks are in the order of the outputs");
        let rows = bits(block.tensor.as_ref());
        assert_eq!(rows.len(), bins.len(), "a row for each bin");
        bins.iter_mut().zip(rows).for_each(|(bin, row)| bin.bits.push(row));
    }
    Piece::Bins {
        first_bin: output.first_bin,
        skipped: output.skipped_bins,
        bins,
        echo: output.echo.to_vec(),
    }
}

/// A fault that consumed its frame.
pub fn consumed(fault: &v1::Fault) -> Piece {
    assert!(fault.consumed, "{fault:?}");
    assert_eq!(fault.expected_seq, fault.seq.map(|seq| seq + 1), "{fault:?}");
    Piece::Fault { kind: fault.kind.clone(), detail: fault.detail.clone() }
}

/// The bins that were told, each once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Account {
    /// Answered bins.
    pub bins: BTreeMap<u64, Bin>,
    /// Unfilled gaps, from bin to bin.
    pub skipped: BTreeSet<(u64, u64)>,
    /// The bin that the furthest answer says comes next.
    next: u64,
}

impl Account {
    /// Enters a message; a bin that was told already must be told alike.
    pub fn enter(&mut self, piece: &Piece) {
        let Piece::Bins { first_bin, skipped, bins, .. } = piece else { return };
        if *skipped > 0 {
            self.skipped.insert((first_bin - skipped, *first_bin));
        }
        self.next = self.next.max(first_bin + bins.len() as u64);
        for (k, bin) in (*first_bin..).zip(bins) {
            if let Some(before) = self.bins.insert(k, bin.clone()) {
                assert_eq!(before, *bin, "bin {k} was told twice, and differs");
            }
        }
    }

    /// Up to where every bin is told, as answered or skipped.
    pub fn told_to(&self) -> u64 {
        let mut at = 0;
        loop {
            let gap = self.skipped.iter().find(|(from, to)| *from == at && *to > at);
            match gap {
                Some((_, to)) => at = *to,
                None if self.bins.contains_key(&at) => at += 1,
                None => return at,
            }
        }
    }

    /// Up to where it was told that bins have closed.
    pub fn end(&self) -> u64 {
        self.next
    }

    /// Without what says how the road was.
    pub fn by_any_road(&self) -> Self {
        let bins = self.bins.iter().map(|(k, bin)| (*k, bin.by_any_road())).collect();
        Self { bins, skipped: self.skipped.clone(), next: self.next }
    }
}

/// The totals of a close that no road may change.
pub fn totals(closed: &v1::CloseReply) -> [u64; 5] {
    [closed.bins, closed.gaps, closed.late, closed.dropped, closed.last_bin.map_or(0, |last| last + 1)]
}

/// Events by kind and signal: how many, and between which bins.
pub type Events = BTreeMap<(String, String), (u64, Option<u64>, Option<u64>)>;

/// What became of a journey.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its bins.
    pub account: Account,
    /// The messages that answered each frame.
    pub answers: BTreeMap<Key, Vec<Piece>>,
    /// What close told.
    pub totals: [u64; 5],
    /// What the run tells of what happened to the data.
    pub events: Events,
}

/// Kinds of events that speak of the data, not of the road.
const OF_DATA: [&str; 8] =
    ["gap", "skipped", "late", "overlap", "before_start", "nan_replaced", "reset", "output_invalid"];

/// The events of a run that no road may change.
pub async fn events(server: &Latentd, run: &str) -> Events {
    let reply: v1::EventsReply = server.get(&format!("/v1/runs/{run}/events")).await.message();
    let mut events = Events::new();
    for event in reply.events.iter().filter(|event| OF_DATA.contains(&&event.kind[..])) {
        let (count, from, to) =
            events.entry((event.kind.clone(), event.signal.clone())).or_insert((0, None, None));
        *count += event.count;
        *from = [*from, event.from_bin].into_iter().flatten().min();
        *to = (*to).max(event.to_bin);
    }
    events
}

/// The bins of a closed run as the library has them; what it leaves out between them was skipped.
pub async fn recorded(server: &Latentd, run: &str, outputs: &[v1::OutputSpec]) -> BTreeMap<u64, Bin> {
    let mut bins: BTreeMap<u64, Bin> = BTreeMap::new();
    for spec in outputs {
        let path = format!("/v1/runs/{run}/outputs/{}", spec.name);
        let reply: v1::OutputsReply = server.get(&path).await.message();
        for stretch in &reply.stretches {
            let rows = bits(stretch.tensor.as_ref());
            for ((k, row), &flags) in (stretch.first_bin..).zip(rows).zip(&stretch.flags) {
                let bin = bins.entry(k).or_insert(Bin { flags, bits: Vec::new() });
                assert_eq!((bin.flags, bin.bits.len()), (flags, spec.number as usize), "bin {k}");
                bin.bits.push(row);
            }
        }
    }
    bins
}

/// The journey by a clean road: one frame after the other, each answered before the next is sent.
pub async fn clean(server: &Latentd, journey: &Journey) -> Outcome {
    let mut line = server.line(journey.ask.clone()).await;
    let (mut account, mut answers) = (Account::default(), BTreeMap::<Key, Vec<Piece>>::new());
    let mut enter = |key: Key, piece: Piece| {
        account.enter(&piece);
        answers.entry(key).or_default().push(piece);
    };
    for frame in &journey.frames {
        line.put(frame.clone()).await;
        loop {
            let (key, piece) = answer(&mut line).await;
            let is_its_own = key == self::key(frame);
            enter(key, piece);
            if is_its_own {
                break;
            }
        }
    }
    let opened = line.opened.clone();
    for output in line.end().await {
        enter((output.signal.clone(), output.seq.expect("an answer to a frame")), piece(&output));
    }
    let path = format!("/v1/sessions/{}", opened.session);
    let closed: v1::CloseReply = server.delete(&path).await.message();
    let run = opened.run.as_deref().expect("a run");
    assert_eq!(account.bins, recorded(server, run, &opened.outputs).await, "the library of a clean road");
    assert_eq!(account.told_to(), account.end(), "a clean road leaves no hole");
    assert_eq!(account.bins.len() as u64, closed.bins);
    let events = events(server, run).await;
    Outcome { account, answers, totals: totals(&closed), events }
}

async fn answer(line: &mut Line) -> (Key, Piece) {
    match line.next().await {
        Ok(Some(v1::down::Message::Output(output))) => {
            ((output.signal.clone(), output.seq.expect("an answer to a frame")), piece(&output))
        }
        Ok(Some(v1::down::Message::Fault(fault))) => {
            ((fault.signal.clone(), fault.seq.expect("a frame's fault")), consumed(&fault))
        }
        other => panic!("an answer is due, not {other:?}"),
    }
}
