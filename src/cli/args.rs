//! The flags of each command. Those of `serve` are made from the configuration's list of keys.

use std::ffi::OsString;
use std::sync::LazyLock;

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, ValueEnum};

use crate::config::keys::{KEYS, Key};
use crate::config::{Config, ConfigError};

/// `latentd serve`: flags as given, for `Config::read`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServeArgs {
    /// Key and text of each flag that was given; `config` names the file.
    pub flags: Vec<(String, String)>,
}

impl ServeArgs {
    /// The configuration by these flags, this environment and the file that one of them names.
    pub fn config(&self, env: &dyn Fn(&str) -> Option<OsString>) -> Result<Config, ConfigError> {
        Config::read(&self.flags, env)
    }
}

const SERVE_AFTER: &str = "Each flag is also a key of the file (with _ for -) and a variable of the environment \
(LATENTD_MAX_SESSIONS for --max-sessions). A flag comes before the environment, the environment before the file, the \
file before the default. On SIGTERM or Ctrl-C what came is answered within --drain-s; a second signal ends at once.";

/// The flag that names the file, and the flags of these keys.
fn with_flags(command: Command, keys: impl Iterator<Item = &'static Key>) -> Command {
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .help("Configuration file (TOML) [LATENTD_CONFIG]")
        .help_heading(KEYS[0].heading);
    keys.fold(command.arg(config), |command, key| command.arg(flag(key)))
}

/// Key and text of the flags that were given.
fn given(matches: &ArgMatches, keys: impl Iterator<Item = &'static Key>) -> Vec<(String, String)> {
    let names = std::iter::once("config").chain(keys.map(|key| key.name));
    let given = |name: &str| matches.get_one::<String>(name).map(|text| (name.to_string(), text.clone()));
    names.filter_map(given).collect()
}

impl Args for ServeArgs {
    fn augment_args(command: Command) -> Command {
        with_flags(command, KEYS.iter()).after_help(SERVE_AFTER)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// The flag's name for as long as the process runs, as clap wants it.
fn long(key: &'static Key) -> &'static str {
    static LONG: LazyLock<Vec<String>> = LazyLock::new(|| KEYS.iter().map(Key::flag).collect());
    let at = KEYS.iter().position(|each| each.name == key.name).expect("a key of the list");
    &LONG[at]
}

/// The flag of a key. Its text is proven by `config`, with the other sources', not here.
fn flag(key: &'static Key) -> Arg {
    let default = if key.default.is_empty() { String::new() } else { format!(" [default: {}]", key.default) };
    let arg = Arg::new(key.name)
        .long(long(key))
        .value_name(key.value)
        .help(format!("{}{default}", key.help))
        .help_heading(key.heading)
        .allow_hyphen_values(true);
    match key.is_switch() {
        true => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
        false => arg,
    }
}

impl FromArgMatches for ServeArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self { flags: given(matches, KEYS.iter()) })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// `latentd db ...`: those of the configuration's flags that say where the library is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DbArgs {
    /// As in `ServeArgs`.
    pub flags: Vec<(String, String)>,
}

/// The keys that say where the library is.
fn library_keys() -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(|key| key.name == "data" || key.name.starts_with("database_"))
}

impl Args for DbArgs {
    fn augment_args(command: Command) -> Command {
        with_flags(command, library_keys())
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for DbArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self { flags: given(matches, library_keys()) })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// `latentd demo`
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct DemoArgs {
    /// As fast as it goes instead of in real time
    #[arg(long)]
    pub fast: bool,
    /// Play this recording alone
    #[arg(long, value_name = "NAME")]
    pub recording: Option<String>,
}

/// How fast a recording is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Speed {
    /// As it was recorded
    Real,
    /// As fast as it is answered
    Max,
}

/// `latentd replay`
#[derive(Clone, Debug, PartialEq, Args)]
pub struct ReplayArgs {
    /// A folder with recording.json, or that file
    #[arg(value_name = "RECORDING")]
    pub recording: std::path::PathBuf,
    /// The pipeline to play it through
    #[arg(long, value_name = "P")]
    pub pipeline: String,
    /// The server's HTTP address
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub url: String,
    /// The server's gRPC address
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8081")]
    pub grpc: String,
    /// A file with an API key (`latentd keys create`), where the server asks for one; `-` for standard input
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<std::path::PathBuf>,
    /// In real time, or as fast as it is answered
    #[arg(long, value_enum, default_value = "real")]
    pub speed: Speed,
    /// Record the session as a run
    #[arg(long)]
    pub record: bool,
    /// Length of a frame in ms; by default one bin of the pipeline
    #[arg(long, value_name = "MS")]
    pub frame_ms: Option<f64>,
    /// What is scored against which target, by default what offers itself: output=target, or output=target:DELAY_MS
    #[arg(long, value_name = "PAIR")]
    pub score: Vec<crate::cli::replay::score::Pair>,
}

/// `latentd ready`
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct ReadyArgs {
    /// The server's HTTP address; by default the one that `serve` would take here, by environment and file
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
}

/// `latentd bench`
#[derive(Clone, Debug, PartialEq, Args)]
pub struct BenchArgs {
    /// How long each figure is measured, in s
    #[arg(long, value_name = "S", default_value_t = 2.0)]
    pub seconds: f64,
    /// Times each figure is measured, server and floor in turn
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub rounds: usize,
    /// Sessions at once, a number or several with commas; by default 1,16,64
    #[arg(long, value_name = "N", value_delimiter = ',')]
    pub sessions: Vec<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::{CommandFactory as _, Parser as _};

    fn serve(line: &str) -> ServeArgs {
        match Cli::try_parse_from(line.split(' ')).unwrap() {
            Cli::Serve(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_key_is_a_flag_and_reaches_the_configuration() {
        let args = serve(
            "latentd serve --models m --data d --http 127.0.0.1:0 --grpc [::1]:0 --ready-file r \
             --max-sessions 5 --allow-unauthenticated --body-limit=1MiB",
        );
        let config = args.config(&|_| None).unwrap();
        assert_eq!((config.models, config.data, config.max_sessions), ("m".into(), "d".into(), 5));
        assert_eq!((config.ready_file, config.body_limit_bytes), (Some("r".into()), 1 << 20));
        assert!(config.allow_unauthenticated);
        for key in KEYS {
            let args = serve(&format!("latentd serve --{}=x", key.flag()));
            assert_eq!(args.flags, [(key.name.to_string(), "x".to_string())]);
        }
    }

    #[test]
    fn a_bad_flag_is_the_configurations_sentence() {
        let error = serve("latentd serve --queue -3 --window=0").config(&|_| None).unwrap_err().to_string();
        assert!(
            error.contains("--queue: queue: found `-3`") && error.contains("--window: window"),
            "{error}"
        );
    }

    #[test]
    fn help_names_every_flag_with_its_default() {
        let mut command = Cli::command();
        let help = command.find_subcommand_mut("serve").unwrap().render_help().to_string();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for key in KEYS {
            assert!(help.contains(&format!("--{}", key.flag())), "{help}");
        }
        assert!(
            help.contains("[default: 127.0.0.1:8080]") && help.contains("LATENTD_MAX_SESSIONS"),
            "{help}"
        );
    }

    #[test]
    fn replay_and_demo_read_as_written() {
        match Cli::try_parse_from("latentd replay rec --pipeline reach --speed max --record".split(' '))
            .unwrap()
        {
            Cli::Replay(args) => {
                assert_eq!((args.speed, args.record, args.pipeline.as_str()), (Speed::Max, true, "reach"));
                assert_eq!(args.grpc, "http://127.0.0.1:8081");
            }
            other => panic!("{other:?}"),
        }
        match Cli::try_parse_from("latentd demo --fast".split(' ')).unwrap() {
            Cli::Demo(args) => assert_eq!(args, DemoArgs { fast: true, recording: None }),
            other => panic!("{other:?}"),
        }
    }
}
