//! Traces on their way out: what waits is brought to a collector, by OTLP over gRPC.
//! Enters: what `trace` has queued. Leaves: batches of spans. Owns: the task that brings them. Must hold: nobody waits
//! for it; a collector that is away or slow costs spans, which are counted, and is told of once until it is back.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1 as otlp;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use crate::metrics::Metrics;
use crate::trace::{Span, Traced, Tracer, Value};

/// What may wait to be brought.
const PLACES: usize = 4096;
/// Spans after which a batch is brought, however many more wait.
const BATCH: usize = 512;
/// How often is looked for what waits.
const PAUSE: Duration = Duration::from_millis(500);
/// How long the collector has for a batch.
const LIMIT: Duration = Duration::from_secs(5);

/// The task that brings spans to a collector.
pub struct Export {
    task: JoinHandle<()>,
    last: CancellationToken,
}

/// Starts to bring to the collector at `endpoint` (`http://HOST:PORT`, as a `Config` has proven) what the tracer takes:
/// all requests, and the share `steps` of all steps. `instance`: what tells this server from others. The collector need
/// not be there. Errors: tonic's, for an address that is none. Needs a runtime.
pub fn start(
    endpoint: &str,
    steps: f64,
    instance: String,
    metrics: Arc<Metrics>,
) -> Result<(Tracer, Export), tonic::transport::Error> {
    let channel =
        Endpoint::from_shared(endpoint.to_owned())?.connect_timeout(LIMIT).timeout(LIMIT).connect_lazy();
    let (tracer, waiting) = Tracer::new(steps, PLACES, Arc::clone(&metrics));
    let last = CancellationToken::new();
    let porter = Porter {
        endpoint: endpoint.to_owned(),
        collector: TraceServiceClient::new(channel),
        resource: resource(instance),
        waiting,
        metrics,
        is_away: false,
    };
    let task = tokio::spawn(porter.run(last.clone()));
    Ok((tracer, Export { task, last }))
}

impl Export {
    /// Brings what waits, within `limit`, and ends. What is traced from now on is dropped.
    pub async fn stop(mut self, limit: Duration) {
        self.last.cancel();
        if tokio::time::timeout(limit, &mut self.task).await.is_err() {
            tracing::warn!("the last spans could not be brought to the collector in time");
            self.task.abort();
        }
    }
}

struct Porter {
    endpoint: String,
    collector: TraceServiceClient<Channel>,
    resource: Resource,
    waiting: mpsc::Receiver<Traced>,
    metrics: Arc<Metrics>,
    is_away: bool,
}

impl Porter {
    async fn run(mut self, last: CancellationToken) {
        let mut tick = tokio::time::interval(PAUSE);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_last = false;
        while !is_last {
            is_last = tokio::select! {
                _ = tick.tick() => false,
                () = last.cancelled() => true,
            };
            if is_last {
                // What waits stays; whoever comes now is turned away.
                self.waiting.close();
            }
            let mut spans = Vec::new();
            while self.gather(&mut spans) {
                self.bring(std::mem::take(&mut spans)).await;
            }
        }
    }

    /// Takes what waits, up to a batch; whether there is any.
    fn gather(&mut self, spans: &mut Vec<Span>) -> bool {
        while spans.len() < BATCH
            && let Ok(traced) = self.waiting.try_recv()
        {
            traced.spans(spans);
        }
        !spans.is_empty()
    }

    async fn bring(&mut self, spans: Vec<Span>) {
        let count = spans.len() as u64;
        let batch = batch(&self.resource, spans);
        let lost = match self.collector.export(batch).await {
            Ok(reply) => {
                if std::mem::take(&mut self.is_away) {
                    tracing::info!(otlp.endpoint = self.endpoint, "the collector takes traces again");
                }
                let refused = reply.into_inner().partial_success.map_or(0, |part| part.rejected_spans);
                u64::try_from(refused).unwrap_or(0).min(count)
            }
            Err(status) => {
                if !std::mem::replace(&mut self.is_away, true) {
                    tracing::warn!(
                        otlp.endpoint = self.endpoint,
                        grpc.code = ?status.code(),
                        error = status.message(),
                        "the collector does not take traces; they are dropped and counted until it does"
                    );
                }
                count
            }
        };
        self.metrics.spans_dropped(lost);
    }
}

/// Who sends.
fn resource(instance: String) -> Resource {
    let text = |key, value: &str| attribute(key, Value::from(value));
    let attributes = vec![
        text("service.name", "latentd"),
        text("service.version", env!("CARGO_PKG_VERSION")),
        text("service.instance.id", &instance),
    ];
    Resource { attributes, ..Default::default() }
}

fn batch(resource: &Resource, spans: Vec<Span>) -> ExportTraceServiceRequest {
    let scope = InstrumentationScope {
        name: "latentd".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        ..Default::default()
    };
    let spans = spans.into_iter().map(message).collect();
    let scope_spans = vec![otlp::ScopeSpans { scope: Some(scope), spans, ..Default::default() }];
    let of_resource =
        otlp::ResourceSpans { resource: Some(resource.clone()), scope_spans, ..Default::default() };
    ExportTraceServiceRequest { resource_spans: vec![of_resource] }
}

fn message(span: Span) -> otlp::Span {
    /// W3C's flag of what is kept.
    const SAMPLED: u32 = 1;
    let kind = if span.is_call { otlp::span::SpanKind::Server } else { otlp::span::SpanKind::Internal };
    let failed = || otlp::Status { code: otlp::status::StatusCode::Error.into(), ..Default::default() };
    let link = |context: crate::domain::trace::SpanContext| otlp::span::Link {
        trace_id: context.trace.into(),
        span_id: context.span.into(),
        flags: SAMPLED,
        ..Default::default()
    };
    otlp::Span {
        trace_id: span.context.trace.into(),
        span_id: span.context.span.into(),
        parent_span_id: span.parent.map(|parent| parent.span.into()).unwrap_or_default(),
        flags: SAMPLED,
        name: span.name.into(),
        kind: kind.into(),
        start_time_unix_nano: span.from_ns.max(0) as u64,
        end_time_unix_nano: span.to_ns.max(0) as u64,
        attributes: span.attributes.into_iter().map(|(key, value)| attribute(key, value)).collect(),
        links: span.link.into_iter().map(link).collect(),
        status: span.failed.then(failed),
        ..Default::default()
    }
}

fn attribute(key: &str, value: Value) -> KeyValue {
    let value = match value {
        Value::Text(text) => any_value::Value::StringValue(text),
        Value::Whole(number) => any_value::Value::IntValue(number),
        Value::Float(number) => any_value::Value::DoubleValue(number),
    };
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}
