//! Before every method: who may make which call, by the key that it shows in its metadata; and what each call gets, an
//! id, a line of the log, a span, and a fault in our words however it ends.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use hyper::body::{Bytes, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use tower::Service;

use crate::app::App;
use crate::domain::caller::{Caller, Need, Scope};
use crate::domain::request::RequestId;
use crate::domain::time::Stamp;
use crate::domain::trace::RequestSpan;
use crate::error::{Fault, Kind};
use crate::trace::{TRACEPARENT, Value};
use crate::wire::fault;

const READ: Need = Need::Scope(Scope::Read);
const STREAM: Need = Need::Scope(Scope::Stream);

/// What each method needs.
const NEEDS: &[(&str, Need)] = &[
    ("/latentd.v1.Live/Open", STREAM),
    ("/latentd.v1.Live/Close", STREAM),
    ("/latentd.v1.Live/Reset", STREAM),
    ("/latentd.v1.Live/Stream", STREAM),
    ("/latentd.v1.Live/Subscribe", READ),
    ("/latentd.v1.Live/Snapshot", STREAM),
    ("/latentd.v1.Live/Fork", STREAM),
    ("/grpc.health.v1.Health/Check", READ),
    ("/grpc.health.v1.Health/Watch", READ),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", READ),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", READ),
];

/// What a call needs. What is no method needs a key, too, so that nobody else learns which there are.
fn need(path: &str) -> Need {
    NEEDS.iter().find(|(method, _)| *method == path).map_or(Need::Key, |(_, need)| *need)
}

/// Stands before the services: lets in who may, and ends what a key has open when it is revoked.
#[derive(Clone)]
pub struct Gate<S> {
    inner: S,
    app: App,
    asks_for_keys: bool,
}

impl<S> Gate<S> {
    /// Before `inner`.
    pub fn new(inner: S, app: App, asks_for_keys: bool) -> Self {
        Self { inner, app, asks_for_keys }
    }

    fn admit<B>(&self, request: &http::Request<B>, request_id: &str) -> Result<Caller, Fault> {
        if !self.asks_for_keys {
            return Ok(Caller::local(request_id));
        }
        let shown = request.headers().get_all(http::header::AUTHORIZATION).iter();
        self.app.admit(shown.map(|value| value.as_bytes()), need(request.uri().path()), request_id)
    }
}

impl<S, B> Service<http::Request<B>> for Gate<S>
where
    S: Service<http::Request<B>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        let call = Call::of(&request, &self.app);
        let who = match self.admit(&request, call.id.as_str()) {
            Ok(who) => who,
            Err(refused) => {
                let answer = call.refused(&refused);
                call.answered(&answer);
                return std::future::ready(Ok(answer)).boxed();
            }
        };
        tracing::debug!(
            request.id = %call.id,
            rpc.method = call.method,
            caller = who.name,
            "gRPC call admitted"
        );
        let revoked = who.key.is_some().then(|| self.app.revoked(&who).boxed());
        request.extensions_mut().insert(Caller { span: call.span, ..who });
        // A panic of ours is a fault that is told, not a stream that breaks off.
        let answer = AssertUnwindSafe(self.inner.call(request)).catch_unwind();
        async move {
            let (answer, revoked) = match revoked {
                None => (answer.await, None),
                Some(mut revoked) => tokio::select! {
                    biased;
                    refused = &mut revoked => (Ok(Ok(call.refused(&refused))), None),
                    answer = answer => (answer, Some(revoked)),
                },
            };
            let answer = match answer {
                Ok(answer) => call.in_our_words(answer?),
                Err(_) => call.refused(&Fault::panicked()),
            };
            call.answered(&answer);
            let Some(revoked) = revoked else { return Ok(answer) };
            Ok(answer.map(|body| {
                let revoked = revoked.map(move |refused| {
                    call.app.metrics.rejected(refused.kind);
                    fault::status(&refused, call.id.as_str())
                });
                Body::new(UntilRevoked { body, revoked: revoked.boxed() })
            }))
        }
        .boxed()
    }
}

/// What is known of a call beside its messages.
struct Call {
    app: App,
    id: RequestId,
    method: String,
    begun: Stamp,
    span: Option<RequestSpan>,
}

impl Call {
    fn of<B>(request: &http::Request<B>, app: &App) -> Self {
        let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
        Self {
            app: app.clone(),
            id: RequestId::take(header("x-request-id")),
            method: request.uri().path().to_owned(),
            begun: Stamp::now(),
            span: app.tracer.request(header(TRACEPARENT)),
        }
    }

    /// A response that is this fault alone, counted.
    fn refused(&self, fault: &Fault) -> http::Response<Body> {
        self.app.metrics.rejected(fault.kind);
        let mut response = http::Response::new(Body::default());
        response.headers_mut().insert(http::header::CONTENT_TYPE, tonic::metadata::GRPC_CONTENT_TYPE);
        // Why ignored: it fails only for metadata that is no header, and ours is.
        let _ = fault::status(fault, self.id.as_str()).add_header(response.headers_mut());
        response
    }

    /// A status that was made before any of our code ran, with the wire's code and a fault.
    fn in_our_words(&self, response: http::Response<Body>) -> http::Response<Body> {
        let status = Status::from_header_map(response.headers());
        match status.and_then(|status| fault::from_transport(&status)) {
            Some(fault) => self.refused(&fault),
            None => response,
        }
    }

    /// The call was answered, or a stream's answer begins: a line of the log, and its span.
    fn answered(&self, answer: &http::Response<Body>) {
        let took = self.begun.instant.elapsed();
        let duration_us = took.as_micros() as u64;
        let kind = answer.headers().get(fault::KIND_TRAILER).and_then(|value| value.to_str().ok());
        let kind = kind.and_then(Kind::parse);
        let failed = kind.is_some_and(|kind| kind.codes().0 >= 500);
        let word = kind.map(Kind::word);
        if failed {
            tracing::warn!(request.id = %self.id, rpc.method = self.method, fault.kind = word, duration_us, "gRPC call failed");
        } else {
            tracing::debug!(request.id = %self.id, rpc.method = self.method, fault.kind = word, duration_us, "gRPC call answered");
        }
        let Some(span) = self.span else { return };
        let mut attributes = vec![
            ("request.id", Value::from(self.id.as_str())),
            ("rpc.method", Value::from(self.method.as_str())),
        ];
        attributes.extend(word.map(|word| ("fault.kind", Value::from(word))));
        self.app.tracer.answered(span, "grpc.request", self.begun, took, attributes, failed);
    }
}

/// A body that ends with a status of its own when the caller's key is revoked.
struct UntilRevoked {
    body: Body,
    revoked: BoxFuture<'static, Status>,
}

impl hyper::body::Body for UntilRevoked {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if !self.body.is_end_stream()
            && let Poll::Ready(status) = self.revoked.poll_unpin(cx)
        {
            // The stream is let go of here, and never polled again: an empty body is at its end.
            self.body = Body::empty();
            let mut trailers = http::HeaderMap::new();
            // Why ignored: it fails only for metadata that is no header, and ours is.
            let _ = status.add_header(&mut trailers);
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;

    #[test]
    fn every_method_of_every_service_has_a_need_of_its_own() {
        let sets = [
            crate::wire::DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ];
        let mut methods = Vec::new();
        for set in sets {
            for file in prost_types::FileDescriptorSet::decode(set).unwrap().file {
                for service in &file.service {
                    let path = |method: &str| format!("/{}.{}/{method}", file.package(), service.name());
                    methods.extend(service.method.iter().map(|method| path(method.name())));
                }
            }
        }
        methods.sort();
        let mut known: Vec<_> = NEEDS.iter().map(|(method, _)| *method).collect();
        known.sort_unstable();
        assert_eq!(methods, known);
        assert!(NEEDS.iter().all(|(_, need)| matches!(need, Need::Scope(_))), "none is open");
    }
}
