//! The rigs of the demo: what they play, through which pipeline, and what of it is scored.

use std::path::{Path, PathBuf};

use ndarray::Array2;

use super::DemoError;
use crate::cli::replay;
use crate::cli::replay::player::{PlayOptions, Speed};
use crate::cli::replay::report::PlayReport;
use crate::cli::replay::score::{self, Grid, Pair, ScoreError, Scored};
use crate::domain::time::{NS_PER_S, ns_from_ms};
use crate::wire::recording::{RECORDING_FILE, Recording};

/// A rig of the demo.
#[derive(Clone, Debug)]
pub struct Rig {
    /// Name of the recording's folder.
    pub folder: &'static str,
    /// What to do if it is missing.
    pub bring: &'static str,
    /// The pipeline that it goes through.
    pub pipeline: String,
    /// What it is, for people.
    pub about: String,
    /// What was decoded against what was true.
    pub pair: Pair,
    /// Width of the pipeline's bins (ms).
    pub bin_ms: f64,
    /// Bins in a column of a sparkline.
    pub bins_per_column: usize,
    /// Where in the recording it begins (s).
    pub from_s: i64,
    /// How long it plays in real time, and at full speed (s).
    pub played_s: (i64, i64),
    /// Of each so many bins, those from the second number on were not learnt from.
    pub held_out: (u64, u64),
    /// The same in words.
    pub held_out_words: &'static str,
}

/// The receptor and the cortex, which play unasked.
const UNASKED: usize = 2;

/// The rigs that `only` asks for, by the recording's folder or the pipeline; unasked the first two.
pub fn asked(only: Option<&str>) -> Vec<Rig> {
    let mut rigs = rigs();
    match only {
        Some(only) => rigs.retain(|rig| rig.folder == only || rig.pipeline == only),
        None => rigs.truncate(UNASKED),
    }
    rigs
}

/// All that there are.
pub fn rigs() -> Vec<Rig> {
    let pair = |output: &str, target: &str, delay_ms| Pair {
        output: output.into(),
        target: target.into(),
        delay_ms,
    };
    vec![
        Rig {
            folder: "grasshopper_receptor",
            bring: "`make setup` brings it",
            pipeline: "receptor-envelope".into(),
            about: "real spikes of a grasshopper's auditory receptor to the sound's envelope, 10 ms ago"
                .into(),
            pair: pair("envelope", "stimulus", Some(10.0)),
            bin_ms: 2.0,
            bins_per_column: 4,
            from_s: 0,
            played_s: (20, 10),
            held_out: (5000, 4000),
            held_out_words: "on seconds 8 to 10, which it did not learn from",
        },
        Rig {
            folder: "simulated-cortex",
            bring: "it stands in zoo/recordings",
            pipeline: "cortex".into(),
            about: "96 units of a simulated motor cortex to latents and the hand's velocity".into(),
            pair: pair("velocity", "velocity", None),
            bin_ms: 20.0,
            bins_per_column: 2,
            from_s: 0,
            played_s: (20, 10),
            held_out: (u64::MAX, 0),
            held_out_words: "a session that it did not learn from",
        },
        Rig {
            folder: "hc_linear_track",
            bring: "say where it is by LATENTD_RECORDINGS",
            pipeline: "hippocampus".into(),
            about: "31 units of a rat's hippocampus to latents and its place on the track (camera px)".into(),
            pair: pair("position", "position", None),
            bin_ms: 100.0,
            bins_per_column: 2,
            from_s: 720,
            played_s: (60, 180),
            held_out: (u64::MAX, 0),
            held_out_words: "on seconds 720 and later, which it did not learn from; standing still counts too",
        },
    ]
}

impl Rig {
    /// Its recording, as long as the demo plays: cut, or played again and again.
    pub fn recording(&self, folders: &[PathBuf], fast: bool) -> Result<Recording, DemoError> {
        let there = |folder: &PathBuf| folder.join(self.folder).join(RECORDING_FILE);
        let file = folders.iter().map(there).find(|file| file.is_file());
        let file = file.ok_or_else(|| DemoError::Missing {
            name: self.folder,
            folders: folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", "),
            bring: self.bring,
        })?;
        read(&file, self.from_s, if fast { self.played_s.1 } else { self.played_s.0 })
    }

    /// How it is played: everything recorded.
    pub fn play(&self, grpc: &str, fast: bool) -> PlayOptions {
        let mut options = PlayOptions::new(grpc, &self.pipeline).recorded();
        options.open.rig = format!("demo-{}", self.folder);
        options.open.tags = vec!["demo".into()];
        options.bin_ms = Some(self.bin_ms);
        options.speed = if fast { Speed::Max } else { Speed::Real };
        options
    }

    /// Names of its decoded axes, and their truth in each bin, `[bins, axes]`.
    pub fn truth(&self, recording: &Recording) -> (Vec<String>, Array2<f64>) {
        let Some(target) = recording.signal(&self.pair.target) else { return Default::default() };
        let bin_ns = ns_from_ms(self.bin_ms).unwrap_or(1).max(1);
        let delay_ns = (self.pair.delay_ms.unwrap_or_default() * 1e6) as i64;
        let bins = recording.end_ns().unsigned_abs() / bin_ns;
        let truth = score::truth(target, Grid { start_ns: 0, bin_ns, delay_ns }, 0, bins as usize);
        (target.spec.channels.iter().map(|channel| channel.name.clone()).collect(), truth)
    }

    /// Its score over the bins that the model did not learn from.
    pub fn score(&self, report: &PlayReport, recording: &Recording) -> Result<Scored, ScoreError> {
        let (of, from) = self.held_out;
        score::score(report, recording, &self.pair, |bin| bin % of >= from)
    }
}

fn read(file: &Path, from_s: i64, played_s: i64) -> Result<Recording, DemoError> {
    let recording = replay::open(file)?.after(from_s * NS_PER_S);
    let played_ns = played_s * NS_PER_S;
    let times = played_ns / recording.end_ns().max(1);
    let recording = if times > 1 { recording.repeated(times as u32)? } else { recording };
    Ok(recording.first(played_ns))
}
