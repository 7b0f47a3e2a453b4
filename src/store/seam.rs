//! The seam between journal and library, looked at from outside: queries at every point of a move.

use std::collections::BTreeSet;

use proptest::prelude::*;
use tempfile::tempdir;

use super::Store;
use super::intake::Taking;
use super::library::Taken;
use super::record::Record;
use super::run::{Close, RunHead, RunState};
use super::testing::{bins, bins_of, event, frame, head, read, row, store_in};
use crate::domain::ids::RunId;
use crate::domain::output::EventKind;

fn begun(head: &RunHead) -> Record {
    Record::Head(Box::new(head.clone()))
}

async fn append(store: &Store, run: RunId, first_at: u64, records: &[Record]) {
    store.journal().append(&[row(run, first_at as i64, first_at, records)]).await.unwrap();
}

async fn seqs(store: &Store, run: RunId) -> Vec<u64> {
    let mut intake = store.intake(run).await.unwrap().unwrap();
    let mut found = Vec::new();
    while let Some(taking) = intake.next().await.unwrap() {
        let Taking::Frame(0, frame) = taking else { panic!("{taking:?}") };
        assert_eq!(frame.bytes, format!("frame 0/{}", frame.seq));
        found.push(frame.seq);
    }
    found
}

/// What every query must answer while bins 0..40 but 20..30 lie anywhere between journal and library.
async fn look(store: &Store, run: RunId, step: &str) {
    let want: Vec<u64> = (0..20).chain(30..40).collect();
    assert_eq!(bins_of(store, run).await, want, "{step}");
    assert_eq!(seqs(store, run).await, [0, 1, 2], "{step}");
    let record = store.run(run).await.unwrap().unwrap();
    assert_eq!((record.bins, record.skipped_bins, record.end_bin), (30, 10, Some(40)), "{step}");
    let events = store.events(run, Some(EventKind::Skipped)).await.unwrap().unwrap();
    assert_eq!(events.iter().map(|entry| entry.count).collect::<Vec<_>>(), [2], "{step}");
    assert_eq!(store.events(run, Some(EventKind::Rule)).await.unwrap().unwrap(), [], "{step}");
}

#[tokio::test]
async fn a_query_sees_each_bin_once_at_every_step_of_a_move() {
    let dir = tempdir().unwrap();
    let store = store_in(dir.path()).await;
    let head = head();
    let run = head.run;
    let spec = head.outputs[0].clone();
    append(&store, run, 0, &[begun(&head), bins(0, 15), frame(0, 0, 15)]).await;
    let skipped = Record::Event(event(EventKind::Skipped, 1, 20));
    let piece = store.next_piece(run).await.unwrap();
    append(&store, run, 1, &[bins(15, 5), frame(0, 1, 20), skipped.clone()]).await;
    append(&store, run, 2, &[Record::Skipped { from_bin: 20, to_bin: 30 }, skipped]).await;
    append(&store, run, 3, &[bins(30, 10), frame(0, 2, 40)]).await;
    look(&store, run, "all in the journal").await;

    let from_before = store.outputs(run, &spec, 0, u64::MAX).await.unwrap().unwrap();
    let taken = store.library().take(&[(run, piece.sum.clone())]).await.unwrap();
    assert_eq!(taken, [Taken::Now]);
    look(&store, run, "taken, not yet trimmed").await;
    store.journal().trim(&[(run, piece.sum.to)]).await.unwrap();
    look(&store, run, "trimmed").await;
    let from_between = store.outputs(run, &spec, 0, u64::MAX).await.unwrap().unwrap();
    store.move_runs(&[run]).await.unwrap();
    look(&store, run, "all in the library").await;
    assert_eq!(store.journal().bytes(), 0);

    // Readers that had begun before a move end with what there was when they began.
    let want: Vec<u64> = (0..20).chain(30..40).collect();
    append(&store, run, 4, &[bins(40, 5)]).await;
    store.move_runs(&[run]).await.unwrap();
    assert_eq!(read(from_before).await, want);
    assert_eq!(read(from_between).await, want);
}

#[tokio::test]
async fn a_range_is_half_open_and_gathers_into_unbroken_rows() {
    let dir = tempdir().unwrap();
    let store = store_in(dir.path()).await;
    let head = head();
    let run = head.run;
    append(&store, run, 0, &[begun(&head), bins(0, 8000)]).await;
    store.move_runs(&[run]).await.unwrap();
    append(&store, run, 1, &[bins(8000, 10), bins(8020, 5)]).await;
    let spec = &head.outputs[0];
    let open = async |from, to| store.outputs(run, spec, from, to).await.unwrap().unwrap();
    let (rows, rest) = open(3, 8022).await.gather(usize::MAX).await.unwrap();
    let brief: Vec<_> = rows.iter().map(|row| (row.first_bin, row.n, row.flags.len())).collect();
    assert_eq!((brief, rest), (vec![(3, 8007, 8007), (8020, 2, 2)], None));
    let selected = rows[1].select(&[2, 0]).unwrap();
    let want: Vec<u8> = [-8020f32, 8020., -8021., 8021.].into_iter().flat_map(f32::to_le_bytes).collect();
    assert_eq!((selected.values.to_vec(), selected.row_bytes), (want, 8));
    assert_eq!(rows[1].select(&[3]), None);
    assert_eq!(open(5, 5).await.gather(usize::MAX).await.unwrap(), (vec![], None));
    assert_eq!(open(9000, u64::MAX).await.gather(usize::MAX).await.unwrap(), (vec![], None));
    let (rows, rest) = open(0, u64::MAX).await.gather(1000).await.unwrap();
    assert_eq!((rows.len(), rest), (1, Some(rows[0].end_bin())));
    assert!(rest.unwrap() < 8000);
    assert!(store.outputs(RunId::new(), spec, 0, 9).await.unwrap().is_none());
}

#[tokio::test]
async fn a_start_keeps_the_tail_and_calls_the_run_interrupted() {
    let dir = tempdir().unwrap();
    let store = store_in(dir.path()).await;
    let (mut open, mut closed) = (head(), head());
    open.owner = store.journal().owner().clone();
    closed.owner = open.owner.clone();
    append(&store, open.run, 0, &[begun(&open), bins(0, 5)]).await;
    append(&store, closed.run, 0, &[begun(&closed), bins(0, 5)]).await;
    // Killed between the library's transaction and the trim.
    let piece = store.next_piece(closed.run).await.unwrap();
    store.library().take(&[(closed.run, piece.sum)]).await.unwrap();
    let close = Close { ended_ns: 7, summary: "{}".into() };
    append(&store, closed.run, 1, &[bins(5, 5), Record::Close(close)]).await;
    drop(store);

    let store = store_in(dir.path()).await;
    let recovered = store.recover().await.unwrap();
    assert_eq!((recovered.runs, recovered.interrupted), (2, 1));
    assert_eq!(bins_of(&store, open.run).await, (0..5).collect::<Vec<_>>());
    assert_eq!(bins_of(&store, closed.run).await, (0..10).collect::<Vec<_>>());
    assert_eq!(store.run(open.run).await.unwrap().unwrap().state, RunState::Interrupted);
    assert_eq!(store.run(closed.run).await.unwrap().unwrap().state, RunState::Closed);
    assert_eq!((store.journal().bytes(), store.journal().oldest_ns().await.unwrap()), (0, None));
    assert_eq!(store.recover().await.unwrap().runs, 0);
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_an_event_and_stops_nothing() {
    let dir = tempdir().unwrap();
    let store = store_in(dir.path()).await;
    let head = head();
    let run = head.run;
    append(&store, run, 0, &[begun(&head), bins(0, 5)]).await;
    let mut bad = row(run, 9, 1, &[bins(5, 5)]);
    bad.records[20] ^= 1;
    store.journal().append(&[bad]).await.unwrap();
    append(&store, run, 2, &[bins(10, 5)]).await;
    store.move_runs(&[run]).await.unwrap();
    assert_eq!(bins_of(&store, run).await, (0..5).chain(10..15).collect::<Vec<_>>());
    let events = store.events(run, None).await.unwrap().unwrap();
    assert_eq!((events.len(), events[0].kind, events[0].first_ns), (1, EventKind::NotRecorded, 9));
    assert!(events[0].detail.starts_with("journal row 2 could not be read: checksum"));
}

#[tokio::test]
async fn rows_of_a_run_whose_beginning_the_library_has_lost_are_dropped() {
    let dir = tempdir().unwrap();
    let store = store_in(dir.path()).await;
    let head = head();
    append(&store, head.run, 0, &[begun(&head), bins(0, 5)]).await;
    store.move_runs(&[head.run]).await.unwrap();
    store.library().delete(head.run).await.unwrap();
    append(&store, head.run, 1, &[bins(5, 5)]).await;
    store.move_runs(&[head.run]).await.unwrap();
    assert_eq!((store.journal().bytes(), store.run(head.run).await.unwrap()), (0, None));
}

#[tokio::test]
async fn a_full_disk_refuses_the_append_and_keeps_what_was_there() {
    let dir = tempdir().unwrap();
    let store = store_in(dir.path()).await;
    let head = head();
    append(&store, head.run, 0, &[begun(&head), bins(0, 5)]).await;
    store.journal().file().limit_growth(Some(0)).await;
    let big = row(head.run, 1, 1, &[bins(5, 5000)]);
    let refused = store.journal().append(&[big]).await;
    assert!(matches!(refused, Err(super::StoreError::Full(_))), "{refused:?}");
    store.journal().file().limit_growth(None).await;
    append(&store, head.run, 1, &[bins(5, 1)]).await;
    assert_eq!(bins_of(&store, head.run).await, (0..6).collect::<Vec<_>>());
}

/// What happens to a handful of runs, in any order.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// This many bins of a run, after a hole of that many.
    Bins(usize, u32, u64),
    /// A piece of a run goes to the library.
    Take(usize),
    /// What is taken leaves the journal.
    Trim(usize),
    Move(usize),
    Kill,
    Look(usize),
}

const RUNS: usize = 3;

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let run = 0..RUNS;
    let act = prop_oneof![
        6 => (run.clone(), 1u32..3000, prop_oneof![Just(0u64), 1u64..9000])
            .prop_map(|(run, n, hole)| Act::Bins(run, n, hole)),
        2 => run.clone().prop_map(Act::Take),
        2 => run.clone().prop_map(Act::Trim),
        2 => run.clone().prop_map(Act::Move),
        1 => Just(Act::Kill),
        2 => run.prop_map(Act::Look),
    ];
    prop::collection::vec(act, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..Default::default() })]
    #[test]
    fn each_bin_is_there_once_whatever_is_moved_and_killed(acts in acts()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempdir().unwrap();
            let mut store = store_in(dir.path()).await;
            let heads: Vec<RunHead> = (0..RUNS).map(|_| head()).collect();
            let mut want = vec![BTreeSet::new(); RUNS];
            let mut next = [0u64; RUNS];
            for head in &heads {
                append(&store, head.run, 0, &[begun(head)]).await;
            }
            for act in acts {
                match act {
                    Act::Bins(run, n, hole) => {
                        let first = next[run] + hole;
                        next[run] = first + u64::from(n);
                        append(&store, heads[run].run, first, &[bins(first, n)]).await;
                        want[run].extend(first..next[run]);
                    }
                    Act::Take(run) => {
                        let piece = store.next_piece(heads[run].run).await.unwrap();
                        store.library().take(&[(heads[run].run, piece.sum)]).await.unwrap();
                    }
                    Act::Trim(run) => {
                        let mark = store.library().mark(heads[run].run).await.unwrap().unwrap_or(0);
                        store.journal().trim(&[(heads[run].run, mark)]).await.unwrap();
                    }
                    Act::Move(run) => store.move_runs(&[heads[run].run]).await.unwrap(),
                    Act::Kill => {
                        drop(store);
                        store = store_in(dir.path()).await;
                    }
                    Act::Look(run) => {
                        let found = bins_of(&store, heads[run].run).await;
                        assert_eq!(found, want[run].iter().copied().collect::<Vec<_>>());
                    }
                }
            }
            store.recover().await.unwrap();
            for (head, want) in heads.iter().zip(&want) {
                let found = bins_of(&store, head.run).await;
                assert_eq!(found, want.iter().copied().collect::<Vec<_>>());
                let in_library = store.library().run(head.run).await.unwrap().unwrap();
                assert_eq!(in_library.bins, want.len() as u64);
            }
            assert_eq!(store.journal().bytes(), 0);
        });
    }
}
