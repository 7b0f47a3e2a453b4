//! What every library must hold, as tests that run on each of them.

use super::{Library, Taken};
use crate::domain::caller::Scopes;
use crate::domain::ids::{Digest, KeyId, RunId};
use crate::domain::output::EventKind;
use crate::store::codec;
use crate::store::extent::{Track, bins_per_chunk};
use crate::store::journal::Row;
use crate::store::key::KeyRecord;
use crate::store::pack;
use crate::store::record::{Annotation, Record, Since};
use crate::store::run::{Close, Owner, Recording, RunEdit, RunFilter, RunHead, RunState};
use crate::store::testing::{bins, event, frame, head, relate};
use crate::store::transfer::Transfer;

/// A library under test, which can be left and opened again.
pub trait Bench: Sized {
    /// An empty one.
    async fn fresh() -> Self;
    /// The library.
    fn library(&self) -> &dyn Library;
    /// The same one, opened anew.
    async fn reopen(self) -> Self;
}

/// Runs every test of the contract on a `Bench`.
macro_rules! library_contract {
    ($name:ident, $bench:ty) => {
        library_contract!(@ $name, $bench,
            write_twice_is_once,
            a_transfer_that_does_not_follow_on_the_mark_is_refused_whole,
            what_was_begun_comes_back_whole_after_a_reopen,
            a_gap_is_a_border_between_extents,
            a_full_chunk_is_one_row_and_a_closed_run_has_one_row_per_chunk,
            pages_of_runs_are_newest_first_and_complete,
            runs_are_found_by_each_filter,
            events_are_merged_across_transfers,
            frames_come_pack_by_pack,
            an_open_run_of_an_earlier_start_is_interrupted,
            a_deleted_run_is_gone_and_takes_no_more,
            a_failed_transfer_leaves_nothing_of_its_neighbours,
            any_text_comes_back_and_is_found,
            a_name_is_one_key_s_as_long_as_that_holds,
        );
    };
    (@ $name:ident, $bench:ty, $($test:ident),+ $(,)?) => {
        mod $name {
            $(
                #[tokio::test]
                async fn $test() {
                    $crate::store::library::contract::$test::<$bench>().await;
                }
            )+
        }
    };
}
pub(crate) use library_contract;

/// A transfer of one row.
fn transfer(head: &RunHead, from: i64, to: i64, records: &[Record]) -> (RunId, Transfer) {
    let row =
        Row { ord: to, committed_ns: to * 1000, records: codec::encode(to as u64 * 100, records).into() };
    (head.run, Transfer::of(head.run, from, &[row]))
}

fn begun(head: &RunHead) -> Record {
    Record::Head(Box::new(head.clone()))
}

async fn take(library: &dyn Library, transfers: &[(RunId, Transfer)]) -> Vec<Taken> {
    library.take(transfers).await.unwrap()
}

/// All `(first_bin, n)` of a track.
async fn extents(library: &dyn Library, run: RunId, track: i32) -> Vec<(u64, u32)> {
    let found = library.extents(run, Track(track), 0, u64::MAX).await.unwrap();
    found.iter().map(|extent| (extent.first_bin, extent.n)).collect()
}

pub async fn write_twice_is_once<B: Bench>() {
    let (bench, head) = (B::fresh().await, head());
    let sums = [transfer(&head, 0, 4, &[begun(&head), bins(0, 10)])];
    assert_eq!(take(bench.library(), &sums).await, [Taken::Now]);
    assert_eq!(take(bench.library(), &sums).await, [Taken::Already { moved_to: 4 }]);
    let run = bench.library().run(head.run).await.unwrap().unwrap();
    assert_eq!((run.bins, run.moved_to), (10, 4));
    assert_eq!(extents(bench.library(), head.run, -1).await, [(0, 10)]);
}

pub async fn a_transfer_that_does_not_follow_on_the_mark_is_refused_whole<B: Bench>() {
    let (bench, head) = (B::fresh().await, head());
    take(bench.library(), &[transfer(&head, 0, 4, &[begun(&head), bins(0, 10)])]).await;
    let taken = take(bench.library(), &[transfer(&head, 3, 5, &[bins(10, 5)])]).await;
    assert_eq!(taken, [Taken::Already { moved_to: 4 }]);
    assert_eq!(extents(bench.library(), head.run, 0).await, [(0, 10)]);
    assert_eq!(bench.library().mark(head.run).await.unwrap(), Some(4));
}

pub async fn what_was_begun_comes_back_whole_after_a_reopen<B: Bench>() {
    let (bench, head) = (B::fresh().await, head());
    let since = Since { from_bin: 6, body: "{\"version\":3}".into() };
    let annotation = Annotation { label: "rest".into(), from_bin: 1, to_bin: 4, body: "[1]".into() };
    let first = transfer(&head, 0, 1, &[begun(&head), bins(5, 3), Record::Segment(since.clone())]);
    let close = Close { ended_ns: 99, summary: "{\"bins\":3}".into() };
    let records = [
        Record::T0 { t0_ns: -3 },
        Record::Setting(since.clone()),
        Record::Skipped { from_bin: 8, to_bin: 20 },
        Record::Annotation(annotation.clone()),
        Record::Stopped,
        Record::Close(close),
    ];
    take(bench.library(), &[first, transfer(&head, 1, 2, &records)]).await;
    let bench = bench.reopen().await;
    let run = bench.library().run(head.run).await.unwrap().unwrap();
    assert_eq!(run.head, RunHead { t0_ns: Some(-3), ..head.clone() });
    assert_eq!((run.state, run.recording), (RunState::Closed, Recording::Stopped));
    assert_eq!((run.first_bin, run.end_bin, run.bins, run.skipped_bins), (Some(5), Some(8), 3, 12));
    assert_eq!((run.t0_ns, run.last_ns, run.ended_ns), (Some(-3), head.started_ns, Some(99)));
    assert_eq!(run.summary.as_deref(), Some("{\"bins\":3}"));
    assert_eq!((run.segments, run.settings), (vec![since.clone()], vec![since]));
    let (mark, annotations) = bench.library().annotations(head.run).await.unwrap().unwrap();
    assert_eq!((mark, annotations), (2, vec![annotation]));
}

pub async fn a_gap_is_a_border_between_extents<B: Bench>() {
    let (bench, head) = (B::fresh().await, head());
    let first = transfer(&head, 0, 1, &[begun(&head), bins(0, 10), bins(10, 2), bins(15, 5)]);
    let second =
        transfer(&head, 1, 2, &[bins(20, 5), Record::Close(Close { ended_ns: 1, summary: String::new() })]);
    take(bench.library(), &[first, second]).await;
    for track in [-1, 0, 1] {
        assert_eq!(extents(bench.library(), head.run, track).await, [(0, 12), (15, 10)]);
    }
}

pub async fn a_full_chunk_is_one_row_and_a_closed_run_has_one_row_per_chunk<B: Bench>() {
    let (bench, head) = (B::fresh().await, head());
    let width = bins_per_chunk(12);
    let step = 1000;
    let steps = (2 * width) / u64::from(step) + 1;
    take(bench.library(), &[transfer(&head, 0, 1, &[begun(&head)])]).await;
    for i in 0..steps {
        let records = [bins(i * u64::from(step), step)];
        take(bench.library(), &[transfer(&head, i as i64 + 1, i as i64 + 2, &records)]).await;
    }
    let bins_in_all = steps * u64::from(step);
    let found = extents(bench.library(), head.run, 0).await;
    assert_eq!(found[..2], [(0, width as u32), (width, width as u32)]);
    assert_eq!(found.iter().map(|(_, n)| u64::from(*n)).sum::<u64>(), bins_in_all);
    let close = Record::Close(Close { ended_ns: 1, summary: String::new() });
    let at = steps as i64 + 1;
    take(bench.library(), &[transfer(&head, at, at + 1, &[close])]).await;
    let last = (bins_in_all - 2 * width) as u32;
    assert_eq!(
        extents(bench.library(), head.run, 0).await,
        [(0, width as u32), (width, width as u32), (2 * width, last)]
    );
    assert_eq!(bench.library().next_chunk(head.run, Track(0), 1).await.unwrap(), Some(1));
    assert_eq!(bench.library().next_chunk(head.run, Track(0), 3).await.unwrap(), None);
}

pub async fn pages_of_runs_are_newest_first_and_complete<B: Bench>() {
    let bench = B::fresh().await;
    let mut want = Vec::new();
    for _ in 0..7 {
        let head = head();
        take(bench.library(), &[transfer(&head, 0, 1, &[begun(&head)])]).await;
        want.insert(0, head.run);
    }
    for limit in [1, 2, 7, 50] {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = bench.library().runs(&RunFilter::default(), after, limit).await.unwrap();
            assert!(page.runs.len() <= limit as usize);
            found.extend(page.runs.iter().map(|run| run.head.run));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found, want, "pages of {limit}");
    }
}

pub async fn runs_are_found_by_each_filter<B: Bench>() {
    let bench = B::fresh().await;
    let plain = head();
    let mut other = RunHead { rig: "rig-2".into(), pipeline: "song".into(), started_ns: 5, ..head() };
    other.tags = vec!["a\"b".into(), "x".into()];
    other.pinned[0].model = "song-encoder".into();
    let close = Record::Close(Close { ended_ns: 1, summary: String::new() });
    take(bench.library(), &[transfer(&plain, 0, 1, &[begun(&plain)])]).await;
    take(bench.library(), &[transfer(&other, 0, 2, &[begun(&other), close])]).await;
    let text = |text: &str| Some(text.to_owned());
    let filters = [
        RunFilter { rig: text("rig-2"), ..Default::default() },
        RunFilter { pipeline: text("song"), ..Default::default() },
        RunFilter { model: text("song-encoder"), ..Default::default() },
        RunFilter { tag: text("a\"b"), ..Default::default() },
        RunFilter { state: Some(RunState::Closed), ..Default::default() },
        RunFilter { to_ns: Some(6), ..Default::default() },
    ];
    for filter in filters {
        let page = bench.library().runs(&filter, None, 10).await.unwrap();
        let found: Vec<RunId> = page.runs.iter().map(|run| run.head.run).collect();
        assert_eq!(found, [other.run], "{filter:?}");
    }
    let edit = RunEdit { tags: Some(vec!["new".into()]), notes: None };
    assert!(bench.library().edit(plain.run, &edit).await.unwrap());
    assert!(!bench.library().edit(RunId::new(), &edit).await.unwrap());
    let filter = RunFilter { tag: text("new"), from_ns: Some(6), ..Default::default() };
    let page = bench.library().runs(&filter, None, 10).await.unwrap();
    assert_eq!(page.runs[0].head, RunHead { tags: vec!["new".into()], ..plain });
}

pub async fn events_are_merged_across_transfers<B: Bench>() {
    let (bench, head) = (B::fresh().await, head());
    let records = |seconds: &[i64]| -> Vec<Record> {
        seconds.iter().map(|&t_s| Record::Event(event(EventKind::Late, t_s, t_s as u64))).collect()
    };
    take(bench.library(), &[transfer(&head, 0, 1, &[begun(&head)])]).await;
    take(bench.library(), &[transfer(&head, 1, 2, &records(&[1, 5]))]).await;
    take(bench.library(), &[transfer(&head, 2, 3, &records(&[9, 12, 13]))]).await;
    let bench = bench.reopen().await;
    let (mark, events) = bench.library().events(head.run).await.unwrap().unwrap();
    let brief: Vec<_> = events.iter().map(|e| (e.from_bin, e.to_bin, e.count, e.detail.as_str())).collect();
    assert_eq!(
        brief,
        [
            (Some(1), Some(10), 3, "at 1 s; the last: at 9 s"),
            (Some(12), Some(14), 2, "at 12 s; the last: at 13 s"),
        ]
    );
    assert_eq!(mark, 3);
    assert_eq!(bench.library().events(RunId::new()).await.unwrap(), None);
}

pub async fn frames_come_pack_by_pack<B: Bench>() {
    let (bench, head) = (B::fresh().await, head());
    let act = Record::Act(relate("amp"));
    let first = transfer(&head, 0, 1, &[begun(&head), frame(0, 0, 1), frame(1, 0, 1), frame(0, 1, 2)]);
    let second = transfer(&head, 1, 2, &[act, frame(0, 2, 3)]);
    take(bench.library(), &[first, second]).await;
    let (mut after, mut found) = (None, Vec::new());
    while let Some(mut pack) = bench.library().frames(head.run, Track(0), after).await.unwrap() {
        while let Some(frame) = pack::unpack_frame(&mut pack.bytes).unwrap() {
            assert_eq!(frame.bytes, format!("frame 0/{}", frame.seq));
            assert_eq!(frame.arrived_ns, 1_000 + frame.seq as i64);
            found.push((frame.at, frame.seq, frame.bins_until));
            after = Some(frame.at);
        }
    }
    assert_eq!(found, [(100, 0, 1), (102, 1, 2), (201, 2, 3)]);
    let mut acts = bench.library().frames(head.run, Track::OWN, None).await.unwrap().unwrap();
    assert_eq!((acts.first_at, acts.n), (200, 1));
    let act = pack::unpack_frame(&mut acts.bytes).unwrap().unwrap();
    assert_eq!(codec::act(act.bytes).unwrap(), relate("amp"));
}

pub async fn an_open_run_of_an_earlier_start_is_interrupted<B: Bench>() {
    let bench = B::fresh().await;
    let owner = |journal: &str, boot| Owner { journal: journal.into(), boot };
    let old = RunHead { owner: owner("mine", 3), ..head() };
    let new = RunHead { owner: owner("mine", 4), ..head() };
    let foreign = RunHead { owner: owner("yours", 3), ..head() };
    for head in [&old, &new, &foreign] {
        take(bench.library(), &[transfer(head, 0, 1, &[begun(head)])]).await;
    }
    assert_eq!(bench.library().interrupt(&owner("mine", 4)).await.unwrap(), 1);
    assert_eq!(bench.library().interrupt(&owner("mine", 4)).await.unwrap(), 0);
    let run = bench.library().run(old.run).await.unwrap().unwrap();
    assert_eq!((run.state, run.ended_ns), (RunState::Interrupted, Some(run.last_ns)));
    for head in [&new, &foreign] {
        assert_eq!(bench.library().run(head.run).await.unwrap().unwrap().state, RunState::Open);
    }
}

pub async fn a_deleted_run_is_gone_and_takes_no_more<B: Bench>() {
    let (bench, head) = (B::fresh().await, head());
    take(bench.library(), &[transfer(&head, 0, 1, &[begun(&head), bins(0, 3), frame(0, 0, 3)])]).await;
    assert!(bench.library().delete(head.run).await.unwrap());
    assert!(!bench.library().delete(head.run).await.unwrap());
    assert_eq!(extents(bench.library(), head.run, 0).await, []);
    assert_eq!(take(bench.library(), &[transfer(&head, 1, 2, &[bins(3, 3)])]).await, [Taken::NoRun]);
    assert_eq!(bench.library().run(head.run).await.unwrap(), None);
}

pub async fn a_failed_transfer_leaves_nothing_of_its_neighbours<B: Bench>() {
    let (bench, good, bad) = (B::fresh().await, head(), head());
    // The same bins twice cannot be kept twice.
    let twice = transfer(&bad, 0, 2, &[begun(&bad), bins(0, 3), bins(0, 3)]);
    let sums = [transfer(&good, 0, 1, &[begun(&good), bins(0, 3)]), twice];
    assert!(bench.library().take(&sums).await.is_err());
    assert_eq!(bench.library().run(good.run).await.unwrap(), None);
    assert_eq!(take(bench.library(), &sums[..1]).await, [Taken::Now]);
}

pub async fn any_text_comes_back_and_is_found<B: Bench>() {
    let bench = B::fresh().await;
    let odd = "a\0b'\"\\\u{FFFE}0µ\n,";
    let plain = head();
    let mut head = RunHead { rig: odd.into(), notes: odd.into(), engine: odd.into(), ..head() };
    head.tags = vec!["x\",\"y".into(), odd.into(), String::new()];
    let since = Since { from_bin: 1, body: serde_json::json!({ "k": odd }).to_string() };
    let annotation = Annotation { label: odd.into(), from_bin: 1, to_bin: 4, body: odd.into() };
    let mut notice = event(EventKind::Late, 1, 1);
    (notice.signal, notice.detail) = (Some(odd.into()), odd.into());
    let close = Close { ended_ns: 1, summary: odd.into() };
    let records = [
        begun(&head),
        Record::Setting(since.clone()),
        Record::Annotation(annotation.clone()),
        Record::Event(notice.clone()),
    ];
    take(bench.library(), &[transfer(&plain, 0, 1, &[begun(&plain)])]).await;
    take(bench.library(), &[transfer(&head, 0, 1, &records)]).await;
    take(bench.library(), &[transfer(&head, 1, 2, &[Record::Event(notice), Record::Close(close)])]).await;
    let run = bench.library().run(head.run).await.unwrap().unwrap();
    assert_eq!((run.summary.as_deref(), run.settings), (Some(odd), vec![since]));
    assert_eq!(run.head, head);
    let (_, annotations) = bench.library().annotations(head.run).await.unwrap().unwrap();
    assert_eq!(annotations, [annotation]);
    let (_, events) = bench.library().events(head.run).await.unwrap().unwrap();
    assert_eq!((events.len(), events[0].count, events[0].detail.as_str()), (1, 2, odd));
    assert_eq!(events[0].signal, Some(odd.into()));
    let text = |text: &str| Some(text.to_owned());
    for (filter, is_found) in [
        (RunFilter { rig: text(odd), ..Default::default() }, true),
        (RunFilter { tag: text(odd), ..Default::default() }, true),
        (RunFilter { tag: text("x\",\"y"), ..Default::default() }, true),
        (RunFilter { tag: text(""), ..Default::default() }, true),
        (RunFilter { tag: text(","), ..Default::default() }, false),
        (RunFilter { rig: text("\0"), ..Default::default() }, false),
        (RunFilter { model: text("\0"), ..Default::default() }, false),
    ] {
        let page = bench.library().runs(&filter, None, 10).await.unwrap();
        let found: Vec<RunId> = page.runs.iter().map(|run| run.head.run).collect();
        assert_eq!(found, if is_found { vec![head.run] } else { vec![] }, "{filter:?}");
    }
}

pub async fn a_name_is_one_key_s_as_long_as_that_holds<B: Bench>() {
    let bench = B::fresh().await;
    assert_eq!(bench.library().keys().await.unwrap(), []);
    let key = |byte| KeyRecord {
        id: KeyId::new(),
        name: "rig-3".into(),
        scopes: Scopes::parse("stream,read").unwrap(),
        digest: Digest([byte; 32]),
        created_ns: 1_700_000_000_000_000_000,
        revoked_ns: None,
    };
    let (first, second) = (key(1), key(0xff));
    assert!(bench.library().add_key(&first).await.unwrap());
    assert!(!bench.library().add_key(&second).await.unwrap(), "the name is taken");
    assert!(!bench.library().revoke_key(second.id, 5).await.unwrap(), "it was not added");
    assert!(bench.library().revoke_key(first.id, 5).await.unwrap());
    assert!(!bench.library().revoke_key(first.id, 6).await.unwrap(), "it holds no more");
    assert!(bench.library().add_key(&second).await.unwrap(), "the name is free again");
    let bench = bench.reopen().await;
    let first = KeyRecord { revoked_ns: Some(5), ..first };
    assert_eq!(bench.library().keys().await.unwrap(), [first, second]);
}
