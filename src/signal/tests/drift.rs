//! Two clocks that drift, probed over a road that is not even: rows lie where they belong, for as long as one likes.

use proptest::prelude::*;

use crate::domain::signal::ClockBy;
use crate::signal::act::Act;
use crate::signal::exchange::{Exchange, Heard};
use crate::signal::testing::*;

const W: i64 = WIDTH_NS as i64;
const S: i64 = 1_000_000_000;

/// Exchanges with both devices of a rig, and how far they say that they may be wrong together (ns).
struct Both {
    exchanges: [Exchange; 2],
    uncertainty_ns: i64,
}

impl Both {
    fn probe(&mut self, rig: &mut Rig, devices: [Device; 2], sent_ns: i64, ways_ns: [(i64, i64); 2]) {
        self.uncertainty_ns = 0;
        for (at, clock) in ["device", "eeg"].into_iter().enumerate() {
            let probe = devices[at].probe(sent_ns, ways_ns[at].0, 0, ways_ns[at].1);
            assert_eq!(self.exchanges[at].take(probe), Heard::Relation);
            let relation = *self.exchanges[at].relation().unwrap();
            // Until the next one, too.
            let later = devices[at].reads(sent_ns + 2 * S);
            self.uncertainty_ns += relation.uncertainty_at(later.into()) as i64;
            rig.act(Act::Relate { clock: clock.into(), relation, stepped_ns: 0 });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 9, ..Default::default() })]
    #[test]
    fn a_row_of_another_clock_lies_in_the_bin_of_its_true_time_unless_that_is_too_near_an_edge_to_tell(
        ahead_ns in prop::array::uniform2(-1_000_000 * S..1_000_000 * S),
        drifts in prop::sample::select(vec![[50.0, -50.0], [50.0, 50.0], [0.0, -50.0], [499.0, -499.0], [-499.0, 499.0], [499.0, 0.0]]),
        ways_ns in prop::collection::vec(prop::array::uniform2((0i64..1_000_000, 0i64..1_000_000)), 220),
    ) {
        let devices = [0, 1].map(|at| Device { ahead_ns: ahead_ns[at], drift_ppm: drifts[at] });
        let mut eeg = binned_signal(&["one", "number"]);
        (eeg.name, eeg.clock, eeg.clock_by) = ("eeg".into(), "eeg".into(), ClockBy::Exchange);
        let mut rig = Rig::of(plan(vec![binned_signal(&["a"]), eeg]));
        let mut both = Both { exchanges: Default::default(), uncertainty_ns: 0 };
        for (s, ways_ns) in ways_ns[..8].iter().enumerate() {
            both.probe(&mut rig, devices, (s as i64 - 8) * S, *ways_ns);
        }
        // Where each row of the other clock belongs, and how near an edge it may lie without that being known.
        let mut belongs = Vec::new();
        let phase_ns = W / 2;
        for k in 0..200 * S / W {
            if k % (S / W) == 0 {
                let (s, before_ns) = (k / (S / W), both.uncertainty_ns);
                both.probe(&mut rig, devices, s * S, ways_ns[8 + s as usize]);
                both.uncertainty_ns = both.uncertainty_ns.max(before_ns);
            }
            rig.now_ns = devices[0].goes_on((k + 1) * W) + 1_000_000;
            let mut row = rows(k as u64, 1, &[1.0]);
            row.t_device_ns = Some(devices[0].reads(0) + k * W);
            rig.push(row);
            let start_ns = phase_ns + devices[1].goes_on(k * W);
            let mut row = rows(k as u64, 2, &[1.0, k as f32]);
            row.t_device_ns = Some(devices[1].reads(phase_ns) + k * W);
            rig.push_to(1, row);
            let on_session = devices[0].reads(start_ns) - devices[0].reads(0);
            let from_edge = on_session.rem_euclid(W).min(W - on_session.rem_euclid(W));
            belongs.push((on_session / W, from_edge > both.uncertainty_ns));
        }
        let (mut next, mut told) = (0, 0);
        for bin in rig.bins() {
            for _ in 0..bin.inputs[1].values[0] as usize {
                let (of, is_clear) = belongs[next];
                prop_assert!(!is_clear || of == bin.k as i64, "row {next} in bin {}, it belongs to {of}", bin.k);
                (next, told) = (next + 1, told + usize::from(is_clear));
            }
        }
        // Where the other clock is the slower one, its last rows lie behind all bins.
        let due = belongs.iter().filter(|(of, _)| *of < 200 * S / W).count();
        prop_assert!(next + 3 >= due && rig.skipped().is_empty(), "{next} of {due} rows");
        prop_assert!(told * 4 > next, "{told} of {next} rows are clear of an edge");
    }
}
