//! A rig that keeps to the rules by which no bin is lost on a bad road:
//! - it keeps a frame until that frame's answer is here, and a later one's that goes on where the account ends, so that
//!   no message of an answer is missing;
//! - the frames that it keeps never span more than `window`, since older answers are not kept by the server either;
//! - what is not answered it sends again, under its own `seq`, and from where the server says that a frame is missing;
//! - it acknowledges what it no longer keeps;
//! - it says `lost` only once everything before is answered, since what that frame overtook would be given up with it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use latentd::wire::v1;

use super::account::{Account, Key, Outcome, Piece, consumed, key, piece};
use super::journey::{Journey, WINDOW};
use crate::recordings::Random;

struct Kept {
    frame: v1::Frame,
    /// Where its answer begins (a bin), once it is here.
    answered_from: Option<u64>,
}

/// A rig on its journey.
pub struct Rig<'a> {
    journey: &'a Journey,
    clean: &'a Outcome,
    /// Frames of the journey before this one were sent once.
    next: usize,
    kept: BTreeMap<Key, Kept>,
    again: VecDeque<Key>,
    /// Frames that were answered, kept or not.
    answered: BTreeSet<Key>,
    acknowledges: bool,
    /// Each answer is, message by message, that of a clean road.
    by_message: bool,
    /// What it was told.
    pub account: Account,
    /// Frames that were sent more than once.
    pub resent: u64,
}

impl<'a> Rig<'a> {
    /// A rig at its start. `by_message`: its answers must be those of the clean road, message by message.
    pub fn new(journey: &'a Journey, clean: &'a Outcome, by_message: bool, random: &mut Random) -> Self {
        Self {
            journey,
            clean,
            next: 0,
            kept: BTreeMap::new(),
            again: VecDeque::new(),
            answered: BTreeSet::new(),
            acknowledges: !random.one_in(3),
            by_message,
            account: Account::default(),
            resent: 0,
        }
    }

    /// The frames of a signal that it keeps, by `seq`.
    fn of(&self, signal: &str) -> impl Iterator<Item = (u64, &Kept)> {
        let range = (signal.to_owned(), 0)..=(signal.to_owned(), u64::MAX);
        self.kept.range(range).map(|((_, seq), kept)| (*seq, kept))
    }

    fn new_fits(&self) -> bool {
        let Some(frame) = self.journey.frames.get(self.next) else { return false };
        let fits = self.of(&frame.signal).next().is_none_or(|(oldest, _)| frame.seq < oldest + WINDOW);
        let before = self.of(&frame.signal).all(|(_, kept)| kept.answered_from.is_some());
        fits && self.kept.len() < WINDOW as usize && (before || !frame.lost)
    }

    /// Whether it has something to send.
    pub fn may_send(&self) -> bool {
        !self.again.is_empty() || self.new_fits()
    }

    /// What it sends next: again, in order, what is missing; else the next of its journey.
    pub fn next_frame(&mut self) -> Option<v1::Frame> {
        let key = loop {
            match self.again.pop_front() {
                Some(key) if self.kept.contains_key(&key) => {
                    self.resent += 1;
                    break key;
                }
                Some(_) => {}
                None if self.new_fits() => {
                    let frame = self.journey.frames[self.next].clone();
                    let key = key(&frame);
                    self.next += 1;
                    self.kept.insert(key.clone(), Kept { frame, answered_from: None });
                    break key;
                }
                None => return None,
            }
        };
        let oldest = self.of(&key.0).next().map(|(seq, _)| seq);
        let acked_seq = oldest.filter(|_| self.acknowledges).and_then(|oldest| oldest.checked_sub(1));
        Some(v1::Frame { acked_seq, ..self.kept[&key].frame.clone() })
    }

    /// It has waited for long enough, or has a new connection: what is missing is sent again.
    pub fn lose_patience(&mut self) {
        let hole = self.account.told_to() < self.account.end();
        let missing = self.kept.iter().filter(|(_, kept)| hole || kept.answered_from.is_none());
        self.again = missing.map(|(key, _)| key.clone()).collect();
    }

    /// Takes a message of an answer.
    pub fn take(&mut self, output: &v1::Output) {
        let seq = output.seq.expect("bins close by frames alone here");
        let key = (output.signal.clone(), seq);
        let told = piece(output);
        if self.by_message {
            self.is_of_the_clean_road(&key, &told);
        }
        self.account.enter(&told);
        self.answered.insert(key.clone());
        if let Some(kept) = self.kept.get_mut(&key) {
            let from = output.first_bin - output.skipped_bins;
            kept.answered_from = Some(kept.answered_from.map_or(from, |before| before.min(from)));
        }
        self.let_go();
    }

    fn is_of_the_clean_road(&self, key: &Key, told: &Piece) {
        let known = &self.clean.answers[key];
        let is_known = known.iter().any(|piece| piece.by_any_road() == told.by_any_road());
        assert!(is_known, "{key:?}: {told:?} is not of {known:?}");
    }

    /// Lets go of frames whose answer is whole: a later one goes on from where the account ends.
    fn let_go(&mut self) {
        let told_to = self.account.told_to();
        let mut upto: BTreeMap<String, u64> = BTreeMap::new();
        for ((signal, seq), kept) in &self.kept {
            if kept.answered_from.is_some_and(|from| from <= told_to) {
                upto.insert(signal.clone(), *seq);
            }
        }
        self.kept.retain(|(signal, seq), kept| {
            kept.answered_from.is_none() || upto.get(signal).is_none_or(|upto| seq >= upto)
        });
    }

    /// Takes a fault about one of its frames.
    pub fn refused(&mut self, fault: &v1::Fault) {
        let seq = fault.seq.expect("a fault about a frame");
        let key = (fault.signal.clone(), seq);
        match fault.kind.as_str() {
            _ if fault.consumed => {
                self.is_of_the_clean_road(&key, &consumed(fault));
                self.kept.remove(&key);
                self.answered.insert(key);
            }
            "expected_seq" => {
                let expected = fault.expected_seq.expect("the seq that is expected");
                assert!(expected < seq, "{fault:?}");
                if !self.kept.contains_key(&key) {
                    return;
                }
                let (first, kept) =
                    self.of(&key.0).find(|(seq, _)| *seq >= expected).expect("what is missing is kept");
                // The fault may have been long on its way, and what was missing has come since.
                let since = (key.0.clone(), expected)..=(key.0.clone(), u64::MAX);
                let has_come = self.answered.range(since).next().is_some();
                let is_next = first == expected || kept.frame.lost;
                assert!(is_next || has_come, "{fault:?}: the next that is kept is {first}");
                let missing = self
                    .of(&key.0)
                    .filter(|(at, kept)| (expected..=seq).contains(at) && kept.answered_from.is_none());
                let missing: Vec<Key> = missing.map(|(at, _)| (key.0.clone(), at)).collect();
                self.again.retain(|key| !missing.contains(key));
                missing.into_iter().rev().for_each(|key| self.again.push_front(key));
            }
            // A copy that came long after: its answer was here, and was acknowledged or is older than the window.
            "already_stepped" => {
                assert!(!self.kept.contains_key(&key), "{fault:?}, and no answer of it came")
            }
            other => panic!("{other}: {fault:?}"),
        }
    }

    /// Whether all was sent, and is answered without a hole.
    pub fn is_done(&self) -> bool {
        self.next == self.journey.frames.len()
            && self.kept.values().all(|kept| kept.answered_from.is_some())
            && self.account.told_to() == self.account.end()
    }

    /// Where it stands, for a sentence.
    pub fn standing(&self) -> String {
        let kept: Vec<_> =
            self.kept.iter().map(|((signal, seq), kept)| (signal, seq, kept.answered_from)).collect();
        format!(
            "{} of {} frames were sent; kept, with where their answers begin: {kept:?}; told to bin {} of {}",
            self.next,
            self.journey.frames.len(),
            self.account.told_to(),
            self.account.end(),
        )
    }

    /// What an attach may say: no signal is behind what was answered, none beyond what was sent.
    pub fn stands(&self, attached: &v1::Attached) {
        for (signal, next_seq) in &attached.next_seq {
            let sent = self.journey.frames[..self.next].iter().filter(|frame| frame.signal == *signal);
            let most = sent.map(|frame| frame.seq + 1).max().unwrap_or(0);
            let answered = self.of(signal).filter(|(_, kept)| kept.answered_from.is_some());
            let least = answered.map(|(seq, _)| seq + 1).max().unwrap_or(0);
            assert!((least..=most).contains(next_seq), "{signal}: {next_seq}, not {least} to {most}");
        }
        let last = self.account.bins.keys().next_back().copied();
        assert!(attached.last_bin >= last, "{:?} is before {last:?}", attached.last_bin);
        assert_eq!(u64::from(attached.window), WINDOW);
    }
}
