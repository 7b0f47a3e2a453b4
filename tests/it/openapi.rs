//! The OpenAPI document against the running server: real answers fit their schemas, and every call of the one is a call
//! of the other.

use std::collections::BTreeSet;

use jsonschema::Validator;
use serde_json::{Value, json};

use crate::support::{Answer, Latentd, counts, linear, recorded};

/// The document, and what checks answers by it.
struct Document(Value);

impl Document {
    async fn of(server: &Latentd) -> Self {
        let answer = server.get("/v1/openapi.json").await;
        assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
        Self(answer.json())
    }

    /// Methods and paths of all calls, as `GET /v1/runs/{run}`.
    fn calls(&self) -> BTreeSet<String> {
        let paths = self.0["paths"].as_object().expect("paths");
        let calls = paths.iter().flat_map(|(path, item)| {
            let methods = item.as_object().expect("operations").keys();
            methods.map(move |method| format!("{} {path}", method.to_uppercase()))
        });
        calls.collect()
    }

    /// The schema at a pointer below the document, whose references are the document's.
    fn validator(&self, schema: &Value) -> Validator {
        let mut schema = schema.clone();
        schema["components"] = self.0["components"].clone();
        jsonschema::draft202012::new(&schema).expect("a schema of JSON Schema 2020-12")
    }

    /// Asserts that a call's answer is one that the document names, and fits its schema.
    fn fits(&self, call: &str, answer: &Answer) {
        let (method, path) = call.split_once(' ').expect("METHOD path");
        let operation = &self.0["paths"][path][method.to_lowercase()];
        assert!(operation.is_object(), "{call} is not in the document");
        let response = match &operation["responses"][answer.status.to_string()] {
            Value::Null => &self.0["components"]["responses"]["Fault"],
            response => response,
        };
        let media = answer.header("content-type").split(';').next().unwrap_or_default();
        let schema = &response["content"][media]["schema"];
        assert!(schema.is_object(), "{call}: no {media} for {}: {response}", answer.status);
        if media.ends_with("json") {
            self.assert(call, schema, &answer.json());
        }
    }

    fn assert(&self, what: &str, schema: &Value, instance: &Value) {
        let validator = self.validator(schema);
        let errors: Vec<String> = validator
            .iter_errors(instance)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{what}: {errors:#?}\n{instance}");
    }
}

#[tokio::test]
async fn real_answers_and_faults_fit_their_schemas() {
    let server = Latentd::start().await;
    let document = Document::of(&server).await;
    let ask = recorded(linear());
    let body = latentd::wire::json::write(&ask);
    document.assert(
        "an open that is written whole",
        &json!({ "$ref": "#/components/schemas/OpenRequest" }),
        &serde_json::from_slice(&body).unwrap(),
    );
    let answer = server.post("/v1/sessions", body).await;
    assert_eq!(answer.status, 201);
    document.fits("POST /v1/sessions", &answer);
    let dry = server
        .post("/v1/sessions", r#"{"pipeline": "linear", "channels_by": "order", "dry_run": true}"#)
        .await;
    assert_eq!(dry.status, 200);
    document.fits("POST /v1/sessions", &dry);
    let opened: latentd::wire::v1::OpenReply = answer.message();
    let (session, run) = (opened.session.clone(), opened.run.clone().unwrap());
    let rig = crate::support::Rig::new(&server, opened);
    let frames = format!("/v1/sessions/{session}/frames");
    for (seq, index) in [(0, 0), (1, 1), (2, 200)] {
        let mut frame = counts(seq, index, &[[1.0, f32::NAN], [0.5, -2.0]]);
        frame.writer = rig.opened.writers["spikes"].clone();
        let answer = server.post(&frames, latentd::wire::json::write(&frame)).await;
        assert_eq!(answer.status, 200);
        document.fits("POST /v1/sessions/{session}/frames", &answer);
    }
    let infer = r#"{"inputs": {"u": {"dtype": "f32", "shape": [1, 2], "values": [1, null]}}}"#;
    let posts = [
        ("POST /v1/models/{model}/infer", "/v1/models/linear/infer", infer),
        ("POST /v1/models/{model}/unload", "/v1/models/events/unload", "{}"),
        ("POST /v1/models/{model}/load", "/v1/models/events/load", "{}"),
        ("POST /v1/sessions/{session}/reset", &format!("/v1/sessions/{session}/reset"), "{}"),
        // Faults of every sort of field.
        ("POST /v1/sessions/{session}/frames", &frames, r#"{"signal": "spikes", "seq": 9, "writer": "x"}"#),
        ("POST /v1/sessions/{session}/frames", &frames, r#"{"sinal": "spikes"}"#),
        ("POST /v1/sessions", "/v1/sessions", r#"{"pipeline": "nothing"}"#),
        ("POST /v1/models/{model}/infer", "/v1/models/linear/infer", "{}"),
        ("POST /v1/sessions/{session}/snapshot", &format!("/v1/sessions/{session}/snapshot"), "{}"),
    ];
    for (call, path, body) in posts {
        document.fits(call, &server.post(path, body.to_owned()).await);
    }
    let outputs = format!("/v1/runs/{run}/outputs/v");
    let gets = [
        ("GET /v1/sessions", "/v1/sessions".to_owned()),
        ("GET /v1/sessions/{session}", format!("/v1/sessions/{session}")),
        ("GET /v1/models", "/v1/models".into()),
        ("GET /v1/models/{model}", "/v1/models/linear".into()),
        ("GET /v1/models/{model}/versions/{version}", "/v1/models/linear/versions/1".into()),
        ("GET /v1/pipelines", "/v1/pipelines".into()),
        ("GET /v1/runs", "/v1/runs?limit=1".into()),
        ("GET /v1/runs/{run}", format!("/v1/runs/{run}")),
        ("GET /v1/runs/{run}/outputs/{output}", outputs.clone()),
        ("GET /v1/runs/{run}/outputs/{output}", format!("{outputs}?max_points=2")),
        ("GET /v1/runs/{run}/outputs/{output}", format!("{outputs}?format=arrow")),
        ("GET /v1/runs/{run}/outputs/{output}", format!("{outputs}?format=csv")),
        ("GET /v1/runs/{run}/events", format!("/v1/runs/{run}/events")),
        ("GET /v1/runs/{run}", "/v1/runs/x".into()),
        ("GET /v1/runs", "/v1/runs?limit=many".into()),
        ("GET /readyz", "/readyz".into()),
        ("GET /metrics", "/metrics".into()),
        ("GET /openapi.json", "/openapi.json".into()),
    ];
    for (call, path) in gets {
        document.fits(call, &server.get(&path).await);
    }
    let closed = server.delete(&format!("/v1/sessions/{session}")).await;
    assert_eq!(closed.status, 200);
    document.fits("DELETE /v1/sessions/{session}", &closed);
    document.fits("GET /v1/runs/{run}", &server.get(&format!("/v1/runs/{run}")).await);
    // The schemas are strict: what no answer has does not fit.
    let session = json!({ "$ref": "#/components/schemas/SessionInfo" });
    assert!(!document.validator(&session).is_valid(&json!({ "session": "x" })), "fields are missing");
    let tensor = json!({ "$ref": "#/components/schemas/Tensor" });
    assert!(!document.validator(&tensor).is_valid(&json!({ "value": [1] })), "a field too many");
    server.stop().await;
}

#[tokio::test]
async fn every_call_of_the_document_is_one_of_the_server_and_of_the_docs() {
    let server = Latentd::start().await;
    let document = Document::of(&server).await;
    assert_eq!(document.0["openapi"], "3.1.0");
    let calls = document.calls();
    for call in &calls {
        let (method, path) = call.split_once(' ').unwrap();
        // What is not there by that name is not found, too; but not as a call.
        let url = server.url(&path.replace(['{', '}'], ""));
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let request = server.client.request(method, url).header("content-type", "application/json");
        let answer = Answer::of(request.body("{}")).await;
        let is_no_call = answer.status == 404 && answer.text().contains("no call");
        assert!(!is_no_call, "{call}: {}", answer.text());
    }
    let docs = include_str!("../../docs/API.md");
    let section = docs.split("### HTTP").nth(1).and_then(|rest| rest.split("### gRPC").next()).unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    let mut told = BTreeSet::new();
    for row in rows {
        let row = row.split(" |").next().unwrap_or_default();
        let method = row.split(' ').next().unwrap_or_default();
        for path in row.split('`').filter_map(|part| part.find('/').map(|at| &part[at..])) {
            let path = path.split('?').next().unwrap_or_default();
            told.insert(format!("{method} {path}"));
        }
    }
    let unsupported: BTreeSet<String> = calls
        .iter()
        .filter(|call| {
            let (method, path) = call.split_once(' ').unwrap();
            let operation = &document.0["paths"][path][method.to_lowercase()];
            operation["responses"].as_object().is_some_and(|responses| responses.len() == 1)
        })
        .cloned()
        .collect();
    let served: BTreeSet<String> = calls.difference(&unsupported).cloned().collect();
    assert_eq!(served, told, "docs/API.md, section 1, and the document name the same calls");
    for call in unsupported {
        let (method, path) = call.split_once(' ').unwrap();
        let url = server.url(&path.replace(['{', '}'], ""));
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let refused = Answer::of(server.client.request(method, url)).await.refused();
        refused.is(501, "unsupported", &["not served by this version"]);
    }
    server.stop().await;
}
