//! Connections of gRPC: accepted under limits of our own, then handed to tonic.

use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

/// Connections that wait to be taken over by tonic, which takes them at once.
const WAITING: usize = 64;
/// Pause after the system could not accept: it is out of file descriptors, and will be for a while.
const PAUSE: Duration = Duration::from_millis(200);

/// Connections that have said their first byte within `first_byte`, until `closing`.
pub fn connections(
    listener: TcpListener,
    first_byte: Duration,
    closing: CancellationToken,
) -> ReceiverStream<std::io::Result<TcpStream>> {
    let (give, take) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                biased;
                () = closing.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a gRPC connection could not be accepted");
                    sleep(PAUSE).await;
                    continue;
                }
            };
            // Why ignored: a socket that refuses the option is slower, not wrong.
            let _ = stream.set_nodelay(true);
            let (give, closing) = (give.clone(), closing.clone());
            tokio::spawn(async move {
                let mut byte = [0];
                tokio::select! {
                    () = closing.cancelled() => {}
                    said = timeout(first_byte, stream.peek(&mut byte)) => {
                        if matches!(said, Ok(Ok(1..))) {
                            // Why ignored: the server has stopped, and the connection ends with it.
                            let _ = give.send(Ok(stream)).await;
                        }
                    }
                }
            });
        }
    });
    ReceiverStream::new(take)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_stream::StreamExt as _;

    #[tokio::test]
    async fn a_connection_that_says_nothing_is_closed_and_does_not_hold_the_next() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let closing = CancellationToken::new();
        let mut taken = connections(listener, Duration::from_millis(100), closing.clone());
        let mut silent = TcpStream::connect(address).await.unwrap();
        let mut speaks = TcpStream::connect(address).await.unwrap();
        speaks.write_all(b"P").await.unwrap();
        let first = taken.next().await.unwrap().unwrap();
        assert_eq!(first.peer_addr().unwrap(), speaks.local_addr().unwrap());
        assert_eq!(silent.read(&mut [0]).await.unwrap(), 0, "closed by the server");
        closing.cancel();
        assert!(taken.next().await.is_none());
    }
}
