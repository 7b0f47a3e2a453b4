//! Start, readiness and stop: the pieces that need no other room.
//! Enters: signals of the system. Leaves: two tokens, and the ready-file.
//! Owns: the tracker of every task of the server. Must hold: the first signal asks, the second insists; the ready-file
//! is written last and whole; a stop has a limit for each phase and an honest exit code.
//! Must not know: what the tasks do (`server` starts them).

mod observe; // what rooms below tell, into the metrics
pub mod process; // what holds for the whole process
pub mod server; // the whole server, from its configuration to its end

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How a server is asked to stop.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// Asks: not ready, nothing new, what came is answered, streams are told goodbye.
    pub soft: CancellationToken,
    /// Insists: end now.
    pub hard: CancellationToken,
    /// Every task of the server; what is not in it is not waited for.
    pub tasks: TaskTracker,
}

/// How a stop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// All tasks ended when they were asked.
    Clean,
    /// All tasks ended, some only when it was insisted on.
    Forced,
    /// So many tasks did not end at all.
    Left(usize),
}

impl Stopped {
    /// 0 only for a clean stop: what was cut off may have lost an answer.
    pub fn exit_code(self) -> ExitCode {
        match self {
            Stopped::Clean => ExitCode::SUCCESS,
            Stopped::Forced | Stopped::Left(_) => ExitCode::FAILURE,
        }
    }
}

/// How long tasks have after it was insisted.
const HARD: Duration = Duration::from_secs(2);

impl Stop {
    /// Tokens that no one has cancelled, and no tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks, waits for `drain` at most, then insists. A second signal (`hard`) ends the waiting early.
    pub async fn drain(&self, drain: Duration) -> Stopped {
        self.soft.cancel();
        self.tasks.close();
        let asked = tokio::select! {
            // First, so that tasks that ended on `hard` by themselves are seen as such.
            biased;
            ended = timeout(drain, self.tasks.wait()) => ended.is_ok() && !self.hard.is_cancelled(),
            () = self.hard.cancelled() => false,
        };
        if asked {
            return Stopped::Clean;
        }
        tracing::warn!(
            tasks.left = self.tasks.len(),
            "not all tasks ended when they were asked; they are ended now"
        );
        self.hard.cancel();
        match timeout(HARD, self.tasks.wait()).await {
            Ok(()) => Stopped::Forced,
            Err(_) => {
                tracing::error!(tasks.left = self.tasks.len(), "tasks did not end");
                Stopped::Left(self.tasks.len())
            }
        }
    }
}

/// SIGTERM and SIGINT. Listened for from `listen` on, so that one sent during start-up is not lost.
#[derive(Debug)]
pub struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    /// Takes both signals over from the system's default. Needs a runtime.
    pub fn listen() -> io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    /// The first signal cancels `soft`, the second `hard`; ends then. Not a task of `stop.tasks`, or a stop without
    /// signals would wait for it. Cancel-safe.
    pub async fn watch(mut self, stop: Stop) {
        let name = self.next().await;
        tracing::info!(signal.name = name, "stopping: what came is answered; a second signal ends at once");
        stop.soft.cancel();
        let name = self.next().await;
        tracing::warn!(signal.name = name, "ending at once");
        stop.hard.cancel();
    }

    /// The next signal's name. Cancel-safe: a signal that came is kept until it is received.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
        }
    }
}

/// The file that tells others that the server is ready, and where.
#[derive(Clone, Debug)]
pub struct ReadyFile {
    path: PathBuf,
}

impl ReadyFile {
    /// Removes what an earlier server left there, so that nobody takes it for this one's.
    pub fn prepare(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(Self { path }),
        }
    }

    /// Writes `{"http", "grpc", "pid"}`, whole or not at all: beside it first, then renamed over it. The last act of a
    /// start.
    pub fn write(&self, http: SocketAddr, grpc: SocketAddr) -> io::Result<()> {
        let content = serde_json::json!({
            "http": http.to_string(),
            "grpc": grpc.to_string(),
            "pid": std::process::id(),
        });
        let beside = beside(&self.path);
        let mut file = std::fs::File::create(&beside)?;
        file.write_all(content.to_string().as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&beside, &self.path).inspect_err(|_| {
            let _ = std::fs::remove_file(&beside);
        })
    }
}

/// A name in the same folder, since a rename is atomic only within one file system.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}", std::process::id()));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_file_says_where_and_who_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ready.json");
        std::fs::write(&path, "of an earlier server").unwrap();
        let ready = ReadyFile::prepare(&path).unwrap();
        assert!(!path.exists());
        ready.write("127.0.0.1:4000".parse().unwrap(), "[::1]:4001".parse().unwrap()).unwrap();
        let read: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let pid = std::process::id();
        assert_eq!(read, serde_json::json!({"http": "127.0.0.1:4000", "grpc": "[::1]:4001", "pid": pid}));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let nowhere = ReadyFile::prepare(folder.path().join("no/ready.json")).unwrap();
        assert!(nowhere.write("127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap()).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn tasks_that_end_when_asked_are_a_clean_stop() {
        let stop = Stop::new();
        let soft = stop.soft.clone();
        stop.tasks.spawn(async move { soft.cancelled().await });
        assert_eq!(stop.drain(Duration::from_secs(10)).await, Stopped::Clean);
        assert!(!stop.hard.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_drains_limit_it_is_insisted_and_the_exit_code_says_so() {
        let stop = Stop::new();
        let hard = stop.hard.clone();
        stop.tasks.spawn(async move { hard.cancelled().await });
        let begun = tokio::time::Instant::now();
        assert_eq!(stop.drain(Duration::from_secs(10)).await, Stopped::Forced);
        assert_eq!(begun.elapsed().as_secs(), 10);
        assert_eq!(format!("{:?}", Stopped::Forced.exit_code()), format!("{:?}", ExitCode::FAILURE));
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_never_ends_is_left_and_counted() {
        let stop = Stop::new();
        stop.tasks.spawn(std::future::pending::<()>());
        let begun = tokio::time::Instant::now();
        assert_eq!(stop.drain(Duration::from_secs(10)).await, Stopped::Left(1));
        assert_eq!(begun.elapsed().as_secs(), 12);
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_signal_ends_the_drain_early() {
        let stop = Stop::new();
        let hard = stop.hard.clone();
        stop.tasks.spawn(async move { hard.cancelled().await });
        let begun = tokio::time::Instant::now();
        let again = stop.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(3)).await;
            again.hard.cancel();
        });
        assert_eq!(stop.drain(Duration::from_secs(10)).await, Stopped::Forced);
        assert_eq!(begun.elapsed().as_secs(), 3);
    }

    #[tokio::test]
    async fn the_first_signal_asks_and_the_second_insists() {
        let stop = Stop::new();
        let watch = tokio::spawn(Signals::listen().unwrap().watch(stop.clone()));
        let send = |name: &str| {
            let pid = std::process::id().to_string();
            assert!(std::process::Command::new("kill").args([name, &pid]).status().unwrap().success());
        };
        let soon = Duration::from_secs(5);
        send("-TERM");
        timeout(soon, stop.soft.cancelled()).await.expect("the first signal asks");
        assert!(!stop.hard.is_cancelled());
        send("-INT");
        timeout(soon, stop.hard.cancelled()).await.expect("the second insists");
        timeout(soon, watch).await.expect("the watch ends").unwrap();
    }
}
