//! `latentd demo`: rigs side by side through the public network API, then scores and queries.
//! Enters: the addresses of a server that serves the bundled models. Leaves: scores, curl lines, an end.
//! Owns: what it draws. Must hold: it knows the server by the wire alone, as any client does.
//! Must not know: how the server was started; any room of it.

use std::io::{IsTerminal as _, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use futures::future::join_all;
use parking_lot::Mutex;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

pub mod command; // the command itself
pub mod rig; // what is played, and what of it is scored
pub mod screen; // where it is drawn
pub mod view; // what is shown of a rig

use rig::Rig;
use screen::{DRAW_EVERY, Screen};
use view::View;

use super::queries::{self, Query, QueryError};
use super::replay::player::{PlayError, play_watched};
use super::replay::report::PlayReport;
use super::replay::summary;
use crate::config::process_env;
use crate::wire::recording::{Recording, RecordingError};

/// Where the server of the demo listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerAddrs {
    /// HTTP.
    pub http: SocketAddr,
    /// gRPC.
    pub grpc: SocketAddr,
}

/// What `latentd demo` is told.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    /// At full speed, a few seconds of each recording; then the queries are carried out, and the demo ends.
    pub fast: bool,
    /// Play the recording of this folder alone.
    pub only: Option<String>,
    /// Folders in which the recordings' folders are looked for, in this order.
    pub recordings: Vec<PathBuf>,
}

impl Default for DemoOptions {
    /// In real time, those that play unasked, from where `make setup` puts recordings and LATENTD_RECORDINGS says.
    fn default() -> Self {
        let given = process_env("LATENTD_RECORDINGS").map(PathBuf::from);
        let recordings =
            ["zoo/recordings", ".recordings"].map(PathBuf::from).into_iter().chain(given).collect();
        Self { fast: false, only: None, recordings }
    }
}

/// Why the demo did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A recording is not there.
    #[error("recording {name} is in none of {folders}; {bring}")]
    Missing {
        /// The recording.
        name: &'static str,
        /// Where it was looked for.
        folders: String,
        /// How to get it.
        bring: &'static str,
    },
    /// No rig of this name.
    #[error("no recording `{0}` in the demo; {1}")]
    Unknown(String, String),
    /// A recording cannot be read.
    #[error(transparent)]
    Recording(#[from] RecordingError),
    /// A rig was refused or lost its server.
    #[error("{pipeline}: {source}")]
    Play {
        /// The rig's pipeline.
        pipeline: String,
        /// Why.
        source: PlayError,
    },
    /// A rig's task ended without an answer.
    #[error("a rig of the demo failed")]
    Task(#[from] JoinError),
    /// A printed query does not work.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// Nothing can be written.
    #[error("nothing can be written")]
    Write(#[from] std::io::Error),
}

/// A rig ready to play.
struct Player {
    rig: Rig,
    recording: Arc<Recording>,
    view: Arc<Mutex<View>>,
}

/// Plays the rigs against the server at `addrs`, writes scores and queries to `out`. Unless it is fast or nobody is there
/// to press Ctrl-C (stdin is no terminal), it returns only then, so that the server stays up for the queries. A Ctrl-C
/// while it plays ends the play politely and goes on to the scores.
pub async fn run(
    addrs: &ServerAddrs,
    options: &DemoOptions,
    out: &mut (impl Write + Send),
) -> Result<(), DemoError> {
    let players = players(options)?;
    let (http, grpc) = (addrs.http.to_string(), addrs.grpc.to_string());
    writeln!(out, "latentd demo · http {http} · grpc {grpc}\n")?;
    let reports = play(&players, &grpc, options.fast, out).await?;
    let mut asked: Vec<Query> = Vec::new();
    writeln!(out)?;
    for (player, report) in players.iter().zip(&reports) {
        writeln!(out, "{} · session {}", player.rig.pipeline, report.session)?;
        for line in summary::lines(report) {
            writeln!(out, "  {line}")?;
        }
        let scored = player.rig.score(report, &player.recording);
        writeln!(out, "  {}", summary::score_line(&scored))?;
        writeln!(out, "    {}", player.rig.held_out_words)?;
        asked.extend(queries::about(report, &http));
    }
    asked.extend(queries::about_server(&http));
    writeln!(out, "\nAsk for what was just recorded:")?;
    for query in &asked {
        writeln!(out, "  # {}\n  {}", query.about, query.curl())?;
    }
    if options.fast {
        asked.extend(reports.iter().flat_map(|report| queries::about_every_bin(report, &http)));
        queries::check(&asked).await?;
        writeln!(
            out,
            "\n{} queries carried out: each answered 200 with every bin that it should.",
            asked.len()
        )?;
    } else if std::io::stdin().is_terminal() {
        writeln!(out, "\nThe server stays up until Ctrl-C.")?;
        out.flush()?;
        let _ = tokio::signal::ctrl_c().await;
    } else {
        writeln!(
            out,
            "\nNobody is there to press Ctrl-C, so the server ends now; `latentd serve --data data/demo` has the runs."
        )?;
    }
    Ok(out.flush()?)
}

fn players(options: &DemoOptions) -> Result<Vec<Player>, DemoError> {
    let rigs = rig::asked(options.only.as_deref());
    if let (Some(only), true) = (&options.only, rigs.is_empty()) {
        let all = rig::rigs();
        let there_are = crate::error::there_is(only, all.iter().map(|rig| rig.folder));
        return Err(DemoError::Unknown(only.clone(), there_are));
    }
    let player = |rig: Rig| {
        let recording = Arc::new(rig.recording(&options.recordings, options.fast)?);
        let (axes, truth) = rig.truth(&recording);
        let view = Arc::new(Mutex::new(View::new(&rig, axes, truth)));
        Ok(Player { rig, recording, view })
    };
    rigs.into_iter().map(player).collect()
}

/// Plays all at once and draws them. The first that fails ends the others.
async fn play(
    players: &[Player],
    grpc: &str,
    fast: bool,
    out: &mut (impl Write + Send),
) -> Result<Vec<PlayReport>, DemoError> {
    let stop = CancellationToken::new();
    let plays = players.iter().map(|player| {
        let mut options = player.rig.play(grpc, fast);
        options.stop = stop.clone();
        let (recording, view, stop) = (player.recording.clone(), player.view.clone(), stop.clone());
        tokio::spawn(async move {
            let report = play_watched(&recording, &options, |played| view.lock().take(&played)).await;
            report.inspect_err(|_| stop.cancel())
        })
    });
    let mut plays = join_all(plays);
    let mut screen = Screen::of_stdout();
    let mut tick = tokio::time::interval(DRAW_EVERY);
    let played = loop {
        // Cancel-safe: the plays are tasks of their own, a tick and a signal hold nothing.
        tokio::select! {
            played = &mut plays => break played,
            _ = tick.tick() => draw(players, &mut screen, out),
            _ = tokio::signal::ctrl_c(), if !stop.is_cancelled() => stop.cancel(),
        }
    };
    draw(players, &mut screen, out);
    screen.end();
    let reports = players.iter().zip(played).map(|(player, played)| {
        let pipeline = player.rig.pipeline.clone();
        played?.map_err(|source| DemoError::Play { pipeline, source })
    });
    reports.collect()
}

fn draw(players: &[Player], screen: &mut Screen, out: &mut impl Write) {
    let lines: Vec<String> = players.iter().flat_map(|player| player.view.lock().lines()).collect();
    let plain = || players.iter().map(|player| player.view.lock().plain()).collect::<Vec<_>>().join(" | ");
    screen.draw(&lines, plain, out);
}
