//! Whether what comes in is still what the model learnt, through the network: the simulated cortex as it was, permuted,
//! with a dead array, drifting; artefacts; a model that nothing is known of.

use std::collections::HashMap;

use latentd::cli::replay::{self, report::Answers};
use latentd::domain::output::Flags;
use latentd::domain::tensor::Tensor;
use latentd::wire::recording::{Data, Recording};
use latentd::wire::{tensor, v1};

use crate::recordings::{self, Random};
use crate::rig::{play_grpc, play_http};
use crate::support::http::Form;
use crate::support::{Latentd, Rig, Setup, recorded, says, spikes};

const CHANNELS: usize = 96;
const BINS_PER_S: u64 = 50;
const PIPELINE: &str = "cortex";

/// A rig that sends the simulated cortex second by second, from the beginning again for ever.
struct Cortex {
    rig: Rig,
    counts: Vec<f64>,
    second: u64,
    /// Bins that were flagged.
    flagged: Vec<u64>,
}

impl Cortex {
    async fn open(server: &Latentd) -> Self {
        Self::open_on(server, Default::default()).await
    }

    async fn open_on(server: &Latentd, versions: HashMap<String, u32>) -> Self {
        let recording = recordings::cortex_counts(3000);
        let mut ask = recorded(crate::rig::ask(&recording, PIPELINE));
        // So that a busy machine flags nothing as missed.
        ask.deadline_ms = Some(60_000.0);
        ask.versions = versions;
        Self {
            rig: server.open(ask).await.by(Form::Protobuf),
            counts: counts(&recording),
            second: 0,
            flagged: Vec::new(),
        }
    }

    /// Sends seconds until `until_s`, each bin's counts changed by `change(bin, counts)`.
    async fn send(&mut self, until_s: u64, mut change: impl FnMut(u64, &mut [f64])) {
        while self.second < until_s {
            let first = self.second * BINS_PER_S;
            let mut rows = Vec::with_capacity(BINS_PER_S as usize * CHANNELS);
            for bin in first..first + BINS_PER_S {
                let at = (bin % 3000) as usize * CHANNELS;
                let mut row = self.counts[at..at + CHANNELS].to_vec();
                change(bin, &mut row);
                rows.extend(row.into_iter().map(|count| count as f32));
            }
            let frame = v1::Frame {
                signal: "spikes".into(),
                seq: self.second,
                first_index: first,
                count: BINS_PER_S as u32,
                tensor: Some(tensor::message(&Tensor::from_f32(&[BINS_PER_S as usize, CHANNELS], &rows))),
                ..Default::default()
            };
            let output = self.rig.send(frame).await;
            assert_eq!((output.first_bin, output.n), (first, BINS_PER_S as u32));
            let flags = (output.first_bin..).zip(&output.flags);
            self.flagged
                .extend(flags.filter(|(_, flags)| *flags & Flags::INPUT_SHIFT.0 != 0).map(|(bin, _)| bin));
            self.second += 1;
        }
    }

    /// The second in which the first flagged bin lies.
    fn called_s(&self) -> Option<u64> {
        self.flagged.first().map(|bin| bin / BINS_PER_S)
    }

    async fn window(&self, at: usize) -> v1::HealthWindow {
        self.rig.info().await.health_windows.swap_remove(at)
    }
}

fn counts(recording: &Recording) -> Vec<f64> {
    match &recording.signals[0].data {
        Data::Samples { tensor, .. } => tensor.to_f64(),
        _ => panic!("the cortex is binned"),
    }
}

async fn shifted(server: &Latentd) -> f64 {
    server.metric("latentd_sessions_shifted", &format!("pipeline=\"{PIPELINE}\"")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_as_in_training_is_never_flagged_and_its_health_is_shown_from_the_first_10_s() {
    let server = Setup::bare().bundled().start().await;
    let mut cortex = Cortex::open(&server).await;
    assert_eq!(cortex.rig.info().await.health, "waiting");
    cortex.send(5, |_, _| {}).await;
    assert_eq!(cortex.rig.info().await.health, "waiting");
    cortex.send(11, |_, _| {}).await;
    let info = cortex.rig.info().await;
    assert_eq!((info.health.as_str(), info.health_windows.len()), ("ok", 2));
    let short = &info.health_windows[0];
    let input = &short.inputs[0];
    assert_eq!((short.window_s, input.covered_s, input.channels), (10.0, 10.0, 96));
    assert_eq!((input.input.as_str(), input.signal.as_str()), ("spikes", "spikes"));
    assert_eq!((input.shift, input.cofiring_per_min, input.furthest.len()), (Some(0.0), None, 5));
    assert!(input.furthest[0].z.abs() < 5.0 && input.furthest[0].channel.starts_with('u'), "{input:?}");
    let latents = &short.latents[0];
    assert_eq!((short.latents.len(), latents.output.as_str(), latents.covered_s), (1, "latent", 10.0));
    assert!(latents.distance.is_some_and(|distance| distance < 0.3), "{latents:?}");
    cortex.send(320, |_, _| {}).await;
    let long = cortex.window(1).await;
    assert_eq!((long.window_s, long.inputs[0].covered_s, long.inputs[0].shift), (300.0, 300.0, Some(0.0)));
    assert_eq!((cortex.rig.info().await.health.as_str(), shifted(&server).await), ("ok", 0.0));
    assert!(cortex.flagged.is_empty(), "{:?}", cortex.flagged);
    let run = cortex.rig.run().to_owned();
    cortex.rig.close().await;
    assert!(server.events(&run, "input_shift").await.is_empty());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn permuted_channels_are_called_in_10_s_by_flag_event_page_and_metric() {
    let server = Setup::bare().bundled().start().await;
    let mut cortex = Cortex::open(&server).await;
    let mut order: Vec<usize> = (0..CHANNELS).collect();
    Random(11).shuffle(&mut order);
    let permute = |_: u64, row: &mut [f64]| {
        let was = row.to_vec();
        order.iter().zip(row).for_each(|(from, count)| *count = was[*from]);
    };
    cortex.send(20, permute).await;
    assert!(cortex.called_s().is_some_and(|second| second <= 10), "{:?}", cortex.called_s());
    let info = cortex.rig.info().await;
    assert_eq!((info.health.as_str(), shifted(&server).await), ("shifted", 1.0));
    let input = &info.health_windows[0].inputs[0];
    assert!(input.shifted && input.shift.is_some_and(|share| share >= 0.2), "{input:?}");
    // The wires are put right again.
    cortex.send(400, |_, _| {}).await;
    assert_eq!((cortex.rig.info().await.health.as_str(), shifted(&server).await), ("ok", 0.0));
    let (first, last) = (cortex.flagged[0], *cortex.flagged.last().expect("flagged bins"));
    let run = cortex.rig.run().to_owned();
    let flagged = cortex.flagged.len() as u64;
    cortex.rig.close().await;
    let events = server.events(&run, "input_shift").await;
    let of_input: Vec<_> = events.iter().filter(|event| event.signal == "spikes").collect();
    assert_eq!(of_input.iter().filter_map(|event| event.from_bin).min(), Some(first));
    let end = events.iter().filter_map(|event| event.to_bin).max();
    assert_eq!(end, Some(last + 1), "{events:?}");
    let counted: u64 = of_input.iter().map(|event| event.count).sum();
    assert!(counted > 0 && counted <= flagged, "{counted} of {flagged} bins: {events:?}");
    says(
        &of_input[0].detail,
        &["input `spikes`: ", " of 96 channels are not as in the training data over 10 s", "furthest off"],
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_array_is_called_within_10_s_of_its_death_and_named() {
    let server = Setup::bare().bundled().start().await;
    let mut cortex = Cortex::open(&server).await;
    cortex.send(20, |_, _| {}).await;
    assert_eq!(cortex.rig.info().await.health, "ok");
    cortex.send(36, |_, row| row[32..64].fill(0.0)).await;
    assert!(cortex.called_s().is_some_and(|second| (21..=30).contains(&second)), "{:?}", cortex.called_s());
    let input = cortex.window(0).await.inputs.remove(0);
    let is_of_it = |name: &String| name[1..].parse::<u32>().is_ok_and(|unit| (32..64).contains(&unit));
    assert!(input.dead.iter().all(is_of_it) && input.dead.len() >= 24, "{:?}", input.dead);
    assert!(input.noisy.is_empty(), "{:?}", input.noisy);
    let run = cortex.rig.run().to_owned();
    let last = *cortex.flagged.last().expect("flagged bins");
    cortex.rig.close().await;
    assert_eq!(shifted(&server).await, 0.0, "it left with its session");
    let events = server.events(&run, "input_shift").await;
    assert_eq!(events.iter().filter_map(|event| event.to_bin).max(), Some(last + 1), "{events:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_drift_is_called_before_the_rates_have_changed_by_half() {
    let server = Setup::bare().bundled().start().await;
    let mut cortex = Cortex::open(&server).await;
    let mut random = Random(5);
    let mut chance = move || random.below(1 << 20) as f64 / f64::from(1 << 20);
    // Over ten minutes every other unit's rate falls to half, and the others' rises to one and a half.
    let drift = |bin: u64, row: &mut [f64]| {
        let moved = 0.5 * bin as f64 / (600 * BINS_PER_S) as f64;
        for (unit, count) in row.iter_mut().enumerate() {
            let hits = (0..*count as u32).filter(|_| chance() < moved).count() as f64;
            *count += if unit % 2 == 0 { -hits } else { hits };
        }
    };
    cortex.send(600, drift).await;
    assert!(cortex.called_s().is_some_and(|second| second > 60), "{:?}", cortex.called_s());
    assert_eq!(cortex.rig.info().await.health, "shifted");
    cortex.rig.close().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_on_many_channels_in_one_ms_are_counted_a_minute_however_frames_are_cut() {
    let server = Setup::bare().bundled().start().await;
    let counts = counts(&recordings::cortex_counts(3000));
    let mut told = Vec::new();
    for span_ms in [1000i64, 30] {
        let mut ask = crate::rig::ask(&recordings::cortex_counts(1), PIPELINE);
        (ask.signals[0].r#type, ask.signals[0].bin_ms) = ("spike_events".into(), None);
        ask.t0_ns = Some(0);
        ask.deadline_ms = Some(60_000.0);
        let rig = server.open(ask).await.by(Form::Protobuf);
        let (mut events, mut random) = (Vec::new(), Random(3));
        for bin in 0..11 * BINS_PER_S as usize {
            for unit in 0..CHANNELS {
                for _ in 0..counts[bin * CHANNELS + unit] as u64 {
                    events.push((unit as u32, bin as i64 * 20_000_000 + random.below(20_000_000) as i64));
                }
            }
        }
        // At 3 s and at 7 s a movement is heard on every second electrode.
        for at_ns in [3_005_400_000i64, 7_019_100_000] {
            events
                .extend((0..CHANNELS as u32).step_by(2).map(|unit| (unit, at_ns + i64::from(unit) * 5_000)));
        }
        events.sort_by_key(|event| event.1);
        for (seq, start_ns) in (0..11_000_000_000).step_by(span_ms as usize * 1_000_000).enumerate() {
            let end_ns = start_ns + span_ms * 1_000_000;
            let inside: Vec<_> =
                events.iter().copied().filter(|event| (start_ns..end_ns).contains(&event.1)).collect();
            rig.send(spikes("spikes", seq as u64, start_ns, end_ns - start_ns, &inside)).await;
        }
        let info = rig.info().await;
        let input = &info.health_windows[0].inputs[0];
        assert_eq!(input.cofiring_per_min, Some(12.0), "{input:?}");
        told.push((info.health, info.health_windows));
        rig.close().await;
    }
    assert_eq!(told[0].0, "impaired");
    assert_eq!(told[0].1[0].inputs[0].furthest, told[1].1[0].inputs[0].furthest);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_without_a_reference_says_so_and_names_what_stands_out() {
    let setup = Setup::bare().bundled();
    std::fs::remove_file(setup.models().join("cortex-encoder/1/reference.safetensors"))
        .expect("there is one");
    let server = setup.start().await;
    let mut cortex = Cortex::open(&server).await;
    cortex.send(12, |_, _| {}).await;
    let info = cortex.rig.info().await;
    assert_eq!(info.health, "no_reference");
    let short = &info.health_windows[0];
    assert_eq!((short.inputs[0].channels, short.inputs[0].shift), (96, None));
    assert_eq!(short.latents[0].distance, None);
    cortex.send(24, |bin, row| row[7] = (40 * (bin % 2)) as f64).await;
    let info = cortex.rig.info().await;
    assert_eq!(
        (info.health.as_str(), &info.health_windows[0].inputs[0].noisy[..]),
        ("impaired", &["u07".to_owned()][..])
    );
    assert!(cortex.flagged.is_empty());
    cortex.rig.close().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_bins_are_flagged_by_every_road_however_frames_are_cut() {
    let server = Setup::bare().bundled().start().await;
    let noise = recordings::noise(700, 9);
    let flags = |answers: &Answers| -> Vec<bool> {
        answers.flags.iter().map(|flags| flags.expect("an answered bin").has(Flags::INPUT_SHIFT)).collect()
    };
    let by_http = play_http(&server, &noise, PIPELINE, &["spikes"], 500_000_000).await;
    let known = flags(&by_http);
    let first = known.iter().position(|is_flagged| *is_flagged);
    assert!(first.is_some_and(|bin| bin as u64 <= 10 * BINS_PER_S), "{first:?}");
    for frame_ms in [20.0, 140.0, 3000.0] {
        let report = play_grpc(&server, &noise, PIPELINE, &["spikes"], frame_ms).await;
        assert_eq!(flags(&report.answers)[..known.len()], known, "frames of {frame_ms} ms");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_takes_over_is_held_against_its_own_training_data() {
    let setup = Setup::bare().bundled();
    let folder = setup.models().join("cortex-encoder");
    std::fs::create_dir(folder.join("2")).expect("a folder");
    std::fs::copy(folder.join("1/model.onnx"), folder.join("2/model.onnx")).expect("the graph is copied");
    std::fs::copy(folder.join("1/example.safetensors"), folder.join("2/example.safetensors"))
        .expect("a copy");
    let server = setup.start().await;
    let mut cortex = Cortex::open_on(&server, [("encoder".to_owned(), 1)].into()).await;
    cortex.send(12, |_, row| row.reverse()).await;
    assert_eq!(cortex.rig.info().await.health, "shifted");
    let ask = v1::SwitchRequest { stage: "encoder".into(), version: 2, ..Default::default() };
    let path = format!("/v1/sessions/{}/switch", cortex.rig.session());
    assert_eq!(server.post(&path, latentd::wire::json::write(&ask)).await.status, 200);
    cortex.send(24, |_, row| row.reverse()).await;
    assert_eq!((cortex.rig.info().await.health.as_str(), shifted(&server).await), ("no_reference", 0.0));
    assert!(cortex.flagged.last().is_some_and(|bin| bin / BINS_PER_S <= 13), "{:?}", cortex.flagged.last());
    cortex.rig.close().await;
    server.stop().await;
}

/// The bins that are flagged while a recording's first `seconds` are played.
async fn flagged(name: &str, signal: &str, pipeline: &str, seconds: i64) -> Option<Vec<u64>> {
    let folder = recordings::third_party(name)?;
    let recording = replay::open(&folder).expect("the recording is read").first(seconds * 1_000_000_000);
    let server = Setup::bare().bundled().start().await;
    let report = play_grpc(&server, &recording, pipeline, &[signal], 5000.0).await;
    server.stop().await;
    let flags = (report.answers.first_bin..).zip(&report.answers.flags);
    let is_flagged = |flags: &Option<Flags>| flags.is_some_and(|flags| flags.has(Flags::INPUT_SHIFT));
    Some(flags.filter(|(_, flags)| is_flagged(flags)).map(|(bin, _)| bin).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rat_on_its_track_is_no_shift_up_to_the_end_that_was_held_out_and_its_rest_afterwards_is() {
    const TRACK_S: i64 = 900;
    let Some(flagged) = flagged("hc_linear_track", "spikes", "hippocampus-encoder", TRACK_S + 300).await
    else {
        return;
    };
    let first = flagged.first().expect("the model has never seen it rest");
    assert!(*first >= 10 * TRACK_S as u64, "bin {first} of 100 ms, on the track");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_monkey_and_an_eeg_that_were_held_out_are_no_shift() {
    for (name, signal, pipeline, seconds) in
        [("m1_reach_pcs", "features", "reach-gru", 779), ("eeg_attention_events", "eeg", "eeg-stimulus", 238)]
    {
        if let Some(flagged) = flagged(name, signal, pipeline, seconds).await {
            assert!(flagged.is_empty(), "{name}: {:?}", &flagged[..1]);
        }
    }
}
