//! `latentd replay`: a recording played against a server, with figures on the way and a summary at the end.

use std::io::{IsTerminal as _, Write};
use std::path::PathBuf;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use super::live::Figures;
use super::player::{PlayError, PlayOptions, Played, Shown, Speed, play_watched};
use super::report::PlayReport;
use super::score::{self, Pair};
use super::summary;
use crate::cli::queries;
use crate::wire::recording::Recording;

/// How often the progress bar moves.
const BAR_HZ: u8 = 5;
/// How often a line is written where nobody watches.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// What `latentd replay` is told.
#[derive(Clone, Debug)]
pub struct ReplayOptions {
    /// A folder with `recording.json`, or such a file.
    pub recording: PathBuf,
    /// The pipeline to play it through.
    pub pipeline: String,
    /// The server's HTTP address, for the lines to paste.
    pub url: String,
    /// The server's gRPC address.
    pub grpc: String,
    /// The file with the API key that is shown.
    pub key_file: Option<PathBuf>,
    /// How fast.
    pub speed: Speed,
    /// Whether the session becomes a run.
    pub record: bool,
    /// Length of a frame (ms); default: one bin of the pipeline, else 20 ms.
    pub frame_ms: Option<f64>,
    /// What is scored against what; empty: what offers itself.
    pub score: Vec<Pair>,
}

/// `latentd replay`, its arguments as given.
pub fn run_args(args: &crate::cli::args::ReplayArgs) -> std::process::ExitCode {
    let speed = match args.speed {
        crate::cli::args::Speed::Real => Speed::Real,
        crate::cli::args::Speed::Max => Speed::Max,
    };
    let options = ReplayOptions {
        recording: args.recording.clone(),
        pipeline: args.pipeline.clone(),
        url: args.url.clone(),
        grpc: args.grpc.clone(),
        key_file: args.key_file.clone(),
        speed,
        record: args.record,
        frame_ms: args.frame_ms,
        score: args.score.clone(),
    };
    crate::cli::in_runtime(async {
        match run(&options, &mut std::io::stdout()).await {
            Ok(_) => std::process::ExitCode::SUCCESS,
            Err(error) => crate::cli::fail(&error),
        }
    })
}

/// Plays the recording and writes the summary to `out`. Ctrl-C ends the play early and politely: what was sent is answered,
/// the session is closed, the summary is written.
pub async fn run(options: &ReplayOptions, out: &mut impl Write) -> Result<PlayReport, PlayError> {
    let recording = super::open(&options.recording)?;
    let mut play = PlayOptions::new(&options.grpc, &options.pipeline);
    if let Some(path) = &options.key_file {
        let unread = |source| PlayError::Key { path: path.clone(), source };
        let text = if path.as_os_str() == "-" {
            std::io::read_to_string(std::io::stdin())
        } else {
            std::fs::read_to_string(path)
        };
        let text = text.map_err(|error| unread(Some(error)))?;
        play.shown = Shown::key(&text).ok_or_else(|| unread(None))?;
    }
    play.speed = options.speed;
    play.frame_ms = options.frame_ms;
    if options.record {
        play = play.recorded();
    }
    let stop = play.stop.clone();
    let interrupt = tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.cancel();
        }
    });
    let mut progress = Progress::new(&recording.name);
    let report = play_watched(&recording, &play, |played| progress.take(&played)).await;
    interrupt.abort();
    progress.end();
    let report = report?;
    // The terminal may be gone; the play is not undone by that.
    let _ = write(options, &recording, &report, out);
    Ok(report)
}

fn write(
    options: &ReplayOptions,
    recording: &Recording,
    report: &PlayReport,
    out: &mut impl Write,
) -> std::io::Result<()> {
    writeln!(out, "{} through {}: session {}", recording.name, options.pipeline, report.session)?;
    for warning in &report.opened.warnings {
        writeln!(out, "  warning: {warning}")?;
    }
    for line in summary::lines(report) {
        writeln!(out, "  {line}")?;
    }
    let offered;
    let pairs = match options.score.as_slice() {
        [] => {
            offered = score::pairs(report, recording);
            &offered
        }
        asked => asked,
    };
    for pair in pairs {
        let scored = score::score(report, recording, pair, |_| true);
        writeln!(out, "  {}", summary::score_line(&scored))?;
    }
    match &report.run {
        Some(run) => writeln!(out, "  recorded as run {run}; ask for it:")?,
        None => writeln!(out, "  not recorded (--record)")?,
    }
    for query in queries::about(report, &options.url) {
        writeln!(out, "    # {}\n    {}", query.about, query.curl())?;
    }
    if let (Some(_), Some(path)) = (&report.run, &options.key_file) {
        let key = if path.as_os_str() == "-" { "$KEY".into() } else { format!("$(cat {})", path.display()) };
        writeln!(out, "    # each with -H \"authorization: Bearer {key}\"")?;
    }
    out.flush()
}

/// The progress of a play: a bar on a terminal, a line now and then elsewhere.
struct Progress {
    figures: Figures,
    bar: Option<ProgressBar>,
    name: String,
    told: Instant,
}

impl Progress {
    fn new(name: &str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let target = ProgressDrawTarget::stderr_with_hz(BAR_HZ);
            let style = ProgressStyle::with_template("{prefix} {bar:24} {percent:>3}% {wide_msg}")
                .expect("a template that is written here");
            ProgressBar::with_draw_target(Some(0), target).with_style(style).with_prefix(name.to_string())
        });
        Self { figures: Figures::default(), bar, name: name.into(), told: Instant::now() }
    }

    fn take(&mut self, played: &Played<'_>) {
        self.figures.take(played);
        match &self.bar {
            Some(bar) => {
                bar.set_length(self.figures.end_ns.unsigned_abs());
                bar.set_position(self.figures.sent_ns.unsigned_abs());
                if self.told.elapsed() > Duration::from_millis(1000 / u64::from(BAR_HZ)) {
                    bar.set_message(self.figures.line());
                    self.told = Instant::now();
                }
            }
            None if self.told.elapsed() >= LINE_EVERY => {
                let percent = 100.0 * self.figures.sent_ns as f64 / self.figures.end_ns.max(1) as f64;
                eprintln!("{} {percent:.0} %: {}", self.name, self.figures.line());
                self.told = Instant::now();
            }
            None => {}
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
