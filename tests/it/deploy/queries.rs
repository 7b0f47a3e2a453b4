//! Dashboard and alerts ask for metrics and labels that a real server has.

use std::collections::{BTreeMap, BTreeSet};

use latentd::wire::v1;
use serde_json::Value;

use super::{elements, read, text, yaml};
use crate::support::{Latentd, Setup};

const DASHBOARD: &str = "deploy/grafana/dashboards/latentd.json";
const ALERTS: &str = "deploy/prometheus/alerts.yml";
/// Functions and aggregations that the queries use.
const FUNCTIONS: &[&str] =
    &["count", "histogram_quantile", "increase", "max", "max_over_time", "min", "rate", "sum", "vector"];
/// Words before a list of labels in brackets.
const GROUPING: &[&str] = &["by", "on"];
/// Words between two operands.
const OPERATORS: &[&str] = &["and", "or", "unless"];

/// What a server's metrics are: the values of each label of each name.
type Known = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// The metrics of a server that has served each bundled model, as Prometheus would have them.
async fn known(server: &Latentd) -> Known {
    let open = v1::OpenRequest {
        pipeline: "cortex".into(),
        rig: "deploy".into(),
        channels_by: "order".into(),
        ..Default::default()
    };
    server.open(open).await.close().await;
    let mut known = Known::new();
    for line in server.get("/metrics").await.text().lines().filter(|line| !line.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').expect("a series and its value");
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let of_name = known.entry(name.to_owned()).or_default();
        for pair in labels.trim_end_matches('}').split("\",").filter(|pair| !pair.is_empty()) {
            let (label, value) = pair.split_once("=\"").expect("a label and its value");
            of_name.entry(label.to_owned()).or_default().insert(value.trim_end_matches('"').to_owned());
        }
    }
    known.insert("up".into(), BTreeMap::new());
    let alerts = rules().iter().map(|rule| text(&rule["alert"]).to_owned()).collect();
    let states = ["pending", "firing"].map(String::from).into();
    let of_alerts =
        [("alertname", alerts), ("alertstate", states), ("pipeline", [].into()), ("model", [].into())];
    known.insert("ALERTS".into(), of_alerts.map(|(label, values)| (label.to_owned(), values)).into());
    // What scraping adds.
    for labels in known.values_mut() {
        labels.insert("job".into(), ["latentd".into()].into());
        labels.insert("instance".into(), BTreeSet::new());
    }
    known
}

fn rules() -> Vec<Value> {
    let whole = yaml(ALERTS);
    let found = elements(&whole["groups"]).flat_map(|group| elements(&group["rules"]));
    found.cloned().collect()
}

/// A metric in a query, with what is asked of its labels: label, operator, value.
#[derive(Debug, Default)]
struct Selector {
    metric: String,
    matchers: Vec<(String, String, String)>,
}

/// A query, as far as names go.
#[derive(Debug, Default)]
struct Query {
    selectors: Vec<Selector>,
    /// Labels in `by (...)` and `on (...)`.
    grouping: BTreeSet<String>,
    grouped: bool,
}

impl Query {
    /// Reads the names out of a query; fails on a word that is neither a metric nor one that it knows.
    fn read(expression: &str) -> Self {
        let mut query = Self::default();
        let mut rest = expression.trim_start();
        let mut open = 0_i32;
        while let Some(first) = rest.chars().next() {
            let word_end =
                rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
            let (word, after) = rest.split_at(word_end);
            let after = after.trim_start();
            rest = match first {
                _ if GROUPING.contains(&word) => {
                    let (labels, after) =
                        after.strip_prefix('(').and_then(|list| list.split_once(')')).expect("labels");
                    query.grouping.extend(labels.split(',').map(|label| label.trim().to_owned()));
                    query.grouped = true;
                    after
                }
                'a'..='z' | 'A'..='Z' if FUNCTIONS.contains(&word) => {
                    assert!(after.starts_with(['(', 'b']), "{word} is called: {expression}");
                    after
                }
                'a'..='z' | 'A'..='Z' if OPERATORS.contains(&word) => after,
                'a'..='z' | 'A'..='Z' => {
                    let (matchers, after) = match after.strip_prefix('{') {
                        Some(list) => list.split_once('}').expect("a closing brace"),
                        None => ("", after),
                    };
                    query.selectors.push(Selector { metric: word.into(), matchers: matchers_of(matchers) });
                    after
                }
                '[' => rest.split_once(']').expect("a closing bracket").1,
                '(' | ')' => {
                    open += if first == '(' { 1 } else { -1 };
                    assert!(open >= 0, "brackets: {expression}");
                    &rest[1..]
                }
                '0'..='9' | '.' | '+' | '-' | '*' | '/' | '<' | '>' | '=' | '!' | ',' => &rest[1..],
                other => panic!("{other:?} in {expression}"),
            }
            .trim_start();
        }
        assert_eq!(open, 0, "brackets: {expression}");
        assert!(!query.selectors.is_empty(), "no metric: {expression}");
        query
    }

    /// Fails unless every name is known, and every value that is written out occurs.
    fn check(&self, known: &Known, place: &str) {
        for Selector { metric, matchers } in &self.selectors {
            let labels = known.get(metric).unwrap_or_else(|| panic!("{place}: no metric {metric}"));
            for (label, operator, value) in matchers {
                let values =
                    labels.get(label).unwrap_or_else(|| panic!("{place}: {metric} has no label {label}"));
                let each: Vec<_> =
                    if operator == "=~" { value.split('|').collect() } else { vec![value.as_str()] };
                for value in each.into_iter().filter(|value| !value.starts_with('$')) {
                    let start = value.strip_suffix(".*");
                    let fits =
                        |known: &String| start.map_or(known == value, |start| known.starts_with(start));
                    assert!(values.iter().any(fits), "{place}: {label} of {metric} is never {value}");
                }
            }
            for label in &self.grouping {
                let quantile = label == "le" && metric.ends_with("_bucket");
                assert!(quantile || labels.contains_key(label), "{place}: {metric} has no label {label}");
            }
        }
    }

    /// Labels of what the query answers.
    fn labels(&self, known: &Known) -> BTreeSet<String> {
        let all = || self.selectors.iter().flat_map(|selector| known[&selector.metric].keys().cloned());
        if self.grouped { self.grouping.clone() } else { all().collect() }
    }
}

/// `name="value",other=~"a|b"`
fn matchers_of(list: &str) -> Vec<(String, String, String)> {
    let read = |pair: &str| {
        let at = pair.find(['=', '!']).expect("an operator");
        let (label, rest) = pair.split_at(at);
        let (operator, value) = rest.split_once('"').expect("a value in quotes");
        (label.trim().to_owned(), operator.to_owned(), value.to_owned())
    };
    list.split("\",")
        .map(|pair| pair.trim().trim_end_matches('"'))
        .filter(|pair| !pair.is_empty())
        .map(read)
        .collect()
}

/// Names in `{{ name }}`, or in `{{ $labels.name }}`.
fn placeholders(template: &str) -> Vec<&str> {
    let inner =
        template.split("{{").skip(1).map(|rest| rest.split_once("}}").expect("closing braces").0.trim());
    inner.filter(|name| !name.starts_with("$value")).map(|name| name.trim_start_matches("$labels.")).collect()
}

/// The panels, without the rows between them.
fn panels() -> Vec<Value> {
    let whole: Value = serde_json::from_str(&read(DASHBOARD)).expect("the dashboard's JSON");
    elements(&whole["panels"]).filter(|panel| panel["type"] != "row").cloned().collect()
}

#[tokio::test]
async fn every_query_of_the_dashboard_and_of_the_alerts_finds_its_metrics() {
    let server = Setup::bare().bundled().start().await;
    let known = known(&server).await;
    server.stop().await;
    for panel in panels() {
        let title = text(&panel["title"]);
        assert!(elements(&panel["targets"]).next().is_some(), "{title} asks for nothing");
        for target in elements(&panel["targets"]) {
            let query = Query::read(text(&target["expr"]));
            query.check(&known, title);
            let labels = query.labels(&known);
            for name in placeholders(text(&target["legendFormat"])) {
                assert!(
                    labels.contains(name),
                    "{title}: the legend names {name}, which the query does not keep"
                );
            }
        }
    }
    for rule in rules() {
        let name = text(&rule["alert"]);
        let query = Query::read(text(&rule["expr"]));
        query.check(&known, name);
        let labels = query.labels(&known);
        for label in placeholders(text(&rule["annotations"]["summary"])) {
            assert!(
                labels.contains(label),
                "{name}: its sentence names {label}, which the query does not keep"
            );
        }
    }
    let whole: Value = serde_json::from_str(&read(DASHBOARD)).expect("the dashboard's JSON");
    for annotation in elements(&whole["annotations"]["list"]) {
        Query::read(text(&annotation["expr"])).check(&known, "annotations");
    }
    for variable in elements(&whole["templating"]["list"]) {
        let inner = text(&variable["definition"])
            .strip_prefix("label_values(")
            .and_then(|rest| rest.strip_suffix(')'));
        let (metric, label) =
            inner.and_then(|inner| inner.split_once(", ")).expect("label_values(metric, label)");
        assert!(known[metric].contains_key(label), "{metric} has no {label}");
    }
}

#[test]
fn the_dashboard_shows_every_family_of_the_wire() {
    let asked: BTreeSet<String> = panels()
        .iter()
        .flat_map(|panel| {
            elements(&panel["targets"]).map(|target| text(&target["expr"]).to_owned()).collect::<Vec<_>>()
        })
        .flat_map(|expression| Query::read(&expression).selectors)
        .map(|selector| selector.metric)
        .collect();
    for family in [
        "age_seconds_bucket",
        "batch_rows_bucket",
        "bins_total",
        "deadline_missed_total",
        "gaps_total",
        "jobs",
        "journal_bytes",
        "journal_oldest_seconds",
        "model_state",
        "queue_rows",
        "ready",
        "recording_stopped_total",
        "rejected_total",
        "sessions",
        "sessions_shifted",
        "stage_seconds_bucket",
        "step_seconds_bucket",
        "store_seconds_bucket",
        "subscriber_dropped_total",
    ] {
        assert!(asked.contains(&format!("latentd_{family}")), "{family} is on no panel");
    }
}

#[test]
fn the_dashboards_panels_stand_side_by_side_on_the_provisioned_source() {
    let source = &yaml("deploy/grafana/provisioning/datasources/prometheus.yaml")["datasources"][0];
    let provider = &yaml("deploy/grafana/provisioning/dashboards/latentd.yaml")["providers"][0];
    let compose = yaml("deploy/compose.yaml");
    let mounted = format!("./grafana/dashboards:{}:ro", text(&provider["options"]["path"]));
    assert!(
        elements(&compose["services"]["grafana"]["volumes"]).any(|volume| volume == mounted.as_str()),
        "{mounted}"
    );
    assert!(text(&source["url"]).starts_with("http://prometheus:9090"));
    assert!(compose["services"]["prometheus"].is_object());
    let scraped = &yaml("deploy/prometheus/prometheus.yml")["scrape_configs"][0];
    assert_eq!(
        (&scraped["job_name"], &scraped["static_configs"][0]["targets"][0]),
        (&"latentd".into(), &"latentd:8080".into())
    );

    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels() {
        let title = text(&panel["title"]);
        assert!(ids.insert(panel["id"].as_u64()), "{title} has another's id");
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().expect("a place"));
        assert!(x + w <= 24, "{title} is too wide");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{title} lies over another");
        }
        for asks in elements(&panel["targets"]).chain([&panel]) {
            assert_eq!(asks["datasource"]["uid"], source["uid"], "{title}");
        }
    }
}

#[test]
fn every_alert_tells_what_to_do_and_is_the_same_in_a_cluster() {
    let operations = read("docs/OPERATIONS.md");
    for rule in rules() {
        let name = text(&rule["alert"]);
        assert!(
            operations.contains(&format!("| `{name}` |")),
            "docs/OPERATIONS.md does not say what to do at {name}"
        );
        assert!(["warning", "critical"].contains(&text(&rule["labels"]["severity"])), "{name}");
    }
    let in_cluster = yaml("deploy/kubernetes/monitoring/prometheusrule.yaml");
    assert_eq!(in_cluster["spec"]["groups"], yaml(ALERTS)["groups"]);
}
