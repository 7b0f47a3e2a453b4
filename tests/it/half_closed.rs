//! Rigs that send what they have, end their side at once, and read afterwards.

use futures::future::join_all;

use crate::support::{Latentd, Linear, Setup, blocks, counts, linear, recorded};
use latentd::wire::v1;

const STREAMS: usize = 12;
const ROUNDS: u64 = 8;
/// More than one window, so that the end of the rig's side comes while frames wait unread.
const FRAMES: u64 = 100;

/// One rig: in each round it sends its frames, ends its side, and must then get every answer, in order, before the end.
async fn ends_its_side_at_once(server: &Latentd, ask: v1::OpenRequest) {
    let opened = server.live().await.open(ask).await.expect("open").into_inner();
    let mut known = Linear::new();
    for round in 0..ROUNDS {
        let line = server.attach(&opened).await;
        let seqs = round * FRAMES..(round + 1) * FRAMES;
        assert_eq!(line.attached.next_seq["spikes"], seqs.start, "what was sent before was taken");
        for seq in seqs.clone() {
            line.put(counts(seq, seq, &[[seq as f32 % 4.0, 1.0]])).await;
        }
        let outputs = line.end().await;
        assert_eq!(outputs.len() as u64, FRAMES, "answers before the end");
        for (seq, output) in seqs.zip(&outputs) {
            assert_eq!((output.seq, output.first_bin, output.n), (Some(seq), seq, 1));
            assert_eq!(blocks::<2>(output, 0), [known.step([seq as f32 % 4.0, 1.0])]);
        }
    }
    server.delete(&format!("/v1/sessions/{}", opened.session)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_frame_that_came_is_answered_before_the_stream_ends() {
    // Never in place: each answer comes from a worker's thread, whenever it likes.
    let server = Setup::new().key("inline_us", 0).key("load_limit", 1).start().await;
    let rigs = (0..STREAMS).map(|rig| {
        let ask = match rig % 3 {
            0 => linear(),
            1 => recorded(linear()),
            _ => v1::OpenRequest { ack: "durable".into(), ..recorded(linear()) },
        };
        ends_its_side_at_once(&server, ask)
    });
    join_all(rigs).await;
    server.stop().await;
}
