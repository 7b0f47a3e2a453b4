//! A request's body as it comes, and what is left of it when the answer is made.
//! Enters: bodies as hyper reads them, one at a time for each connection. Leaves: the same, failed where they stand still
//! or where all is closing; whether the connection can go on after the answer.
//! Must hold: a connection that cannot go on is said to be closed; what nobody has read is read over within a bound and
//! kept nowhere. Must not know: routes.

use std::error::Error;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::task::AtomicWaker;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep, timeout};

/// What is read over of a body that nobody wants, and for how long at most.
const MOST_BYTES: usize = 16 << 20;
const LONGEST: Duration = Duration::from_secs(2);

/// Why a body fails that is still coming while all is closing.
#[derive(Clone, Copy, Debug)]
pub struct GivenUp;

impl fmt::Display for GivenUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the body had not come when the server closed")
    }
}

impl Error for GivenUp {}

/// What the requests of one connection have in common; they come one after another.
pub struct Requests {
    /// How long a body may stand still.
    stall: Duration,
    /// Whether there was one at all.
    begun: AtomicBool,
    /// What is still coming is given up.
    is_late: AtomicBool,
    /// Who waits for a body.
    reader: AtomicWaker,
    left: Mutex<Left>,
}

/// What became of the last request's body.
enum Left {
    /// It was read to its end, or is still read.
    Nothing,
    /// Its reader has left it.
    Rest(Incoming),
    /// It has failed.
    Broken,
}

impl Requests {
    /// Of a connection on which a body may stand still for so long.
    pub fn new(stall: Duration) -> Arc<Self> {
        Arc::new(Self {
            stall,
            begun: AtomicBool::new(false),
            is_late: AtomicBool::new(false),
            reader: AtomicWaker::new(),
            left: Mutex::new(Left::Nothing),
        })
    }

    /// Whether a whole header has come.
    pub fn have_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    /// Fails the body that is still coming.
    pub fn give_up(&self) {
        self.is_late.store(true, Ordering::Release);
        self.reader.wake();
    }

    /// The next request's body.
    pub fn body(self: &Arc<Self>, inner: Incoming) -> Body {
        self.begun.store(true, Ordering::Relaxed);
        *self.left.lock() = Left::Nothing;
        if inner.is_end_stream() { Body::empty() } else { Body::new(self.coming(inner)) }
    }

    fn coming(self: &Arc<Self>, inner: Incoming) -> Coming {
        Coming { inner: Some(inner), until: None, of: Arc::clone(self) }
    }

    /// Whether the last request's body is over, so that another request can follow it. What its reader left is read over
    /// for a while: a client that is still writing when the connection closes sees a broken pipe and not its answer.
    /// `is_held_back`: it waits for our word to send it, and has sent nothing.
    pub async fn is_over(self: &Arc<Self>, is_held_back: bool) -> bool {
        let left = std::mem::replace(&mut *self.left.lock(), Left::Nothing);
        match left {
            Left::Nothing => true,
            Left::Broken => false,
            Left::Rest(_) if is_held_back => false,
            Left::Rest(inner) => {
                let mut rest = self.coming(inner);
                let mut passed = 0;
                let all = async {
                    while passed < MOST_BYTES {
                        match rest.frame().await {
                            None => return true,
                            Some(Err(_)) => return false,
                            Some(Ok(frame)) => passed += frame.data_ref().map_or(0, Bytes::len),
                        }
                    }
                    false
                };
                // A client that is slower is answered now, and may not see it.
                let is_over = timeout(LONGEST, all).await.unwrap_or(false);
                // Kept, it would be waited for, and the connection not end.
                rest.inner = None;
                is_over
            }
        }
    }
}

/// A body that fails when it stands still for too long, or is still coming while all is closing.
struct Coming {
    /// `None` once it has ended or failed.
    inner: Option<Incoming>,
    /// Runs while a piece is awaited; a body that is there whole costs no timer.
    until: Option<Pin<Box<Sleep>>>,
    of: Arc<Requests>,
}

impl Coming {
    fn fail(&mut self) {
        self.inner = None;
        *self.of.left.lock() = Left::Broken;
    }
}

impl hyper::body::Body for Coming {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        if let Poll::Ready(frame) = Pin::new(inner).poll_frame(cx) {
            self.until = None;
            match frame {
                Some(Ok(_)) => {}
                None => self.inner = None,
                Some(Err(_)) => self.fail(),
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        // In this order, so that a body is not left asleep that is given up meanwhile.
        self.of.reader.register(cx.waker());
        if self.of.is_late.load(Ordering::Acquire) {
            self.fail();
            return Poll::Ready(Some(Err(GivenUp.into())));
        }
        let stall = self.of.stall;
        let until =
            self.until.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + stall)));
        ready!(until.as_mut().poll(cx));
        self.fail();
        let what = format!("the body stood still for {} s", stall.as_secs_f64());
        Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::TimedOut, what).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or(SizeHint::with_exact(0), Incoming::size_hint)
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.take().filter(|inner| !inner.is_end_stream()) {
            *self.of.left.lock() = Left::Rest(inner);
        }
    }
}
