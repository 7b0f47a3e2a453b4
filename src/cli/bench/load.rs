//! Rigs that measure: the same frames over gRPC or HTTP, at a pace or as fast as they are answered.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::ReceiverStream;

use super::{BenchError, CHANNELS, PIPELINE, SIGNAL};
use crate::cli::demo::ServerAddrs;
use crate::cli::replay::player;
use crate::wire::v1::down::Message as DownMessage;
use crate::wire::v1::up::Message as UpMessage;
use crate::wire::{json, v1};

/// Content type of binary bodies.
const PROTOBUF: &str = "application/x-protobuf";
/// Unanswered frames of a rig that goes as fast as it can over a stream.
const AHEAD: usize = 8;
/// Frames before the measure begins.
const WARM_UP: u64 = 20;

/// The road that frames take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Road {
    /// A gRPC stream per session.
    Grpc,
    /// A frame per request, protobuf, on a connection per session.
    Http,
}

/// How fast frames are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// One every so long, the next not before the answer.
    Every(Duration),
    /// As fast as they are answered.
    Max,
}

/// A load on a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// The road.
    pub road: Road,
    /// Rigs at once, a session each.
    pub sessions: usize,
    /// How fast each goes.
    pub pace: Pace,
    /// Whether the sessions are recorded.
    pub record: bool,
    /// How long it is measured, after the warm-up.
    pub during: Duration,
}

/// What was measured.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Round trips (µs).
    pub round_trips_us: Vec<f64>,
    /// Rows answered per second, all sessions together.
    pub rows_per_s: f64,
}

/// Puts the load on the server at `addrs`.
pub async fn run(addrs: ServerAddrs, load: Load) -> Result<Measured, BenchError> {
    let mut rigs = JoinSet::new();
    for number in 0..load.sessions {
        rigs.spawn(async move {
            match load.road {
                Road::Grpc => grpc(addrs, number, load).await,
                Road::Http => http(addrs, number, load).await,
            }
        });
    }
    let mut all = Measured::default();
    while let Some(rig) = rigs.join_next().await {
        let rig = rig??;
        all.round_trips_us.extend(rig.round_trips_us);
        all.rows_per_s += rig.rows_per_s;
    }
    Ok(all)
}

fn open_request(number: usize, load: Load) -> v1::OpenRequest {
    v1::OpenRequest {
        pipeline: PIPELINE.into(),
        rig: format!("bench-{number}"),
        channels_by: "order".into(),
        t0_ns: Some(0),
        record: load.record.then(v1::Record::default),
        ..Default::default()
    }
}

/// Frame `seq` of a rig: one bin of counts, others in each bin and rig.
fn frame(number: usize, seq: u64, writer: &str) -> v1::Frame {
    let mut random = seq.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (number as u64) << 32 | 1;
    let counts = std::iter::repeat_with(|| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 61).min(3) as u8
    });
    let raw: Vec<u8> = counts.take(CHANNELS).collect();
    let tensor =
        v1::Tensor { dtype: "u8".into(), shape: vec![1, CHANNELS as u32], raw: raw.into(), values: vec![] };
    v1::Frame {
        signal: SIGNAL.into(),
        seq,
        writer: writer.into(),
        first_index: seq,
        count: 1,
        tensor: Some(tensor),
        acked_seq: seq.checked_sub(AHEAD as u64 + 1),
        ..Default::default()
    }
}

/// When a rig sends, and what it saw.
struct Clock {
    pace: Pace,
    next: Instant,
    until: Instant,
    begun: Instant,
    during: Duration,
    rows: u64,
    round_trips_us: Vec<f64>,
}

impl Clock {
    /// Rigs at a pace start spread over it.
    fn new(number: usize, load: Load) -> Self {
        let Load { sessions, pace, during, .. } = load;
        let now = Instant::now();
        let next = match pace {
            Pace::Every(every) => now + every.mul_f64(number as f64 / sessions as f64),
            Pace::Max => now,
        };
        let until = next + during + Duration::from_secs(60);
        Self { pace, next, until, begun: now, during, rows: 0, round_trips_us: Vec::new() }
    }

    async fn wait(&mut self) {
        if let Pace::Every(every) = self.pace {
            sleep_until(self.next).await;
            // A rig that fell behind does not catch up in a burst, which would measure the burst.
            self.next = (self.next + every).max(Instant::now());
        }
    }

    /// Takes the answer to frame `seq`, sent at `sent`. Whether the rig goes on.
    fn answered(&mut self, seq: u64, sent: Instant) -> bool {
        let now = Instant::now();
        if seq == WARM_UP {
            (self.begun, self.until) = (now, now + self.during);
        }
        if seq > WARM_UP {
            self.rows += 1;
            self.round_trips_us.push((now - sent).as_secs_f64() * 1e6);
        }
        now < self.until
    }

    fn measured(self) -> Measured {
        let rows_per_s = self.rows as f64 / self.begun.elapsed().as_secs_f64().max(1e-9);
        Measured { round_trips_us: self.round_trips_us, rows_per_s }
    }
}

fn proven(output: &v1::Output) -> Result<(), BenchError> {
    if output.n == 1 && !output.blocks.is_empty() {
        return Ok(());
    }
    Err(BenchError::Answer(format!("expected one bin with its outputs, found n = {}", output.n)))
}

async fn grpc(addrs: ServerAddrs, number: usize, load: Load) -> Result<Measured, BenchError> {
    let mut client = player::connect(&addrs.grpc.to_string(), player::Shown::default()).await?;
    let opened = client.open(open_request(number, load)).await?.into_inner();
    let (up, rest) = mpsc::channel(AHEAD + 1);
    let writer = opened.writers.values().next().cloned().unwrap_or_default();
    let attach = v1::Attach { session: opened.session.clone(), writer, signal: None };
    let gone = || BenchError::Answer("the stream ended".into());
    up.send(v1::Up { message: Some(UpMessage::Attach(attach)) }).await.map_err(|_| gone())?;
    let mut down = client.stream(ReceiverStream::new(rest)).await?.into_inner();
    let mut clock = Clock::new(number, load);
    let ahead = if load.pace == Pace::Max { AHEAD.min(opened.window as usize).max(1) } else { 1 };
    let (mut seq, mut sent, mut goes_on) = (0, VecDeque::new(), true);
    while goes_on || !sent.is_empty() {
        while goes_on && sent.len() < ahead {
            let frame = frame(number, seq, "");
            clock.wait().await;
            sent.push_back((seq, Instant::now()));
            up.send(v1::Up { message: Some(UpMessage::Frame(frame)) }).await.map_err(|_| gone())?;
            seq += 1;
        }
        match down.message().await?.ok_or_else(gone)?.message {
            Some(DownMessage::Output(output)) => {
                proven(&output)?;
                let (seq, at) = sent.pop_front().ok_or_else(gone)?;
                goes_on &= clock.answered(seq, at);
            }
            Some(DownMessage::Fault(fault)) => return Err(BenchError::Answer(fault.detail)),
            _ => {}
        }
    }
    let measured = clock.measured();
    drop(up);
    client.close(v1::CloseRequest { session: opened.session }).await?;
    Ok(measured)
}

async fn http(addrs: ServerAddrs, number: usize, load: Load) -> Result<Measured, BenchError> {
    let client = reqwest::Client::builder().tcp_nodelay(true).build()?;
    let base = format!("http://{}/v1/sessions", addrs.http);
    let open = client.post(&base).header("content-type", "application/json");
    let opened = body(open.body(json::write(&open_request(number, load)))).await?;
    let opened: v1::OpenReply = json::read(&opened).map_err(|fault| BenchError::Answer(fault.detail))?;
    let writer = opened.writers.values().next().cloned().unwrap_or_default();
    let frames = format!("{base}/{}/frames", opened.session);
    let mut clock = Clock::new(number, load);
    let mut goes_on = true;
    for seq in 0.. {
        if !goes_on {
            break;
        }
        let frame = frame(number, seq, &writer).encode_to_vec();
        clock.wait().await;
        let sent = Instant::now();
        let post = client.post(&frames).header("content-type", PROTOBUF).header("accept", PROTOBUF);
        let answer = body(post.body(frame)).await?;
        let output = v1::Output::decode(answer).map_err(|error| BenchError::Answer(error.to_string()))?;
        proven(&output)?;
        goes_on = clock.answered(seq, sent);
    }
    let measured = clock.measured();
    body(client.delete(format!("{base}/{}", opened.session))).await?;
    Ok(measured)
}

/// The body of a good answer.
async fn body(request: reqwest::RequestBuilder) -> Result<Bytes, BenchError> {
    let answer = request.send().await?;
    let good = answer.status().is_success();
    let body = answer.bytes().await?;
    if good { Ok(body) } else { Err(BenchError::Answer(String::from_utf8_lossy(&body).into_owned())) }
}
