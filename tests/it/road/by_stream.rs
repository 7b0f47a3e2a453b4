//! The road of a gRPC stream: frames and answers are lost, come twice, late and out of order; connections end in the
//! midst, politely or not.

use latentd::wire::v1;
use latentd::wire::v1::down::Message as Down;
use latentd::wire::v1::live_client::LiveClient;
use tokio::net::{TcpListener, TcpStream};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use super::account::{Outcome, key};
use super::journey::Journey;
use super::rig::Rig;
use super::{Road, Travelled};
use crate::recordings::Random;
use crate::support::{Line, carried, http};

/// How often each thing happens, in a thousand.
struct Mood {
    lost: u64,
    twice: u64,
    held: u64,
    answer_lost: u64,
    answer_twice: u64,
    cut: u64,
    hasty: u64,
    pause: u64,
    aside: u64,
}

impl Mood {
    fn of(random: &mut Random) -> Self {
        let mut often = || random.of_these(&[0, 0, 50, 250]);
        Self {
            lost: often(),
            twice: often(),
            held: often(),
            answer_lost: often(),
            answer_twice: often(),
            cut: often() / 4,
            hasty: often() / 5,
            pause: often() / 10,
            aside: often(),
        }
    }
}

/// A connection that passes so many bytes each way and then breaks, in the midst of whatever it is.
async fn breaks_after(to: &str, random: &mut Random) -> Endpoint {
    let near = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let at = near.local_addr().expect("an address");
    let (to, up, down) = (to.to_owned(), 300 + random.below(4_000), 200 + random.below(6_000));
    tokio::spawn(async move {
        use tokio::io::AsyncReadExt as _;
        let Ok((mut near, _)) = near.accept().await else { return };
        let Ok(mut far) = TcpStream::connect(to).await else { return };
        let ((near_up, mut near_down), (far_down, mut far_up)) = (near.split(), far.split());
        let (mut ups, mut downs) = (near_up.take(up), far_down.take(down));
        tokio::select! {
            _ = tokio::io::copy(&mut ups, &mut far_up) => {}
            _ = tokio::io::copy(&mut downs, &mut near_down) => {}
        }
    });
    Endpoint::from_shared(format!("http://{at}")).expect("an address")
}

/// An attached stream on some connection.
struct Way {
    line: Line,
    /// The connection may break by itself.
    breaks: bool,
}

/// A rig by gRPC and the road before it.
struct ByStream<'a> {
    road: &'a Road<'a>,
    opened: v1::OpenReply,
    one_signal: bool,
    clean: &'a Outcome,
    rig: Rig<'a>,
    random: Random,
    mood: Mood,
    way: Option<Way>,
    /// A stream that the server still takes for alive when the rig attaches anew.
    ghost: Option<Way>,
    /// Messages that must still come down for what was passed on.
    due: u64,
    /// Frames on their way.
    held: Vec<v1::Frame>,
    /// Frames say who writes them.
    signs: bool,
    /// Frames go aside by HTTP, beside the stream.
    door: http::Rig,
    attaches: u64,
}

/// Plays the journey by gRPC over the road of `seed`, and closes the session.
pub async fn travel(road: &Road<'_>, journey: &Journey, clean: &Outcome, seed: u64) -> Travelled {
    let mut random = Random::of(seed);
    let channel = road.channels[seed as usize % road.channels.len()].clone();
    let opened = LiveClient::new(channel).open(journey.ask.clone()).await.expect("a session").into_inner();
    let mut mood = Mood::of(&mut random);
    if clean.answers.values().any(|pieces| pieces.len() > 1) {
        // By HTTP an answer is one message, and the rest comes with the next: not those of a stream.
        mood.aside = 0;
    }
    let mut by_stream = ByStream {
        road,
        door: http::Rig::new(road.server, opened.clone()),
        opened,
        one_signal: journey.one_signal,
        clean,
        rig: Rig::new(journey, clean, journey.one_signal, &mut random),
        signs: random.one_in(2),
        random,
        mood,
        way: None,
        ghost: None,
        due: 0,
        held: Vec::new(),
        attaches: 0,
    };
    let mut turns = 0;
    while !by_stream.rig.is_done() {
        by_stream.turn().await;
        turns += 1;
        assert!(turns < 20_000, "the journey has no end: {}", by_stream.rig.standing());
    }
    by_stream.settle().await;
    let session = by_stream.opened.session.clone();
    let closed = road.close(&session, seed).await;
    let ByStream { opened, rig, attaches, .. } = by_stream;
    Travelled { opened, account: rig.account, closed, resent: rig.resent, attaches }
}

impl ByStream<'_> {
    fn happens(&mut self, rate: fn(&Mood) -> u64) -> bool {
        self.random.below(1_000) < rate(&self.mood)
    }

    async fn turn(&mut self) {
        if self.way.is_none() {
            return self.attach().await;
        }
        if self.happens(|mood| mood.cut) {
            return self.cut();
        }
        if self.happens(|mood| mood.hasty) {
            self.rig.lose_patience();
        }
        if self.happens(|mood| mood.pause) {
            tokio::time::sleep(std::time::Duration::from_millis(self.random.below(5))).await;
        }
        let send = if self.rig.may_send() { 6 } else { 0 };
        let release = if self.held.is_empty() { 0 } else { 3 };
        let read = if self.due > 0 { 5 } else { 0 };
        let all = send + release + read;
        if all == 0 {
            return self.rig.lose_patience();
        }
        match self.random.below(all) {
            at if at < send => self.send().await,
            at if at < send + release => {
                let at = self.random.below(self.held.len() as u64) as usize;
                let frame = self.held.swap_remove(at);
                self.pass(frame).await;
            }
            _ => self.read().await,
        }
    }

    async fn send(&mut self) {
        let Some(frame) = self.rig.next_frame() else { return };
        if self.happens(|mood| mood.lost) {
            return;
        }
        if self.happens(|mood| mood.aside) {
            let answer = self.door.try_send(frame).await;
            return match answer {
                _ if self.happens(|mood| mood.answer_lost) => {}
                Ok(output) => self.rig.take(&output),
                Err(refused) => self.rig.refused(&refused.fault),
            };
        }
        if self.happens(|mood| mood.twice) {
            self.held.push(frame.clone());
        }
        if self.happens(|mood| mood.held) {
            self.held.push(frame);
        } else {
            self.pass(frame).await;
        }
    }

    /// Messages that answer a frame.
    fn messages(&self, frame: &(String, u64)) -> u64 {
        if self.one_signal { self.clean.answers[frame].len() as u64 } else { 1 }
    }

    async fn pass(&mut self, mut frame: v1::Frame) {
        let Some(way) = &self.way else { return };
        if self.signs {
            frame.writer = self.opened.writers[&frame.signal].clone();
        }
        let messages = self.messages(&key(&frame));
        if way.line.try_put(frame).await {
            self.due += messages;
        } else {
            assert!(way.breaks, "the stream of a connection that holds has ended");
            self.broken();
        }
    }

    async fn read(&mut self) {
        let Some(way) = &mut self.way else { return };
        let breaks = way.breaks;
        match way.line.next().await {
            Ok(Some(Down::Output(output))) => {
                self.due -= 1;
                if self.happens(|mood| mood.answer_lost) {
                    return;
                }
                self.rig.take(&output);
                if self.happens(|mood| mood.answer_twice) {
                    self.rig.take(&output);
                }
            }
            Ok(Some(Down::Fault(fault))) => {
                let frame = (fault.signal.clone(), fault.seq.expect("a fault about a frame"));
                self.due -= self.messages(&frame);
                if !self.happens(|mood| mood.answer_lost) {
                    self.rig.refused(&fault);
                }
            }
            Err(status) if breaks && is_no_fault(&status) => self.broken(),
            other => panic!("an answer is due, not {other:?}"),
        }
    }

    /// Ends the connection one way or another.
    fn cut(&mut self) {
        let way = self.way.take();
        if self.random.one_in(3) {
            self.ghost = way;
        }
        self.broken();
    }

    fn broken(&mut self) {
        (self.way, self.due) = (None, 0);
        if self.random.one_in(2) {
            self.held.clear();
        }
        self.rig.lose_patience();
    }

    async fn attach(&mut self) {
        let breaks = self.random.one_in(5);
        let channel = if breaks {
            breaks_after(&self.road.server.grpc, &mut self.random).await.connect().await.ok()
        } else if self.random.one_in(3) {
            Some(self.road.server.channel().await)
        } else {
            Some(self.random.of_these(&self.road.channels.iter().collect::<Vec<_>>()).clone())
        };
        let Some(channel) = channel else { return };
        let writer = self.opened.writers.values().next().cloned().unwrap_or_default();
        let attach = v1::Attach { session: self.opened.session.clone(), writer, signal: None };
        let line = match Line::attach(LiveClient::<Channel>::new(channel), attach).await {
            Ok(line) => line,
            Err(status) if breaks && is_no_fault(&status) => return,
            Err(status) => panic!("attach was refused: {status:?}"),
        };
        self.attaches += 1;
        self.rig.stands(&line.attached);
        if let Some(mut ghost) = self.ghost.take()
            && !ghost.breaks
        {
            carried(&ghost.line.ended().await, tonic::Code::Aborted, "replaced");
        }
        self.way = Some(Way { line, breaks });
        self.due = 0;
        self.rig.lose_patience();
    }

    /// The journey is over: what is still on its way comes, changes nothing, and the stream ends well.
    async fn settle(&mut self) {
        (self.mood.lost, self.mood.twice, self.mood.held) = (0, 0, 0);
        for frame in std::mem::take(&mut self.held) {
            self.pass(frame).await;
        }
        while self.way.is_some() && self.due > 0 {
            self.read().await;
        }
        if let Some(way) = self.way.take()
            && !way.breaks
        {
            assert_eq!(way.line.end().await, [], "all that was due has come");
        }
    }
}

/// Whether a stream's end is the road's doing: the server's own are faults.
fn is_no_fault(status: &Status) -> bool {
    latentd::wire::fault::from_status(status).is_none()
}

impl Road<'_> {
    /// Closes a session, by HTTP or gRPC.
    async fn close(&self, session: &str, seed: u64) -> v1::CloseReply {
        if seed.is_multiple_of(2) {
            return self.server.delete(&format!("/v1/sessions/{session}")).await.message();
        }
        let ask = v1::CloseRequest { session: session.into() };
        let mut live = LiveClient::new(self.channels[0].clone());
        live.close(ask).await.expect("a close").into_inner()
    }
}
