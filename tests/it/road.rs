//! A hostile road between rig and server, drawn from seeds: whatever it loses, doubles, delays, reorders and cuts, the
//! session's outputs are those of a clean road bit for bit, frames that the rig has given up are gaps by the session's
//! policy, and rig, library and close agree on every bin.
//!
//! `LATENTD_ROAD=journey,road` plays one case alone.

use std::panic::AssertUnwindSafe;

use futures::{FutureExt, StreamExt, stream};
use latentd::config::process_env;
use latentd::wire::v1;
use tonic::transport::Channel;

use crate::support::{Latentd, Setup};

mod account; // what is known of every bin
mod by_http; // frames by HTTP
mod by_stream; // frames by gRPC
mod journey; // what a rig has to say
mod rig; // the rules that a rig keeps to

use account::{Account, Outcome};
use journey::{Journey, WINDOW};

/// Sessions at a time.
const AT_ONCE: usize = 32;

/// A server, and connections to it that hold.
struct Road<'a> {
    server: &'a Latentd,
    channels: Vec<Channel>,
}

/// What became of a journey by a hostile road.
struct Travelled {
    opened: v1::OpenReply,
    account: Account,
    closed: v1::CloseReply,
    resent: u64,
    attaches: u64,
}

async fn server() -> Latentd {
    // Admission is not at stake here: on a busy machine a debug build cannot promise what so many rigs ask for.
    let setup = Setup::new().key("window", WINDOW).key("log_level", "warn");
    setup.key("workers", 2).key("load_limit", 1).start().await
}

/// Seeds of journeys and roads, or the one that is asked for.
fn cases(journeys: u64, roads: u64) -> Vec<(u64, Vec<u64>)> {
    let asked = process_env("LATENTD_ROAD");
    let asked = asked.as_ref().and_then(|text| {
        let (journey, road) = text.to_str()?.split_once(',')?;
        Some((journey.parse().ok()?, vec![road.parse().ok()?]))
    });
    asked.map_or_else(
        || (0..journeys).map(|journey| (journey, (0..roads).collect())).collect(),
        |one| vec![one],
    )
}

/// Asserts that a journey by a hostile road came to what it comes to by a clean one.
async fn arrived(server: &Latentd, travelled: &Travelled, clean: &Outcome) {
    let Travelled { opened, account, closed, .. } = travelled;
    assert_eq!(
        account.by_any_road(),
        clean.account.by_any_road(),
        "the rig's bins, and those of a clean road"
    );
    let run = opened.run.as_deref().expect("a run");
    assert_eq!(
        account.bins,
        account::recorded(server, run, &opened.outputs).await,
        "the rig's, the library's"
    );
    assert_eq!(account::totals(closed), clean.totals, "bins, gaps, late, dropped, end");
    assert_eq!(account::events(server, run).await, clean.events, "the run's events");
}

/// Names the case if it fails.
async fn named<T>(journey: u64, road: u64, case: impl Future<Output = T>) -> T {
    match AssertUnwindSafe(case).catch_unwind().await {
        Ok(done) => done,
        Err(panic) => {
            eprintln!("journey {journey}, road {road}: LATENTD_ROAD={journey},{road}");
            std::panic::resume_unwind(panic)
        }
    }
}

/// Plays journeys over roads; what was done in all.
async fn play(by_http: bool, journeys: u64, roads: u64) {
    let server = server().await;
    let mut channels = Vec::new();
    for _ in 0..8 {
        channels.push(server.channel().await);
    }
    let road = Road { server: &server, channels };
    let cases = cases(journeys, roads);
    let clean = cases.iter().map(|(seed, _)| {
        let server = &server;
        async move {
            let journey = Journey::of(*seed);
            let outcome = named(*seed, u64::MAX, account::clean(server, &journey)).await;
            (journey, outcome)
        }
    });
    let clean: Vec<(Journey, Outcome)> = stream::iter(clean).buffered(AT_ONCE).collect().await;
    let travels = clean.iter().zip(&cases).flat_map(|((journey, outcome), (_, seeds))| {
        let road = &road;
        seeds.iter().map(move |&seed| {
            named(journey.seed, seed, async move {
                // Each journey meets roads of its own.
                let seed_of_road = seed + 1_000 * journey.seed;
                let travelled = match by_http {
                    true => by_http::travel(road, journey, outcome, seed_of_road).await,
                    false => by_stream::travel(road, journey, outcome, seed_of_road).await,
                };
                arrived(road.server, &travelled, outcome).await;
                (travelled.attaches, travelled.resent, travelled.closed.bins)
            })
        })
    });
    let done: Vec<_> = stream::iter(travels).buffer_unordered(AT_ONCE).collect().await;
    let sum = |of: fn(&(u64, u64, u64)) -> u64| done.iter().map(of).sum::<u64>();
    println!(
        "{} sessions over hostile roads: {} bins, {} attaches, {} frames sent again",
        done.len(),
        sum(|done| done.2),
        sum(|done| done.0),
        sum(|done| done.1),
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_a_hostile_road_every_bin_of_a_stream_is_that_of_a_clean_road() {
    play(false, 48, 36).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_a_hostile_road_every_bin_of_frames_by_http_is_that_of_a_clean_road() {
    play(true, 32, 12).await;
}
