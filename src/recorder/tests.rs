//! The recorder on a real file: durable, killed, slow, full.

use std::path::Path;

use proptest::prelude::*;
use tempfile::tempdir;

use super::*;
use crate::domain::ids::RunId;
use crate::domain::output::EventKind;
use crate::store::intake::Taking;
use crate::store::run::{RunFilter, RunState};
use crate::store::testing::{bins, bins_of, event, frame, head, relate, store_in};

const LIMIT: Duration = Duration::from_secs(20);

fn clock() -> UnixClock {
    Arc::new(|| 1_700_000_000_000_000_000)
}

async fn start(dir: &Path, config: RecorderConfig) -> Recorder {
    Recorder::start(store_in(dir).await, config, clock()).await
}

fn put(run: &RunRecorder, records: impl IntoIterator<Item = Record>) -> Ticket {
    let records: Vec<Record> = records.into_iter().collect();
    let room = run.reserve(records.iter().map(Record::size_bytes).sum()).expect("there is room");
    run.put_all(room, records)
}

/// Waits for a state; says what it waited for where it does not come.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, wait).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

async fn durable(run: &RunRecorder, ticket: Ticket) {
    let wait = tokio::time::timeout(LIMIT, run.durable(ticket));
    wait.await.expect("durable in time").expect("recording is on");
}

async fn events(store: &Store, run: RunId, kind: EventKind) -> Vec<(Option<u64>, Option<u64>, u64)> {
    let found = store.events(run, Some(kind)).await.unwrap().unwrap();
    found.iter().map(|entry| (entry.from_bin, entry.to_bin, entry.count)).collect()
}

fn close(bins: u64) -> Close {
    Close { ended_ns: 1_700_000_001_000_000_000, summary: format!("{{\"bins\":{bins}}}") }
}

#[tokio::test]
async fn a_seq_is_durable_when_its_frame_and_the_bins_it_closed_are() {
    let dir = tempdir().unwrap();
    let recorder = start(dir.path(), RecorderConfig::default()).await;
    let run = recorder.open(head());
    durable(&run, put(&run, [frame(0, 0, 0), frame(0, 1, 5), frame(1, 0, 0)])).await;
    assert_eq!((run.durable_seq(0), run.durable_seq(1), run.durable_seq(9)), (Some(0), Some(0), None));
    durable(&run, put(&run, [bins(0, 4)])).await;
    assert_eq!(run.durable_seq(0), Some(0));
    durable(&run, put(&run, [bins(4, 1), frame(0, 2, 9)])).await;
    assert_eq!(run.durable_seq(0), Some(1));
    durable(&run, put(&run, [Record::Skipped { from_bin: 5, to_bin: 9 }])).await;
    assert_eq!(run.durable_seq(0), Some(2));
    recorder.stop(LIMIT).await.unwrap();
}

#[tokio::test]
async fn a_run_can_be_queried_once_it_has_begun_and_is_listed_soon() {
    let dir = tempdir().unwrap();
    let recorder = start(dir.path(), RecorderConfig::default()).await;
    let run = recorder.open(head());
    durable(&run, run.begun()).await;
    let store = recorder.store().clone();
    assert_eq!(store.run(run.run()).await.unwrap().unwrap().state, RunState::Open);
    until("listed", async || !store.runs(&RunFilter::default(), None, 10).await.unwrap().runs.is_empty())
        .await;
    durable(&run, put(&run, [bins(0, 3)])).await;
    let page = store.runs(&RunFilter::default(), None, 10).await.unwrap();
    assert_eq!((page.runs[0].bins, page.runs[0].end_bin), (3, Some(3)));
    durable(&run, run.close(close(3))).await;
    assert_eq!(store.run(run.run()).await.unwrap().unwrap().state, RunState::Closed);
    recorder.stop(LIMIT).await.unwrap();
}

#[tokio::test]
async fn a_stop_keeps_everything_and_calls_open_runs_interrupted() {
    let dir = tempdir().unwrap();
    let recorder = start(dir.path(), RecorderConfig::default()).await;
    let (closed, open) = (recorder.open(head()), recorder.open(head()));
    put(&closed, [bins(0, 100), frame(0, 0, 100)]);
    closed.close(close(100));
    put(&open, [bins(0, 50)]);
    let store = recorder.store().clone();
    recorder.clone().stop(LIMIT).await.unwrap();
    recorder.stop(LIMIT).await.unwrap();
    assert_eq!(store.journal().bytes(), 0);
    let record = store.library().run(closed.run()).await.unwrap().unwrap();
    assert_eq!((record.state, record.bins), (RunState::Closed, 100));
    assert_eq!(record.summary.as_deref(), Some("{\"bins\":100}"));
    assert_eq!(closed.durable_seq(0), Some(0));
    let record = store.library().run(open.run()).await.unwrap().unwrap();
    assert_eq!((record.state, record.bins), (RunState::Interrupted, 50));
    assert!(open.reserve(1).is_none());
}

#[tokio::test]
async fn a_run_is_moved_when_64_kib_have_gathered_and_after_chunk_s() {
    let dir = tempdir().unwrap();
    let config = RecorderConfig { chunk: Duration::from_millis(300), ..Default::default() };
    let recorder = start(dir.path(), config).await;
    let store = recorder.store().clone();
    let (big, small) = (recorder.open(head()), recorder.open(head()));
    durable(&big, put(&big, [bins(0, 10_000)])).await;
    durable(&small, put(&small, [bins(0, 1)])).await;
    until("both in the library", async || store.journal().bytes() == 0).await;
    for (run, n) in [(&big, 10_000), (&small, 1)] {
        assert_eq!(store.library().run(run.run()).await.unwrap().unwrap().bins, n);
    }
    recorder.stop(LIMIT).await.unwrap();
}

#[tokio::test]
async fn a_slow_disk_refuses_room_names_the_bins_later_and_goes_on() {
    let dir = tempdir().unwrap();
    let config = RecorderConfig { queue_bytes: 20_000, ..Default::default() };
    let recorder = start(dir.path(), config).await;
    let store = recorder.store().clone();
    let run = recorder.open(head());
    durable(&run, put(&run, [bins(0, 10), frame(0, 0, 10)])).await;
    // Someone holds the file.
    let held = store.journal().file().hold().await;
    let mut next = 10;
    while let Some(room) = run.reserve(bins(next, 10).size_bytes()) {
        run.put(room, bins(next, 10));
        next += 10;
    }
    assert!(next > 20, "some fit into the queue");
    run.not_recorded(next, next + 10);
    run.not_recorded(next + 10, next + 20);
    assert!(recorder.shared.budget.taken_bytes() <= 20_000);
    assert_eq!((run.state(), run.durable_seq(0)), (Recording::On, Some(0)));
    drop(held);
    until("room again", async || run.reserve(bins(0, 10).size_bytes()).is_some()).await;
    let ticket = put(&run, [bins(next + 20, 5), frame(0, 9, next + 25)]);
    durable(&run, ticket).await;
    assert_eq!(run.durable_seq(0), Some(9));
    let want: Vec<u64> = (0..next).chain(next + 20..next + 25).collect();
    assert_eq!(bins_of(&store, run.run()).await, want);
    let named = events(&store, run.run(), EventKind::NotRecorded).await;
    assert_eq!(named, [(Some(next), Some(next + 20), 20)]);
    recorder.stop(LIMIT).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_stops_recording_and_the_run_says_so_once_there_is_space() {
    let dir = tempdir().unwrap();
    let recorder = start(dir.path(), RecorderConfig::default()).await;
    let store = recorder.store().clone();
    let (run, quiet) = (recorder.open(head()), recorder.open(head()));
    durable(&quiet, quiet.begun()).await;
    durable(&run, put(&run, [bins(0, 10), frame(0, 0, 10)])).await;
    until("moved", async || store.journal().bytes() == 0).await;
    store.journal().file().limit_growth(Some(2)).await;
    let ticket = put(&run, [bins(10, 5000), frame(0, 1, 5010)]);
    assert_eq!(run.durable(ticket).await, Err(NotDurable));
    assert_eq!((run.state(), run.durable_seq(0)), (Recording::Stopped, Some(0)));
    assert!(run.reserve(1).is_none());
    assert!(recorder.writing_fault().is_some());
    assert_eq!(recorder.shared.budget.taken_bytes(), 0);
    run.not_recorded(5010, 5020);
    run.close(close(5010));
    // A session that wrote nothing meanwhile goes on.
    assert_eq!(quiet.state(), Recording::On);
    store.journal().file().limit_growth(None).await;
    until("told", async || store.run(run.run()).await.unwrap().unwrap().state == RunState::Closed).await;
    let record = store.run(run.run()).await.unwrap().unwrap();
    assert_eq!((record.recording, record.bins), (Recording::Stopped, 10));
    assert_eq!(events(&store, run.run(), EventKind::RecordingStopped).await, [(Some(10), None, 5000)]);
    assert_eq!(bins_of(&store, run.run()).await, (0..10).collect::<Vec<_>>());
    durable(&quiet, put(&quiet, [bins(0, 1)])).await;
    assert_eq!(recorder.writing_fault(), None);
    recorder.stop(LIMIT).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_at_the_stop_is_an_error_and_nothing_durable_is_lost() {
    let dir = tempdir().unwrap();
    let recorder = start(dir.path(), RecorderConfig::default()).await;
    let run = recorder.open(head());
    durable(&run, put(&run, [bins(0, 10)])).await;
    recorder.store().journal().file().limit_growth(Some(2)).await;
    put(&run, [bins(10, 5000)]);
    assert!(recorder.stop(LIMIT).await.is_err());
    let store = store_in(dir.path()).await;
    store.recover().await.unwrap();
    assert_eq!(bins_of(&store, run.run()).await, (0..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn bins_that_come_twice_are_kept_once_and_named() {
    let dir = tempdir().unwrap();
    let recorder = start(dir.path(), RecorderConfig::default()).await;
    let run = recorder.open(head());
    put(&run, [bins(0, 10), bins(5, 3), bins(10, 2)]);
    let store = recorder.store().clone();
    recorder.stop(LIMIT).await.unwrap();
    assert_eq!(bins_of(&store, run.run()).await, (0..12).collect::<Vec<_>>());
    assert_eq!(events(&store, run.run(), EventKind::NotRecorded).await, [(Some(5), Some(8), 3)]);
}

#[tokio::test]
async fn frames_keep_the_sessions_order_over_all_signals() {
    let dir = tempdir().unwrap();
    let recorder = start(dir.path(), RecorderConfig::default()).await;
    let run = recorder.open(head());
    let act = || Record::Act(relate("amp"));
    let silent =
        Record::Frame { signal: 0, seq: 1, arrived_ns: 0, bytes: bytes::Bytes::new(), bins_until: 0 };
    durable(&run, put(&run, [frame(0, 0, 0), act(), silent])).await;
    durable(
        &run,
        put(&run, [frame(1, 0, 0), frame(0, 2, 0), Record::Event(event(EventKind::Late, 1, 0)), act()]),
    )
    .await;
    let store = recorder.store().clone();
    for place in ["journal", "library"] {
        let mut intake = store.intake(run.run()).await.unwrap().unwrap();
        let mut found = Vec::new();
        while let Some(taking) = intake.next().await.unwrap() {
            found.push(match taking {
                Taking::Frame(signal, frame) => {
                    assert_eq!(frame.arrived_ns, 1_000 + frame.seq as i64);
                    (signal, frame.at, frame.seq)
                }
                Taking::Act(act) => {
                    assert_eq!(act, relate("amp"));
                    (9, 9, 9)
                }
            });
        }
        assert_eq!(found, [(0, 0, 0), (9, 9, 9), (1, 3, 0), (0, 4, 2), (9, 9, 9)], "{place}");
        store.move_runs(&[run.run()]).await.unwrap();
    }
    assert_eq!(run.durable_seq(0), Some(2));
    recorder.stop(LIMIT).await.unwrap();
}

/// What happens to some sessions, in any order.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// A session answers a frame with so many bins.
    Answer(usize, u32),
    /// It waits until all of it is durable.
    Durable(usize),
    Close(usize),
    Look(usize),
    Kill,
    Stop,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        12 => (0..3usize, 1u32..1500).prop_map(|(run, n)| Act::Answer(run, n)),
        3 => (0..3usize).prop_map(Act::Durable),
        1 => (0..3usize).prop_map(Act::Close),
        2 => (0..3usize).prop_map(Act::Look),
        1 => Just(Act::Kill),
        1 => Just(Act::Stop),
    ];
    prop::collection::vec(act, 1..50)
}

struct Session {
    run: RunRecorder,
    next_bin: u64,
    next_seq: u64,
    last: Ticket,
    is_closed: bool,
}

impl Session {
    fn open(recorder: &Recorder) -> Self {
        let run = recorder.open(head());
        let last = run.begun();
        Self { run, next_bin: 0, next_seq: 0, last, is_closed: false }
    }
}

/// After an end of the process: every bin at most once, in order, and at least what was durable.
async fn check_ended(store: &Store, sessions: &[Session], lost_nothing: bool) {
    for session in sessions {
        // One answer is one frame and its bins: frame `seq` closed the bins up to some end, kept with it.
        let durable = session.run.durable_seq(0);
        let Some(record) = store.run(session.run.run()).await.unwrap() else {
            assert!(durable.is_none() && !lost_nothing, "a durable run is gone");
            continue;
        };
        let found = bins_of(store, session.run.run()).await;
        assert_eq!(found, (0..found.len() as u64).collect::<Vec<_>>());
        let mut intake = store.intake(session.run.run()).await.unwrap().unwrap();
        let (mut kept, mut until_bin) = (0, 0);
        while let Some(taking) = intake.next().await.unwrap() {
            let Taking::Frame(0, frame) = taking else { panic!("{taking:?}") };
            assert_eq!(frame.seq, kept);
            (kept, until_bin) = (kept + 1, frame.bins_until);
        }
        assert!(kept >= durable.map_or(0, |seq| seq + 1), "a durable frame is gone");
        assert_eq!(found.len() as u64, until_bin, "bins of a kept answer");
        if lost_nothing {
            assert_eq!((until_bin, kept), (session.next_bin, session.next_seq));
        }
        assert_ne!(record.state, RunState::Open);
        if record.state == RunState::Closed {
            assert!(session.is_closed);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..Default::default() })]
    #[test]
    fn what_is_durable_is_there_once_whenever_the_process_ends(acts in acts()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempdir().unwrap();
            let config = RecorderConfig { commit: Duration::from_millis(2), ..Default::default() };
            let mut recorder = start(dir.path(), config).await;
            let mut sessions: Vec<Session> = (0..3).map(|_| Session::open(&recorder)).collect();
            for act in acts.into_iter().chain([Act::Stop]) {
                match act {
                    Act::Answer(i, n) => {
                        let session = &mut sessions[i];
                        if session.is_closed {
                            continue;
                        }
                        let until_bin = session.next_bin + u64::from(n);
                        let records = [bins(session.next_bin, n), frame(0, session.next_seq, until_bin)];
                        session.last = put(&session.run, records);
                        (session.next_bin, session.next_seq) = (until_bin, session.next_seq + 1);
                    }
                    Act::Durable(i) => {
                        let session = &sessions[i];
                        durable(&session.run, session.last).await;
                        assert_eq!(session.run.durable_seq(0), session.next_seq.checked_sub(1));
                        assert_eq!(bins_of(recorder.store(), session.run.run()).await.len() as u64, session.next_bin);
                    }
                    Act::Close(i) => {
                        let session = &mut sessions[i];
                        if !session.is_closed {
                            session.last = session.run.close(close(session.next_bin));
                            session.is_closed = true;
                        }
                    }
                    Act::Look(i) => {
                        let run = sessions[i].run.run();
                        if recorder.store().run(run).await.unwrap().is_some() {
                            let found = bins_of(recorder.store(), run).await;
                            assert_eq!(found, (0..found.len() as u64).collect::<Vec<_>>());
                        }
                    }
                    Act::Kill | Act::Stop => {
                        let is_stop = matches!(act, Act::Stop);
                        if is_stop {
                            recorder.stop(LIMIT).await.unwrap();
                        } else {
                            recorder.kill().await;
                        }
                        recorder = start(dir.path(), config).await;
                        check_ended(recorder.store(), &sessions, is_stop).await;
                        assert_eq!(recorder.store().journal().bytes(), 0);
                        sessions = (0..3).map(|_| Session::open(&recorder)).collect();
                    }
                }
            }
        });
    }
}
