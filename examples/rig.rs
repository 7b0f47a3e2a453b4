//! A rig: one call per bin, and an answer in time or a clear word that there is none.
//! `cargo run --example rig -- [ADDRESS [BINS]]` sends a bin of 96 simulated units every 20 ms to the pipeline `cortex`
//! and prints its number, `fresh`, `held` or `missed`, the bin that the value speaks of, and the value.
use std::time::Duration;

use latentd::wire::v1::{self, down::Message as Down, live_client::LiveClient, up::Message as Up};
use tokio::{sync::mpsc, time::Instant, time::interval, time::timeout_at};
use tonic::{Code, Status, Streaming};

const BIN: Duration = Duration::from_millis(20);
/// The flags `output_invalid` and `stale`: the value is not one to act on.
const NOT_NEW: u32 = 1 << 6 | 1 << 9;

/// What stands in for an answer that is late.
#[allow(dead_code, reason = "a rig chooses one")]
enum OnMiss {
    Hold,
    Zero,
    Raise,
}

/// A value and the bin that it speaks of.
type Step = Result<(u64, Vec<f32>), Status>;

struct Rig {
    ups: mpsc::Sender<v1::Up>,
    downs: Streaming<v1::Down>,
    /// The next bin; each is one frame.
    bin: u64,
    /// The newest value, and its bin.
    last: Option<(u64, Vec<f32>)>,
}

impl Rig {
    /// Sends a bin and waits for its value. With it comes the bin that it speaks of: this one, or an older one that
    /// stands in for at most `max_stale`; else `DEADLINE_EXCEEDED`. An old value is never given as a new one.
    async fn step(&mut self, x: Vec<u8>, limit: Duration, on_miss: OnMiss, max_stale: Duration) -> Step {
        let (bin, until) = (self.bin, Instant::now() + limit);
        self.bin += 1;
        let (signal, shape) = ("spikes".into(), vec![1, x.len() as u32]);
        let tensor = Some(v1::Tensor { dtype: "u8".into(), shape, raw: x.into(), values: Vec::new() });
        let frame = v1::Frame { signal, seq: bin, first_index: bin, count: 1, tensor, ..Default::default() };
        let sent = self.ups.try_send(v1::Up { message: Some(Up::Frame(frame)) });
        sent.map_err(|_| Status::unavailable("the server has taken no frame for a long time"))?;
        while let Ok(down) = timeout_at(until, self.downs.message()).await {
            match down?.and_then(|down| down.message) {
                Some(Down::Output(out)) if out.flags.last().is_some_and(|flags| flags & NOT_NEW == 0) => {
                    let raw = out.blocks[0].tensor.clone().unwrap_or_default().raw;
                    let newest = raw[raw.len() - raw.len() / out.n as usize..].chunks_exact(4);
                    let value = newest.map(|x| f32::from_le_bytes([x[0], x[1], x[2], x[3]])).collect();
                    self.last = Some((out.first_bin + u64::from(out.n) - 1, value));
                }
                Some(Down::Fault(fault)) => return Err(Status::aborted(fault.detail)),
                Some(_) => {}
                None => return Err(Status::unavailable("the stream ended")),
            }
            if let Some((_, value)) = self.last.as_ref().filter(|(of, _)| *of == bin) {
                return Ok((bin, value.clone()));
            }
        }
        let held = self.last.clone().filter(|(of, _)| BIN * (bin - of) as u32 <= max_stale);
        match (on_miss, held) {
            (OnMiss::Hold, Some(held)) => Ok(held),
            (OnMiss::Zero, Some((of, value))) => Ok((of, vec![0.0; value.len()])),
            _ => Err(Status::deadline_exceeded("no answer in time")),
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let address = args.next().unwrap_or("127.0.0.1:8081".into());
    let bins: u64 = args.next().map_or(Ok(500), |bins| bins.parse())?;
    let mut live = LiveClient::connect(format!("http://{address}")).await?;
    let (pipeline, channels_by, outputs) = ("cortex".into(), "order".into(), vec!["velocity".into()]);
    let record = Some(v1::Record::default());
    let open = v1::OpenRequest { pipeline, channels_by, outputs, record, ..Default::default() };
    let v1::OpenReply { session, writers, run, .. } = live.open(open).await?.into_inner();
    // What the server does not read yet waits here; it is not lost.
    let (ups, waiting) = mpsc::channel(4096);
    let attach = v1::Attach { session: session.clone(), writer: writers["spikes"].clone(), signal: None };
    ups.send(v1::Up { message: Some(Up::Attach(attach)) }).await?;
    let downs = live.stream(tokio_stream::wrappers::ReceiverStream::new(waiting)).await?.into_inner();
    let (mut rig, mut clock) = (Rig { ups, downs, bin: 0, last: None }, interval(BIN));
    for bin in 0..bins {
        clock.tick().await;
        let counts = (0..96).map(|unit| ((unit + bin) % 7 == 0) as u8).collect();
        match rig.step(counts, BIN / 2, OnMiss::Hold, 5 * BIN).await {
            Ok((of, value)) => println!("{bin} {} {of} {value:?}", if of == bin { "fresh" } else { "held" }),
            // No answer is a state of the experiment, not its end: the cursor stands still.
            Err(miss) if miss.code() == Code::DeadlineExceeded => println!("{bin} missed"),
            Err(fault) => return Err(fault.into()),
        }
    }
    let closed = live.close(v1::CloseRequest { session }).await?.into_inner();
    println!("closed: {} bins, {} gaps, run {}", closed.bins, closed.gaps, run.unwrap_or_default());
    Ok(())
}
