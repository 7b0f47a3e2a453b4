//! The OpenAPI document: made from the routes and from the schema of the messages, so that it cannot drift from them.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header;
use serde_json::{Map, Value, json};

use super::route::{Parameter, Route, message};
use crate::domain::caller::{Need, Scope};
use crate::error::Kind;
use crate::wire::schema;

/// Name of the scheme by which callers are known.
const KEY: &str = "key";

/// The document of this build's routes.
static DOCUMENT: LazyLock<Bytes> =
    LazyLock::new(|| document(&super::routes(Need::Scope(Scope::Read))).to_string().into());

pub async fn show() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.clone()).into_response()
}

/// OpenAPI 3.1 of these routes.
fn document(routes: &[Route]) -> Value {
    let mut paths = Map::new();
    for route in routes {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.as_str().to_ascii_lowercase()] = operation(route);
    }
    let read: BTreeSet<&str> = routes.iter().filter_map(|route| route.takes).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "latentd",
            "description": env!("CARGO_PKG_DESCRIPTION"),
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "schemas": schema::schemas(&read),
            "responses": { "Fault": fault() },
            "securitySchemes": { KEY: {
                "type": "http",
                "scheme": "bearer",
                "description": "An API key. Asked for off the loopback address, and on it by configuration.",
            } },
        },
    })
}

fn operation(route: &Route) -> Value {
    let words = || route.path.split(['/', '.']).filter(|part| !part.is_empty());
    let tag = words().find(|word| *word != "v1").unwrap_or_default();
    let method = route.method.as_str().to_ascii_lowercase();
    let id = words().fold(method, |id, word| format!("{id}_{}", word.trim_matches(['{', '}'])));
    let parts = route
        .parts()
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }));
    let query = route.query.iter().map(|Parameter { name, says, kind }| {
        // `final` is a word of Rust's, too.
        let name = name.trim_start_matches("r#");
        json!({ "name": name, "in": "query", "description": says.trim(), "schema": { "type": kind } })
    });
    let mut responses = Map::new();
    for (status, content) in &route.answers {
        let text = http::StatusCode::from_u16(*status).ok().and_then(|status| status.canonical_reason());
        let response = responses
            .entry(status.to_string())
            .or_insert_with(|| json!({ "description": text.unwrap_or("") }));
        for (media, schema) in content.schemas() {
            response["content"][media]["schema"] = schema;
        }
    }
    responses.insert("default".into(), json!({ "$ref": "#/components/responses/Fault" }));
    let mut operation = json!({
        "operationId": id,
        "summary": route.says,
        "tags": [tag],
        "parameters": parts.chain(query).collect::<Vec<_>>(),
        "responses": responses,
    });
    operation["security"] = match route.need {
        Need::Nothing => json!([]),
        Need::Key => json!([{ KEY: [] }]),
        Need::Scope(scope) => json!([{ KEY: [scope.word()] }]),
    };
    if let Some(name) = route.takes {
        let content: Map<String, Value> = message(name)
            .into_iter()
            .map(|(media, schema)| (media.to_owned(), json!({ "schema": schema })))
            .collect();
        let other = route.takes_bytes.iter().map(|media| ((*media).to_owned(), json!({})));
        let content: Map<String, Value> = content.into_iter().chain(other).collect();
        operation["requestBody"] = json!({ "content": content });
    }
    operation
}

/// What every call may answer: the table of kinds.
fn fault() -> Value {
    let table = Kind::ALL.iter().map(|kind| format!("{} {kind}", kind.codes().0));
    json!({
        "description": format!("A fault: {}", table.collect::<Vec<_>>().join(", ")),
        "content": { "application/problem+json": { "schema": schema::reference("Fault") } },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_stands_in_the_document_under_an_id_of_its_own() {
        let routes = super::super::routes(Need::Nothing);
        let document = document(&routes);
        let mut ids = BTreeSet::new();
        for route in &routes {
            let operation = &document["paths"][route.path][route.method.as_str().to_ascii_lowercase()];
            let id = operation["operationId"].as_str().expect("an operation").to_owned();
            assert!(ids.insert(id.clone()), "{id} twice");
            assert_eq!(
                operation["parameters"].as_array().map(Vec::len),
                Some(route.parts().count() + route.query.len())
            );
        }
        let paths = document["paths"].as_object().expect("paths").values();
        assert_eq!(paths.map(|path| path.as_object().map_or(0, Map::len)).sum::<usize>(), routes.len());
    }

    #[test]
    fn every_message_of_a_route_is_a_schema() {
        let text = document(&super::super::routes(Need::Nothing)).to_string();
        let known = schema::schemas(&BTreeSet::new());
        for name in text.split("#/components/schemas/").skip(1) {
            let name = name.split('"').next().unwrap_or_default();
            assert!(known.contains_key(name), "{name}");
        }
    }
}
