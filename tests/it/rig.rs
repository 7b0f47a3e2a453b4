//! Rigs: a recording over HTTP, and a gRPC rig that keeps account of every frame, also when the server goes away.

use std::collections::BTreeMap;

use latentd::cli::replay::cut::Cut;
use latentd::cli::replay::player::{self, PlayOptions, Shown, connect, play};
use latentd::cli::replay::report::{Answers, PlayReport};
use latentd::wire::recording::{Data, Recording};
use latentd::wire::v1::down::Message as Down;
use latentd::wire::v1::up::Message as Up;
use latentd::wire::{fault, v1};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::support::{Latentd, within};

/// Plays the signals `names` of a recording over gRPC, as fast as the window lets it, in frames of `frame_ms`.
pub async fn play_grpc(
    server: &Latentd,
    recording: &Recording,
    pipeline: &str,
    names: &[&str],
    frame_ms: f64,
) -> PlayReport {
    let options = PlayOptions {
        frame_ms: Some(frame_ms),
        signals: Some(names.iter().map(|name| (*name).to_string()).collect()),
        ..PlayOptions::new(&server.grpc, pipeline).at_max_speed()
    };
    play(recording, &options)
        .await
        .unwrap_or_else(|error| panic!("{pipeline}: {error}\n{}", server.setup.log()))
}

/// Plays the signals `names` of a recording over HTTP, one frame after the other, JSON both ways.
pub async fn play_http(
    server: &Latentd,
    recording: &Recording,
    pipeline: &str,
    names: &[&str],
    frame_ns: i64,
) -> Answers {
    let mut recording = recording.clone();
    recording.signals.retain(|signal| names.contains(&signal.name()));
    let rig = server.open(ask(&recording, pipeline)).await;
    let mut answers = Answers::new(&rig.opened.outputs);
    for due in Cut::new(&recording, frame_ns) {
        let output = rig.send(due.frame).await;
        answers.take(&output, &rig.opened.outputs).expect("an answer that fits what open said");
    }
    rig.close().await;
    answers
}

/// Asks for a session on `pipeline` that streams the signals of `recording`.
pub fn ask(recording: &Recording, pipeline: &str) -> v1::OpenRequest {
    v1::OpenRequest {
        pipeline: pipeline.into(),
        rig: "rig".into(),
        signals: recording.signals.iter().map(|signal| signal.spec.clone()).collect(),
        t0_ns: Some(recording.t0_ns),
        ..Default::default()
    }
}

/// Row after row of the recording's first signal, one frame each, from the beginning again for ever.
pub fn rows(recording: &Recording) -> impl Iterator<Item = v1::Frame> + Send + use<> {
    let signal = recording.signals[0].clone();
    let t0_ns = recording.t0_ns;
    (0u64..).map(move |row| {
        let Data::Samples { tensor, timing } = &signal.data else { panic!("{} has no rows", signal.name()) };
        let width = tensor.shape[1];
        let row_bytes = width * tensor.dtype.size_bytes();
        let at = (row % tensor.shape[0] as u64) as usize * row_bytes;
        v1::Frame {
            signal: signal.spec.name.clone(),
            seq: row,
            first_index: row,
            count: 1,
            t_device_ns: Some(t0_ns + timing.start_ns(row)),
            tensor: Some(v1::Tensor {
                dtype: tensor.dtype.word().into(),
                shape: vec![1, width as u32],
                raw: tensor.data.bytes()[at..at + row_bytes].to_vec().into(),
                values: Vec::new(),
            }),
            ..Default::default()
        }
    })
}

/// What became of every frame that a rig has sent.
#[derive(Debug, Default)]
pub struct Account {
    /// Frames sent; their `seq`s are 0 to this.
    pub sent: u64,
    /// Answers by `seq`.
    pub answered: BTreeMap<u64, v1::Output>,
    /// Faults about single frames, by `seq`.
    pub refused: BTreeMap<u64, v1::Fault>,
    /// Events as they happened.
    pub notices: Vec<v1::Notice>,
    /// How the stream ended: well, or with a status. `None`: it did not.
    pub end: Option<Result<(), Status>>,
}

impl Account {
    /// The last `durable_seq` that an answer told.
    pub fn durable_seq(&self) -> Option<u64> {
        self.answered.iter().rev().find_map(|(_, output)| output.durable_seq.values().next().copied())
    }

    /// The fault that the stream ended with.
    pub fn end_fault(&self) -> Option<v1::Fault> {
        self.end.as_ref()?.as_ref().err().and_then(fault::from_status)
    }

    /// Whether frames 0, 1, 2 … were answered, without a hole.
    pub fn is_answered_in_order(&self) -> bool {
        self.answered.keys().copied().eq(0..self.answered.len() as u64)
    }

    fn open(&self) -> u64 {
        self.sent - (self.answered.len() + self.refused.len()) as u64
    }
}

/// A rig with one signal and one stream.
pub struct Streamer {
    /// What open answered.
    pub opened: v1::OpenReply,
    /// What became of its frames.
    pub account: Account,
    client: player::Rig,
    up: mpsc::Sender<v1::Up>,
    down: Streaming<v1::Down>,
}

impl Streamer {
    /// Opens a session and attaches a stream to it.
    pub async fn open(grpc: &str, ask: v1::OpenRequest) -> Result<Self, Status> {
        let mut client =
            connect(grpc, Shown::default()).await.map_err(|error| Status::unavailable(error.to_string()))?;
        let opened = within("open", client.open(ask)).await?.into_inner();
        let (up, ups) = mpsc::channel(1 + opened.window as usize);
        let writer = opened.writers.values().next().cloned().unwrap_or_default();
        let attach = v1::Attach { session: opened.session.clone(), writer, signal: None };
        up.send(v1::Up { message: Some(Up::Attach(attach)) }).await.expect("the receiver is held here");
        let down = within("a stream", client.stream(ReceiverStream::new(ups))).await?.into_inner();
        Ok(Self { opened, account: Account::default(), client, up, down })
    }

    /// Sends frames, never more than `window` unanswered ones, until there are no more and all are answered, or until
    /// the stream ends. `answered` is told of each answer.
    pub async fn stream(
        &mut self,
        frames: impl IntoIterator<Item = v1::Frame>,
        mut answered: impl FnMut(&v1::Output),
    ) {
        let mut frames = frames.into_iter().peekable();
        let window = u64::from(self.opened.window);
        let mut goes_on = true;
        while goes_on {
            while self.account.open() < window
                && let Some(frame) = frames.next_if(|_| !self.up.is_closed())
            {
                assert_eq!(frame.seq, self.account.sent, "frames are numbered in their order");
                // Why ignored: a stream that has ended says so below; there is room for a whole window.
                let _ = self.up.try_send(v1::Up { message: Some(Up::Frame(frame)) });
                self.account.sent += 1;
            }
            if self.account.open() == 0 && frames.peek().is_none() {
                return;
            }
            let message = within("a message down", self.down.message()).await;
            goes_on = self.take(message, &mut answered);
        }
    }

    /// Reads until the stream ends.
    pub async fn listen(&mut self) {
        while self.account.end.is_none() {
            let message = within("the stream's end", self.down.message()).await;
            self.take(message, &mut |_| {});
        }
    }

    /// Closes the session; its stream ends then.
    pub async fn leave(&mut self) -> Result<v1::CloseReply, Status> {
        let session = self.opened.session.clone();
        self.client.close(v1::CloseRequest { session }).await.map(tonic::Response::into_inner)
    }

    /// Closes the session, and whatever was still to come.
    pub async fn close(mut self) -> Result<v1::CloseReply, Status> {
        self.leave().await
    }

    /// Whether the stream goes on.
    fn take(
        &mut self,
        message: Result<Option<v1::Down>, Status>,
        answered: &mut impl FnMut(&v1::Output),
    ) -> bool {
        let account = &mut self.account;
        match message {
            Ok(Some(v1::Down { message: Some(Down::Output(output)) })) => {
                let seq = output.seq.expect("an answer names its frame");
                answered(&output);
                assert!(account.answered.insert(seq, output).is_none(), "frame {seq} was answered twice");
            }
            Ok(Some(v1::Down { message: Some(Down::Fault(fault)) })) => {
                let seq = fault.seq.unwrap_or(u64::MAX);
                account.refused.insert(seq, fault);
            }
            Ok(Some(v1::Down { message: Some(Down::Notice(notice)) })) => account.notices.push(notice),
            Ok(Some(_)) => {}
            Ok(None) => account.end = Some(Ok(())),
            Err(status) => account.end = Some(Err(status)),
        }
        account.end.is_none()
    }
}
