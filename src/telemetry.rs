//! The log: for people, or as JSON on demand.
//! Enters: level and format from the configuration. Leaves: lines on stderr.
//! Owns: the process's subscriber. Must hold: spans are `room.verb`; fields are `noun.attribute` with the unit
//! (`session.id run.id model.name model.version bin.index frame.seq batch.rows lag_us request.id`).
//! Must not know: what is logged. No neural data, key or label text goes into a log, at any level.

pub mod otlp; // traces, to a collector

use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::{EnvFilter, fmt};

use crate::config::{Config, LogFormat, Source};

/// The log cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The directives do not parse; a `Config` has proven its own.
    #[error("log level `{0}`: not a level or directives")]
    Level(String),
    /// This process has one already.
    #[error("a log is set up already")]
    Twice,
}

/// Sets the process's log up, on stderr: stdout is for what a command answers.
pub fn init(level: &str, format: LogFormat) -> Result<(), TelemetryError> {
    let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let subscriber = subscriber(level, format, colour, std::io::stderr)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| TelemetryError::Twice)
}

/// Shows every key with its value in force, and where it comes from unless it is the default, in one event.
pub fn log_config(config: &Config) {
    let rows = config.table().iter().map(|row| match &row.source {
        Source::Default => format!("{}={}", row.key, row.value),
        source => format!("{}={} ({source})", row.key, row.value),
    });
    tracing::info!(config.values = rows.collect::<Vec<_>>().join(" "), "configuration");
}

fn subscriber<W>(
    level: &str,
    format: LogFormat,
    colour: bool,
    writer: W,
) -> Result<Box<dyn Subscriber + Send + Sync>, TelemetryError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(level).map_err(|_| TelemetryError::Level(level.into()))?;
    // Why not its own errors: they go to stderr by a macro that panics when nobody reads stderr any more.
    let lines = fmt().with_env_filter(filter).with_writer(writer).log_internal_errors(false);
    Ok(match format {
        LogFormat::Text => Box::new(lines.with_ansi(colour).finish()),
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_current_span(true).with_span_list(false);
            Box::new(lines.finish())
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::io;
    use std::sync::Arc;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(level: &str, format: LogFormat, act: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = subscriber(level, format, false, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, act);
        String::from_utf8(lines.0.lock().clone()).unwrap()
    }

    fn act() {
        let span = tracing::info_span!("session.open", session.id = "s1");
        span.in_scope(|| tracing::info!(lag_us = 250, "opened"));
        tracing::debug!("not at this level");
    }

    #[test]
    fn json_has_one_object_a_line_with_the_fields_under_their_names() {
        let text = logged("info", LogFormat::Json, act);
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 1);
        assert_eq!((&lines[0]["message"], &lines[0]["lag_us"]), (&"opened".into(), &250.into()));
        assert_eq!(lines[0]["span"]["session.id"], "s1");
        assert_eq!(lines[0]["span"]["name"], "session.open");
    }

    #[test]
    fn text_is_for_people() {
        let text = logged("info", LogFormat::Text, act);
        assert!(text.contains("session.open{session.id=\"s1\"}: "), "{text}");
        assert!(text.contains("opened lag_us=250"), "{text}");
        assert_eq!(text.lines().count(), 1);
    }

    #[test]
    fn every_key_is_shown_with_its_value_and_where_it_comes_from() {
        let config = Config::with([("queue", "7")]).unwrap();
        let text = logged("info", LogFormat::Text, || log_config(&config));
        for key in crate::config::keys::KEYS {
            assert!(text.contains(&format!("{}=", key.name)), "{text}");
        }
        assert!(text.contains("queue=7 (--queue)") && text.contains(" window=32 "), "{text}");
    }
}
