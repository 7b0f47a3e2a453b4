//! What a new relation of a clock changes: where the signals on it lie.
//! Must hold: a sample's index is its identity, so that setting a device's clock moves no sample; session time never
//! steps back.

use super::aligner::Aligner;
use super::clock::{Clocks, Relation};
use super::refusal::Refusal;
use super::stamps::Stamps;
use super::track::{Placed, Track};
use crate::domain::signal::{ClockBy, SignalSpec};

impl Aligner {
    /// What probes know of a clock, from the next frame on. `stepped_ns`: by how much the clock was set.
    pub(super) fn relate(&mut self, clock: &str, relation: Relation, stepped_ns: i64) {
        let by = i128::from(stepped_ns);
        let anchor = self.by_signal[self.anchor];
        for (t, track) in self.tracks.iter_mut().enumerate() {
            let own = track.placed == Placed::Session && clock == self.clocks.session_clock();
            let others = track.placed == Placed::Exchange && track.clock == clock;
            if !own && !others {
                continue;
            }
            let moved = by != 0 && track.read_before(&relation, by);
            if moved {
                track.relabel(by);
            }
            if own && by != 0 && anchor == Some(t) {
                match track.epoch.as_ref().and_then(|epoch| epoch.shift) {
                    Some(shift) if !moved => self.clocks.shifted(shift),
                    _ => self.clocks.stepped(by),
                }
            }
            if let (false, Some(epoch)) = (own, &mut track.epoch) {
                epoch.shift = None;
            }
        }
        self.clocks.set(clock, relation);
    }

    /// Clocks of unknown origin are never mixed: a signal on another clock needs a known relation, also where no input
    /// sees it.
    pub(super) fn is_related(&self, signal: &SignalSpec) -> Result<(), Refusal> {
        if signal.clock_by != ClockBy::Exchange || signal.clock == self.clocks.session_clock() {
            return Ok(());
        }
        self.clocks.knows(&signal.clock).map_err(|unprobed| unknown(signal, &self.clocks, unprobed))
    }
}

fn unknown(signal: &SignalSpec, clocks: &Clocks, unprobed: String) -> Refusal {
    Refusal::ClockUnknown {
        signal: signal.name.clone(),
        clock: signal.clock.clone(),
        session_clock: clocks.session_clock().into(),
        unprobed,
    }
}

impl Track {
    /// Whether what came of it was read before the clock was set `by` so much: it then arrived where the new relation
    /// puts the reading that it would have now. An epoch that began since has the new reading already.
    fn read_before(&self, relation: &Relation, by: i128) -> bool {
        let Some(epoch) = &self.epoch else { return false };
        let mark = self.cover.mark();
        let reading = self.pace.map_or(mark, |pace| epoch.device0_ns + pace.start_ns(mark));
        let off = |reading| (relation.to_server(reading) - i128::from(self.last_arrival_ns)).unsigned_abs();
        off(reading + by) < off(reading)
    }

    /// The clock was set: samples keep their place by their index; events, which have none, begin an epoch.
    fn relabel(&mut self, by: i128) {
        let sampled = self.pace.is_some();
        let Some(epoch) = &mut self.epoch else { return };
        if !sampled {
            self.epoch_owed = true;
            return;
        }
        epoch.device0_ns += by;
        // The next stamp is the first of the new reading.
        epoch.stamps = Stamps::default();
        if let Some(shift) = &mut epoch.shift {
            *shift -= by;
        }
    }
}
