//! A road to a server that can be closed, cut, or fall silent, while the server itself is left alone.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the road does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Everything passes.
    Open,
    /// Connections stand, and new ones come about, but nothing passes; what stood then never passes anything again.
    Silent,
    /// Connections are cut, new ones refused.
    Closed,
}

/// A road to one address. It ends with this value.
pub struct Proxy {
    /// Where it begins.
    pub address: SocketAddr,
    state: watch::Sender<State>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// An open road to `target` (`host:port`).
    pub async fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (state, seen) = watch::channel(State::Open);
        let task = tokio::spawn(keep(listener, address, target.to_owned(), seen));
        Self { address, state, task }
    }

    /// Cuts what stands and refuses what comes.
    pub fn close(&self) {
        self.state.send_replace(State::Closed);
    }

    /// Lets nothing pass any more, without a word.
    pub fn silence(&self) {
        self.state.send_replace(State::Silent);
    }

    /// Lets new connections pass.
    pub fn open(&self) {
        self.state.send_replace(State::Open);
    }

    /// Cuts what stands.
    pub async fn cut(&self) {
        self.close();
        // Seen by every connection: each holds a receiver until it has ended.
        super::until(super::LIMIT, "connections cut", || async {
            (self.state.receiver_count() <= 1).then_some(())
        })
        .await;
        self.open();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.close();
        self.task.abort();
    }
}

async fn keep(first: TcpListener, address: SocketAddr, target: String, mut state: watch::Receiver<State>) {
    let mut listener = Some(first);
    loop {
        if *state.borrow_and_update() == State::Closed {
            listener = None;
            if state.changed().await.is_err() {
                return;
            }
            continue;
        }
        let bound = match &listener {
            Some(bound) => bound,
            None => listener.insert(TcpListener::bind(address).await.expect("the same port again")),
        };
        tokio::select! {
            accepted = bound.accept() => if let Ok((near, _)) = accepted {
                tokio::spawn(carry(near, target.clone(), state.clone()));
            },
            changed = state.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

async fn carry(mut near: TcpStream, target: String, mut state: watch::Receiver<State>) {
    let Ok(mut far) = TcpStream::connect(target).await else { return };
    let is_silent = tokio::select! {
        biased;
        seen = state.wait_for(|state| *state != State::Open) => seen.is_ok_and(|state| *state == State::Silent),
        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => false,
    };
    if is_silent {
        // Both ends stand and wait, until the road is closed.
        let _ = state.wait_for(|state| *state == State::Closed).await;
    }
}
