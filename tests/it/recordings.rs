//! Recordings that tests stream: the committed one, third parties' where they are there, and noise.

use std::path::{Path, PathBuf};

use latentd::cli::replay;
use latentd::config::process_env;
use latentd::domain::tensor::{Dtype, Tensor};
use latentd::wire::recording::{Data, Recording};

/// Width of the simulated cortex's bins.
pub const CORTEX_BIN_NS: i64 = 20_000_000;

fn crate_file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The committed recording: 96 units, 3,000 bins of 20 ms, and its truth.
pub fn cortex() -> Recording {
    replay::open(&crate_file("zoo/recordings/simulated-cortex")).expect("the committed recording is read")
}

/// Its counts alone, the first `bins` of them.
pub fn cortex_counts(bins: i64) -> Recording {
    of(&cortex().first(bins * CORTEX_BIN_NS), &["spikes"])
}

/// The signals `names` of a recording.
pub fn of(recording: &Recording, names: &[&str]) -> Recording {
    let mut recording = recording.clone();
    recording.signals.retain(|signal| names.contains(&signal.name()));
    recording
}

/// As `cortex_counts`, but other counts, by `seed`.
pub fn noise(bins: i64, seed: u64) -> Recording {
    let mut recording = cortex_counts(bins);
    let mut random = Random(seed);
    for signal in &mut recording.signals {
        if let Data::Samples { tensor, .. } = &mut signal.data {
            tensor.values_mut::<u8>().iter_mut().for_each(|count| *count = (random.next() % 6) as u8);
        }
    }
    recording
}

/// The same, with its counts in another dtype.
pub fn in_dtype(mut recording: Recording, dtype: Dtype) -> Recording {
    for signal in &mut recording.signals {
        if let Data::Samples { tensor, .. } = &mut signal.data {
            let values = tensor.to_f64();
            let bytes: Vec<u8> = match dtype {
                Dtype::U8 => values.iter().map(|&value| value as u8).collect(),
                Dtype::F32 => values.iter().flat_map(|&value| (value as f32).to_le_bytes()).collect(),
                Dtype::I32 => values.iter().flat_map(|&value| (value as i32).to_le_bytes()).collect(),
                other => panic!("no test sends counts as {other}"),
            };
            let same = Tensor::from_bytes(dtype, &tensor.shape, &bytes).expect("as many values as before");
            assert_eq!(same.to_f64(), values, "the counts fit {dtype}");
            *tensor = same;
        }
    }
    recording
}

/// The folder of a third party's recording; none, with one printed line, where it is not there.
pub fn third_party(name: &str) -> Option<PathBuf> {
    let given = process_env("LATENTD_RECORDINGS").map(PathBuf::from);
    let shared = given.unwrap_or_else(|| crate_file("../shared/recordings"));
    let places = [shared.join(name), crate_file(".recordings").join(name)];
    let found = places.iter().find(|folder| folder.join("recording.json").exists()).cloned();
    if found.is_none() {
        println!("not run: what needs the recording {name} (no {})", places[0].display());
    }
    found
}

/// xorshift64*: numbers that are the same on every machine.
pub struct Random(pub u64);

impl Random {
    /// Those of a seed; seeds beside each other have nothing in common.
    pub fn of(seed: u64) -> Self {
        let mixed =
            (seed ^ (seed >> 31)).wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        Self((mixed ^ (mixed >> 27)) | 1)
    }

    /// One below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of these.
    pub fn of_these<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }

    /// These, in another order.
    pub fn shuffle<T>(&mut self, all: &mut [T]) {
        for i in (1..all.len()).rev() {
            all.swap(i, self.below(i as u64 + 1) as usize);
        }
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }
}
