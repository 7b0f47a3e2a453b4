//! Counts of a simulated array, overdispersed and alike from bin to bin: what is called, how soon, and what is not.

use std::num::NonZeroU64;
use std::sync::{Arc, LazyLock};

use super::reference::{ChannelReference, LatentReference};
use super::{Health, Report, Row, Watched, WatchedLatents};

const CHANNELS: usize = 40;
const BIN_MS: u64 = 50;
const BINS_PER_S: u64 = 1000 / BIN_MS;
const HOUR_S: u64 = 3600;

/// SplitMix64: the same numbers on every machine.
struct Random(u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * (1.0 - self.unit()).ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// A count of that mean, for means below ten or so.
    fn poisson(&mut self, mean: f64) -> f32 {
        let (limit, mut product, mut n) = ((-mean).exp(), self.unit(), 0);
        while product > limit {
            product *= self.unit();
            n += 1;
        }
        n as f32
    }
}

/// Forty units at about 8 Hz. Their log rates follow what the animal does (trials of about 2.5 s), wander on their own
/// within half a second, and together over a minute.
struct Array {
    random: Random,
    base: Vec<f64>,
    tuned: Vec<f64>,
    own: Vec<f64>,
    together: f64,
    trial: f64,
    /// What is added to each unit's log rate by now, and how fast that walks (per root minute).
    walked: Vec<f64>,
    drift: f64,
}

impl Array {
    fn new(seed: u64) -> Self {
        let mut units = Random(7);
        let base = (0..CHANNELS).map(|_| (8.0 * BIN_MS as f64 / 1e3).ln() + 0.5 * units.normal()).collect();
        let tuned = (0..CHANNELS).map(|_| 0.5 * units.normal()).collect();
        let (own, walked) = (vec![0.0; CHANNELS], vec![0.0; CHANNELS]);
        Self { random: Random(seed), base, tuned, own, together: 0.0, trial: 0.0, walked, drift: 0.0 }
    }

    fn drifting(seed: u64, drift: f64) -> Self {
        Self { drift, ..Self::new(seed) }
    }

    /// Square roots of the counts of the next bin.
    fn bin(&mut self) -> Vec<f32> {
        let keep = |tau_s: f64| (-(BIN_MS as f64) / 1e3 / tau_s).exp();
        let (fast, slow) = (keep(0.5), keep(20.0));
        self.trial += BIN_MS as f64 / 1e3 / 2.5 * (1.0 + 0.3 * self.random.normal());
        self.together = slow * self.together + 0.1 * (1.0 - slow * slow).sqrt() * self.random.normal();
        let phase = (std::f64::consts::TAU * self.trial).sin();
        let step = self.drift * (BIN_MS as f64 / 60e3).sqrt();
        (0..CHANNELS)
            .map(|c| {
                self.own[c] = fast * self.own[c] + 0.4 * (1.0 - fast * fast).sqrt() * self.random.normal();
                self.walked[c] += step * self.random.normal();
                let rate =
                    self.base[c] + self.tuned[c] * phase + self.own[c] + self.together + self.walked[c];
                self.random.poisson(rate.exp().min(8.0)).sqrt()
            })
            .collect()
    }
}

/// Two latents that a model might make of the counts: sums over halves of the array.
fn latents(row: &[f32]) -> [f32; 2] {
    let (a, b) = row.split_at(CHANNELS / 2);
    [a.iter().sum(), b.iter().sum::<f32>() - 0.5 * a.iter().sum::<f32>()]
}

struct Trained {
    channels: Arc<ChannelReference>,
    latents: Arc<LatentReference>,
}

/// Forty minutes of training.
static TRAINED: LazyLock<Trained> = LazyLock::new(|| {
    let mut array = Array::new(1);
    let rows: Vec<Vec<f32>> = (0..40 * 60 * BINS_PER_S).map(|_| array.bin()).collect();
    let z: Vec<Vec<f32>> = rows.iter().map(|row| latents(row).to_vec()).collect();
    let seconds = |n: u64| rows.chunks_exact((n * BINS_PER_S) as usize);
    let silent = |c: usize| {
        let all = seconds(1).filter(|second| second.iter().all(|row| row[c] == second[0][c])).count();
        all as f64 / seconds(1).len() as f64
    };
    let means = |rows: &[Vec<f32>]| -> Vec<Vec<f64>> {
        rows.chunks_exact((10 * BINS_PER_S) as usize).map(|stretch| moments(stretch).0).collect()
    };
    let (mean, covariance) = moments(&rows);
    let (_, scattered) = moments(&means(&rows));
    let deviation = |covariance: &[f64]| (0..CHANNELS).map(|c| covariance[c * CHANNELS + c].sqrt()).collect();
    let (spread, spread_10s): (Vec<f64>, Vec<f64>) = (deviation(&covariance), deviation(&scattered));
    let silence: Vec<f64> = (0..CHANNELS).map(silent).collect();
    let channels = ChannelReference::new(&mean, &spread, &silence, Some(&spread_10s)).unwrap();
    let (z_mean, z_covariance) = moments(&z);
    let (_, z_scattered) = moments(&means(&z));
    let latents = LatentReference::new(&z_mean, &z_covariance, Some(&z_scattered)).unwrap();
    Trained { channels: channels.into(), latents: latents.into() }
});

/// Mean and covariance of rows.
fn moments<T: Copy + Into<f64>>(rows: &[Vec<T>]) -> (Vec<f64>, Vec<f64>) {
    let (n, d) = (rows.len() as f64, rows[0].len());
    let mean: Vec<f64> = (0..d).map(|c| rows.iter().map(|row| row[c].into()).sum::<f64>() / n).collect();
    let covariance = (0..d * d).map(|at| {
        let (i, j) = (at / d, at % d);
        // The diagonal is enough of the channels, which are many.
        if d > 2 && i != j {
            return 0.0;
        }
        rows.iter().map(|row| (row[i].into() - mean[i]) * (row[j].into() - mean[j])).sum::<f64>() / (n - 1.0)
    });
    (mean.clone(), covariance.collect())
}

fn watched(reference: Option<Arc<ChannelReference>>) -> Watched {
    Watched {
        number: 0,
        input: "spikes".into(),
        signal: "array".into(),
        columns: (0..CHANNELS).map(|c| format!("u{c:02}")).collect(),
        counts: true,
        reference,
    }
}

fn health(reference: bool) -> Health {
    let of_latents = WatchedLatents {
        number: 1,
        output: "latent".into(),
        latents: 2,
        reference: reference.then(|| Arc::clone(&TRAINED.latents)),
    };
    let width = NonZeroU64::new(BIN_MS * 1_000_000).unwrap();
    Health::new(width, vec![watched(reference.then(|| Arc::clone(&TRAINED.channels)))], vec![of_latents])
}

fn row<'a>(values: &'a [f32], mask: &'a [bool]) -> Row<'a> {
    Row { values, mask, cofiring: None }
}

fn bin(health: &mut Health, k: u64, values: &[f32], mask: &[bool]) {
    health.begin(k);
    health.inputs(|_| Some(row(values, mask)));
    let z = latents(values);
    health.latents(|_| Some(&z[..]));
}

/// What a health says of an array whose rows are changed on the way: after how many seconds the first bin is flagged.
struct Seen {
    health: Health,
    called_s: Option<u64>,
    report: Report,
}

fn seen(mut array: Array, seconds: u64, mut change: impl FnMut(u64, &mut [f32])) -> Seen {
    let (mut health, mut called_s) = (health(true), None);
    for k in 0..seconds * BINS_PER_S {
        let mut row = array.bin();
        change(k / BINS_PER_S, &mut row);
        bin(&mut health, k, &row, &[true; CHANNELS]);
        if called_s.is_none() && health.is_shifted() {
            called_s = Some(k / BINS_PER_S);
        }
    }
    let report = health.report();
    Seen { health, called_s, report }
}

#[test]
fn no_stationary_hour_is_a_shift_and_none_of_its_channels_dead_or_noisy() {
    for seed in [2, 3, 4] {
        let (mut array, mut health) = (Array::new(seed), health(true));
        for k in 0..HOUR_S * BINS_PER_S {
            bin(&mut health, k, &array.bin(), &[true; CHANNELS]);
            assert!(!health.is_shifted(), "seed {seed}, bin {k}: {:?}", health.take_told());
            if k % (10 * BINS_PER_S) == 0 && k > 0 {
                assert_eq!(health.report().word(), "ok", "seed {seed}, bin {k}");
            }
        }
        let [short, long] = health.report().windows;
        assert_eq!((short.inputs[0].covered_s, long.inputs[0].covered_s), (10.0, 300.0));
        assert_eq!((short.window_s, long.window_s), (10.0, 300.0));
        assert_eq!(short.inputs[0].channels, CHANNELS);
    }
}

#[test]
fn permuted_channels_are_called_within_20_s() {
    for seed in [5, 6, 7] {
        let seen = seen(Array::new(seed), 30, |_, row| row.reverse());
        assert!(seen.called_s.is_some_and(|s| s <= 20), "seed {seed}: {:?}", seen.called_s);
        assert_eq!(seen.report.word(), "shifted");
        assert!(seen.report.windows[0].inputs[0].dead.is_empty());
    }
}

#[test]
fn a_dead_array_of_a_quarter_of_the_channels_is_called_within_10_s_of_its_death_and_named() {
    let mut seen = seen(Array::new(8), 140, |second, row| {
        if second >= 100 {
            row[..10].fill(0.0);
        }
    });
    assert!(seen.called_s.is_some_and(|s| (101..=110).contains(&s)), "{:?}", seen.called_s);
    let dead: Vec<String> = (0..10).map(|c| format!("u{c:02}")).collect();
    assert_eq!(seen.report.windows[0].inputs[0].dead, dead);
    let told = seen.health.take_told();
    assert_eq!((told[0].signal.as_ref().unwrap().as_str(), told[0].count), ("array", 1));
    assert!(told[0].from_bin / BINS_PER_S <= 110 && told[0].to_bin == told[0].from_bin + 1, "{told:?}");
    assert!(told[0].detail.contains("of 40 channels are not as in the training data over 10 s"), "{told:?}");
}

#[test]
fn one_dead_channel_is_named_and_is_no_shift() {
    let seen = seen(Array::new(9), 30, |_, row| row[3] = 0.0);
    assert_eq!(seen.called_s, None);
    assert_eq!(seen.report.windows[0].inputs[0].dead, ["u03"]);
    assert_eq!(seen.report.word(), "impaired");
}

#[test]
fn a_channel_of_three_times_the_spread_is_noisy() {
    let mut random = Random(1);
    let seen = seen(Array::new(10), 30, |_, row| row[5] += 3.0 * random.normal() as f32);
    assert_eq!(seen.report.windows[0].inputs[0].noisy, ["u05"]);
    assert_eq!((seen.called_s, seen.report.word()), (None, "impaired"));
}

#[test]
fn slow_drift_is_called_before_rates_have_walked_by_half() {
    for (seed, drift) in [(11, 0.15), (12, 0.1), (13, 0.2)] {
        // A walk of `drift` per root minute has a deviation of 0.5 in log rate by then.
        let by_s = (60.0 * (0.5f64 / drift).powi(2)) as u64;
        let seen = seen(Array::drifting(seed, drift), by_s, |_, _| {});
        assert!(seen.called_s.is_some(), "drift {drift}: not called within {by_s} s");
        assert!(seen.called_s > Some(20), "drift {drift}: called after {:?} s, by nothing", seen.called_s);
    }
}

#[test]
fn a_shift_that_ends_is_told_with_the_bins_that_were_flagged() {
    let (mut array, mut health, mut flagged) = (Array::new(14), health(true), Vec::new());
    let mut told = Vec::new();
    for k in 0..700 * BINS_PER_S {
        let mut row = array.bin();
        if (60..90).contains(&(k / BINS_PER_S)) {
            row.reverse();
        }
        bin(&mut health, k, &row, &[true; CHANNELS]);
        told.append(&mut health.take_told());
        if health.is_shifted() {
            flagged.push(k);
        }
    }
    let of_input: Vec<_> = told.iter().filter(|told| told.signal.is_some()).collect();
    assert!(!health.is_shifted() && of_input.len() >= 2 && of_input.len().is_multiple_of(2), "{told:?}");
    let counted: u64 = of_input.iter().map(|told| told.count).sum();
    let spans: u64 = of_input.chunks(2).map(|pair| pair[1].to_bin - pair[1].from_bin).sum();
    assert_eq!(counted, spans, "{told:?}");
    assert!(of_input.chunks(2).all(|pair| pair[0].from_bin == pair[1].from_bin), "{told:?}");
    assert_eq!(flagged.first(), of_input.iter().map(|told| &told.from_bin).min());
}

#[test]
fn what_still_holds_is_told_at_the_end() {
    let mut seen = seen(Array::new(15), 30, |_, row| row.reverse());
    let began = seen.health.take_told();
    let ended = seen.health.finish();
    assert_eq!(ended.len(), began.len());
    assert_eq!((ended[0].from_bin, ended[0].to_bin), (began[0].from_bin, 30 * BINS_PER_S));
    assert_eq!(ended[0].count + 1, ended[0].to_bin - ended[0].from_bin);
    assert!(!seen.health.is_shifted());
}

#[test]
fn masked_channels_and_what_did_not_come_count_for_nothing() {
    let (mut array, mut health) = (Array::new(16), health(true));
    let mask: Vec<bool> = (0..CHANNELS).map(|c| c >= 20).collect();
    for k in 0..60 * BINS_PER_S {
        let mut values = array.bin();
        values[..20].fill(f32::MAX);
        health.begin(k);
        // Half of all bins do not come at all, in stretches of a second and a half.
        if k % (3 * BINS_PER_S) < 2 * BINS_PER_S {
            health.inputs(|_| Some(row(&values, &mask)));
        }
    }
    let report = health.report();
    assert_eq!(report.windows[1].inputs[0].channels, 0, "too few seconds to be judged");
    assert_eq!(report.word(), "waiting");
    for k in 60 * BINS_PER_S..80 * BINS_PER_S {
        let values = array.bin();
        health.begin(k);
        health.inputs(|_| Some(row(&values, &mask)));
    }
    assert_eq!((health.report().windows[0].inputs[0].channels, health.report().word()), (20, "ok"));
}

#[test]
fn a_gap_of_an_hour_leaves_nothing_of_what_was_before_it_in_the_windows() {
    let (mut array, mut health) = (Array::new(17), health(true));
    for k in (0..400 * BINS_PER_S).chain(4000 * BINS_PER_S..4009 * BINS_PER_S) {
        bin(&mut health, k, &array.bin(), &[true; CHANNELS]);
    }
    assert_eq!(health.report().windows[0].inputs[0].covered_s, 8.0);
    for k in 4009 * BINS_PER_S..4011 * BINS_PER_S {
        bin(&mut health, k, &array.bin(), &[true; CHANNELS]);
    }
    assert_eq!(health.report().windows[1].inputs[0].covered_s, 10.0);
}

#[test]
fn without_a_reference_nothing_is_a_shift_and_what_stands_out_among_the_channels_is_told() {
    let (mut array, mut health) = (Array::new(18), health(false));
    let mut random = Random(2);
    for k in 0..301 * BINS_PER_S {
        let mut row = array.bin();
        (row[2], row[4]) = (0.0, row[4] + 6.0 * random.normal() as f32);
        bin(&mut health, k, &row, &[true; CHANNELS]);
        assert!(!health.is_shifted());
        if k == 15 * BINS_PER_S {
            let input = health.report().windows[0].inputs[0].clone();
            assert!(input.dead.is_empty(), "a unit that nothing is known of may rest for 10 s");
            assert_eq!((input.noisy, input.shift), (vec!["u04".to_owned()], None));
        }
    }
    let report = health.report();
    assert_eq!(
        (report.windows[1].inputs[0].dead.clone(), report.word()),
        (vec!["u02".to_owned()], "impaired")
    );
}

#[test]
fn latents_that_leave_their_place_are_a_shift_though_every_channel_stays() {
    let (mut array, mut health, mut called_s) = (Array::new(19), health(true), None);
    for k in 0..60 * BINS_PER_S {
        let values = array.bin();
        let [a, b] = latents(&values);
        let shift = if k >= 30 * BINS_PER_S { 8.0 } else { 0.0 };
        health.begin(k);
        health.inputs(|_| Some(row(&values, &[true; CHANNELS])));
        let z = [a + shift, b];
        health.latents(|_| Some(&z[..]));
        if called_s.is_none() && health.is_shifted() {
            called_s = Some(k / BINS_PER_S);
        }
    }
    assert!(called_s.is_some_and(|s| (31..=40).contains(&s)), "{called_s:?}");
    let report = health.report();
    assert!(report.windows[0].latents[0].shifted && !report.windows[0].inputs[0].shifted);
    assert!(health.take_told()[0].signal.is_none());
}

#[test]
fn channels_that_fire_at_once_are_told_a_minute_and_often_enough_they_impair() {
    let (mut array, mut health) = (Array::new(22), health(true));
    let mut told = Vec::new();
    for k in 0..301 * BINS_PER_S {
        let values = array.bin();
        health.begin(k);
        // Twice in the first 10 s, and once in the last.
        let cofiring = Some(u32::from([5, 9, 299].contains(&(k / BINS_PER_S)) && k % BINS_PER_S == 3));
        health.inputs(|_| Some(Row { cofiring, ..row(&values, &[true; CHANNELS]) }));
        if [10, 30, 300].contains(&(k / BINS_PER_S)) && k % BINS_PER_S == 0 {
            let report = health.report();
            let per_min = [0, 1].map(|at| report.windows[at].inputs[0].cofiring_per_min.unwrap());
            told.push((per_min, report.word()));
        }
    }
    assert_eq!(told, [([12.0, 12.0], "impaired"), ([0.0, 4.0], "ok"), ([6.0, 0.6], "impaired")]);
    let silent = seen(Array::new(23), 20, |_, _| {});
    assert_eq!(silent.report.windows[0].inputs[0].cofiring_per_min, None, "a signal without events");
}

#[test]
fn the_same_bins_give_the_same_again() {
    let twice: Vec<Report> =
        (0..2).map(|_| seen(Array::new(20), 100, |_, row| row[0] = 0.0).report).collect();
    assert_eq!(twice[0], twice[1]);
}

#[test]
fn another_version_is_held_against_its_own_training_data_from_its_first_look_on() {
    let (mut array, mut health) = (Array::new(21), health(true));
    let moved = |mean: f64| {
        let (one, tenth) = ([1.0; CHANNELS], [0.1; CHANNELS]);
        Arc::new(ChannelReference::new(&[mean; CHANNELS], &one, &[0.0; CHANNELS], Some(&tenth)).unwrap())
    };
    for k in 0..40 * BINS_PER_S {
        if k == 20 * BINS_PER_S {
            assert_eq!(health.report().word(), "ok");
            health.relearn(|watched| (watched.number == 0).then(|| moved(30.0)), |_| None);
        }
        bin(&mut health, k, &array.bin(), &[true; CHANNELS]);
    }
    let input = health.report().windows[0].inputs[0].clone();
    assert_eq!((input.shifted, input.shift), (true, Some(1.0)));
    // Their means are about 0.5, and the error of each is a tenth.
    assert!(input.furthest.iter().all(|(_, z)| (-300.0..-285.0).contains(z)), "{:?}", input.furthest);
    assert!(health.is_shifted());
    health.relearn(|_| None, |_| None);
    for k in 40 * BINS_PER_S..51 * BINS_PER_S {
        bin(&mut health, k, &array.bin(), &[true; CHANNELS]);
    }
    assert!(!health.is_shifted(), "of a version without a reference nothing can be said");
    assert_eq!(health.report().word(), "no_reference");
}
