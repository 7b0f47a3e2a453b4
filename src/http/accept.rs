//! Accepts connections and serves a router on them.
//! Enters: a bound listener. Leaves: requests to the router; connections that end with grace, or at their limit.
//! Owns: the sockets. Must hold: a connection that sends nothing, or slowly, ends at its limit, or soon after all
//! closes; what hyper answers by itself (a header too large, bytes that are no HTTP) is problem+json too; TCP_NODELAY is
//! on.
//! Must not know: routes.
//!
//! Why not `axum::serve`: it has no limit before the first byte or header, and none on connections.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use bytes::Bytes;
use http::{HeaderValue, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::body::Requests;
use crate::domain::request::RequestId;
use crate::error::{Fault, Kind};
use crate::metrics::Metrics;

/// Limits of a connection.
#[derive(Clone, Debug)]
pub struct Limits {
    /// To the first byte.
    pub first_byte: Duration,
    /// From there, or from the last answer, to the end of a header: also how long an idle connection is kept.
    pub header: Duration,
    /// How long a request's body may stand still.
    pub body_stall: Duration,
    /// Size of a request's header.
    pub header_bytes: usize,
    /// Connections at a time. When full: one more is answered 429 and closed.
    pub connections: usize,
}

/// What the loop shares with the rest of the server.
#[derive(Clone)]
pub struct Door {
    /// Limits of each connection.
    pub limits: Limits,
    /// Counts what is refused before a route sees it.
    pub metrics: Arc<Metrics>,
    /// Cancelled: no more connections; idle ones end, the others after their answer.
    pub soft: CancellationToken,
    /// Cancelled: all connections end now.
    pub hard: CancellationToken,
    /// Every connection is a task of it.
    pub tasks: TaskTracker,
}

/// How long a connection that is refused is read on, so that the answer is not lost in a reset.
const LINGER: Duration = Duration::from_millis(500);

/// How long after the wish to stop bytes that the kernel has may take to be seen: readiness comes with the runtime's next
/// turn, not with the call.
const GRACE: Duration = Duration::from_millis(20);

/// How long, once all is closing, a client may take nothing of what is written to it: one that listens to a session
/// without reading would hold the end of the server.
const STUCK: Duration = Duration::from_secs(1);

/// How long, once all is closing, the rest of a request that has begun is waited for.
const LATE: Duration = Duration::from_millis(250);

/// Fields of a request's header: as many as hyper takes where it is told nothing.
const FIELDS: usize = 100;

/// Least buffer of a connection; a header's limit below it holds all the same.
const BUFFER_BYTES: usize = 64 << 10;

/// Accepts until `soft`, then for a moment what the kernel had accepted by then, and closes the listener. Returns then;
/// the connections end as tasks of `door.tasks`. Cancel-safe: dropped, it closes the listener.
pub async fn serve(listener: TcpListener, router: Router, door: Door) {
    let places = Arc::new(Semaphore::new(door.limits.connections));
    loop {
        let accepted = tokio::select! {
            biased;
            () = door.soft.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => take(stream, peer, &router, &door, &places),
            Err(error) => refused_by_the_kernel(&error, &door).await,
        }
    }
    // Their clients believe themselves connected, and may have sent a frame already.
    let last = Instant::now() + GRACE;
    while let Ok(Ok((stream, peer))) = timeout_at(last, listener.accept()).await {
        take(stream, peer, &router, &door, &places);
    }
}

/// An error of one connection is its own; an error of the process (no more file descriptors) passes with time.
async fn refused_by_the_kernel(error: &io::Error, door: &Door) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted) {
        return;
    }
    tracing::warn!(%error, "a connection could not be accepted; next try in 200 ms");
    tokio::select! {
        () = door.soft.cancelled() => {}
        () = sleep(Duration::from_millis(200)) => {}
    }
}

fn take(stream: TcpStream, peer: SocketAddr, router: &Router, door: &Door, places: &Arc<Semaphore>) {
    if let Err(error) = stream.set_nodelay(true) {
        // Only a socket that is gone already refuses it.
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    match places.clone().try_acquire_owned() {
        Ok(place) => {
            let (router, door) = (router.clone(), door.clone());
            let tasks = door.tasks.clone();
            tasks.spawn(connection(stream, place, peer, router, door));
        }
        Err(_) => {
            let fault = Fault::new(
                Kind::Overloaded,
                format!("all {} connections are taken; try again", door.limits.connections),
            )
            .retry_after(1000.0);
            let answer = own_answer(&fault, &door.metrics);
            let hard = door.hard.clone();
            door.tasks.spawn(async move {
                let mut stream = stream;
                tokio::select! {
                    () = hard.cancelled() => {}
                    () = async {
                        if stream.write_all(&answer).await.is_ok() {
                            linger(&mut stream).await;
                        }
                    } => {}
                    () = sleep(LINGER) => {}
                }
            });
        }
    }
}

/// One connection from its first byte to its end.
async fn connection(
    stream: TcpStream,
    place: OwnedSemaphorePermit,
    peer: SocketAddr,
    router: Router,
    door: Door,
) {
    let mut first = [0];
    let begun = {
        let mut peeked = std::pin::pin!(timeout(door.limits.first_byte, stream.peek(&mut first)));
        tokio::select! {
            peeked = &mut peeked => peeked,
            () = door.soft.cancelled() => match timeout(GRACE, peeked).await {
                Ok(peeked) => peeked,
                Err(_) => return,
            },
        }
    };
    match begun {
        Ok(Ok(1..)) => {}
        Ok(_) => return,
        Err(_) => {
            tracing::debug!(%peer, "a connection that sent nothing was closed");
            return;
        }
    }
    let requests = Requests::new(door.limits.body_stall);
    let served = Arc::clone(&requests);
    let service = hyper::service::service_fn(move |request: http::Request<Incoming>| {
        let is_held_back = request.headers().contains_key(header::EXPECT);
        let mut request = request.map(|inner| served.body(inner));
        request.extensions_mut().insert(ConnectInfo(peer));
        let (answer, served) = (router.clone().oneshot(request), Arc::clone(&served));
        async move {
            let mut response = answer.await?;
            if !served.is_over(is_held_back).await {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let blocked = Arc::new(Blocked::default());
    let socket = Socket {
        stream,
        metrics: door.metrics.clone(),
        header_bytes: door.limits.header_bytes,
        own: Bytes::new(),
        answered: false,
        blocked: blocked.clone(),
        _place: place,
    };
    let mut stuck = std::pin::pin!(async {
        door.soft.cancelled().await;
        while !blocked.has_been_for(STUCK) {
            sleep(STUCK / 4).await;
        }
    });
    let mut late = std::pin::pin!(async {
        door.soft.cancelled().await;
        sleep(LATE).await;
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(door.limits.header)
        .max_header_size(door.limits.header_bytes)
        .max_buf_size(door.limits.header_bytes.max(BUFFER_BYTES))
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    // Once before anything else: asked to stop before it has read, hyper closes over bytes that are there.
    let begun = futures::poll!(Pin::new(&mut connection));
    let (mut asked, mut is_late) = (false, false);
    let ended = match begun {
        Poll::Ready(ended) => ended,
        Poll::Pending => loop {
            tokio::select! {
                // In this order, so that an answer that is ready with the wish to stop says `connection: close`.
                // Cancel-safe: a token has no state to lose, and the connection is only polled, not dropped.
                biased;
                () = door.hard.cancelled() => return,
                () = &mut stuck => {
                    tracing::debug!(%peer, "a client that took nothing was left");
                    return;
                }
                () = door.soft.cancelled(), if !asked => {
                    asked = true;
                    Pin::new(&mut connection).graceful_shutdown();
                }
                ended = Pin::new(&mut connection) => break ended,
                () = &mut late, if !is_late => {
                    // Asked to stop, hyper waits for the first header to end as long as ever.
                    if !requests.have_begun() {
                        tracing::debug!(%peer, "a connection whose header had not come whole was closed");
                        return;
                    }
                    is_late = true;
                    requests.give_up();
                }
            }
        },
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "connection ended");
        if error.is_parse()
            && let Some(parts) = connection.into_parts()
        {
            let mut socket = parts.io.into_inner();
            if !socket.answered {
                // HTTP/2 without TLS: hyper leaves it to its caller.
                let fault = Fault::new(Kind::Malformed, "not a request of HTTP/1.1");
                let answer = own_answer(&fault, &door.metrics);
                let _ = timeout(LINGER, socket.stream.write_all(&answer)).await;
            }
            linger(&mut socket.stream).await;
        }
    }
}

/// Closes one way and reads on for a moment: a socket closed over unread bytes resets the connection, and the answer
/// in it would be lost.
async fn linger(stream: &mut TcpStream) {
    let _ = stream.shutdown().await;
    let mut rest = [0; 4096];
    let _ = timeout(LINGER, async { while let Ok(1..) = stream.read(&mut rest).await {} }).await;
}

/// A whole answer that closes the connection, for what no route has seen.
fn own_answer(fault: &Fault, metrics: &Metrics) -> Bytes {
    metrics.rejected(fault.kind);
    let id = RequestId::new();
    tracing::debug!(request.id = %id, http.status = fault.status, fault.kind = fault.kind.word(), "request refused");
    let body = crate::wire::json::write(&crate::wire::fault::message(fault, id.as_str()));
    let status = http::StatusCode::from_u16(fault.status).unwrap_or(http::StatusCode::BAD_REQUEST);
    let mut head = format!(
        "HTTP/1.1 {} {}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\nconnection: close\r\nx-request-id: {id}\r\n",
        status.as_str(),
        status.canonical_reason().unwrap_or_default(),
        body.len(),
    );
    if let Some(ms) = fault.retry_after_ms {
        head.push_str(&format!("retry-after: {}\r\n", (ms / 1000.0).ceil() as u64));
    }
    head.push_str("\r\n");
    Bytes::from([head.into_bytes(), body].concat())
}

/// The fault for an answer that hyper makes by itself: a status and no body. `None` for every other write.
/// Why by its bytes: hyper gives no way to word it. A route's answer never looks so, since its faults have bodies.
/// Which limit a header passed it does not say either.
fn automatic(bytes: &[u8], header_bytes: usize) -> Option<Fault> {
    const LONGEST_BYTES: usize = 256;
    if bytes.len() > LONGEST_BYTES || !bytes.starts_with(b"HTTP/1.1 4") || !bytes.ends_with(b"\r\n\r\n") {
        return None;
    }
    let head = std::str::from_utf8(bytes).ok()?.to_ascii_lowercase();
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.to_string();
    let own = |line: &str| {
        line.is_empty()
            || line == "connection: close"
            || line == "content-length: 0"
            || line.starts_with("date: ")
    };
    if !lines.all(own) {
        return None;
    }
    match status.as_str() {
        "400" => Some(Fault::new(Kind::Malformed, "not a request of HTTP/1.1")),
        "414" => Some(Fault::new(Kind::TooLarge, "the request's target is over its limit of 65534 bytes")),
        "431" => Some(Fault::new(
            Kind::TooLarge,
            format!(
                "the request's header is over a limit: at most {FIELDS} fields, and {header_bytes} bytes (`header_limit`)"
            ),
        )),
        _ => None,
    }
}

/// A TCP stream that gives hyper's own answers a body, and holds its place among the connections until it is closed,
/// also after an upgrade.
struct Socket {
    stream: TcpStream,
    metrics: Arc<Metrics>,
    /// Limit of a header, for the sentence.
    header_bytes: usize,
    /// What is still to be written instead of hyper's answer.
    own: Bytes,
    /// Whether hyper's own answer was seen; it is the last.
    answered: bool,
    blocked: Arc<Blocked>,
    _place: OwnedSemaphorePermit,
}

/// Since when the client has taken nothing of what is to be written.
#[derive(Default)]
struct Blocked(parking_lot::Mutex<Option<Instant>>);

impl Blocked {
    /// Notes how a write went.
    fn after<T>(&self, written: Poll<T>) -> Poll<T> {
        let mut since = self.0.lock();
        match written {
            Poll::Ready(_) => *since = None,
            Poll::Pending => _ = since.get_or_insert_with(Instant::now),
        }
        written
    }

    fn has_been_for(&self, limit: Duration) -> bool {
        self.0.lock().is_some_and(|since| since.elapsed() >= limit)
    }
}

impl Socket {
    fn poll_own(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.own.is_empty() {
            let written = Pin::new(&mut self.stream).poll_write(cx, &self.own);
            let written = ready!(self.blocked.after(written))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let _ = self.own.split_to(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_own(cx))?;
        if let Some(fault) = automatic(bytes, self.header_bytes) {
            self.own = own_answer(&fault, &self.metrics);
            self.answered = true;
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.blocked.after(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_own(cx))?;
        // hyper's own answer is a head alone, in one slice.
        if let [only] = slices {
            return self.poll_write(cx, only);
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.blocked.after(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_own(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_own(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::{get, post};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::Notify;

    const SOON: Duration = Duration::from_secs(5);

    struct Server {
        address: SocketAddr,
        door: Door,
        done: tokio::task::JoinHandle<()>,
        /// Requests that wait in `/held`.
        held: Arc<AtomicUsize>,
        /// Lets them go on.
        release: Arc<Notify>,
    }

    fn limits() -> Limits {
        Limits {
            first_byte: Duration::from_secs(60),
            header: Duration::from_secs(60),
            body_stall: Duration::from_secs(60),
            header_bytes: 16 << 10,
            connections: 64,
        }
    }

    async fn server(limits: Limits) -> Server {
        let (held, release) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let waits = (held.clone(), release.clone());
        let router = Router::new()
            .route("/", get(|| async { "hello" }))
            .route("/peer", get(|ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.to_string() }))
            .route(
                "/upgrade",
                get(|mut request: axum::extract::Request| async move {
                    let upgrade = hyper::upgrade::on(&mut request);
                    tokio::spawn(async move {
                        let mut stream = TokioIo::new(upgrade.await.unwrap());
                        let (mut read, mut write) = tokio::io::split(&mut stream);
                        let _ = tokio::io::copy(&mut read, &mut write).await;
                    });
                    (http::StatusCode::SWITCHING_PROTOCOLS, [("upgrade", "echo"), ("connection", "upgrade")])
                }),
            )
            .route("/body", post(|body: Bytes| async move { body.len().to_string() }))
            .route(
                "/held",
                get(move || async move {
                    waits.0.fetch_add(1, Ordering::SeqCst);
                    waits.1.notified().await;
                    "released"
                }),
            );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let door = Door {
            limits,
            metrics: Arc::new(Metrics::new()),
            soft: CancellationToken::new(),
            hard: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        let done = tokio::spawn(serve(listener, router, door.clone()));
        Server { address, door, done, held, release }
    }

    impl Server {
        async fn connect(&self) -> TcpStream {
            TcpStream::connect(self.address).await.unwrap()
        }

        /// A whole exchange on a connection of its own.
        async fn works(&self) {
            let mut stream = self.connect().await;
            let answer = ask(&mut stream, "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
            assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
        }

        async fn until_held(&self, requests: usize) {
            timeout(SOON, async {
                while self.held.load(Ordering::SeqCst) < requests {
                    tokio::task::yield_now().await;
                }
            })
            .await
            .expect("the request reached its route");
        }

        /// Stops softly; all connections must end by themselves.
        async fn stop(self) {
            self.door.soft.cancel();
            self.door.tasks.close();
            timeout(SOON, self.done).await.expect("the loop ends").unwrap();
            timeout(SOON, self.door.tasks.wait()).await.expect("all connections end");
        }
    }

    /// Writes, and reads to the end.
    async fn ask(stream: &mut TcpStream, request: &str) -> String {
        stream.write_all(request.as_bytes()).await.unwrap();
        to_the_end(stream).await
    }

    async fn to_the_end(stream: &mut TcpStream) -> String {
        let mut answer = Vec::new();
        timeout(SOON, stream.read_to_end(&mut answer)).await.expect("the connection ends").unwrap();
        String::from_utf8(answer).unwrap()
    }

    /// Reads one answer whose body is `body`, and leaves the connection open.
    async fn answer(stream: &mut TcpStream, body: &str) -> String {
        let mut read = String::new();
        timeout(SOON, async {
            while !read.ends_with(body) {
                let mut piece = [0; 1024];
                let n = stream.read(&mut piece).await.unwrap();
                assert!(n > 0, "ended after {read}");
                read.push_str(std::str::from_utf8(&piece[..n]).unwrap());
            }
        })
        .await
        .expect("an answer");
        read
    }

    #[tokio::test]
    async fn requests_follow_each_other_on_one_connection_and_know_their_peer() {
        let server = server(limits()).await;
        let mut stream = server.connect().await;
        let me = stream.local_addr().unwrap().to_string();
        for _ in 0..3 {
            stream.write_all(b"GET /peer HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            answer(&mut stream, &me).await;
        }
        server.stop().await;
        assert_eq!(to_the_end(&mut stream).await, "", "an idle connection is closed by the stop");
    }

    #[tokio::test]
    async fn a_connection_that_sends_nothing_is_closed_in_time_and_the_next_one_works() {
        let server = server(Limits { first_byte: Duration::from_millis(50), ..limits() }).await;
        let mut silent = server.connect().await;
        assert_eq!(to_the_end(&mut silent).await, "");
        server.works().await;
        server.stop().await;
    }

    #[tokio::test]
    async fn a_connection_that_drips_its_header_is_closed_in_time_and_the_next_one_works() {
        let server = server(Limits { header: Duration::from_millis(100), ..limits() }).await;
        let (mut read, mut write) = server.connect().await.into_split();
        let drip = tokio::spawn(async move {
            let _ = write.write_all(b"GET / HTTP/1.1\r\n").await;
            while write.write_all(b"x: y\r\n").await.is_ok() {
                sleep(Duration::from_millis(10)).await;
            }
        });
        let mut end = Vec::new();
        // A reset is an end, too: the drip goes on while the server closes.
        let _ = timeout(SOON, read.read_to_end(&mut end)).await.expect("the connection ends");
        timeout(SOON, drip).await.expect("so does the drip").unwrap();
        server.works().await;
        server.stop().await;
    }

    #[tokio::test]
    async fn a_body_that_stands_still_fails_in_time() {
        let server = server(Limits { body_stall: Duration::from_millis(50), ..limits() }).await;
        let mut stream = server.connect().await;
        let answer =
            ask(&mut stream, "POST /body HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nhalf").await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        server.works().await;
        server.stop().await;
    }

    fn problem(answer: &str) -> serde_json::Value {
        assert!(answer.contains("content-type: application/problem+json\r\n"), "{answer}");
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        assert!(answer.contains(&format!("content-length: {}\r\n", body.len())), "{answer}");
        serde_json::from_str(body).unwrap()
    }

    #[tokio::test]
    async fn a_header_over_its_limit_is_413_as_problem_json() {
        let server = server(limits()).await;
        // Within a buffer and past it: two places in hyper.
        for size_bytes in [20 << 10, 300 << 10] {
            let mut stream = server.connect().await;
            let request = format!("GET / HTTP/1.1\r\nhost: x\r\nlong: {}\r\n\r\n", "x".repeat(size_bytes));
            let answer = ask(&mut stream, &request).await;
            assert!(answer.starts_with("HTTP/1.1 413 Payload Too Large\r\n"), "{answer}");
            let fault = problem(&answer);
            assert_eq!((&fault["kind"], &fault["status"]), (&"too_large".into(), &413.into()));
            assert!(!fault["request_id"].as_str().unwrap().is_empty());
        }
        assert!(server.door.metrics.render().contains("latentd_rejected_total{reason=\"too_large\"} 2"));
        server.works().await;
        server.stop().await;
    }

    #[tokio::test]
    async fn a_header_of_too_many_fields_is_413_with_their_limit() {
        let server = server(limits()).await;
        for (fields, status) in [(FIELDS, "HTTP/1.1 200"), (FIELDS + 1, "HTTP/1.1 413")] {
            let mut stream = server.connect().await;
            // `host` and `connection` are two of them.
            let tiny: String = (2..fields).map(|i| format!("a{i}:\r\n")).collect();
            let request = format!("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{tiny}\r\n");
            let answer = ask(&mut stream, &request).await;
            assert!(answer.starts_with(status), "{fields} fields: {answer}");
            if fields > FIELDS {
                let fault = problem(&answer);
                assert_eq!(fault["kind"], "too_large");
                assert!(fault["detail"].as_str().unwrap().contains("at most 100 fields"), "{fault}");
            }
        }
        server.stop().await;
    }

    #[tokio::test]
    async fn bytes_that_are_no_http_are_400_as_problem_json() {
        let server = server(limits()).await;
        for request in ["\x16\x03\x01 hello\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET\r\n\r\n"] {
            let mut stream = server.connect().await;
            let answer = ask(&mut stream, request).await;
            assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{request}: {answer}");
            assert_eq!(problem(&answer)["kind"], "malformed");
        }
        server.stop().await;
    }

    #[test]
    fn a_routes_answer_is_never_taken_for_hypers_own() {
        for answer in [
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\ncontent-length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n{}",
        ] {
            assert!(automatic(answer.as_bytes(), 16 << 10).is_none(), "{answer}");
        }
    }

    #[tokio::test]
    async fn past_the_limit_of_connections_one_more_is_429_and_places_come_back() {
        let server = server(Limits { connections: 1, ..limits() }).await;
        let mut first = server.connect().await;
        first.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        answer(&mut first, "hello").await;
        let mut second = server.connect().await;
        let refused = ask(&mut second, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(refused.starts_with("HTTP/1.1 429") && refused.contains("retry-after: 1\r\n"), "{refused}");
        assert_eq!(problem(&refused)["kind"], "overloaded");
        drop(first);
        timeout(SOON, async {
            loop {
                let mut next = server.connect().await;
                if ask(&mut next, "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                    .await
                    .contains(" 200 ")
                {
                    break;
                }
            }
        })
        .await
        .expect("the place comes back");
        server.stop().await;
    }

    #[tokio::test]
    async fn a_request_that_came_is_answered_after_the_stop_and_its_connection_ends() {
        let server = server(limits()).await;
        let mut stream = server.connect().await;
        stream.write_all(b"GET /held HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        server.until_held(1).await;
        server.door.soft.cancel();
        server.release.notify_one();
        let answer = to_the_end(&mut stream).await;
        assert!(answer.contains("connection: close") && answer.ends_with("released"), "{answer}");
        let address = server.address;
        server.stop().await;
        assert!(TcpStream::connect(address).await.is_err(), "the listener is closed");
    }

    #[tokio::test]
    async fn a_request_that_is_handled_keeps_its_time_after_the_stop_and_one_that_has_not_come_whole_has_none()
     {
        let server = server(limits()).await;
        let mut handled = server.connect().await;
        handled.write_all(b"GET /held HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        server.until_held(1).await;
        let mut header = server.connect().await;
        header.write_all(b"GET / HTTP/1.1\r\nhost: ").await.unwrap();
        let mut body = server.connect().await;
        body.write_all(b"POST /body HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nhalf").await.unwrap();
        server.works().await;
        server.door.soft.cancel();
        assert_eq!(to_the_end(&mut header).await, "");
        let given_up = to_the_end(&mut body).await;
        assert!(given_up.starts_with("HTTP/1.1 400") && given_up.contains("connection: close"), "{given_up}");
        // Both were waited for, so the time of what is late is over.
        server.release.notify_one();
        assert!(to_the_end(&mut handled).await.ends_with("released"));
        server.stop().await;
    }

    #[tokio::test]
    async fn the_hard_stop_ends_a_request_that_never_would() {
        let server = server(limits()).await;
        let mut stream = server.connect().await;
        stream.write_all(b"GET /held HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        server.until_held(1).await;
        server.door.hard.cancel();
        assert_eq!(to_the_end(&mut stream).await, "");
        server.stop().await;
    }

    #[tokio::test]
    async fn a_connection_can_be_upgraded_and_keeps_its_place_until_it_is_closed() {
        let server = server(Limits { connections: 1, ..limits() }).await;
        let mut stream = server.connect().await;
        let request = "GET /upgrade HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let head = answer(&mut stream, "\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        // Neither are bytes of an upgraded connection taken for an answer of hyper's.
        stream.write_all(b"ping").await.unwrap();
        answer(&mut stream, "ping").await;
        let mut second = server.connect().await;
        assert!(to_the_end(&mut second).await.starts_with("HTTP/1.1 429"));
        drop(stream);
        server.stop().await;
    }

    #[tokio::test]
    async fn a_request_that_the_kernel_had_accepted_before_the_stop_is_answered() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let server = server(limits()).await;
        server.door.soft.cancel();
        serve(listener, Router::new().route("/", get(|| async { "hello" })), server.door.clone()).await;
        let answer = to_the_end(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
        server.stop().await;
    }
}
