//! Trials by markers: which texts start and end one, and what is broken.

use crate::domain::frame::Markers;
use crate::domain::settings::TrialMarks;

/// When the model's state goes back to its beginning by itself, as the models of the pipeline declare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResetOn {
    /// Where a trial starts.
    pub trial_start: bool,
    /// Where a trial ends.
    pub trial_end: bool,
}

/// What a marker means for trials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// A trial starts.
    Start,
    /// A trial ends.
    End,
    /// A sentence on what is no trial. A start after a start begins one all the same.
    Broken(String),
}

/// The trial in hand.
#[derive(Clone, Debug)]
pub struct Trials {
    marks: TrialMarks,
    /// When the trial in hand started (device ns).
    started_ns: Option<i64>,
}

impl Trials {
    /// Between trials.
    pub fn new(marks: TrialMarks) -> Self {
        Self { marks, started_ns: None }
    }

    /// The signal whose markers count.
    pub fn signal(&self) -> &str {
        self.marks.signal.as_str()
    }

    /// Reads markers, in the order of their times.
    pub fn read(&mut self, markers: &Markers, turns: &mut Vec<Turn>) {
        let mut order: Vec<usize> = (0..markers.t_ns.len()).collect();
        order.sort_by_key(|i| markers.t_ns[*i]);
        for i in order {
            let (t, text) = (markers.t_ns[i], &markers.value[i]);
            if *text == self.marks.start {
                if let Some(before) = self.started_ns.replace(t) {
                    turns.push(Turn::Broken(format!(
                        "a trial that started at {before} ns has no end before the start at {t} ns"
                    )));
                }
                turns.push(Turn::Start);
            } else if *text == self.marks.end {
                match self.started_ns.take() {
                    Some(_) => turns.push(Turn::End),
                    None => turns.push(Turn::Broken(format!("an end at {t} ns has no start"))),
                }
            }
        }
    }

    /// A trial was ended by hand.
    pub fn end(&mut self) {
        self.started_ns = None;
    }
}
