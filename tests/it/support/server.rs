//! The process under test: the real binary on free ports, in folders of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use latentd::config::process_env;
use latentd::wire::v1;
use tempfile::TempDir;
use tokio::process::Child;

use super::cluster::Database;
use super::http::{Answer, Refused, Rig};
use super::models::{self, Model};
use super::stream::Line;
use super::{LIMIT, until, within};

/// How a server is to be started.
#[derive(Clone)]
pub struct Setup {
    folder: Arc<TempDir>,
    flags: Vec<(String, String)>,
    /// Where the library is, if it is not in the data folder.
    pub database: Option<Arc<Database>>,
}

impl Setup {
    /// Fresh folders with the models of `models::all()`.
    pub fn new() -> Self {
        models::all().into_iter().fold(Self::bare(), |setup, model| setup.model(model))
    }

    /// Fresh folders without a model.
    pub fn bare() -> Self {
        let folder = Arc::new(tempfile::tempdir().expect("a temporary folder"));
        std::fs::create_dir_all(folder.path().join("models")).expect("a folder for models");
        std::fs::create_dir_all(folder.path().join("home")).expect("a home folder");
        Self { folder, flags: Vec::new(), database: None }
    }

    /// Adds a model as version 1.
    pub fn model(self, model: Model) -> Self {
        model.write(&self.models());
        self
    }

    /// Adds a file to the model repository: `pipelines/two.toml`.
    pub fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        let path = self.models().join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder for the file");
        std::fs::write(path, content).expect("the file is written");
        self
    }

    /// Adds the bundled models of `models/`.
    pub fn bundled(self) -> Self {
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models"), &self.models());
        self
    }

    /// A key of the configuration: `.key("window", "4")`.
    pub fn key(mut self, name: &str, value: impl ToString) -> Self {
        self.flags.push((name.replace('_', "-"), value.to_string()));
        self
    }

    /// The library in that database, which is reached by this URL, in place of any other.
    pub fn library(mut self, database: &Arc<Database>, url: &str) -> Self {
        self.flags.retain(|(name, _)| name != "database-url");
        Self { database: Some(Arc::clone(database)), ..self.key("database_url", url) }
    }

    /// The model repository's folder.
    pub fn models(&self) -> PathBuf {
        self.folder.path().join("models")
    }

    /// The data folder: journal and library.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The home folder of the server's user, empty at start.
    pub fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// Starts the server and waits until it is ready.
    pub async fn start(self) -> Latentd {
        let ready = self.folder.path().join("ready.json");
        let _ = std::fs::remove_file(&ready);
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log.txt"))
            .expect("a file for the log");
        let mut command = Command::new(program());
        command
            .env_clear()
            .envs(["PATH", "TMPDIR", "ORT_DYLIB_PATH"].into_iter().filter_map(inherited))
            .env("HOME", self.home());
        command.arg("serve");
        for door in ["http", "grpc"] {
            if !self.flags.iter().any(|(name, _)| name == door) {
                command.arg(format!("--{door}=127.0.0.1:0"));
            }
        }
        command.arg("--models").arg(self.models()).arg("--data").arg(self.data());
        command.arg("--ready-file").arg(&ready);
        for (name, value) in &self.flags {
            command.arg(format!("--{name}={value}"));
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("one file, two handles")).stderr(log);
        let mut child =
            tokio::process::Command::from(command).kill_on_drop(true).spawn().expect("the binary starts");
        let ready = until(LIMIT, "the ready-file", || {
            let ended = child.try_wait().expect("the child can be asked");
            assert!(ended.is_none(), "the server ended at start ({ended:?}):\n{}", self.log());
            let read = std::fs::read(&ready).ok();
            async move { serde_json::from_slice::<serde_json::Value>(&read?).ok() }
        })
        .await;
        // Every address is reached by the loopback's.
        let text = |key: &str| ready[key].as_str().expect("an address").replace("0.0.0.0", "127.0.0.1");
        let client = reqwest::Client::builder().timeout(LIMIT).build().expect("an HTTP client");
        Latentd { http: text("http"), grpc: text("grpc"), client, child, setup: self, ended: false }
    }

    /// What servers in these folders have logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log.txt")).unwrap_or_default()
    }
}

/// Runs a command of the binary to its end; answers its exit code, and what it wrote to standard output and error.
pub async fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = tokio::process::Command::new(program());
    command.env_clear().args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let ended = within("the end of the command", command.output()).await.expect("the binary runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (ended.status.code(), text(ended.stdout), text(ended.stderr))
}

/// The binary that was built with the tests, or `LATENTD_PROGRAM`: a release build under the same tests, say.
fn program() -> PathBuf {
    process_env("LATENTD_PROGRAM").map_or_else(|| env!("CARGO_BIN_EXE_latentd").into(), PathBuf::from)
}

fn inherited(name: &'static str) -> Option<(&'static str, std::ffi::OsString)> {
    Some((name, process_env(name)?))
}

fn send_signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args([name, &pid.to_string()]).status().expect("kill runs");
    assert!(sent.success(), "kill {name} failed");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder to copy to");
    for entry in std::fs::read_dir(from).expect("a folder to copy from") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).expect("the file is copied");
        }
    }
}

/// A running server. Its end is an assertion: call `stop` (or `kill`).
pub struct Latentd {
    /// `host:port` of HTTP.
    pub http: String,
    /// `host:port` of gRPC.
    pub grpc: String,
    /// The client of all calls.
    pub client: reqwest::Client,
    /// Where it runs; start it again to have a second server on the same data.
    pub setup: Setup,
    child: Child,
    ended: bool,
}

impl Latentd {
    /// A server with the models of `models::all()` and the defaults.
    pub async fn start() -> Self {
        Setup::new().start().await
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("a process that has not been waited for")
    }

    /// Asks it to stop, and waits for nothing.
    pub fn terminate(&self) {
        self.signal("-TERM");
    }

    /// Stops it where it stands and lets it go on after `pause`; answers at once.
    pub fn stand_still(&self, pause: Duration) -> tokio::task::JoinHandle<()> {
        self.signal("-STOP");
        let pid = self.pid();
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            send_signal(pid, "-CONT");
        })
    }

    fn signal(&self, name: &str) {
        send_signal(self.pid(), name);
    }

    /// SIGTERM; asserts that it ends with exit code 0. Answers its setup, from which it can be started again.
    pub async fn stop(mut self) -> Setup {
        self.terminate();
        let status = self.wait().await;
        assert_eq!(status.code(), Some(0), "the end of the server:\n{}", self.setup.log());
        self.setup.clone()
    }

    /// `kill -9`, as a power cut would.
    pub async fn kill(mut self) -> Setup {
        self.signal("-KILL");
        self.wait().await;
        self.setup.clone()
    }

    /// Waits for its end.
    pub async fn wait(&mut self) -> ExitStatus {
        self.ended = true;
        within("the end of the server", self.child.wait()).await.expect("the child is waited for")
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> Answer {
        Answer::of(self.client.get(self.url(path))).await
    }

    /// `POST` of JSON.
    pub async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> Answer {
        let request = self.client.post(self.url(path)).header("content-type", "application/json").body(body);
        Answer::of(request).await
    }

    /// `DELETE`.
    pub async fn delete(&self, path: &str) -> Answer {
        Answer::of(self.client.delete(self.url(path))).await
    }

    /// Opens a session by HTTP; frames go by HTTP.
    pub async fn open(&self, ask: v1::OpenRequest) -> Rig {
        self.try_open(ask).await.unwrap_or_else(|refused| panic!("open was refused: {refused:?}"))
    }

    /// As `open`, or how it was refused.
    pub async fn try_open(&self, ask: v1::OpenRequest) -> Result<Rig, Refused> {
        let answer = self.post("/v1/sessions", latentd::wire::json::write(&ask)).await;
        if answer.status >= 400 {
            return Err(answer.refused());
        }
        Ok(Rig::new(self, answer.message()))
    }

    /// A channel to its gRPC door.
    pub async fn channel(&self) -> tonic::transport::Channel {
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", self.grpc));
        within("a gRPC connection", endpoint.expect("an address").connect()).await.expect("gRPC connects")
    }

    /// A client of `latentd.v1.Live`.
    pub async fn live(&self) -> v1::live_client::LiveClient<tonic::transport::Channel> {
        v1::live_client::LiveClient::new(self.channel().await).max_decoding_message_size(64 << 20)
    }

    /// Opens a session by gRPC and attaches a stream to all its signals.
    pub async fn line(&self, ask: v1::OpenRequest) -> Line {
        let opened = within("open", self.live().await.open(ask)).await.expect("open by gRPC").into_inner();
        self.attach(&opened).await
    }

    /// Attaches a stream to an open session with its first signal's token.
    pub async fn attach(&self, opened: &v1::OpenReply) -> Line {
        let writer = opened.writers.values().next().cloned().unwrap_or_default();
        let attach = v1::Attach { session: opened.session.clone(), writer, signal: None };
        let line = Line::attach(self.live().await, attach).await;
        line.unwrap_or_else(|status| panic!("attach was refused: {status:?}")).of(opened.clone())
    }

    /// A metric's value summed over its labels that contain `labels`; 0 where there is none.
    pub async fn metric(&self, name: &str, labels: &str) -> f64 {
        let answer = self.get("/metrics").await;
        let lines = answer.text().lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(labels)
        });
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// The events of a run of one kind; of a closed session all there are.
    pub async fn events(&self, run: &str, kind: &str) -> Vec<v1::Event> {
        self.get(&format!("/v1/runs/{run}/events?kind={kind}")).await.message::<v1::EventsReply>().events
    }

    /// The one event of this kind of a closed session.
    pub async fn event(&self, run: &str, kind: &str) -> v1::Event {
        let mut events = self.events(run, kind).await;
        assert_eq!(events.len(), 1, "one event `{kind}`, not {events:?}");
        events.remove(0)
    }
}

impl Drop for Latentd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the server's log:\n{}", self.setup.log());
        } else {
            assert!(self.ended, "a test ended without stopping its server");
        }
    }
}
