//! The main road of a session: opened, fed, answered, closed, over HTTP and gRPC.

use crate::support::{Latentd, Linear, binned, blocks, flag_names, linear};

#[tokio::test]
async fn a_frame_is_answered_with_the_bins_that_it_closes_by_http_and_by_grpc() {
    let server = Latentd::start().await;
    let rig = server.open(linear()).await;
    let mut known = Linear::new();
    let output = rig.send(binned("spikes", 0, 0, &[[1.0, 2.0], [0.0, 3.0]])).await;
    assert_eq!((output.signal.as_str(), output.seq, output.first_bin, output.n), ("spikes", Some(0), 0, 2));
    assert_eq!(blocks::<2>(&output, 0), known.steps(&[[1.0, 2.0], [0.0, 3.0]]));
    assert_eq!(blocks::<2>(&output, 1), [[5.5, -1.0], [6.5, 0.5]]);
    assert_eq!(flag_names(&output), [vec![], vec![]] as [Vec<&str>; 2]);
    let closed = rig.close().await;
    assert_eq!((closed.bins, closed.gaps, closed.last_bin), (2, 0, Some(1)));

    let mut line = server.line(linear()).await;
    assert_eq!(line.attached.next_seq["spikes"], 0);
    let mut known = Linear::new();
    let output = line.send(binned("spikes", 0, 0, &[[1.0, 2.0], [0.0, 3.0]])).await;
    assert_eq!(blocks::<2>(&output, 0), known.steps(&[[1.0, 2.0], [0.0, 3.0]]));
    assert_eq!(line.end().await, []);
    server.stop().await;
}
