//! A collector of traces: takes OTLP over gRPC, keeps what it got.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use super::{LIMIT, until};

/// A span as it came, ids in hex.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub name: String,
    pub trace: String,
    pub id: String,
    /// Empty: it has none.
    pub parent: String,
    /// The spans that it has to do with, `trace/span`.
    pub links: Vec<String>,
    pub kind: SpanKind,
    pub from_ns: u64,
    pub to_ns: u64,
    /// Numbers as text.
    pub attributes: BTreeMap<String, String>,
    pub failed: bool,
    /// The attributes of who sent it.
    pub resource: BTreeMap<String, String>,
}

impl Seen {
    /// An attribute; fails where there is none.
    #[track_caller]
    pub fn says(&self, key: &str) -> &str {
        self.attributes.get(key).unwrap_or_else(|| panic!("no `{key}` in {self:?}"))
    }

    /// How long it took (ns).
    pub fn took_ns(&self) -> u64 {
        self.to_ns - self.from_ns
    }
}

/// A collector that runs until it is dropped.
pub struct Collector {
    /// Its `host:port`.
    pub address: String,
    got: Got,
    task: JoinHandle<()>,
}

#[derive(Clone, Default)]
struct Got {
    spans: Arc<Mutex<Vec<Seen>>>,
    refuses: Arc<AtomicBool>,
}

impl Collector {
    /// On a free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let got = Got::default();
        let service = TraceServiceServer::new(got.clone());
        let served = tonic::transport::Server::builder().add_service(service);
        let task = tokio::spawn(async move {
            served.serve_with_incoming(TcpIncoming::from(listener)).await.expect("the collector serves");
        });
        Self { address, got, task }
    }

    /// As `otlp_endpoint` names it.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on, takes nothing (`true`), or all again.
    pub fn refuse(&self, refuses: bool) {
        self.got.refuses.store(refuses, Ordering::SeqCst);
    }

    /// All that came so far, in the order in which it did.
    pub fn spans(&self) -> Vec<Seen> {
        self.got.spans.lock().clone()
    }

    /// All that came so far under this name.
    pub fn named(&self, name: &str) -> Vec<Seen> {
        self.spans().into_iter().filter(|span| span.name == name).collect()
    }

    /// Waits until `count` spans of this name came.
    pub async fn until(&self, name: &str, count: usize) -> Vec<Seen> {
        until(LIMIT, &format!("{count} spans `{name}`"), || async {
            Some(self.named(name)).filter(|found| found.len() >= count)
        })
        .await
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tonic::async_trait]
impl TraceService for Got {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        if self.refuses.load(Ordering::SeqCst) {
            return Err(Status::unavailable("full"));
        }
        for of_resource in request.into_inner().resource_spans {
            let resource = texts(of_resource.resource.expect("who sends").attributes);
            for span in of_resource.scope_spans.into_iter().flat_map(|of_scope| of_scope.spans) {
                let kind = span.kind();
                self.spans.lock().push(Seen {
                    name: span.name,
                    trace: hex(&span.trace_id),
                    id: hex(&span.span_id),
                    parent: hex(&span.parent_span_id),
                    links: span
                        .links
                        .iter()
                        .map(|link| format!("{}/{}", hex(&link.trace_id), hex(&link.span_id)))
                        .collect(),
                    kind,
                    from_ns: span.start_time_unix_nano,
                    to_ns: span.end_time_unix_nano,
                    attributes: texts(span.attributes),
                    failed: span.status.is_some_and(|status| status.code() == StatusCode::Error),
                    resource: resource.clone(),
                });
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value| match value {
        any_value::Value::StringValue(text) => text,
        any_value::Value::IntValue(number) => number.to_string(),
        any_value::Value::DoubleValue(number) => number.to_string(),
        other => panic!("an attribute that is no text and no number: {other:?}"),
    };
    let value = |pair: KeyValue| (pair.key, text(pair.value.and_then(|any| any.value).expect("a value")));
    attributes.into_iter().map(value).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
