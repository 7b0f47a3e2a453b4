//! Clocks: how a device's time is related to the server's, and a frame's stretch of it laid on the session's clock.

use std::collections::BTreeMap;

/// What probes know of a clock: t_server = t_device + offset, with drift.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Relation {
    /// t_server − t_device at `at_ns`.
    pub offset_ns: i64,
    /// How fast the offset grows (µs per s of device time).
    pub drift_ppm: f64,
    /// Device time at which the offset holds (ns).
    pub at_ns: i64,
    /// How far the offset may be from the truth at `at_ns`.
    pub uncertainty_ns: u64,
    /// How fast that grows with the distance from `at_ns` (µs per s of device time).
    pub growth_ppm: f64,
}

impl Relation {
    /// Server time (Unix ns) of a device time.
    pub fn to_server(&self, device_ns: i128) -> i128 {
        let since = device_ns - i128::from(self.at_ns);
        device_ns + i128::from(self.offset_ns) + (since as f64 * self.drift_ppm * 1e-6).round() as i128
    }

    /// Device time of a server time (Unix ns).
    pub fn to_device(&self, server_ns: i128) -> i128 {
        let since = server_ns - i128::from(self.offset_ns) - i128::from(self.at_ns);
        let share = self.drift_ppm * 1e-6 / (1.0 + self.drift_ppm * 1e-6);
        i128::from(self.at_ns) + since - (since as f64 * share).round() as i128
    }

    /// t_server − t_device at a device time.
    pub fn offset_at(&self, device_ns: i128) -> i128 {
        self.to_server(device_ns) - device_ns
    }

    /// How far `offset_at` may be from the truth.
    pub fn uncertainty_at(&self, device_ns: i128) -> u64 {
        let away = (device_ns - i128::from(self.at_ns)).unsigned_abs();
        self.uncertainty_ns.saturating_add((away as f64 * self.growth_ppm * 1e-6).ceil() as u64)
    }
}

/// How fast a least delay is forgotten: more than the drift of any crystal.
const FORGET_PPM: i128 = 100;

/// The relations of a session's clocks to the server's.
///
/// Session time is what the session's clock read when its first signal began, and goes on by that signal's index: where
/// the reading was changed or the counter restarted since, session time is the reading + `shift`.
#[derive(Clone, Debug)]
pub struct Clocks {
    session_clock: String,
    known: BTreeMap<String, Relation>,
    shift: i128,
    /// The least arrival − session time of the session's own frames, and when: what stands in for a probe of the
    /// session's clock where a signal is placed by arrival.
    nearest: Option<(i128, i64)>,
}

impl Clocks {
    /// No relation is known yet.
    pub fn new(session_clock: String) -> Self {
        Self { session_clock, known: BTreeMap::new(), shift: 0, nearest: None }
    }

    /// The name of the session's clock.
    pub fn session_clock(&self) -> &str {
        &self.session_clock
    }

    /// What probes have found; from the next frame on.
    pub fn set(&mut self, clock: &str, relation: Relation) {
        self.known.insert(clock.into(), relation);
    }

    /// The relation of `clock`, if it is known.
    pub fn relation(&self, clock: &str) -> Option<&Relation> {
        self.known.get(clock)
    }

    /// The session's clock was set: it reads `by` more than it would.
    pub fn stepped(&mut self, by: i128) {
        self.shift -= by;
    }

    /// Session time is the session's clock's reading + `shift`.
    pub fn shifted(&mut self, shift: i128) {
        self.shift = shift;
    }

    /// A frame of the session's first signal, whose session time is its reading + `shift`, ended at `end_ns` and has
    /// arrived. After a restart of its counter that is the new shift of the session's time, unless the probes speak of
    /// the clock as it read before: a reading is where its arrival says.
    pub fn arrived(&mut self, end_ns: i128, shift: i128, arrived_ns: i64) {
        let own = self.known.get(&self.session_clock);
        let off = |shift: i128| {
            own.map_or(0, |own| (own.to_server(end_ns - shift) - i128::from(arrived_ns)).unsigned_abs())
        };
        if shift != self.shift && off(shift) <= off(self.shift) {
            self.shift = shift;
        }
        let offset = i128::from(arrived_ns) - end_ns;
        let best = match self.nearest {
            Some((least, at)) => {
                let since = (i128::from(arrived_ns) - i128::from(at)).max(0);
                offset.min(least + since * FORGET_PPM / 1_000_000)
            }
            None => offset,
        };
        self.nearest = Some((best, arrived_ns));
    }

    /// Whether times of `clock` can be laid on the session's; the error names the clock of which a probe is missing.
    pub fn knows(&self, clock: &str) -> Result<(), String> {
        let unknown =
            [clock, self.session_clock.as_str()].into_iter().find(|name| !self.known.contains_key(*name));
        unknown.map_or(Ok(()), |name| Err(name.to_owned()))
    }

    /// Time of `clock` as the session's; the error names the clock of which a probe is missing.
    pub fn to_session(&self, clock: &str, device_ns: i128) -> Result<i128, String> {
        let theirs = self.known.get(clock).ok_or_else(|| clock.to_owned())?;
        let ours = self.known.get(&self.session_clock).ok_or_else(|| self.session_clock.clone())?;
        Ok(ours.to_device(theirs.to_server(device_ns)) + self.shift)
    }

    /// A reading of the session's own clock as session time.
    pub fn of_reading(&self, device_ns: i128) -> i128 {
        device_ns + self.shift
    }

    /// How the session's clock stands to the server's.
    pub fn own(&self) -> SessionClock {
        SessionClock { relation: self.known.get(&self.session_clock).copied(), shift: self.shift }
    }

    /// Server time as the session's: by probes, else by the quickest frames. `None` before either.
    pub fn session_at(&self, server_ns: i64) -> Option<i128> {
        let server_ns = i128::from(server_ns);
        match self.known.get(&self.session_clock) {
            Some(ours) => Some(ours.to_device(server_ns) + self.shift),
            None => self.nearest.map(|(offset, _)| server_ns - offset),
        }
    }
}

/// The session's clock against the server's, at one moment.
#[derive(Clone, Copy, Debug)]
pub struct SessionClock {
    relation: Option<Relation>,
    shift: i128,
}

impl SessionClock {
    /// Whether it was probed.
    pub fn is_known(&self) -> bool {
        self.relation.is_some()
    }

    /// Session time as server time (Unix ns), and how far that may be from the truth (ns). `None` before a probe.
    pub fn server_at(&self, session_ns: i128) -> Option<(i128, u64)> {
        let reading = session_ns - self.shift;
        self.relation.map(|own| (own.to_server(reading), own.uncertainty_at(reading)))
    }
}

/// A stretch of device time laid on the session's clock: a straight line, a mere shift beyond its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    device: (i128, i128),
    session: (i128, i128),
}

impl Line {
    /// The stretch [`device.0`, `device.1`) becomes [`session.0`, `session.1`); neither runs backwards.
    pub fn new(device: (i128, i128), session: (i128, i128)) -> Self {
        debug_assert!(device.0 <= device.1 && session.0 <= session.1);
        Self { device, session }
    }

    /// The stretch moved by `by`.
    pub fn shifted(device: (i128, i128), by: i128) -> Self {
        Self { device, session: (device.0 + by, device.1 + by) }
    }

    /// The shift, if that is all it is.
    pub fn shift(&self) -> Option<i128> {
        let (start, end) = (self.session.0 - self.device.0, self.session.1 - self.device.1);
        (start == end).then_some(start)
    }

    /// Session time of a device time.
    pub fn map(&self, device_ns: i128) -> i128 {
        let (start, end) = (self.session.0 - self.device.0, self.session.1 - self.device.1);
        if start == end || device_ns <= self.device.0 {
            device_ns + start
        } else if device_ns >= self.device.1 {
            device_ns + end
        } else {
            let slope = (self.session.1 - self.session.0, self.device.1 - self.device.0);
            self.session.0 + (device_ns - self.device.0) * slope.0 / slope.1
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn relation(offset_ns: i64) -> Relation {
        Relation { offset_ns, drift_ppm: 0.0, at_ns: 0, uncertainty_ns: 10, growth_ppm: 0.0 }
    }

    #[test]
    fn session_time_goes_on_where_the_clock_is_set_or_its_counter_restarts() {
        let mut clocks = Clocks::new("amp".into());
        clocks.set("amp", relation(1_000));
        clocks.arrived(500, 0, 1_510);
        // Set forward by 15,000: what it reads is more, what it means is not.
        clocks.stepped(15_000);
        clocks.set("amp", relation(-14_000));
        assert_eq!(clocks.session_at(1_600), Some(600));
        // Restarted and read from 0 on, which the probes do not know yet; then they do.
        clocks.arrived(700, 700, 1_710);
        assert_eq!(clocks.session_at(1_800), Some(800));
        clocks.set("amp", relation(1_700));
        clocks.arrived(710, 700, 1_720);
        assert_eq!((clocks.session_at(1_800), clocks.own().server_at(800)), (Some(800), Some((1_800, 10))));
    }

    #[test]
    fn server_time_is_the_sessions_by_the_quickest_frame_until_a_probe_says_better() {
        let mut clocks = Clocks::new("amp".into());
        assert_eq!(clocks.session_at(1_000), None);
        clocks.arrived(0, 0, 500);
        clocks.arrived(100, 0, 550);
        clocks.arrived(200, 0, 900);
        assert_eq!(clocks.session_at(1_000), Some(550));
        clocks.set("amp", relation(400));
        assert_eq!(clocks.session_at(1_000), Some(600));
        assert_eq!(clocks.own().server_at(600), Some((1_000, 10)));
        assert_eq!(clocks.to_session("eeg", 0), Err("eeg".into()));
    }

    proptest! {
        #[test]
        fn a_relation_and_its_inverse_agree_to_a_ns(offset in any::<i32>(), drift in -500.0..500.0f64, t in -1_000_000_000_000i128..1_000_000_000_000) {
            let relation = Relation { drift_ppm: drift, at_ns: 5, ..relation(offset.into()) };
            prop_assert!((relation.to_device(relation.to_server(t)) - t).abs() <= 1);
        }

        #[test]
        fn a_line_never_runs_backwards(d in 0i128..1_000, len in 1i128..1_000, s in 0i128..1_000, slen in 0i128..1_000, t in -100i128..3_000) {
            let line = Line::new((d, d + len), (s, s + slen));
            prop_assert!(line.map(t) <= line.map(t + 1));
            prop_assert_eq!((line.map(d), line.map(d + len)), (s, s + slen));
        }
    }
}
