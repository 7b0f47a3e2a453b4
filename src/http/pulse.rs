//! Signs of life of a connection: when bytes last moved, each way.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until};

/// When bytes last came and last went.
#[derive(Debug)]
pub struct Pulse {
    begun: Instant,
    came_ms: AtomicU64,
    went_ms: AtomicU64,
}

impl Pulse {
    /// Both at this moment.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { begun: Instant::now(), came_ms: AtomicU64::new(0), went_ms: AtomicU64::new(0) })
    }

    /// Something came, or need not have.
    pub fn came(&self) {
        self.beat(&self.came_ms);
    }

    fn beat(&self, at_ms: &AtomicU64) {
        at_ms.store(self.begun.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// When something last came.
    pub fn last_came(&self) -> Instant {
        self.begun + Duration::from_millis(self.came_ms.load(Ordering::Relaxed))
    }

    /// Waits until nothing of what is being written has gone for so long. Cancel-safe: begun anew it waits anew.
    pub async fn stands_still(&self, limit: Duration) {
        self.beat(&self.went_ms);
        loop {
            let until = self.begun + Duration::from_millis(self.went_ms.load(Ordering::Relaxed)) + limit;
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }
}

/// A connection whose bytes are noted.
#[derive(Debug)]
pub struct Noted<T> {
    /// The connection.
    pub road: T,
    /// Where they are noted.
    pub pulse: Arc<Pulse>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Noted<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.road).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.pulse.came();
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Noted<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.road).poll_write(cx, bytes);
        if matches!(written, Poll::Ready(Ok(1..))) {
            self.pulse.beat(&self.pulse.went_ms);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.road).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.road).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    const LIMIT: Duration = Duration::from_secs(15);

    #[tokio::test(start_paused = true)]
    async fn a_write_that_moves_is_not_given_up_and_one_that_stands_still_is() {
        let (near, mut far) = tokio::io::duplex(64);
        let pulse = Pulse::new();
        let mut near = Noted { road: near, pulse: Arc::clone(&pulse) };
        let begun = Instant::now();
        let reader = tokio::spawn(async move {
            // 64 bytes every 10 s, five times; then nothing.
            let mut some = [0; 64];
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_secs(10)).await;
                far.read_exact(&mut some).await.unwrap();
            }
            far
        });
        let sent = tokio::select! {
            _ = near.write_all(&[7; 1024]) => true,
            () = pulse.stands_still(LIMIT) => false,
        };
        let took = begun.elapsed();
        assert!(!sent && took > Duration::from_secs(60) && took < Duration::from_secs(70), "{took:?}");
        let mut far = reader.await.unwrap();
        assert!(pulse.last_came() < begun + Duration::from_secs(1));
        far.write_all(&[1]).await.unwrap();
        near.read_exact(&mut [0]).await.unwrap();
        assert!(pulse.last_came() > begun + Duration::from_secs(60));
    }
}
