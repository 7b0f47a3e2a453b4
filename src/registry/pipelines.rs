//! `pipelines/*.toml`: which stages a pipeline has and what feeds them. The plan is compiled in the pipeline room.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use toml::Value;

use super::finding::{Finding, Findings, quoted};
use super::manifest::{from_table, table};
use crate::domain::ids::{ModelName, PipelineName, SignalName, StageName, Version};

/// A pipeline as written: stages of models, each behind those that feed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipelineSpec {
    /// Its name: the file's without `.toml`, or the model's.
    pub name: PipelineName,
    /// Its stages; a stage stands behind all that feed it.
    pub stages: Vec<StageSpec>,
}

/// One stage: a model and what feeds its inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageSpec {
    /// Its name.
    pub name: StageName,
    /// The model that it runs.
    pub model: ModelName,
    /// A version that the file pins; `None`: the highest that is ready.
    pub version: Option<Version>,
    /// Per input of the model, by its name in the manifest: what feeds it.
    pub inputs: BTreeMap<String, Source>,
}

/// What feeds an input of a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A signal of the session.
    Signal(SignalName),
    /// An output of an earlier stage.
    Stage {
        /// That stage.
        stage: StageName,
        /// The output's name in its model's manifest.
        output: String,
    },
}

impl PipelineSpec {
    /// The pipeline of one model: a stage of its name, fed by signals that are named as its inputs.
    pub fn of_model<'a>(model: &ModelName, inputs: impl IntoIterator<Item = &'a str>) -> Self {
        let inputs = inputs
            .into_iter()
            .map(|input| (input.to_owned(), Source::Signal(SignalName::from(input))))
            .collect();
        Self {
            name: PipelineName::from(model.as_str()),
            stages: vec![StageSpec {
                name: StageName::from(model.as_str()),
                model: model.clone(),
                version: None,
                inputs,
            }],
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PipelineToml {
    #[serde(default, rename = "description")]
    _description: String,
    stage: Vec<StageToml>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StageToml {
    name: String,
    model: Option<String>,
    version: Option<u32>,
    sae: Option<String>,
    rule: Option<Value>,
    #[serde(default)]
    inputs: BTreeMap<String, String>,
}

/// Reads a pipeline's file. `file` is named in the findings.
pub fn parse(file: &str, name: &PipelineName, text: &str) -> Result<PipelineSpec, Findings> {
    let parsed: PipelineToml = from_table(file, table(file, text)?)?;
    let mut findings = Findings::none();
    let mut wrong = |key: String, expected: &str, found: String| {
        findings.push(Finding::new(file, key, expected, found));
    };
    if parsed.stage.is_empty() {
        wrong("stage".into(), "at least one [[stage]]", "none".into());
    }
    let names: BTreeSet<&str> = parsed.stage.iter().map(|stage| stage.name.as_str()).collect();
    let mut seen = BTreeSet::new();
    let mut stages = Vec::new();
    for (i, stage) in parsed.stage.iter().enumerate() {
        let key = |word: &str| format!("stage[{i}].{word}");
        if !is_stage_name(&stage.name) {
            let expected = "a name of 1 to 100 characters without space, dot, colon and comma";
            wrong(key("name"), expected, quoted(&stage.name));
        } else if !seen.insert(stage.name.as_str()) {
            wrong(key("name"), "a name of its own", format!("{} a second time", quoted(&stage.name)));
        }
        let not_yet = |what: &str| format!("{what}, which this version does not serve yet");
        match (&stage.model, &stage.sae, &stage.rule) {
            (Some(model), None, None) if model.is_empty() => {
                wrong(key("model"), "a model's name", "nothing".into());
            }
            (Some(_), None, None) => {}
            (None, Some(_), None) => wrong(key("sae"), "a stage with `model`", not_yet("an SAE stage")),
            (None, None, Some(_)) => wrong(key("rule"), "a stage with `model`", not_yet("a rule")),
            (None, None, None) => wrong(key("model"), "one of model, sae, rule", "none of them".into()),
            _ => wrong(key("model"), "one of model, sae, rule", "several of them".into()),
        }
        let mut inputs = BTreeMap::new();
        for (input, source) in &stage.inputs {
            match parse_source(source) {
                Some(Source::Stage { stage: from, .. }) if !names.contains(from.as_str()) => {
                    let there_is = crate::error::there_is(from.as_str(), names.iter().copied());
                    let expected = format!("an output of a stage ({there_is})");
                    wrong(key(&format!("inputs.{input}")), &expected, quoted(source));
                }
                Some(from) => {
                    inputs.insert(input.clone(), from);
                }
                None => wrong(
                    key(&format!("inputs.{input}")),
                    "\"signal:<name>\" or \"<stage>.<output>\"",
                    quoted(source),
                ),
            }
        }
        stages.push(StageSpec {
            name: StageName::from(stage.name.as_str()),
            model: ModelName::from(stage.model.clone().unwrap_or_default()),
            version: stage.version.map(Version),
            inputs,
        });
    }
    findings.unless_any(())?;
    let stages = in_order(file, stages)?;
    Ok(PipelineSpec { name: name.clone(), stages })
}

fn is_stage_name(name: &str) -> bool {
    (1..=100).contains(&name.chars().count())
        && !name.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '.' | ':' | ','))
}

fn parse_source(text: &str) -> Option<Source> {
    if let Some(name) = text.strip_prefix("signal:") {
        return (!name.is_empty()).then(|| Source::Signal(SignalName::from(name)));
    }
    let (stage, output) = text.split_once('.')?;
    (!stage.is_empty() && !output.is_empty())
        .then(|| Source::Stage { stage: StageName::from(stage), output: output.into() })
}

/// The stages, each behind those that feed it, else as written.
fn in_order(file: &str, mut waiting: Vec<StageSpec>) -> Result<Vec<StageSpec>, Findings> {
    let mut placed: BTreeSet<StageName> = BTreeSet::new();
    let mut stages = Vec::with_capacity(waiting.len());
    while !waiting.is_empty() {
        let fed = |stage: &StageSpec| {
            stage.inputs.values().all(|source| match source {
                Source::Signal(_) => true,
                Source::Stage { stage, .. } => placed.contains(stage),
            })
        };
        let Some(next) = waiting.iter().position(fed) else {
            let circle: Vec<&str> = waiting.iter().map(|stage| stage.name.as_str()).collect();
            let found = format!("a circle among {}", circle.join(", "));
            return Err(Findings::one(Finding::new(file, "stage", "stages without a circle", found)));
        };
        let stage = waiting.remove(next);
        placed.insert(stage.name.clone());
        stages.push(stage);
    }
    Ok(stages)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<PipelineSpec, Findings> {
        parse("pipelines/reach.toml", &PipelineName::from("reach"), text)
    }

    const ENCODER: &str =
        "[[stage]]\nname = \"encoder\"\nmodel = \"reach-encoder\"\ninputs = { spikes = \"signal:spikes\" }\n";
    const DECODER: &str = "[[stage]]\nname = \"decoder\"\nmodel = \"reach-decoder\"\nversion = 2\ninputs = { z = \"encoder.latent\" }\n";

    #[test]
    fn stages_come_out_behind_those_that_feed_them() {
        let spec = read(&format!("{DECODER}{ENCODER}")).unwrap();
        let names: Vec<&str> = spec.stages.iter().map(|stage| stage.name.as_str()).collect();
        assert_eq!(names, ["encoder", "decoder"]);
        assert_eq!(spec.stages[0].inputs["spikes"], Source::Signal("spikes".into()));
        let from = Source::Stage { stage: "encoder".into(), output: "latent".into() };
        assert_eq!((&spec.stages[1].inputs["z"], spec.stages[1].version), (&from, Some(Version(2))));
    }

    #[test]
    fn a_model_alone_is_a_pipeline_of_one_stage_of_its_name() {
        let spec = PipelineSpec::of_model(&"gru".into(), ["x", "y"]);
        assert_eq!((spec.name.as_str(), spec.stages[0].name.as_str()), ("gru", "gru"));
        assert_eq!(spec.stages[0].inputs["y"], Source::Signal("y".into()));
    }

    #[test]
    fn each_refusal_is_a_sentence_with_file_and_key() {
        let cases = [
            ("", "pipelines/reach.toml: stage: expected a value, found nothing"),
            ("stage = []", "pipelines/reach.toml: stage: expected at least one [[stage]], found none"),
            (
                "[[stage]]\nname = \"a\"",
                "stage[0].model: expected one of model, sae, rule, found none of them",
            ),
            (
                "[[stage]]\nname = \"a\"\nmodel = \"m\"\nsae = \"s\"",
                "stage[0].model: expected one of model, sae, rule, found several of them",
            ),
            (
                "[[stage]]\nname = \"a\"\nsae = \"s\"",
                "stage[0].sae: expected a stage with `model`, found an SAE stage, which this version does not serve yet",
            ),
            (
                "[[stage]]\nname = \"a\"\nrule = { when = \"x > 1\" }",
                "stage[0].rule: expected a stage with `model`, found a rule, which this version does not serve yet",
            ),
            (
                "[[stage]]\nname = \"a.b\"\nmodel = \"m\"",
                "stage[0].name: expected a name of 1 to 100 characters without space, dot, colon and comma, found `a.b`",
            ),
            (
                &format!("{ENCODER}{ENCODER}"),
                "stage[1].name: expected a name of its own, found `encoder` a second time",
            ),
            (
                "[[stage]]\nname = \"a\"\nmodel = \"m\"\ninputs = { x = \"spikes\" }",
                "stage[0].inputs.x: expected \"signal:<name>\" or \"<stage>.<output>\", found `spikes`",
            ),
            (
                DECODER,
                "stage[0].inputs.z: expected an output of a stage (there are: decoder), found `encoder.latent`",
            ),
            (
                "[[stage]]\nname = \"a\"\nmodel = \"m\"\ninputs = { x = \"b.y\" }\n[[stage]]\nname = \"b\"\nmodel = \"m\"\ninputs = { x = \"a.y\" }",
                "pipelines/reach.toml: stage: expected stages without a circle, found a circle among a, b",
            ),
            (
                "[[stage]]\nname = \"a\"\nmodel = \"m\"\ncolour = 1",
                "stage[0].colour: expected a known key (one of name, model, version, sae, rule, inputs), found a key that does not exist",
            ),
        ];
        for (text, sentence) in cases {
            let said = read(text).expect_err(text).to_string();
            assert!(said.contains(sentence), "{text}\n said {said}\n not  {sentence}");
        }
    }
}
