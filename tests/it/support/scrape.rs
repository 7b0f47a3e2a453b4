//! What `/metrics` answers, read by the rules of Prometheus' text format.

use std::collections::{BTreeMap, BTreeSet};

use super::server::Latentd;

type Labels = BTreeMap<String, String>;

/// One line: a name with its labels, and a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: Labels,
    pub value: f64,
}

/// One family.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// `counter`, `gauge`, `histogram`.
    pub kind: String,
    pub samples: Vec<Sample>,
}

/// Everything that one scrape gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Scrape {
    pub families: BTreeMap<String, Family>,
}

/// A histogram of one set of labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// Upper bounds and how many values do not exceed each; the last bound is infinite.
    pub buckets: Vec<(f64, f64)>,
    pub sum: f64,
    pub count: f64,
}

impl Scrape {
    /// Scrapes a server.
    pub async fn of(server: &Latentd) -> Self {
        let answer = server.get("/metrics").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        says_its_version(answer.header("content-type"));
        Self::read(answer.text())
    }

    /// Reads the text; fails at the first line that breaks the format's rules.
    #[track_caller]
    pub fn read(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line has its end");
        let mut families: BTreeMap<String, Family> = BTreeMap::new();
        let mut helped = BTreeSet::new();
        let mut at_hand = String::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap_or_else(|| panic!("no help: {line}"));
                assert!(!help.is_empty() && helped.insert(name.to_owned()), "help twice or empty: {line}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap_or_else(|| panic!("no type: {line}"));
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                let family = Family { kind: kind.into(), samples: Vec::new() };
                assert!(families.insert(name.into(), family).is_none(), "a family in two pieces: {line}");
                at_hand = name.into();
            } else if !line.starts_with('#') {
                let sample = sample(line);
                let family = families.get_mut(&at_hand).unwrap_or_else(|| panic!("no type before: {line}"));
                let rest =
                    sample.name.strip_prefix(&at_hand).unwrap_or_else(|| panic!("not of {at_hand}: {line}"));
                let fits = match family.kind.as_str() {
                    "histogram" => ["_bucket", "_sum", "_count"].contains(&rest),
                    _ => rest.is_empty(),
                };
                assert!(fits, "no sample of a {}: {line}", family.kind);
                let is_known =
                    |known: &Sample| (&known.name, &known.labels) == (&sample.name, &sample.labels);
                assert!(!family.samples.iter().any(is_known), "twice: {line}");
                family.samples.push(sample);
            }
        }
        for (name, family) in &families {
            assert!(helped.contains(name) && !family.samples.is_empty(), "{name} without help or samples");
        }
        let scrape = Self { families };
        for (name, family) in scrape.families.iter().filter(|(_, family)| family.kind == "histogram") {
            let counts = family.samples.iter().filter(|sample| sample.name.ends_with("_count"));
            counts.for_each(|count| _ = scrape.histogram_of(name, &count.labels));
        }
        scrape
    }

    /// The value of the one sample with these labels, others whatever they are; fails where there is none or another.
    #[track_caller]
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let family = self.families.get(name).unwrap_or_else(|| panic!("no family {name}"));
        let fits = |sample: &&Sample| {
            labels.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|v| v == value))
        };
        let found: Vec<_> = family.samples.iter().filter(fits).collect();
        assert_eq!(found.len(), 1, "{name}{labels:?}: {found:?}");
        found[0].value
    }

    /// The histogram with exactly these labels.
    #[track_caller]
    pub fn histogram(&self, name: &str, labels: &[(&str, &str)]) -> Histogram {
        self.histogram_of(name, &labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect())
    }

    #[track_caller]
    fn histogram_of(&self, name: &str, labels: &Labels) -> Histogram {
        let family = self.families.get(name).unwrap_or_else(|| panic!("no family {name}"));
        assert_eq!(family.kind, "histogram", "{name}");
        let one = |suffix: &str| {
            let is_it =
                |sample: &&Sample| sample.name == format!("{name}{suffix}") && sample.labels == *labels;
            let found = family.samples.iter().find(is_it);
            found.unwrap_or_else(|| panic!("no {name}{suffix}{labels:?}")).value
        };
        let mut buckets = Vec::new();
        for sample in family.samples.iter().filter(|sample| sample.name.ends_with("_bucket")) {
            let mut rest = sample.labels.clone();
            let bound = rest.remove("le").unwrap_or_else(|| panic!("a bucket without bound: {sample:?}"));
            if rest == *labels {
                buckets.push((number(&bound), sample.value));
            }
        }
        let (sum, count) = (one("_sum"), one("_count"));
        assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{name}{labels:?}: {buckets:?}");
        assert_eq!(buckets.last(), Some(&(f64::INFINITY, count)), "{name}{labels:?}");
        assert!(sum.is_finite() && sum >= 0.0, "{name}{labels:?}: {sum}");
        Histogram { buckets, sum, count }
    }

    /// The values of one label of a family.
    pub fn words(&self, name: &str, label: &str) -> BTreeSet<String> {
        let samples = self.families.get(name).into_iter().flat_map(|family| &family.samples);
        samples.filter_map(|sample| sample.labels.get(label).cloned()).collect()
    }
}

impl Histogram {
    /// The place of the bucket that a value falls into.
    pub fn place(&self, value: f64) -> usize {
        self.buckets.iter().position(|(bound, _)| value <= *bound).expect("the last bound is infinite")
    }

    /// The place of the bucket in which the share `q` of all values is reached.
    pub fn place_of_quantile(&self, q: f64) -> usize {
        let rank = (q * self.count).ceil().max(1.0);
        self.buckets.iter().position(|(_, count)| *count >= rank).expect("the last bucket holds all")
    }
}

#[track_caller]
fn says_its_version(content_type: &str) {
    assert!(
        content_type.starts_with("text/plain") && content_type.contains("version=0.0.4"),
        "{content_type}"
    );
}

/// `name{label="value",…} value`.
#[track_caller]
fn sample(line: &str) -> Sample {
    let named = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == ':';
    let end = line.find(|letter| !named(letter)).unwrap_or_else(|| panic!("a name alone: {line}"));
    let (name, mut rest) = line.split_at(end);
    let mut labels = Labels::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (key, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("no label: {line}"));
            assert!(!key.is_empty() && key.chars().all(|letter| named(letter) && letter != ':'), "{line}");
            let (value, after) = quoted(after).unwrap_or_else(|| panic!("a label without end: {line}"));
            assert!(labels.insert(key.into(), value).is_none(), "a label twice: {line}");
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    let value = rest.strip_prefix(' ').unwrap_or_else(|| panic!("no value: {line}"));
    Sample { name: name.into(), labels, value: number(value) }
}

/// A text up to its quote, and what stands behind that.
fn quoted(text: &str) -> Option<(String, &str)> {
    let (mut read, mut letters) = (String::new(), text.char_indices());
    loop {
        match letters.next()? {
            (at, '"') => return Some((read, &text[at + 1..])),
            (_, '\\') => read.push(match letters.next()?.1 {
                'n' => '\n',
                letter => letter,
            }),
            (_, letter) => read.push(letter),
        }
    }
}

#[track_caller]
fn number(text: &str) -> f64 {
    match text {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        _ => text.parse().unwrap_or_else(|_| panic!("`{text}` is no number")),
    }
}
