//! A server that misbehaves on order, for the player's tests. It keeps the wire's rules of order: a frame that is not
//! next is refused with `expected_seq`, one that came already is answered as before.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

use crate::domain::tensor::Tensor;
use crate::error::{Fault, Kind};
use crate::wire::v1::down::Message as DownMessage;
use crate::wire::v1::live_server::{Live, LiveServer};
use crate::wire::v1::up::Message as UpMessage;
use crate::wire::{fault, tensor, v1};

/// What is to go wrong. A (signal, seq) is met once each.
#[derive(Clone, Debug, Default)]
pub(super) struct Script {
    /// Unanswered frames that a rig may have.
    pub window: u32,
    /// Frames that get lost on the way.
    pub lose: BTreeSet<(String, u64)>,
    /// Frames at which the stream breaks, after they were stepped and before they are answered.
    pub break_at: BTreeSet<(String, u64)>,
    /// Frames that are refused, and with what.
    pub refuse: BTreeMap<(String, u64), Fault>,
    /// Frames that are never answered.
    pub swallow: BTreeSet<(String, u64)>,
}

/// What happened.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub open: Option<v1::OpenRequest>,
    /// Frames stepped, by signal, in order.
    pub stepped: BTreeMap<String, Vec<v1::Frame>>,
    /// Answers by signal and seq.
    answers: BTreeMap<(String, u64), v1::Output>,
    pub attaches: u32,
    pub most_unanswered: usize,
    pub closed: bool,
}

/// Each row of the signal `counts` closes a bin, whose output `latent` is the row's first two values; other signals are
/// taken and close nothing.
#[derive(Clone)]
pub(super) struct Scripted {
    script: Arc<Mutex<Script>>,
    pub seen: Arc<Mutex<Seen>>,
}

impl Scripted {
    /// Starts it on a free port.
    pub async fn start(script: Script) -> (Self, SocketAddr) {
        let server =
            Self { script: Arc::new(Mutex::new(script)), seen: Arc::new(Mutex::new(Seen::default())) };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let service = LiveServer::new(server.clone());
        let serve = tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(serve);
        (server, addr)
    }

    /// The answer to a frame; `None`: the stream breaks here.
    fn answer(&self, frame: v1::Frame) -> Option<Option<v1::Down>> {
        let (mut script, mut seen) = (self.script.lock(), self.seen.lock());
        let place = (frame.signal.clone(), frame.seq);
        if script.lose.remove(&place) {
            return Some(None);
        }
        if let Some(answer) = seen.answers.get(&place) {
            return Some(Some(down(DownMessage::Output(answer.clone()))));
        }
        let expected = seen.stepped.get(&frame.signal).map_or(0, |frames| frames.len() as u64);
        let refusal = script.refuse.remove(&place).or_else(|| {
            (frame.seq != expected)
                .then(|| Fault::new(Kind::ExpectedSeq, "a frame is missing").expecting(expected))
        });
        if let Some(refusal) = refusal {
            let message = fault::message(&refusal.about(&frame.signal, frame.seq), "");
            return Some(Some(down(DownMessage::Fault(message))));
        }
        let output = output(&frame);
        seen.answers.insert(place.clone(), output.clone());
        seen.stepped.entry(frame.signal.clone()).or_default().push(frame);
        if script.swallow.contains(&place) {
            return Some(None);
        }
        if script.break_at.remove(&place) {
            return None;
        }
        Some(Some(down(DownMessage::Output(output))))
    }
}

fn down(message: DownMessage) -> v1::Down {
    v1::Down { message: Some(message) }
}

fn output(frame: &v1::Frame) -> v1::Output {
    let answer = v1::Output { signal: frame.signal.clone(), seq: Some(frame.seq), ..Default::default() };
    let Some(rows) = frame.tensor.as_ref().filter(|_| frame.signal == "counts") else { return answer };
    let rows = tensor::host("tensor", rows).unwrap();
    let width = rows.shape[1];
    let values: Vec<f32> =
        rows.to_f64().chunks(width).flat_map(|row| [row[0] as f32, row[1] as f32]).collect();
    let block = tensor::message(&Tensor::from_f32(&[rows.shape[0], 2], &values));
    v1::Output {
        first_bin: frame.first_index,
        n: frame.count,
        flags: vec![0; frame.count as usize],
        blocks: vec![v1::Block { output: 0, tensor: Some(block), ..Default::default() }],
        lag_us: Some(v1::Lag { queue: 1.0, compute: 2.0, total: 5.0 }),
        ..answer
    }
}

#[tonic::async_trait]
impl Live for Scripted {
    async fn open(&self, ask: Request<v1::OpenRequest>) -> Result<Response<v1::OpenReply>, Status> {
        let ask = ask.into_inner();
        if ask.pipeline != "cortex" {
            let fault = Fault::not_found("pipeline", &ask.pipeline, ["cortex"]);
            return Err(fault::status(&fault, ""));
        }
        let mut resolved = ask.clone();
        if ask.dry_run {
            let declared = v1::SignalSpec { name: "counts".into(), bin_ms: Some(20.0), ..Default::default() };
            resolved.signals = vec![declared];
        } else {
            self.seen.lock().open = Some(ask.clone());
        }
        let latent = v1::OutputSpec {
            name: "latent".into(),
            output: "latent".into(),
            role: "decoded".into(),
            dims: vec![2],
            labels: vec!["x".into(), "y".into()],
            ..Default::default()
        };
        Ok(Response::new(v1::OpenReply {
            session: "s".into(),
            run: ask.record.map(|_| "r".into()),
            writers: ask.signals.iter().map(|spec| (spec.name.clone(), "token".into())).collect(),
            window: self.script.lock().window,
            outputs: vec![latent],
            resolved: Some(resolved),
            ..Default::default()
        }))
    }

    type StreamStream = ReceiverStream<Result<v1::Down, Status>>;

    async fn stream(&self, up: Request<Streaming<v1::Up>>) -> Result<Response<Self::StreamStream>, Status> {
        let mut up = up.into_inner();
        let (send, answers) = mpsc::channel(64);
        let server = self.clone();
        tokio::spawn(async move {
            let first = up.message().await;
            assert!(matches!(first, Ok(Some(v1::Up { message: Some(UpMessage::Attach(_)) }))), "{first:?}");
            server.seen.lock().attaches += 1;
            let window = server.script.lock().window;
            let attached = v1::Attached { window, ..Default::default() };
            let _ = send.send(Ok(down(DownMessage::Attached(attached)))).await;
            let mut held = Vec::new();
            loop {
                // Reads as long as something comes at once, so that what the rig leaves unanswered is seen.
                let pause = std::time::Duration::from_millis(2);
                match tokio::time::timeout(pause, up.message()).await {
                    Ok(Ok(Some(v1::Up { message: Some(UpMessage::Frame(frame)) }))) => {
                        held.push(frame);
                        let mut seen = server.seen.lock();
                        seen.most_unanswered = seen.most_unanswered.max(held.len());
                        continue;
                    }
                    Ok(Ok(Some(_))) => continue,
                    Ok(Ok(None) | Err(_)) => return,
                    Err(_) => {}
                }
                for frame in held.drain(..) {
                    match server.answer(frame) {
                        Some(Some(answer)) => _ = send.send(Ok(answer)).await,
                        Some(None) => {}
                        None => return,
                    }
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    type SubscribeStream = ReceiverStream<Result<v1::Down, Status>>;

    async fn subscribe(
        &self,
        _: Request<v1::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn reset(&self, _: Request<v1::ResetRequest>) -> Result<Response<v1::ResetReply>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn snapshot(&self, _: Request<v1::SnapshotRequest>) -> Result<Response<v1::SnapshotReply>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn fork(&self, _: Request<v1::ForkRequest>) -> Result<Response<v1::OpenReply>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn close(&self, _: Request<v1::CloseRequest>) -> Result<Response<v1::CloseReply>, Status> {
        let mut seen = self.seen.lock();
        seen.closed = true;
        let bins = seen.answers.values().map(|answer| u64::from(answer.n)).sum();
        Ok(Response::new(v1::CloseReply { bins, ..Default::default() }))
    }
}
