//! Clock exchange: probes of a device's clock to its relation to the server's, with an uncertainty that holds.
//! Enters: the four stamps of each finished probe. Leaves: the relation after it, or that the clock was set.
//! Owns: the last probes of one clock. Must hold: the truth lies within the stated uncertainty, wherever a probe's
//! delay lay on its way, as long as the clock drifts by less than 500 ppm and steadily (to 1 ppm per history); one
//! probe that is far off is not believed.
//! Must not know: what time it is, transports, signals.
//!
//! A probe is sent by the device at t1, comes at t2, is answered at t3 and back at t4. Its offset is
//! θ = ((t2 − t1) + (t3 − t4)) / 2 and its round trip δ = (t4 − t1) − (t3 − t2) (RFC 5905, section 8); the truth lies
//! within δ/2 of θ, since neither way took less than no time.

use std::collections::VecDeque;

use super::clock::Relation;

/// Probes of which the one with the shortest round trip gives the offset.
const RECENT: usize = 8;
/// Older probes that are kept for the drift: the best of each `RECENT`.
const KEPT: usize = 8;
/// A probe that is off by more than this, and by more than its round trip can explain, is not believed alone.
const STEP_NS: f64 = 50e6;
/// So many of them in a row, that agree with each other, are a step.
const STEP_PROBES: usize = 3;
/// No clock drifts by more.
const MOST_DRIFT: f64 = 500e-6;
/// What a crystal drifts by as a rule: a slope counts as far as it is known better.
const USUAL_DRIFT: f64 = 50e-6;
/// What a drift may change by while its probes are kept.
const WANDER: f64 = 1e-6;

/// The stamps of a finished probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Sent by the device (device ns).
    pub t1_ns: i64,
    /// Received by the server (Unix ns).
    pub t2_ns: i64,
    /// Sent back by the server (Unix ns).
    pub t3_ns: i64,
    /// Received by the device (device ns).
    pub t4_ns: i64,
}

/// What a probe has brought.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Heard {
    /// Nothing: it came already, its stamps are impossible, or it is far off and not believed (yet).
    Nothing,
    /// The relation is another.
    Relation,
    /// The clock was set, and the relation is another.
    Step(ClockStep),
}

/// A clock that was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockStep {
    /// t_server − t_device before.
    pub old_offset_ns: i128,
    /// t_server − t_device now.
    pub new_offset_ns: i128,
    /// What the clock reads more than it would.
    pub by_ns: i64,
}

/// A probe as an offset at an instant: the truth is within `half_ns` of it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    at_ns: i128,
    offset_ns: i128,
    half_ns: f64,
}

impl Point {
    /// `None`: the stamps are impossible, one way or the other would have taken less than no time.
    fn of(probe: &Probe) -> Option<Self> {
        let [t1, t2, t3, t4] = [probe.t1_ns, probe.t2_ns, probe.t3_ns, probe.t4_ns].map(i128::from);
        let (up, down) = (t2 - t1, t3 - t4);
        // At t1 the offset is at most `up`, at t4 at least `down`; in the middle it may have drifted from both.
        let half_ns = (up - down) as f64 / 2.0 + (t4 - t1) as f64 / 2.0 * MOST_DRIFT;
        let possible = t4 >= t1 && t3 >= t2 && half_ns >= 0.0;
        // Stamps and middles are whole ns.
        possible.then_some(Self {
            at_ns: (t1 + t4).div_euclid(2),
            offset_ns: (up + down).div_euclid(2),
            half_ns: half_ns + 2.0,
        })
    }

    fn since_ns(&self, other: &Self) -> f64 {
        (self.at_ns - other.at_ns) as f64
    }

    fn apart_ns(&self, other: &Self) -> f64 {
        ((self.offset_ns - other.offset_ns) as f64).abs()
    }

    /// Whether one clock that was not set can have given both.
    fn agrees(&self, other: &Self) -> bool {
        let drifted_ns = self.since_ns(other).abs() * MOST_DRIFT;
        self.apart_ns(other) <= self.half_ns + other.half_ns + drifted_ns
    }

    fn is_far_off(&self, relation: &Relation) -> bool {
        let off_ns = ((self.offset_ns - relation.offset_at(self.at_ns)) as f64).abs();
        off_ns > STEP_NS && off_ns > self.half_ns + relation.uncertainty_at(self.at_ns) as f64
    }
}

/// The exchange with one device's clock.
#[derive(Clone, Debug, Default)]
pub struct Exchange {
    recent: VecDeque<Point>,
    /// Older ones, the best of each `RECENT` that have left `recent`.
    kept: VecDeque<Point>,
    /// How many have left `recent` since the last of `kept` was begun.
    left: usize,
    /// Far off and in a row.
    far: Vec<Point>,
    relation: Option<Relation>,
    steps: u64,
}

impl Exchange {
    /// Takes a finished probe. One that came already is known by its place among the last.
    pub fn take(&mut self, probe: Probe) -> Heard {
        let is_new = |point: &Point| !self.far.contains(point) && !self.recent.contains(point);
        let Some(point) = Point::of(&probe).filter(is_new) else { return Heard::Nothing };
        if let Some(before) = self.relation.filter(|relation| point.is_far_off(relation)) {
            let in_a_row = |far: &Point| far.apart_ns(&point) <= STEP_NS + far.half_ns + point.half_ns;
            if !self.far.iter().all(in_a_row) {
                self.far.clear();
            }
            self.far.push(point);
            return if self.far.len() < STEP_PROBES { Heard::Nothing } else { self.step(before) };
        }
        self.far.clear();
        self.recent.push_back(point);
        if self.recent.len() > RECENT {
            let leaving = self.recent.pop_front();
            leaving.into_iter().for_each(|point| self.keep(point));
        }
        self.fit();
        Heard::Relation
    }

    /// How the clock stands to the server's, as far as it is known.
    pub fn relation(&self) -> Option<&Relation> {
        self.relation.as_ref()
    }

    /// How often it was set.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    fn step(&mut self, before: Relation) -> Heard {
        self.recent = self.far.drain(..).collect();
        self.kept.clear();
        self.left = 0;
        self.steps += 1;
        self.fit();
        let (Some(now), Some(newest)) = (self.relation, self.recent.back()) else { return Heard::Nothing };
        let server_ns = now.to_server(newest.at_ns);
        let (would, reads) = (before.to_device(server_ns), now.to_device(server_ns));
        let by_ns = (reads - would).clamp(i64::MIN.into(), i64::MAX.into()) as i64;
        Heard::Step(ClockStep {
            old_offset_ns: before.offset_at(would),
            new_offset_ns: now.offset_at(reads),
            by_ns,
        })
    }

    fn keep(&mut self, point: Point) {
        match self.kept.back_mut().filter(|_| self.left > 0) {
            Some(best) if best.half_ns <= point.half_ns => {}
            Some(best) => *best = point,
            None => self.kept.push_back(point),
        }
        self.left = (self.left + 1) % RECENT;
        if self.kept.len() > KEPT {
            self.kept.pop_front();
        }
    }

    /// The recent probe with the shortest round trip, of those that most others agree with.
    fn best(&self) -> Option<Point> {
        let has_most = |point: &&Point| {
            2 * self.recent.iter().filter(|other| other.agrees(point)).count() > self.recent.len()
        };
        let best = self.recent.iter().filter(has_most).min_by(|a, b| a.half_ns.total_cmp(&b.half_ns));
        best.or(self.recent.back()).copied()
    }

    /// The relation by the probes that there are.
    fn fit(&mut self) {
        let Some(best) = self.best() else { return };
        self.kept.retain(|point| point.agrees(&best));
        let Some(newest) = self.recent.back() else { return };
        let good: Vec<Point> =
            self.kept.iter().chain(&self.recent).filter(|point| point.agrees(&best)).copied().collect();
        let drift = drift(&good);
        let from_line =
            |point: &Point| ((point.offset_ns - best.offset_ns) as f64 - drift * point.since_ns(&best)).abs();
        // How far the line can be from the truth where a good probe was: what it is off, and what the probe is unsure of.
        let error = |point: &Point| from_line(point) + point.half_ns + WANDER * newest.since_ns(point).abs();
        // Line and truth are both straight: that is two bounds between any two probes, and so one on the slope.
        let slope_error = pairs(&good)
            .map(|(a, b)| (error(a) + error(b)) / a.since_ns(b).abs())
            .fold(MOST_DRIFT + drift.abs(), f64::min);
        let here = good.iter().map(|point| error(point) + slope_error * newest.since_ns(point).abs());
        let here = here.fold(f64::INFINITY, f64::min);
        // What disagrees and is too near for a step may be right, and the others wrong.
        let others = self.recent.iter().filter(|point| !point.agrees(&best));
        let uncertainty_ns = others.map(|point| from_line(point) + point.half_ns).fold(here, f64::max);
        let offset_ns = best.offset_ns + (drift * newest.since_ns(&best)).round() as i128;
        let narrow = |ns: i128| ns.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
        self.relation = Some(Relation {
            offset_ns: narrow(offset_ns),
            drift_ppm: drift * 1e6,
            at_ns: narrow(newest.at_ns),
            uncertainty_ns: (uncertainty_ns.ceil() as u64).saturating_add(2),
            growth_ppm: (slope_error + WANDER) * 1e6,
        });
    }
}

/// Pairs of probes of different instants.
fn pairs(points: &[Point]) -> impl Iterator<Item = (&Point, &Point)> {
    let each = points.iter().enumerate().flat_map(|(i, a)| points[..i].iter().map(move |b| (a, b)));
    each.filter(|(a, b)| a.at_ns != b.at_ns)
}

/// The drift: the median of the slopes between any two probes, weighed by how well each is known (Theil and Sen's), and
/// taken back towards 0 as far as the best known is not known better than what a crystal drifts by anyway.
fn drift(points: &[Point]) -> f64 {
    let mut slopes: Vec<(f64, f64)> = pairs(points)
        .map(|(a, b)| {
            let since_ns = a.since_ns(b);
            ((a.offset_ns - b.offset_ns) as f64 / since_ns, since_ns.abs() / (a.half_ns + b.half_ns))
        })
        .collect();
    slopes.sort_by(|a, b| a.0.total_cmp(&b.0));
    let half = slopes.iter().map(|(_, weight)| weight).sum::<f64>() / 2.0;
    let best = slopes.iter().map(|(_, weight)| *weight).fold(0.0, f64::max);
    let mut sum = 0.0;
    let median = slopes.iter().find(|(_, weight)| {
        sum += weight;
        sum >= half
    });
    let Some((median, _)) = median else { return 0.0 };
    // Half the bound of the best known slope stands for its deviation.
    let unsure = 0.5 / best;
    let share = USUAL_DRIFT * USUAL_DRIFT / (USUAL_DRIFT * USUAL_DRIFT + unsure * unsure);
    (median * share).clamp(-MOST_DRIFT, MOST_DRIFT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::testing::Device;
    use proptest::prelude::*;

    const MS: i64 = 1_000_000;
    const S: i64 = 1_000_000_000;

    fn steady(device: Device, exchange: &mut Exchange, seconds: std::ops::Range<i64>) {
        for s in seconds {
            exchange.take(device.probe(s * S, 100_000, 10_000, 100_000));
        }
    }

    #[test]
    fn the_offset_is_that_of_the_shortest_round_trip_of_eight() {
        let device = Device { ahead_ns: 3 * S, drift_ppm: 0.0 };
        let mut exchange = Exchange::default();
        for (s, delay) in (0..8).zip([900_000, 700_000, 20_000, 800_000, 500_000, 900_000, 600_000, 400_000])
        {
            // All of it on the way up.
            assert_eq!(exchange.take(device.probe(s * S, delay, 0, 0)), Heard::Relation);
        }
        let relation = exchange.relation().unwrap();
        assert!(device.off(relation, 2 * S).0 <= 10_010, "half of it");
        let (off, uncertainty) = device.off(relation, 7 * S);
        assert!(off <= uncertainty.into() && uncertainty < 1_000_000, "{off} {uncertainty}");
    }

    #[test]
    fn a_steady_drift_is_found_and_the_uncertainty_shrinks() {
        for drift_ppm in [-499.0, -50.0, 0.0, 50.0, 499.0] {
            let device = Device { ahead_ns: -7 * S, drift_ppm };
            let mut exchange = Exchange::default();
            steady(device, &mut exchange, 0..1);
            let first = *exchange.relation().unwrap();
            assert!(first.growth_ppm >= 500.0 && first.uncertainty_ns >= 100_000);
            steady(device, &mut exchange, 1..60);
            let relation = exchange.relation().unwrap();
            // The offset grows as the device's clock falls behind.
            assert!((relation.drift_ppm + drift_ppm).abs() < 1.0, "{relation:?}");
            assert!(relation.growth_ppm < 15.0, "{relation:?}");
            let (off, uncertainty) = device.off(relation, 70 * S);
            assert!(off < 20_000 && off <= uncertainty.into(), "{off} {uncertainty}");
            assert_eq!(exchange.steps(), 0);
        }
    }

    #[test]
    fn one_probe_that_is_far_off_is_not_believed_and_three_that_agree_are_a_step() {
        let before = Device { ahead_ns: 0, drift_ppm: 20.0 };
        let after = Device { ahead_ns: 15 * S, ..before };
        let mut exchange = Exchange::default();
        steady(before, &mut exchange, 0..20);
        let known = *exchange.relation().unwrap();
        assert_eq!(exchange.take(after.probe(20 * S, 100_000, 0, 100_000)), Heard::Nothing);
        assert_eq!(exchange.relation(), Some(&known));
        steady(before, &mut exchange, 21..30);
        for s in [30, 31] {
            let probe = after.probe(s * S, 100_000, 0, 100_000);
            assert_eq!(exchange.take(probe), Heard::Nothing);
            assert_eq!(exchange.take(probe), Heard::Nothing, "the same one again does not count");
        }
        let Heard::Step(step) = exchange.take(after.probe(32 * S, 100_000, 0, 100_000)) else { panic!() };
        assert!((step.by_ns - 15 * S).abs() < MS, "{step:?}");
        assert!(step.old_offset_ns.abs() < MS.into());
        assert!((step.new_offset_ns + i128::from(15 * S)).abs() < MS.into(), "{step:?}");
        assert_eq!(exchange.steps(), 1);
        let (off, uncertainty) = after.off(exchange.relation().unwrap(), 33 * S);
        assert!(off <= uncertainty.into() && off < MS.into(), "{off} {uncertainty}");
    }

    #[test]
    fn a_step_takes_three_probes_of_their_own_not_two_that_come_again_and_again() {
        let before = Device { ahead_ns: 0, drift_ppm: 0.0 };
        let after = Device { ahead_ns: 15 * S, ..before };
        let mut exchange = Exchange::default();
        steady(before, &mut exchange, 0..20);
        let [first, second, third] = [20, 21, 22].map(|s| after.probe(s * S, 100_000, 0, 100_000));
        for probe in [first, second, first, second, first] {
            assert_eq!(exchange.take(probe), Heard::Nothing);
        }
        assert_eq!(exchange.steps(), 0);
        assert!(matches!(exchange.take(third), Heard::Step(_)));
        // Nor does one that is believed count twice.
        assert_eq!(exchange.take(first), Heard::Nothing);
    }

    #[test]
    fn far_off_probes_that_agree_with_none_are_never_a_step_and_a_long_way_is_no_step() {
        let device = Device { ahead_ns: 0, drift_ppm: 0.0 };
        let mut exchange = Exchange::default();
        steady(device, &mut exchange, 0..5);
        for s in 5..50 {
            let wild = Device { ahead_ns: s * s * S, ..device };
            assert_eq!(exchange.take(wild.probe(s * S, 100_000, 0, 100_000)), Heard::Nothing);
        }
        for s in 50..60 {
            assert_eq!(exchange.take(device.probe(s * S, 400 * MS, 0, 0)), Heard::Relation);
        }
        let (off, uncertainty) = device.off(exchange.relation().unwrap(), 60 * S);
        assert!(off <= uncertainty.into() && exchange.steps() == 0, "{off} {uncertainty}");
    }

    #[test]
    fn a_step_too_small_for_an_event_is_within_the_uncertainty_at_once() {
        let before = Device { ahead_ns: 0, drift_ppm: 0.0 };
        let after = Device { ahead_ns: 30 * MS, ..before };
        let mut exchange = Exchange::default();
        steady(before, &mut exchange, 0..20);
        for s in 20..40 {
            steady(after, &mut exchange, s..s + 1);
            let (off, uncertainty) = after.off(exchange.relation().unwrap(), s * S + S / 2);
            assert!(off <= uncertainty.into(), "{s}: {off} {uncertainty}");
        }
        let (off, uncertainty) = after.off(exchange.relation().unwrap(), 40 * S);
        assert!(off < MS.into() && uncertainty < 1_000_000 && exchange.steps() == 0, "{off} {uncertainty}");
    }

    #[test]
    fn impossible_stamps_are_left_out() {
        let mut exchange = Exchange::default();
        for (t1_ns, t2_ns, t3_ns, t4_ns) in
            [(5, 0, 0, 4), (0, 9, 8, 1), (0, 0, 10, 1), (i64::MAX, 0, 0, i64::MIN)]
        {
            assert_eq!(exchange.take(Probe { t1_ns, t2_ns, t3_ns, t4_ns }), Heard::Nothing);
        }
        assert_eq!(exchange.relation(), None);
    }

    proptest! {
        #[test]
        fn the_truth_is_within_the_uncertainty_wherever_the_delay_lies(
            ahead_ns in -1_000_000 * S..1_000_000 * S,
            drift_ppm in prop_oneof![-50.0..50.0f64, -499.0..499.0f64, Just(-499.0), Just(499.0)],
            // By probe: pause before it, delay, how much of it lies on the way up, how long the server held it.
            probes in prop::collection::vec(
                (1_000_000i64..20 * S, 1_000i64..40_000_000, prop_oneof![Just(0.0), Just(1.0), 0.0..1.0f64], 0i64..2_000_000), 1..80),
            later_s in 0i64..600,
        ) {
            let device = Device { ahead_ns, drift_ppm };
            let mut exchange = Exchange::default();
            let mut now_ns = 0;
            for (pause_ns, delay_ns, share, held_ns) in probes {
                now_ns += pause_ns;
                let up_ns = (delay_ns as f64 * share) as i64;
                let heard = exchange.take(device.probe(now_ns, up_ns, held_ns, delay_ns - up_ns));
                prop_assert_eq!(heard, Heard::Relation);
                now_ns += delay_ns + held_ns;
                for at_ns in [now_ns, now_ns + later_s * S, now_ns - later_s * S] {
                    let (off, uncertainty) = device.off(exchange.relation().unwrap(), at_ns);
                    prop_assert!(off <= i128::from(uncertainty), "{} {}", off, uncertainty);
                }
            }
            prop_assert_eq!(exchange.steps(), 0);
        }

        #[test]
        fn stamps_of_any_kind_never_panic(stamps in prop::collection::vec((any::<i64>(), any::<i64>(), any::<i64>(), any::<i64>()), 1..30)) {
            let mut exchange = Exchange::default();
            for (t1_ns, t2_ns, t3_ns, t4_ns) in stamps {
                exchange.take(Probe { t1_ns, t2_ns, t3_ns: t3_ns.max(t2_ns), t4_ns: t4_ns.max(t1_ns) });
                if let Some(relation) = exchange.relation() {
                    prop_assert!(relation.drift_ppm.is_finite() && relation.growth_ppm.is_finite());
                }
            }
        }
    }
}
