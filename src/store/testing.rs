//! Runs and records made up for tests.

use std::sync::Arc;

use bytes::Bytes;

use super::journal::NewRow;
use super::record::{OutputColumn, Record};
use super::run::{Owner, Pinned, RunHead};
use super::{NoMetrics, Store, codec};
use crate::domain::ids::{Digest, RunId, SessionId, Version};
use crate::domain::output::{EventKind, Notice, OutputRole, OutputSpec};
use crate::domain::settings::SwitchState;
use crate::domain::tensor::Dtype;
use crate::signal::act::{Act, Switch};
use crate::signal::clock::Relation;

/// Values of the latent that a made-up bin has.
pub const LATENT_DIMS: usize = 3;

/// A store in that directory.
pub async fn store_in(dir: &std::path::Path) -> Store {
    Store::embedded(dir, 64 << 20, Arc::new(NoMetrics)).await.unwrap()
}

/// A head with a run id of its own, one latent of 3 and one decoded value, two signals.
pub fn head() -> RunHead {
    let output = |number: u32, name: &str, stage: &str, dims: Vec<u32>| OutputSpec {
        number,
        name: name.into(),
        stage: stage.into(),
        output: name.into(),
        role: OutputRole::Latent,
        dims,
        labels: vec!["a".into()],
        unit: "1".into(),
        dtype: Dtype::F32,
        sparse: false,
        delay_ms: 2.5,
    };
    RunHead {
        run: RunId::new(),
        session: SessionId::new(),
        rig: "rig-1".into(),
        pipeline: "reach".into(),
        pinned: vec![Pinned {
            stage: "encoder".into(),
            model: "reach-encoder".into(),
            version: Version(2),
            digest: Digest([0xab; 32]),
        }],
        resolved: "{\"gap\":\"hold\"}".into(),
        outputs: vec![
            output(0, "latent", "encoder", vec![LATENT_DIMS as u32]),
            output(1, "speed", "decoder", vec![]),
        ],
        recorded: vec![0, 1],
        signals: vec!["spikes".into(), "cursor".into()],
        t0_ns: Some(1_700_000_000_000_000_001),
        width_ns: 20_000_000,
        first_bin: 0,
        started_ns: 1_700_000_000_000_000_000,
        engine: "ort 1.32.0 cpu".into(),
        tags: vec!["lfads".into()],
        notes: "made up".into(),
        owner: Owner { journal: "here".into(), boot: 1 },
    }
}

/// The latent of a bin: every number in it tells the bin; bin 7 of each ten is NaN.
pub fn latent(bin: u64) -> [f32; LATENT_DIMS] {
    if bin % 10 == 7 {
        return [f32::NAN; LATENT_DIMS];
    }
    [bin as f32, bin as f32 + 0.25, -(bin as f32)]
}

/// Bins with made-up outputs; a bin's flags are its index.
pub fn bins(first_bin: u64, n: u32) -> Record {
    let all = first_bin..first_bin + u64::from(n);
    let column = |number, bytes: Vec<u8>| OutputColumn { number, dtype: Dtype::F32, bytes: bytes.into() };
    Record::Bins {
        first_bin,
        n,
        flags: all.clone().map(|bin| bin as u32).collect(),
        outputs: vec![
            column(0, all.clone().flat_map(latent).flat_map(f32::to_le_bytes).collect()),
            column(1, all.flat_map(|bin| (bin as f32).to_le_bytes()).collect()),
        ],
    }
}

/// A frame whose bytes tell its `seq`.
pub fn frame(signal: usize, seq: u64, bins_until: u64) -> Record {
    let bytes = Bytes::from(format!("frame {signal}/{seq}"));
    Record::Frame { signal, seq, arrived_ns: 1_000 + seq as i64, bytes, bins_until }
}

/// A relation of a clock.
pub fn relate(clock: &str) -> Act {
    let relation = Relation {
        offset_ns: i64::MIN,
        drift_ppm: -50.125,
        at_ns: 1_700_000_000_000_000_001,
        uncertainty_ns: u64::MAX,
        growth_ppm: 0.1,
    };
    Act::Relate { clock: clock.into(), relation, stepped_ns: -15_000_000_000 }
}

/// A version that takes over.
pub fn switch(stage: &str) -> Act {
    let (digest, state) = (Digest([7; 32]), SwitchState::Keep);
    Act::Switch(Switch { stage: stage.into(), version: Version(2), digest, state, at_bin: 1 << 40 })
}

/// An event at that second.
pub fn event(kind: EventKind, t_s: i64, from_bin: u64) -> Notice {
    Notice {
        kind,
        signal: Some("spikes".into()),
        from_bin: Some(from_bin),
        to_bin: Some(from_bin + 1),
        count: 1,
        detail: format!("at {t_s} s"),
        t_ns: t_s * 1_000_000_000,
    }
}

/// A journal row of these records.
pub fn row(run: RunId, committed_ns: i64, first_at: u64, records: &[Record]) -> NewRow {
    NewRow { run, committed_ns, records: codec::encode(first_at, records) }
}

/// Every bin that a query answers for the latent, checked against what was made up.
pub async fn bins_of(store: &Store, run: RunId) -> Vec<u64> {
    let record = store.run(run).await.unwrap().unwrap();
    let spec = record.output("latent").unwrap().clone();
    let stretches = store.outputs(run, &spec, 0, u64::MAX).await.unwrap().unwrap();
    read(stretches).await
}

/// Reads to the end and checks every value and flag.
pub async fn read(mut stretches: super::query::Stretches) -> Vec<u64> {
    let mut found = Vec::new();
    while let Some(piece) = stretches.next().await.unwrap() {
        for i in 0..u64::from(piece.n) {
            let bin = piece.first_bin + i;
            let want: Vec<u8> = latent(bin).into_iter().flat_map(f32::to_le_bytes).collect();
            let row = piece.row_bytes as usize;
            assert_eq!(piece.values[i as usize * row..][..row], want, "values of bin {bin}");
            assert_eq!(piece.flags[i as usize], bin as u32, "flags of bin {bin}");
            found.push(bin);
        }
    }
    found
}
