//! A rig over a gRPC stream.

use latentd::wire::v1;
use latentd::wire::v1::down::Message as Down;
use latentd::wire::v1::live_client::LiveClient;
use latentd::wire::v1::up::Message as Up;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::within;

/// An attached stream.
pub struct Line {
    /// What open answered, where this line was made from it.
    pub opened: v1::OpenReply,
    /// The first message down.
    pub attached: v1::Attached,
    /// Notices that came on the way to what was asked for.
    pub notices: Vec<v1::Notice>,
    up: Option<mpsc::Sender<v1::Up>>,
    down: Streaming<v1::Down>,
}

impl Line {
    /// Attaches; a refusal is the status.
    pub async fn attach(mut live: LiveClient<Channel>, attach: v1::Attach) -> Result<Self, Status> {
        let (up, ups) = mpsc::channel(1024);
        up.send(v1::Up { message: Some(Up::Attach(attach)) }).await.expect("room for the first message");
        let mut down = within("a stream", live.stream(ReceiverStream::new(ups))).await?.into_inner();
        let attached = match within("attached", down.message()).await? {
            Some(v1::Down { message: Some(Down::Attached(attached)) }) => attached,
            other => panic!("the first message down is `attached`, not {other:?}"),
        };
        Ok(Self { opened: v1::OpenReply::default(), attached, notices: Vec::new(), up: Some(up), down })
    }

    pub(super) fn of(self, opened: v1::OpenReply) -> Self {
        Self { opened, ..self }
    }

    /// Sends a message up.
    pub async fn up(&self, message: Option<Up>) {
        let up = self.up.as_ref().expect("a side that was not ended");
        up.send(v1::Up { message }).await.expect("the stream takes messages");
    }

    /// Sends a frame and waits for nothing.
    pub async fn put(&self, frame: v1::Frame) {
        self.up(Some(Up::Frame(frame))).await;
    }

    /// As `put`; whether the stream still takes messages.
    pub async fn try_put(&self, frame: v1::Frame) -> bool {
        let up = self.up.as_ref().expect("a side that was not ended");
        up.send(v1::Up { message: Some(Up::Frame(frame)) }).await.is_ok()
    }

    /// The next message down but notices, which are kept; `None`: the stream ended well.
    pub async fn next(&mut self) -> Result<Option<Down>, Status> {
        loop {
            match within("a message down", self.down.message()).await? {
                None => return Ok(None),
                Some(v1::Down { message: Some(Down::Notice(notice)) }) => self.notices.push(notice),
                Some(v1::Down { message: Some(message) }) => return Ok(Some(message)),
                Some(v1::Down { message: None }) => panic!("an empty message came down"),
            }
        }
    }

    /// The next Output; fails for anything else.
    pub async fn output(&mut self) -> v1::Output {
        match self.next().await {
            Ok(Some(Down::Output(output))) => output,
            other => panic!("an Output is due, not {other:?}"),
        }
    }

    /// The next Fault; fails for anything else.
    pub async fn fault(&mut self) -> v1::Fault {
        match self.next().await {
            Ok(Some(Down::Fault(fault))) => fault,
            other => panic!("a Fault is due, not {other:?}"),
        }
    }

    /// Sends a frame and takes its Output.
    pub async fn send(&mut self, frame: v1::Frame) -> v1::Output {
        self.put(frame).await;
        self.output().await
    }

    /// Sends a frame and takes its Fault.
    pub async fn refused(&mut self, frame: v1::Frame) -> v1::Fault {
        self.put(frame).await;
        self.fault().await
    }

    /// Ends the rig's side; asserts that the stream then ends well, and answers the Outputs that were still due.
    pub async fn end(mut self) -> Vec<v1::Output> {
        self.up = None;
        let mut outputs = Vec::new();
        loop {
            match self.next().await {
                Ok(None) => return outputs,
                Ok(Some(Down::Output(output))) => outputs.push(output),
                other => panic!("Outputs and the end are due, not {other:?}"),
            }
        }
    }

    /// The status with which the server ends the stream.
    pub async fn ended(&mut self) -> Status {
        loop {
            match self.next().await {
                Err(status) => return status,
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended well"),
            }
        }
    }
}

/// The fault that a status carries; asserts that code, kind and trailer agree with it.
#[track_caller]
pub fn carried(status: &Status, code: tonic::Code, kind: &str) -> v1::Fault {
    assert_eq!(status.code(), code, "{status:?}");
    let fault = latentd::wire::fault::from_status(status).expect("a status carries its fault");
    assert_eq!(fault.kind, kind, "{}", fault.detail);
    let trailer = status.metadata().get("latentd-kind").and_then(|value| value.to_str().ok());
    assert_eq!(trailer, Some(kind), "{status:?}");
    assert_eq!(fault.r#type, format!("urn:latentd:{kind}"));
    assert!(!fault.detail.is_empty() && !fault.title.is_empty());
    fault
}
