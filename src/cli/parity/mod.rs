//! `latentd models check DIR --parity`: each version's raw trial played through the network, and where it differs the first
//! place of the walk that does.
//! Enters: a repository, an engine. Leaves: a line per version, and whether all agree.
//! Owns: a server of its own while it plays, on free ports, with a data directory that goes with it. Must hold: what is
//! compared came through the network; the walk in this process only explains.
//! Must not know: how a model was exported.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use ndarray::Array2;

use crate::cli::replay::player::{PlayOptions, play};
use crate::cli::replay::report::Answers;
use crate::cli::{serve, with_causes};
use crate::config::{Config, ConfigError};
use crate::engine::OrtEngine;
use crate::error::Fault;
use crate::lifecycle::server::StartError;
use crate::registry::finding::{Finding, Findings};
use crate::registry::scan;
use crate::registry::version::VersionDir;

mod inside; // what differs in the graph
pub mod lab; // the walk in this process
pub mod near; // two arrays, and what they are to each other
pub mod reasons; // the first place that differs, before the graph
pub mod trial; // a version's raw trial

use lab::{Arrays, Lab};
use reasons::Inquiry;
use trial::Trial;

/// Lengths of the frames that a trial is played in (bins); the last one cuts off the bins' borders.
pub const FRAMES_BINS: [f64; 5] = [1.0, 3.0, 7.0, 50.0, 2.63];

/// Why nothing was played.
#[derive(Debug, thiserror::Error)]
pub enum ParityError {
    /// The repository cannot be looked at.
    #[error("{0}")]
    Repository(Finding),
    /// No directory for the server's data.
    #[error("no directory for the data of the server that plays the trials")]
    Data(#[source] std::io::Error),
    /// The server's settings.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The server does not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Nothing can be written.
    #[error("nothing can be written")]
    Write(#[from] std::io::Error),
}

/// Every version of a repository, by model and number. Errors: its root cannot be read.
pub fn versions(dir: &Path) -> Result<Vec<VersionDir>, Finding> {
    let listing = scan::look(dir)?;
    let of_model = listing.models.iter().flat_map(|(model, folder)| {
        folder.versions.keys().map(|version| VersionDir {
            model: model.clone(),
            version: *version,
            model_dir: folder.dir.clone(),
        })
    });
    Ok(of_model.collect())
}

/// Plays every trial of the repository at `dir`, writes a line for each version to `out`; whether all agree.
pub async fn run(
    dir: &Path,
    engine: Arc<OrtEngine>,
    out: &mut (impl Write + Send),
) -> Result<bool, ParityError> {
    let versions = versions(dir).map_err(ParityError::Repository)?;
    let all = versions.len();
    let trials: Vec<VersionDir> = versions.into_iter().filter(trial::is_there).collect();
    if trials.is_empty() {
        writeln!(out, "parity: none of {all} versions has a raw trial ({}/)", trial::FOLDER)?;
        return Ok(true);
    }
    let data = tempfile::tempdir().map_err(ParityError::Data)?;
    let (models, data) = (dir.display().to_string(), data.path().display().to_string());
    let settings = [("http", "127.0.0.1:0"), ("grpc", "127.0.0.1:0"), ("models", &models), ("data", &data)];
    let running = serve::server(Config::with(settings)?, Arc::clone(&engine)).await?;
    let grpc = running.grpc.to_string();
    let mut differ = 0;
    let mut written = Ok(());
    for version in &trials {
        let line = match check(version, &grpc, Arc::clone(&engine)).await {
            Ok(line) => line,
            Err(sentence) => {
                differ += 1;
                sentence
            }
        };
        written = written.and_then(|()| writeln!(out, "{}/{}: {line}", version.model, version.version));
    }
    running.stop.soft.cancel();
    running.ended().await;
    written?;
    let of = format!("{} of {all} versions have a raw trial", trials.len());
    match differ {
        0 => writeln!(out, "parity: {of}, all agree")?,
        1 => writeln!(out, "parity: {of}, 1 differs")?,
        differ => writeln!(out, "parity: {of}, {differ} differ")?,
    }
    Ok(differ == 0)
}

/// Plays a version's trial. The error is the sentence that says what is wrong.
async fn check(version: &VersionDir, grpc: &str, engine: Arc<OrtEngine>) -> Result<String, String> {
    let words = |findings: Findings| findings.to_string();
    let dir = version.clone();
    let read = tokio::task::spawn_blocking(move || {
        let lab = Lab::open(&dir, engine).map_err(words)?;
        let trial = trial::read(&dir, &lab.plan).map_err(words)?;
        Ok::<_, String>((lab, trial))
    });
    let (lab, trial) = read.await.map_err(|_| "the check panicked".to_owned())??;
    let (mut differing, mut agreed) = (Vec::new(), Arrays::new());
    for bins in FRAMES_BINS {
        let got = through_the_network(&lab, &trial, grpc, bins).await?;
        if let Some(difference) = first(&lab, &trial, &got) {
            differing.push((bins, difference, got));
        } else {
            agreed = got;
        }
    }
    let told = &lab.version.manifest.example;
    let frames: Vec<String> = FRAMES_BINS.iter().map(f64::to_string).collect();
    let Some((bins, difference, got)) = differing.first() else {
        match (Inquiry { lab: &lab, trial: &trial, got: &agreed }).between() {
            Ok(None) => {}
            Ok(Some(reason)) => {
                return Err(format!("its outputs agree, and a step between does not: the {reason}"));
            }
            Err(fault) => return Err(format!("its steps between cannot be told: {}", fault.detail)),
        }
        return Ok(format!(
            "{} equal in {} bins, in frames of {} bins (rel {:e}, abs {:e})",
            trial.outputs.keys().cloned().collect::<Vec<_>>().join(", "),
            trial.n,
            frames.join(", "),
            told.rel,
            told.abs
        ));
    };
    if differing.len() < FRAMES_BINS.len() {
        return Err(format!(
            "{difference} in frames of {bins} bins, while others agree; how a stream is cut must change nothing: that is a \
             fault of the server, not of the model"
        ));
    }
    let reason = Inquiry { lab: &lab, trial: &trial, got }.reason();
    match reason {
        Ok(reason) => Err(format!("{difference}; the first place that differs is the {reason}")),
        Err(fault) => Err(format!("{difference}; why cannot be told: {}", fault.detail)),
    }
}

/// What the server answers to a trial in frames of so many bins: each output that is expected, in the bins that are.
async fn through_the_network(lab: &Lab, trial: &Trial, grpc: &str, bins: f64) -> Result<Arrays, String> {
    let refused = |fault: Fault| format!("its recording cannot be played: {}", fault.detail);
    let width_ns = lab.width_ns(&trial.recording).map_err(refused)?;
    let width_ms = width_ns.get() as f64 / 1e6;
    let options = PlayOptions {
        open: lab.ask(&trial.recording),
        frame_ms: Some(bins * width_ms),
        bin_ms: Some(width_ms),
        ..PlayOptions::new(grpc, lab.version.model.as_str()).at_max_speed()
    };
    let played = play(&trial.recording, &options)
        .await
        .map_err(|error| format!("its recording cannot be played: {}", with_causes(&error)))?;
    if let Some(fault) = played.faults.first() {
        return Err(format!("a frame of its recording is refused: {}", fault.detail));
    }
    let answered = played.answers.first_bin + played.answers.bins() as u64;
    let wanted = trial.first_bin + trial.n as u64;
    if played.answers.first_bin > trial.first_bin || answered < wanted {
        return Err(format!(
            "bins {} to {} are expected, and its recording closes bins {} to {}: what lies at the end of the last bin or \
             behind it closes it",
            trial.first_bin,
            wanted - 1,
            played.answers.first_bin,
            answered.saturating_sub(1)
        ));
    }
    let outputs = trial.outputs.iter().map(|(name, want)| {
        let from = (trial.first_bin - played.answers.first_bin) as usize;
        (name.clone(), rows(&played.answers, name, from, want.dim()))
    });
    Ok(outputs.collect())
}

/// Rows of an output from the `from`-th on; what is sparse is 0 where nothing is said.
fn rows(answers: &Answers, output: &str, from: usize, (n, width): (usize, usize)) -> Array2<f64> {
    let mut array = Array2::zeros((n, width));
    for (i, mut row) in array.rows_mut().into_iter().enumerate() {
        if let Some(series) = answers.outputs.get(output) {
            let values = series.row(from + i).unwrap_or_default();
            row.iter_mut().zip(values).for_each(|(to, value)| *to = *value);
        }
        for (index, value) in
            answers.features.get(output).and_then(|rows| rows.get(from + i)).into_iter().flatten()
        {
            if let Some(to) = row.get_mut(*index as usize) {
                *to = (*value).into();
            }
        }
    }
    array
}

/// The first difference of the first output that differs, as a sentence.
fn first(lab: &Lab, trial: &Trial, got: &Arrays) -> Option<String> {
    let told = &lab.version.manifest.example;
    let found = trial
        .outputs
        .iter()
        .filter_map(|(name, want)| Some((name, near::first(told, &got[name], want)?)))
        .min_by_key(|(_, difference)| difference.row);
    found.map(|(name, difference)| {
        format!(
            "output `{name}`, bin {}, element {}: expected {} within rel {:e}, abs {:e}, found {}",
            trial.first_bin + difference.row as u64,
            difference.element,
            difference.want,
            told.rel,
            told.abs,
            difference.got
        )
    })
}
