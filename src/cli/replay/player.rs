//! Plays a recording as a rig: opens a session, streams its frames over gRPC, collects the answers, closes.
//!
//! Order of one play: open, attach, frames (never more than `window` unanswered), the last answer, close. A stream that
//! breaks is attached anew and its unanswered frames are sent again: the server answers a frame that it has stepped from
//! what it keeps, so nothing is stepped twice and nothing is lost.

use std::collections::{BTreeMap, VecDeque};
use std::iter::Peekable;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

use super::cut::{Cut, Due};
use super::report::{AnswerLag, Answers, PlayReport};
use super::score::width_from;
use crate::domain::time::ns_from_ms;
use crate::error::Kind;
use crate::wire::recording::{Recording, RecordingError};
use crate::wire::v1::down::Message as DownMessage;
use crate::wire::v1::live_client::LiveClient;
use crate::wire::v1::up::Message as UpMessage;
use crate::wire::{fault, v1};

/// Length of a frame where the pipeline's bins are not known (ns).
const FRAME_NS: i64 = 20_000_000;
/// Times one frame is sent before the play gives up on it.
const TRIES: u32 = 8;
/// Attaches in a row that bring no answer before the play gives up.
const ATTACHES: u32 = 6;
/// Wait before the second attach; doubled for each further one.
const ATTACH_BACKOFF: Duration = Duration::from_millis(100);
/// Largest message that is taken from the server.
const MESSAGE_LIMIT_BYTES: usize = 64 << 20;
/// Longest wait for the connection, and for an answer to open or close.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// How fast a recording is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speed {
    /// Each frame when a rig would have it.
    Real,
    /// Each frame as soon as the window lets it.
    Max,
}

/// How a recording is played.
#[derive(Clone, Debug)]
pub struct PlayOptions {
    /// Where the gRPC server is: `host:port`, or a URL.
    pub grpc: String,
    /// What is shown of who plays.
    pub shown: Shown,
    /// The session to open. Its `signals` are the recording's, whatever stands here; its `t0_ns` too, unless it is given.
    pub open: v1::OpenRequest,
    /// How fast.
    pub speed: Speed,
    /// Length of a frame (ms). Default: one bin of the pipeline, else 20 ms.
    pub frame_ms: Option<f64>,
    /// Width of the pipeline's bins (ms). Default: asked of the server.
    pub bin_ms: Option<f64>,
    /// The signals that are sent; default: all.
    pub signals: Option<Vec<String>>,
    /// How long an answer may take before the play gives up.
    pub answer_limit: Duration,
    /// Ends the play early: no new frame, the answers that are due, close.
    pub stop: CancellationToken,
}

impl PlayOptions {
    /// Real time, all signals, nothing recorded.
    pub fn new(grpc: impl Into<String>, pipeline: impl Into<String>) -> Self {
        let open = v1::OpenRequest { pipeline: pipeline.into(), rig: "replay".into(), ..Default::default() };
        Self {
            grpc: grpc.into(),
            shown: Shown::default(),
            open,
            speed: Speed::Real,
            frame_ms: None,
            bin_ms: None,
            signals: None,
            answer_limit: Duration::from_secs(30),
            stop: CancellationToken::new(),
        }
    }

    /// The same, as fast as the window lets it.
    pub fn at_max_speed(mut self) -> Self {
        self.speed = Speed::Max;
        self
    }

    /// The same, recorded by the usual form, `record: {}`.
    pub fn recorded(mut self) -> Self {
        self.open.record = Some(v1::Record::default());
        self
    }
}

/// Why a play came to no report.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    /// No connection.
    #[error("no gRPC server answers at {grpc}")]
    Connect {
        /// Where it should be.
        grpc: String,
        /// Why.
        source: tonic::transport::Error,
    },
    /// The address is none.
    #[error("`{grpc}` is no address: expected host:port or http://host:port")]
    Address {
        /// As given.
        grpc: String,
        /// Why.
        source: tonic::transport::Error,
    },
    /// The server refused.
    #[error("{what} was refused ({}): {}", fault.kind, fault.detail)]
    Refused {
        /// The call or the frame.
        what: String,
        /// In the server's words.
        fault: Box<v1::Fault>,
    },
    /// A call or the stream failed without a fault of the wire.
    #[error("{what} failed")]
    Transport {
        /// The call or the stream.
        what: String,
        /// Why.
        source: Box<Status>,
    },
    /// An answer did not come.
    #[error("{what} was not answered within {} s", limit.as_secs())]
    Silent {
        /// The call or the frame.
        what: String,
        /// How long was waited.
        limit: Duration,
    },
    /// An answer that the wire does not allow.
    #[error("an answer of the server is wrong: {0}")]
    Answer(crate::error::Fault),
    /// The file with the API key.
    #[error("{}: expected a file with an API key", path.display())]
    Key {
        /// The file.
        path: std::path::PathBuf,
        /// Why it cannot be read; `None`: it holds none.
        source: Option<std::io::Error>,
    },
    /// The recording cannot be played so.
    #[error("{0}")]
    Unplayable(String),
    /// The recording cannot be read.
    #[error(transparent)]
    Recording(#[from] RecordingError),
}

impl PlayError {
    fn of(what: impl Into<String>, status: Status) -> Self {
        let what = what.into();
        match fault::from_status(&status) {
            Some(fault) => PlayError::Refused { what, fault: Box::new(fault) },
            None => PlayError::Transport { what, source: Box::new(status) },
        }
    }
}

/// Something that a play has to tell while it goes on.
#[derive(Clone, Copy, Debug)]
pub enum Played<'a> {
    /// The session is open and its stream attached.
    Opened {
        /// What open answered.
        opened: &'a v1::OpenReply,
        /// How much will be played (ns).
        end_ns: i64,
        /// Width of a bin (ns), if it is known.
        bin_ns: Option<u64>,
    },
    /// An answer came.
    Answered {
        /// The answer.
        output: &'a v1::Output,
        /// From sending the frame to having it (µs).
        round_trip_us: Option<f64>,
        /// How much of the recording was sent (ns).
        sent_ns: i64,
    },
    /// An event of the session.
    Noticed(&'a v1::Notice),
}

/// Plays `recording`; what came back.
pub async fn play(recording: &Recording, options: &PlayOptions) -> Result<PlayReport, PlayError> {
    play_watched(recording, options, |_| {}).await
}

/// As `play`; `watch` is told of every answer as it comes.
pub async fn play_watched(
    recording: &Recording,
    options: &PlayOptions,
    watch: impl FnMut(Played<'_>) + Send,
) -> Result<PlayReport, PlayError> {
    let chosen = choose(recording, options)?;
    let mut client = connect(&options.grpc, options.shown.clone()).await?;
    let bin_ns = bin_width(&mut client, &chosen, options).await;
    // One stream writes all signals, so they share one token.
    let spec = |spec: &v1::SignalSpec| v1::SignalSpec { own_writer: false, ..spec.clone() };
    let signals = chosen.signals.iter().map(|signal| spec(&signal.spec)).collect();
    let mut open = v1::OpenRequest { signals, ..options.open.clone() };
    open.t0_ns = open.t0_ns.or(Some(chosen.t0_ns));
    let t0_ns = open.t0_ns.unwrap_or_default();
    let opened = within("open", CALL_LIMIT, client.open(open)).await?.into_inner();
    let frame_ns = match options.frame_ms {
        Some(frame_ms) => Some(ns_from_ms(frame_ms).filter(|&ns| ns > 0).ok_or_else(|| {
            PlayError::Unplayable(format!("frame length: expected a time over 0 ms, found {frame_ms}"))
        })?),
        None => bin_ns,
    };
    let frame_ns = frame_ns.and_then(|ns| i64::try_from(ns).ok()).unwrap_or(FRAME_NS);
    let play = Play {
        client: client.clone(),
        options,
        cut: Cut::new(&chosen, frame_ns).peekable(),
        started: Instant::now(),
        unanswered: VecDeque::new(),
        next_seq: BTreeMap::new(),
        answers: Answers::new(&opened.outputs),
        opened: &opened,
        tally: Tally::default(),
        watch,
    };
    let outcome = play.run(chosen.end_ns(), bin_ns).await;
    // Why also after a failure: a session that nobody closes holds its places until it idles out.
    let closing = client.close(v1::CloseRequest { session: opened.session.clone() });
    let closed = within("close", CALL_LIMIT, closing).await;
    let (answers, tally, wall_s) = outcome?;
    let covered_ns = u64::try_from(tally.sent_ns - (t0_ns - chosen.t0_ns)).unwrap_or(0);
    let bin_ns = bin_ns.or_else(|| width_from(covered_ns, answers.first_bin + answers.bins() as u64));
    Ok(PlayReport {
        session: opened.session.clone(),
        run: opened.run.clone(),
        bin_ns,
        t0_ns,
        answers,
        lags: tally.lags,
        notices: tally.notices,
        faults: tally.faults,
        frames: tally.frames,
        resent: tally.resent,
        reattached: tally.reattached,
        behind_s: tally.behind.as_secs_f64(),
        wall_s,
        closed: closed?.into_inner(),
        opened,
    })
}

/// The recording with the signals that are sent.
fn choose(recording: &Recording, options: &PlayOptions) -> Result<Recording, PlayError> {
    let mut chosen = recording.clone();
    if let Some(names) = &options.signals {
        if let Some(name) = names.iter().find(|name| recording.signal(name).is_none()) {
            let there = crate::error::there_is(name, recording.signals.iter().map(|signal| signal.name()));
            return Err(PlayError::Unplayable(format!("no signal `{name}` in {}; {there}", recording.name)));
        }
        chosen.signals.retain(|signal| names.iter().any(|name| name == signal.name()));
    }
    if chosen.end_ns() <= 0 {
        return Err(PlayError::Unplayable(format!("recording {} holds nothing to play", recording.name)));
    }
    Ok(chosen)
}

/// A client that shows who it is.
pub type Rig = LiveClient<InterceptedService<Channel, Shown>>;

/// What calls show of their caller: an API key, or nothing.
#[derive(Clone, Debug, Default)]
pub struct Shown(Option<MetadataValue<Ascii>>);

impl Shown {
    /// The API key that is the first line of this text; `None`: no header could hold it.
    pub fn key(text: &str) -> Option<Self> {
        let mut value: MetadataValue<Ascii> =
            format!("Bearer {}", text.lines().next()?.trim()).parse().ok()?;
        value.set_sensitive(true);
        Some(Self(Some(value)))
    }
}

impl tonic::service::Interceptor for Shown {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

/// A client of the server at `grpc`.
pub async fn connect(grpc: &str, shown: Shown) -> Result<Rig, PlayError> {
    let url = if grpc.contains("://") { grpc.to_string() } else { format!("http://{grpc}") };
    let endpoint = Endpoint::from_shared(url)
        .map_err(|source| PlayError::Address { grpc: grpc.into(), source })?
        .tcp_nodelay(true)
        .connect_timeout(CALL_LIMIT);
    let channel =
        endpoint.connect().await.map_err(|source| PlayError::Connect { grpc: grpc.into(), source })?;
    Ok(LiveClient::with_interceptor(channel, shown).max_decoding_message_size(MESSAGE_LIMIT_BYTES))
}

/// Width of the pipeline's bins (ns): as told, else as the server resolves the pipeline's own inputs, else as the
/// recording's counts are binned.
async fn bin_width(client: &mut Rig, recording: &Recording, options: &PlayOptions) -> Option<u64> {
    if options.bin_ms.is_some() {
        return options.bin_ms.and_then(ns_from_ms).filter(|&ns| ns > 0);
    }
    // Left-out signals are the pipeline's declared inputs, and they say how wide its bins are.
    let declared = v1::OpenRequest {
        pipeline: options.open.pipeline.clone(),
        rig: options.open.rig.clone(),
        versions: options.open.versions.clone(),
        r#static: options.open.r#static.clone(),
        channels_by: "order".into(),
        dry_run: true,
        ..Default::default()
    };
    let told = within("dry run", CALL_LIMIT, client.open(declared)).await.ok();
    let told = told.and_then(|reply| reply.into_inner().resolved);
    let declared = told.iter().flat_map(|resolved| &resolved.signals);
    let own = recording.signals.iter().map(|signal| &signal.spec).filter(|spec| spec.role != "target");
    declared.chain(own).find_map(|spec| spec.bin_ms).and_then(ns_from_ms).filter(|&ns| ns > 0)
}

async fn within<T>(
    what: &str,
    limit: Duration,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, PlayError> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer.map_err(|status| PlayError::of(what, status)),
        Err(_) => Err(PlayError::Silent { what: what.into(), limit }),
    }
}

/// A frame without its answer.
struct Sent {
    frame: v1::Frame,
    /// When it was sent last.
    at: Instant,
    tries: u32,
    /// When it is to be sent again; `None`: its answer is on the way.
    again_at: Option<Instant>,
}

/// What is counted on the way.
#[derive(Default)]
struct Tally {
    lags: Vec<AnswerLag>,
    notices: Vec<v1::Notice>,
    faults: Vec<v1::Fault>,
    frames: u64,
    resent: u64,
    reattached: u32,
    behind: Duration,
    /// How much of the recording was sent (ns).
    sent_ns: i64,
}

/// A play in progress.
struct Play<'a, W> {
    client: Rig,
    options: &'a PlayOptions,
    opened: &'a v1::OpenReply,
    cut: Peekable<Cut<'a>>,
    /// When the recording's time 0 was.
    started: Instant,
    /// In the order of their first sending; at most `window`.
    unanswered: VecDeque<Sent>,
    /// The `seq` that each signal's next new frame has.
    next_seq: BTreeMap<String, u64>,
    answers: Answers,
    tally: Tally,
    watch: W,
}

/// Both ends of an attached stream.
struct Attached {
    up: mpsc::Sender<v1::Up>,
    down: Streaming<v1::Down>,
}

impl<W: FnMut(Played<'_>) + Send> Play<'_, W> {
    async fn run(mut self, end_ns: i64, bin_ns: Option<u64>) -> Result<(Answers, Tally, f64), PlayError> {
        let mut stream = self.attach().await?;
        self.started = Instant::now();
        (self.watch)(Played::Opened { opened: self.opened, end_ns, bin_ns });
        let mut attaches = 0;
        while !self.is_done() {
            match self.turn(&mut stream).await {
                Ok(true) => attaches = 0,
                Ok(false) => {}
                Err(Broken::For(error)) => return Err(error),
                Err(Broken::Stream(status)) => {
                    attaches += 1;
                    if attaches >= ATTACHES {
                        return Err(PlayError::of("the stream", status));
                    }
                    sleep(ATTACH_BACKOFF * (1 << attaches)).await;
                    match self.attach().await {
                        Ok(anew) => stream = anew,
                        Err(PlayError::Transport { .. } | PlayError::Silent { .. }) => continue,
                        Err(error) => return Err(error),
                    }
                    self.tally.reattached += 1;
                    let now = Instant::now();
                    self.unanswered.iter_mut().for_each(|sent| sent.again_at = Some(now));
                }
            }
        }
        let wall_s = self.started.elapsed().as_secs_f64();
        Ok((self.answers, self.tally, wall_s))
    }

    /// Whether every frame was sent and answered.
    fn is_done(&mut self) -> bool {
        self.unanswered.is_empty() && (self.options.stop.is_cancelled() || self.cut.peek().is_none())
    }

    /// Opens the stream and attaches as the writer of all signals.
    async fn attach(&mut self) -> Result<Attached, PlayError> {
        let (up, rest) = mpsc::channel(self.opened.window.max(1) as usize + 1);
        let writer = self.opened.writers.values().next().cloned().unwrap_or_default();
        let attach = v1::Attach { session: self.opened.session.clone(), writer, signal: None };
        let first = v1::Up { message: Some(UpMessage::Attach(attach)) };
        let sent = up.send(first).await;
        debug_assert!(sent.is_ok(), "the receiver is held here");
        let call = async {
            let mut down = self.client.stream(ReceiverStream::new(rest)).await?.into_inner();
            loop {
                match down.message().await?.and_then(|down| down.message) {
                    Some(DownMessage::Attached(_)) => return Ok(down),
                    Some(DownMessage::Fault(refused)) => return Err(status_of(refused)),
                    Some(_) => {}
                    None => return Err(Status::unavailable("the stream ended before it was attached")),
                }
            }
        };
        let down = within("attach", CALL_LIMIT, call).await?;
        Ok(Attached { up, down })
    }

    /// Sends one frame or takes one message, whichever can be done first. Whether an answer came.
    async fn turn(&mut self, stream: &mut Attached) -> Result<bool, Broken> {
        let now = Instant::now();
        let send_at = self.send_at();
        let silent_at = self.silent_at();
        // Cancel-safe, each branch: a reserved place is given back, a message is taken whole or not at all, a time limit
        // holds nothing.
        tokio::select! {
            message = stream.down.message() => match message {
                Ok(Some(message)) => self.take(message),
                Ok(None) => Err(Broken::Stream(Status::unavailable("the server ended the stream"))),
                Err(status) => Err(broken(status)),
            },
            place = stream.up.reserve(), if send_at.is_some_and(|at| at <= now) => {
                if let Ok(place) = place {
                    place.send(v1::Up { message: Some(UpMessage::Frame(self.next_frame()?)) });
                    return Ok(false);
                }
                // The stream is gone; its end says why.
                match stream.down.message().await {
                    Ok(Some(message)) => self.take(message),
                    Ok(None) => Err(Broken::Stream(Status::unavailable("the server ended the stream"))),
                    Err(status) => Err(broken(status)),
                }
            }
            () = sleep_until(send_at.unwrap_or(now)), if send_at.is_some_and(|at| at > now) => Ok(false),
            () = sleep_until(silent_at.unwrap_or(now)), if silent_at.is_some() => {
                let limit = self.options.answer_limit;
                Err(Broken::For(PlayError::Silent { what: self.eldest(), limit }))
            }
            () = self.options.stop.cancelled(), if !self.options.stop.is_cancelled() => Ok(false),
        }
    }

    /// When the next frame may be sent; `None`: not before an answer comes, or never.
    fn send_at(&mut self) -> Option<Instant> {
        let again = self.unanswered.iter().filter_map(|sent| sent.again_at).min();
        let window = self.opened.window.max(1) as usize;
        if self.unanswered.len() >= window || self.options.stop.is_cancelled() {
            return again;
        }
        let (started, speed) = (self.started, self.options.speed);
        let new = self.cut.peek().map(|due| match speed {
            Speed::Real => started + Duration::from_nanos(due.at_ns.unsigned_abs()),
            Speed::Max => started,
        });
        again.into_iter().chain(new).min()
    }

    /// When the play gives up on the frame that waits longest.
    fn silent_at(&self) -> Option<Instant> {
        let waiting = self.unanswered.iter().filter(|sent| sent.again_at.is_none());
        waiting.map(|sent| sent.at + self.options.answer_limit).min()
    }

    /// The frame that waits longest, for a sentence.
    fn eldest(&self) -> String {
        let eldest = self.unanswered.iter().min_by_key(|sent| sent.at);
        eldest.map_or_else(String::new, |sent| format!("frame {} of {}", sent.frame.seq, sent.frame.signal))
    }

    /// The frame to send now: one that is to be sent again, in order, else the next of the recording.
    fn next_frame(&mut self) -> Result<v1::Frame, Broken> {
        let now = Instant::now();
        let again = self.unanswered.iter_mut().find(|sent| sent.again_at.is_some_and(|at| at <= now));
        if let Some(sent) = again {
            sent.tries += 1;
            if sent.tries > TRIES {
                let what = format!("frame {} of {}", sent.frame.seq, sent.frame.signal);
                let last = self.tally.faults.pop().unwrap_or_default();
                return Err(Broken::For(PlayError::Refused { what, fault: Box::new(last) }));
            }
            (sent.at, sent.again_at) = (now, None);
            self.tally.resent += 1;
            return Ok(sent.frame.clone());
        }
        let Due { at_ns, mut frame } = self.cut.next().expect("a frame is due");
        frame.acked_seq = self.acked(&frame.signal);
        self.next_seq.insert(frame.signal.clone(), frame.seq + 1);
        if self.options.speed == Speed::Real {
            let due = self.started + Duration::from_nanos(at_ns.unsigned_abs());
            self.tally.behind = self.tally.behind.max(now.saturating_duration_since(due));
        }
        self.tally.sent_ns = self.tally.sent_ns.max(at_ns);
        self.tally.frames += 1;
        self.unanswered.push_back(Sent { frame: frame.clone(), at: now, tries: 1, again_at: None });
        Ok(frame)
    }

    /// Up to which `seq` of the signal all answers are here.
    fn acked(&self, signal: &str) -> Option<u64> {
        let open = self.unanswered.iter().filter(|sent| sent.frame.signal == signal);
        let next = open.map(|sent| sent.frame.seq).min().or_else(|| self.next_seq.get(signal).copied());
        next.and_then(|next| next.checked_sub(1))
    }

    /// Takes the frame that was answered out of the unanswered ones.
    fn answered(&mut self, signal: &str, seq: u64) -> Option<Sent> {
        let place =
            self.unanswered.iter().position(|sent| sent.frame.seq == seq && sent.frame.signal == signal)?;
        self.unanswered.remove(place)
    }

    /// Takes a message of the server. Whether it was an answer to a frame.
    fn take(&mut self, message: v1::Down) -> Result<bool, Broken> {
        let now = Instant::now();
        match message.message {
            Some(DownMessage::Output(output)) => {
                let sent = output.seq.and_then(|seq| self.answered(&output.signal, seq));
                let round_trip_us = sent.as_ref().map(|sent| (now - sent.at).as_secs_f64() * 1e6);
                self.answers
                    .take(&output, &self.opened.outputs)
                    .map_err(|fault| Broken::For(PlayError::Answer(fault)))?;
                let sent_ns = self.tally.sent_ns;
                (self.watch)(Played::Answered { output: &output, round_trip_us, sent_ns });
                if output.n > 0 {
                    self.tally.lags.push(AnswerLag {
                        signal: output.signal,
                        seq: output.seq,
                        bins: output.n,
                        // A frame that was sent twice has no round trip of its own.
                        round_trip_us: round_trip_us
                            .filter(|_| sent.as_ref().is_some_and(|sent| sent.tries == 1)),
                        server: output.lag_us.unwrap_or_default(),
                        age_us: output.age_us,
                    });
                }
                Ok(sent.is_some())
            }
            Some(DownMessage::Fault(fault)) => self.refused(fault, now),
            Some(DownMessage::Notice(notice)) => {
                (self.watch)(Played::Noticed(&notice));
                self.tally.notices.push(notice);
                Ok(false)
            }
            Some(DownMessage::Attached(_) | DownMessage::Probe(_)) | None => Ok(false),
        }
    }

    /// A fault: about the stream, or about one frame, which is then done, sent again, or the end.
    fn refused(&mut self, fault: v1::Fault, now: Instant) -> Result<bool, Broken> {
        let Some(seq) = fault.seq else {
            // About no frame; if it ends the stream, the stream's end follows.
            self.tally.faults.push(fault);
            return Ok(false);
        };
        let what = format!("frame {seq} of {}", fault.signal);
        let signal = fault.signal.clone();
        let place =
            self.unanswered.iter().position(|sent| sent.frame.seq == seq && sent.frame.signal == signal);
        let Some(place) = place else {
            self.tally.faults.push(fault);
            return Ok(false);
        };
        if fault.consumed || fault.kind == Kind::AlreadyStepped.word() {
            self.unanswered.remove(place);
            self.tally.faults.push(fault);
            return Ok(true);
        }
        let pause = fault.retry_after_ms.map(|ms| Duration::from_secs_f64(ms.clamp(0.0, 60_000.0) / 1e3));
        let missing = fault.expected_seq.filter(|&expected| expected < seq);
        match (missing, pause) {
            // What is missing before it was lost on the way: once more from there, this one after it.
            (Some(missing), _) => {
                let refused_at = self.unanswered[place].at;
                let lost = self.unanswered.iter_mut().filter(|sent| {
                    sent.frame.signal == signal
                        && (sent.frame.seq == seq || sent.frame.seq == missing && sent.at <= refused_at)
                });
                lost.for_each(|sent| sent.again_at = Some(now));
            }
            (None, Some(pause)) => self.unanswered[place].again_at = Some(now + pause),
            (None, None) => {
                return Err(Broken::For(PlayError::Refused { what, fault: Box::new(fault) }));
            }
        }
        self.tally.faults.push(fault);
        Ok(false)
    }
}

/// Why a turn could not be done.
enum Broken {
    /// The stream ended; it may be attached anew.
    Stream(Status),
    /// The play is over.
    For(PlayError),
}

/// Whether a stream's end can be healed by attaching anew: not where the server said why.
fn broken(status: Status) -> Broken {
    match (fault::from_status(&status), status.code()) {
        (None, Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled | Code::Aborted) => {
            Broken::Stream(status)
        }
        _ => Broken::For(PlayError::of("the stream", status)),
    }
}

/// A fault that came as a message, as the status that it would have been.
fn status_of(refused: v1::Fault) -> Status {
    let kind = Kind::parse(&refused.kind).unwrap_or(Kind::Internal);
    let fault = crate::error::Fault { seq: refused.seq, ..crate::error::Fault::new(kind, refused.detail) };
    fault::status(&fault, &refused.request_id)
}

#[cfg(test)]
mod tests {
    use super::super::scripted::{Script, Scripted};
    use super::*;
    use crate::domain::tensor::Tensor;
    use crate::error::Fault;
    use crate::wire::npy;

    const BINS: usize = 50;

    fn recording() -> Recording {
        let description = r#"{"name": "r", "t0_ns": 500, "signals": [
            {"name": "counts", "type": "binned", "file": "c.npy", "bin_ms": 20,
             "channels": [{"name": "a"}, {"name": "b"}, {"name": "c"}]},
            {"name": "velocity", "type": "continuous", "file": "v.npy", "channels": [{"name": "x"}],
             "rate": {"num": 100, "den": 1}, "role": "target"}]}"#;
        Recording::read("recording.json", description.as_bytes(), |file| {
            let (rows, width) = if file == "c.npy" { (BINS, 3) } else { (BINS * 2, 1) };
            let values: Vec<f32> = (0..rows * width).map(|i| i as f32).collect();
            Ok(npy::write(&Tensor::from_f32(&[rows, width], &values)))
        })
        .unwrap()
    }

    async fn played(script: Script) -> (Scripted, Result<PlayReport, PlayError>) {
        let (server, addr) = Scripted::start(script).await;
        let options = PlayOptions::new(addr.to_string(), "cortex").at_max_speed().recorded();
        let report = play(&recording(), &options).await;
        (server, report)
    }

    fn frames(signal: &str, seqs: &[u64]) -> std::collections::BTreeSet<(String, u64)> {
        seqs.iter().map(|&seq| (signal.to_string(), seq)).collect()
    }

    fn every_bin_is_there(report: &PlayReport) {
        assert_eq!(report.answers.answered(), BINS);
        for bin in 0..BINS {
            let expected = [(bin * 3) as f64, (bin * 3 + 1) as f64];
            assert_eq!(report.answers.outputs["latent"].row(bin), Some(expected.as_slice()), "bin {bin}");
        }
    }

    #[tokio::test]
    async fn a_rig_never_has_more_than_window_unanswered_frames_and_gets_every_bin() {
        let (server, report) = played(Script { window: 5, ..Default::default() }).await;
        let report = report.unwrap();
        every_bin_is_there(&report);
        let seen = server.seen.lock();
        assert_eq!(seen.most_unanswered, 5);
        assert!(seen.closed);
        let open = seen.open.as_ref().unwrap();
        assert_eq!((open.t0_ns, open.record.is_some()), (Some(500), true));
        assert_eq!(report.bin_ns, Some(20_000_000));
        let counts = &seen.stepped["counts"];
        assert!((0..).zip(counts).all(|(seq, frame)| frame.seq == seq && frame.count == 1));
        assert!(counts.last().unwrap().acked_seq.is_some_and(|acked| acked >= BINS as u64 - 6));
        assert_eq!(seen.stepped["velocity"].len(), BINS);
        assert_eq!((report.frames, report.resent, report.faults.len()), (2 * BINS as u64, 0, 0));
        assert_eq!(report.server_lag_us().p50, 5.0);
        assert_eq!(report.closed.bins, BINS as u64);
    }

    #[tokio::test]
    async fn frames_lost_on_the_way_are_sent_again_until_all_are_stepped_in_order() {
        let lose = frames("counts", &[0, 7, 8, 30]).into_iter().chain(frames("velocity", &[3])).collect();
        let (_, report) = played(Script { window: 6, lose, ..Default::default() }).await;
        let report = report.unwrap();
        every_bin_is_there(&report);
        assert!(report.resent >= 5);
        assert!(report.faults.iter().all(|fault| fault.kind == "expected_seq"));
    }

    #[tokio::test]
    async fn a_broken_stream_is_attached_anew_and_nothing_is_stepped_twice() {
        let break_at = frames("counts", &[4, 5, 33]);
        let (server, report) = played(Script { window: 8, break_at, ..Default::default() }).await;
        let report = report.unwrap();
        every_bin_is_there(&report);
        assert_eq!(report.reattached, 3);
        assert_eq!(server.seen.lock().attaches, 4);
        assert_eq!(server.seen.lock().stepped["counts"].len(), BINS);
    }

    #[tokio::test]
    async fn a_refused_frame_ends_the_play_in_the_servers_words_and_closes_the_session() {
        let mut script = Script { window: 8, ..Default::default() };
        let fault = Fault::mismatch("tensor", "3 channels", "4").expecting(9);
        script.refuse.insert(("counts".into(), 9), fault);
        let (server, report) = played(script).await;
        let error = report.unwrap_err().to_string();
        assert_eq!(error, "frame 9 of counts was refused (invalid): tensor: expected 3 channels, found 4");
        assert!(server.seen.lock().closed);
    }

    #[tokio::test]
    async fn a_frame_that_was_consumed_all_the_same_is_done_and_one_with_a_pause_comes_again() {
        let mut script = Script { window: 8, ..Default::default() };
        script
            .refuse
            .insert(("counts".into(), 9), Fault::new(Kind::Overloaded, "full").expecting(9).retry_after(5.0));
        let consumed = Fault { consumed: true, ..Fault::new(Kind::Invalid, "NaN") };
        script.refuse.insert(("velocity".into(), BINS as u64 - 1), consumed);
        let (_, report) = played(script).await;
        let report = report.unwrap();
        every_bin_is_there(&report);
        assert!(report.faults.iter().any(|fault| fault.kind == "overloaded"));
        assert!(report.faults.iter().any(|fault| fault.consumed));
    }

    #[tokio::test]
    async fn an_answer_that_never_comes_is_named() {
        let script = Script { window: 8, swallow: frames("counts", &[11]), ..Default::default() };
        let (_, addr) = Scripted::start(script).await;
        let mut options = PlayOptions::new(addr.to_string(), "cortex").at_max_speed();
        options.answer_limit = Duration::from_millis(200);
        let error = play(&recording(), &options).await.unwrap_err().to_string();
        assert_eq!(error, "frame 11 of counts was not answered within 0 s");
    }

    #[tokio::test]
    async fn what_cannot_be_opened_or_reached_is_a_sentence() {
        let (_, addr) = Scripted::start(Script { window: 1, ..Default::default() }).await;
        let options = PlayOptions::new(addr.to_string(), "reach").at_max_speed();
        let error = play(&recording(), &options).await.unwrap_err().to_string();
        assert_eq!(error, "open was refused (not_found): no pipeline `reach`; there are: cortex");
        let nobody = play(&recording(), &PlayOptions::new("127.0.0.1:1", "cortex")).await;
        assert_eq!(nobody.unwrap_err().to_string(), "no gRPC server answers at 127.0.0.1:1");
        let mut options = PlayOptions::new(addr.to_string(), "cortex");
        options.signals = Some(vec!["count".into()]);
        let error = play(&recording(), &options).await.unwrap_err().to_string();
        assert_eq!(error, "no signal `count` in r; there are: counts, velocity");
    }

    #[tokio::test]
    async fn in_real_time_each_frame_leaves_when_a_rig_would_have_it_and_a_stop_ends_the_play_politely() {
        let (server, addr) = Scripted::start(Script { window: 32, ..Default::default() }).await;
        let options = PlayOptions::new(addr.to_string(), "cortex");
        let stop = options.stop.clone();
        let recording = recording();
        let report = play_watched(&recording, &options, |played| {
            if let Played::Answered { sent_ns: 300_000_000.., .. } = played {
                stop.cancel();
            }
        });
        let report = report.await.unwrap();
        assert!((0.3..0.9).contains(&report.wall_s), "{}", report.wall_s);
        let bins = report.answers.answered();
        assert!((15..BINS).contains(&bins), "{bins}");
        assert!(server.seen.lock().closed);
        assert_eq!(report.closed.bins, bins as u64);
    }
}
