//! A PostgreSQL for tests, and in it a database for each test alone. Also part of the library's own tests.
//! It is the one that `LATENTD_TEST_DATABASE_URL` names, else the one on 127.0.0.1:5432 that lets the user `postgres`
//! in, else one that is started from the system's packages and ends with the test program. Without any of these the
//! test fails: nothing is left out in silence.

#![allow(dead_code, reason = "two test programs use different parts of it")]

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::OnceCell;

/// Where another PostgreSQL is named.
const VARIABLE: &str = "LATENTD_TEST_DATABASE_URL";
/// The usual one.
const USUAL: &str = "postgres://postgres@127.0.0.1:5432/postgres";
/// How long a connection may take, and how long a start.
const CONNECT: Duration = Duration::from_secs(10);
const START: Duration = Duration::from_secs(60);

/// The environment: `latentd::config::process_env`.
pub type Env = dyn Fn(&str) -> Option<OsString> + Sync;

/// The server that all tests of this program share.
static SERVER: OnceCell<PgConnectOptions> = OnceCell::const_new();
/// The same, where it is one of our own.
static HELD: Mutex<Option<Cluster>> = Mutex::new(None);

/// A database of one test's own; it is gone with this value.
pub struct Database {
    /// Its URL.
    pub url: String,
    options: PgConnectOptions,
    server: PgConnectOptions,
    name: String,
}

impl Database {
    /// A new, empty one.
    pub async fn fresh(env: &Env) -> Self {
        Self::fresh_in(SERVER.get_or_init(|| server(env)).await).await
    }

    /// Drops it, whoever is in it, and makes another of its name.
    pub async fn recreate(&self) {
        for sql in [drop_of(&self.name), create_of(&self.name)] {
            run(&self.server, &sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
    }

    /// The one text that a query gives.
    pub async fn text(&self, sql: &str) -> String {
        let mut conn = connect(&self.options).await.unwrap_or_else(|error| panic!("{error}"));
        let select = sqlx::query_scalar(sqlx::AssertSqlSafe(sql.to_owned()));
        select.fetch_one(&mut conn).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    async fn fresh_in(server: &PgConnectOptions) -> Self {
        let name = format!("latentd_test_{}", uuid::Uuid::new_v4().simple());
        run(server, &create_of(&name))
            .await
            .unwrap_or_else(|error| panic!("a database for this test cannot be made: {error}"));
        let options = server.clone().database(&name);
        Self { url: options.to_url_lossy().to_string(), options, server: server.clone(), name }
    }

    /// `host:port` of its server.
    pub fn address(&self) -> String {
        assert!(self.options.get_socket().is_none(), "{VARIABLE} must name a server reached by TCP");
        format!("{}:{}", self.options.get_host(), self.options.get_port())
    }

    /// Its URL by another way: `host`, `port` of what stands before it.
    pub fn url_by(&self, host: &str, port: u16) -> String {
        self.options.clone().host(host).port(port).to_url_lossy().to_string()
    }

    /// Runs a statement in it.
    pub async fn execute(&self, sql: &str) {
        run(&self.options, sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// The one whole number that a query gives; nothing summed up is 0.
    pub async fn count(&self, sql: &str) -> u64 {
        let mut conn = connect(&self.options).await.unwrap_or_else(|error| panic!("{error}"));
        let select = format!("SELECT coalesce(({sql}), 0)::int8");
        let found: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(select))
            .fetch_one(&mut conn)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
        found as u64
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (options, sql) = (self.server.clone(), drop_of(&self.name));
        // On a thread of its own: a runtime may be at work on this one.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map_err(|error| error.to_string())?.block_on(run(&options, &sql))
        });
        if let Ok(Err(error)) = dropped.join() {
            eprintln!("the database {} could not be dropped: {error}", self.name);
        }
    }
}

fn create_of(name: &str) -> String {
    format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
}

fn drop_of(name: &str) -> String {
    format!("DROP DATABASE {name} WITH (FORCE)")
}

async fn connect(options: &PgConnectOptions) -> Result<PgConnection, String> {
    match tokio::time::timeout(CONNECT, options.connect()).await {
        Ok(Ok(conn)) => Ok(conn),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {CONNECT:?}")),
    }
}

async fn run(options: &PgConnectOptions, sql: &str) -> Result<(), String> {
    let mut conn = connect(options).await?;
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()))
        .execute(&mut conn)
        .await
        .map_err(|error| error.to_string())?;
    conn.close().await.map_err(|error| error.to_string())
}

/// The server: named, found or started.
async fn server(env: &Env) -> PgConnectOptions {
    if let Some(url) = env(VARIABLE).filter(|url| !url.is_empty()) {
        let options = url.to_str().and_then(|url| url.parse::<PgConnectOptions>().ok());
        let options = options.unwrap_or_else(|| panic!("{VARIABLE} is no postgres:// URL"));
        connect(&options).await.unwrap_or_else(|error| panic!("{VARIABLE}: {error}"));
        return options;
    }
    let usual: PgConnectOptions = USUAL.parse().expect("a URL");
    let missing = match connect(&usual).await {
        Ok(_) => return usual,
        Err(error) => error,
    };
    let Some(programs) = programs(env) else {
        panic!(
            "no PostgreSQL for the tests: {VARIABLE} is not set, 127.0.0.1:5432 does not let the user postgres in \
             ({missing}), and there is no initdb in /usr/lib/postgresql/*/bin or PATH; on Debian or Ubuntu: \
             sudo apt-get install -y postgresql"
        );
    };
    let cluster = Cluster::start(&programs).await;
    let _ = writeln!(std::io::stderr(), "started PostgreSQL from {} for these tests", programs.display());
    let options = cluster.options.clone();
    *HELD.lock().expect("nobody panicked with it") = Some(cluster);
    options
}

/// The folder of `initdb` and `postgres`, of the highest version.
fn programs(env: &Env) -> Option<PathBuf> {
    let version = |path: &Path| -> Option<u32> { path.file_name()?.to_str()?.parse().ok() };
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join("bin/initdb").exists())
        .collect();
    versions.sort_by_key(|path| version(path));
    let in_path = || {
        let path = env("PATH")?;
        std::env::split_paths(&path).find(|folder| folder.join("initdb").exists())
    };
    versions.pop().map(|path| path.join("bin")).or_else(in_path)
}

/// A server that was started from the system's packages, as the user `postgres`, or `nobody`, where we are root, whom it
/// refuses. It ends with this value, and at the latest with this program.
pub struct Cluster {
    options: PgConnectOptions,
    /// A shell that does what it is told, and ends the server and itself when it is told no more.
    shell: Child,
}

impl Cluster {
    /// One of a test's own, which may be stopped; `None` where the packages are not there.
    pub async fn of_its_own(env: &Env) -> Option<Self> {
        Some(Self::start(&programs(env)?).await)
    }

    async fn start(programs: &Path) -> Self {
        const SCRIPT: &str = "dir=$(mktemp -d /tmp/latentd-postgres.XXXXXX) && trap 'rm -rf \"$dir\"' EXIT || exit 1\n\
            \"$1/initdb\" -D \"$dir/data\" -U postgres -A trust -E UTF8 --locale=C -N >\"$dir/log\" 2>&1 \
                || { cat \"$dir/log\" >&2; exit 1; }\n\
            while read word; do case $word in\n\
                start) \"$1/postgres\" -D \"$dir/data\" -p \"$2\" -c listen_addresses=127.0.0.1 \
                    -c unix_socket_directories=\"$dir\" -c fsync=off -c max_connections=200 \
                    >>\"$dir/log\" 2>&1 </dev/null & ;;\n\
                crash) kill -QUIT $!; wait $! ;;\n\
            esac; done\n\
            kill -INT $! && wait $!";
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let port = port.expect("a free port").port();
        let id = |args: &[&str]| {
            Command::new("id").args(args).output().map(|told| (told.status.success(), told.stdout))
        };
        let is_root = id(&["-u"]).is_ok_and(|(_, told)| told.trim_ascii() == b"0");
        let mut command = Command::new(if is_root { "runuser" } else { "sh" });
        if is_root {
            let user = if id(&["postgres"]).is_ok_and(|(known, _)| known) { "postgres" } else { "nobody" };
            command.args(["-u", user, "--", "sh"]);
        }
        command.arg("-c").arg(SCRIPT).arg("sh").arg(programs).arg(port.to_string()).current_dir("/");
        let shell = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("a shell starts");
        let url = format!("postgres://postgres@127.0.0.1:{port}/postgres?sslmode=disable");
        let mut cluster = Self { options: url.parse().expect("a URL"), shell };
        cluster.run().await;
        cluster
    }

    /// A database in it.
    pub async fn database(&self) -> Database {
        Database::fresh_in(&self.options).await
    }

    /// Ends it in the middle of whatever it does.
    pub fn crash(&mut self) {
        self.tell("crash");
    }

    /// Starts it, again or for the first time, and waits until it lets somebody in.
    pub async fn run(&mut self) {
        self.tell("start");
        let begun = Instant::now();
        loop {
            let ended = self.shell.try_wait().expect("the shell can be asked");
            assert!(ended.is_none(), "PostgreSQL cannot be set up here: {ended:?}");
            match connect(&self.options).await {
                Ok(_) => return,
                Err(error) => assert!(begun.elapsed() < START, "PostgreSQL did not start: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn tell(&mut self, word: &str) {
        let told = self.shell.stdin.as_mut().map(|stdin| writeln!(stdin, "{word}"));
        told.expect("a pipe to the shell").expect("the shell listens");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}
