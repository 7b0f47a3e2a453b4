//! The road of frames by HTTP: requests that never arrive, callers that leave before the answer, answers that are lost,
//! several frames at once, copies beside each other.

use std::time::Duration;

use latentd::wire::v1;

use super::account::Outcome;
use super::journey::Journey;
use super::rig::Rig;
use super::{Road, Travelled};
use crate::recordings::Random;
use crate::support::http;

/// Plays the journey by HTTP over the road of `seed`, and closes the session.
pub async fn travel(road: &Road<'_>, journey: &Journey, clean: &Outcome, seed: u64) -> Travelled {
    let mut random = Random::of(seed);
    let door = road.server.open(journey.ask.clone()).await;
    let door = if random.one_in(2) { door.by(http::Form::Protobuf) } else { door };
    // An unfilled gap divides answers otherwise by HTTP, so that they are not those of a stream, message by message.
    let mut rig = Rig::new(journey, clean, false, &mut random);
    let (at_once, bad) = (1 + random.below(3), random.of_these(&[50, 150, 400]));
    let mut turns = 0;
    while !rig.is_done() {
        turns += 1;
        assert!(turns < 10_000, "the journey has no end: {}", rig.standing());
        if !rig.may_send() {
            rig.lose_patience();
        }
        let mut frames: Vec<v1::Frame> = (0..at_once).map_while(|_| rig.next_frame()).collect();
        if random.below(1_000) < bad {
            frames.extend(frames.first().cloned());
        }
        random.shuffle(&mut frames);
        frames.retain(|_| random.below(1_000) >= bad);
        let posts: Vec<_> = frames
            .into_iter()
            .map(|frame| {
                let patience =
                    (random.below(1_000) < bad).then(|| Duration::from_micros(random.below(4_000)));
                let (door, lost) = (&door, random.below(1_000) < bad);
                async move {
                    let answer = match patience {
                        None => Some(door.try_send(frame).await),
                        // The caller leaves, at any moment of the way.
                        Some(patience) => tokio::time::timeout(patience, door.try_send(frame)).await.ok(),
                    };
                    answer.filter(|_| !lost)
                }
            })
            .collect();
        let answers: Vec<_> = futures::future::join_all(posts).await.into_iter().flatten().collect();
        // What one frame missed may be what another brought: they were under way together.
        let missed = |answer: &Result<_, http::Refused>| {
            answer.as_ref().is_err_and(|refused| refused.fault.kind == "expected_seq")
        };
        let (missing, taken): (Vec<_>, Vec<_>) = answers.into_iter().partition(missed);
        for answer in missing.into_iter().chain(taken) {
            match answer {
                Ok(output) => rig.take(&output),
                // Copies of frames that are still being stepped may fill the window.
                Err(http::Refused { fault, .. }) if fault.kind == "overloaded" => {
                    assert!(fault.retry_after_ms.is_some() && !fault.consumed, "{fault:?}");
                }
                Err(refused) => rig.refused(&refused.fault),
            }
        }
    }
    let opened = door.opened.clone();
    let closed = door.close().await;
    Travelled { opened, account: rig.account, closed, resent: rig.resent, attaches: 0 }
}
