//! Queries about what was recorded: as `curl` lines to paste, and carried out, to prove that the lines work.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::replay::report::PlayReport;
use crate::wire::{json, v1};

/// Bins that a printed line asks for.
const SHOWN_BINS: u64 = 50;
/// How long what was just recorded may take to be found.
const FOUND_WITHIN: Duration = Duration::from_secs(5);

/// One query and what its answer must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// What it answers, for people.
    pub about: String,
    /// The URL.
    pub url: String,
    /// What must be found there.
    expected: Expected,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Expected {
    /// A JSON object.
    Object,
    /// The run with so many bins.
    Run { bins: u64 },
    /// So many bins of an output.
    Bins(u64),
    /// Text with this in it.
    Text(&'static str),
}

/// Why a query did not answer as it should.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// No answer.
    #[error("{url} does not answer")]
    Silent {
        /// The URL.
        url: String,
        /// Why.
        source: reqwest::Error,
    },
    /// Another answer.
    #[error("{url}: expected {expected}, found {found}")]
    Wrong {
        /// The URL.
        url: String,
        /// What should have come.
        expected: String,
        /// What came.
        found: String,
    },
}

impl Query {
    /// The line to paste.
    pub fn curl(&self) -> String {
        match self.expected {
            Expected::Text(word) => format!("curl -s '{}' | grep {word}", self.url),
            _ => format!("curl -s '{}'", self.url),
        }
    }

    /// Asks once.
    async fn ask(&self, client: &reqwest::Client) -> Result<(), QueryError> {
        let silent = |source| QueryError::Silent { url: self.url.clone(), source };
        let answer = client.get(&self.url).send().await.map_err(silent)?;
        let status = answer.status().as_u16();
        let body = answer.bytes().await.map_err(silent)?;
        let wrong = |expected: String, found: String| {
            Err(QueryError::Wrong { url: self.url.clone(), expected, found })
        };
        if status != 200 {
            let said = String::from_utf8_lossy(&body).chars().take(300).collect::<String>();
            return wrong("200".into(), format!("{status}: {said}"));
        }
        let unreadable = |fault: crate::error::Fault| wrong("the JSON of the wire".into(), fault.detail);
        match &self.expected {
            Expected::Object => match serde_json::from_slice::<serde_json::Map<_, _>>(&body) {
                Ok(_) => Ok(()),
                Err(error) => wrong("a JSON object".into(), error.to_string()),
            },
            Expected::Run { bins } => match json::read::<v1::RunInfo>(&body) {
                Ok(run) if run.bins == *bins => Ok(()),
                Ok(run) => wrong(format!("{bins} bins"), run.bins.to_string()),
                Err(fault) => unreadable(fault),
            },
            Expected::Bins(bins) => match json::read::<v1::OutputsReply>(&body) {
                Ok(reply) => {
                    let found: u64 = reply.stretches.iter().map(|stretch| u64::from(stretch.n)).sum();
                    if found == *bins { Ok(()) } else { wrong(format!("{bins} bins"), found.to_string()) }
                }
                Err(fault) => unreadable(fault),
            },
            Expected::Text(word) => match String::from_utf8_lossy(&body).contains(word) {
                true => Ok(()),
                false => wrong(format!("a text with {word}"), "one without".into()),
            },
        }
    }
}

/// The queries that a recorded play offers. `http`: `host:port` or a URL. Nothing about a run where none was recorded.
pub fn about(report: &PlayReport, http: &str) -> Vec<Query> {
    let base = base_url(http);
    let Some(run) = &report.run else { return Vec::new() };
    let answers = &report.answers;
    let bins = answers.bins() as u64;
    let mut queries = vec![Query {
        about: "the run, its versions and settings".into(),
        url: format!("{base}/v1/runs/{run}"),
        expected: Expected::Run { bins: answers.answered() as u64 },
    }];
    let (first, shown) = (answers.first_bin, bins.min(SHOWN_BINS));
    let ranges = answers.outputs.keys().map(|name| (name, first, first + shown));
    queries.extend(ranges.map(|(name, from, to)| Query {
        about: format!("{name}, its first bins"),
        url: format!("{base}/v1/runs/{run}/outputs/{name}?from={from}&to={to}"),
        expected: Expected::Bins(answers.flags.iter().take(shown as usize).flatten().count() as u64),
    }));
    queries.push(Query {
        about: "what happened on the way".into(),
        url: format!("{base}/v1/runs/{run}/events"),
        expected: Expected::Object,
    });
    queries
}

/// The queries about the server as a whole.
pub fn about_server(http: &str) -> Vec<Query> {
    let base = base_url(http);
    let of = |about: &str, path: &str, expected| Query {
        about: about.into(),
        url: format!("{base}{path}"),
        expected,
    };
    vec![
        of("all runs", "/v1/runs", Expected::Object),
        of("bins by how they ended", "/metrics", Expected::Text("latentd_bins_total")),
    ]
}

/// A query for every bin of every output of a recorded play.
pub fn about_every_bin(report: &PlayReport, http: &str) -> Vec<Query> {
    let base = base_url(http);
    let Some(run) = &report.run else { return Vec::new() };
    let answered = report.answers.answered() as u64;
    let whole = report.answers.outputs.keys().map(|name| Query {
        about: format!("{name}, whole"),
        url: format!("{base}/v1/runs/{run}/outputs/{name}"),
        expected: Expected::Bins(answered),
    });
    whole.collect()
}

/// Carries queries out. What was recorded a moment ago may not be found at once, so a wrong answer is asked for again
/// under a limit; the last one is the error.
pub async fn check(queries: &[Query]) -> Result<(), QueryError> {
    let client = reqwest::Client::new();
    let until = Instant::now() + FOUND_WITHIN;
    for query in queries {
        while let Err(error) = query.ask(&client).await {
            if Instant::now() > until {
                return Err(error);
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

fn base_url(http: &str) -> String {
    let url = if http.contains("://") { http.to_string() } else { format!("http://{http}") };
    url.trim_end_matches('/').to_string()
}
