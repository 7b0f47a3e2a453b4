//! One recorded session: what waits to be committed, and how far it is durable.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::Shared;
use super::room::Room;
use crate::domain::ids::RunId;
use crate::domain::output::{EventKind, Notice};
use crate::store::record::Record;
use crate::store::run::{Close, Recording, RunHead};

/// Stretches of refused bins that are named one by one; more are named as one.
const RANGES: usize = 64;
/// Committed frames that may wait for their bins. A session has at most `window` of them for each signal.
const FRAMES_WAITING: usize = 4096;

/// Place of a record among all that were put for its run; from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// Recording stopped before the record was on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("recording stopped before this was on the disk")]
pub struct NotDurable;

/// Records one session. Cheap to clone; `Send + Sync`.
#[derive(Clone)]
pub struct RunRecorder {
    shared: Arc<Shared>,
    run: Arc<RunShared>,
}

pub(super) struct RunShared {
    pub(super) run: RunId,
    queue: Mutex<Queue>,
    /// By signal: one past the last durable `seq`; 0: none.
    durable: Box<[AtomicU64]>,
    progress: watch::Sender<Progress>,
    /// What the writer knows of the run; nobody else takes this lock.
    pub(super) written: Mutex<Written>,
}

/// What waits for the writer.
struct Queue {
    records: Vec<Record>,
    room: Option<Room>,
    /// Records put so far.
    put: u64,
    /// Bins that found no room, not yet named in the run.
    refused: Vec<Refused>,
    /// One past the last bin that was put.
    next_bin: u64,
    /// It stands in the list of those to be committed.
    is_dirty: bool,
    is_closed: bool,
    is_stopped: bool,
}

struct Refused {
    from_bin: u64,
    to_bin: u64,
    count: u64,
    t_ns: i64,
}

#[derive(Clone, Copy, Default)]
struct Progress {
    committed: u64,
    is_stopped: bool,
}

/// What the writer took from a run's queue.
pub(super) struct Waiting {
    pub(super) records: Vec<Record>,
    /// Given back when it is committed, or given up.
    pub(super) _room: Option<Room>,
    put: u64,
}

/// How far the writer is with a run.
pub(super) struct Written {
    /// Number of the next frame or step in the run's order.
    pub(super) next_at: u64,
    /// Before it every bin is committed, or named as not recorded.
    pub(super) until_bin: u64,
    /// By signal: committed frames whose bins are not committed yet, as `(seq, bins_until)`.
    frames: Vec<VecDeque<(u64, u64)>>,
}

impl RunRecorder {
    pub(super) fn new(shared: Arc<Shared>, head: RunHead) -> Self {
        let signals = head.signals.len();
        let run = Arc::new(RunShared {
            run: head.run,
            queue: Mutex::new(Queue {
                records: Vec::new(),
                room: None,
                put: 0,
                refused: Vec::new(),
                next_bin: head.first_bin,
                is_dirty: false,
                is_closed: false,
                is_stopped: false,
            }),
            durable: (0..signals).map(|_| AtomicU64::new(0)).collect(),
            progress: watch::Sender::new(Progress::default()),
            written: Mutex::new(Written {
                next_at: 0,
                until_bin: head.first_bin,
                frames: vec![VecDeque::new(); signals],
            }),
        });
        let recorder = Self { shared, run };
        // Without room: one per open session, and those are bounded.
        recorder.queue(None, [Record::Head(Box::new(head))]);
        recorder
    }

    /// The run.
    pub fn run(&self) -> RunId {
        self.run.run
    }

    /// The ticket of the run's beginning: once it is durable, the run can be queried.
    pub fn begun(&self) -> Ticket {
        Ticket(1)
    }

    /// Takes room for one answer's records before the answer leaves. `bytes`: the sum of `Record::size_bytes`.
    /// `None`: the queue is full (slow disk) or recording is over; the session flags the bins `not_recorded` and,
    /// if it was the queue, names them by `not_recorded`.
    pub fn reserve(&self, bytes: usize) -> Option<Room> {
        if self.state() == Recording::Stopped {
            return None;
        }
        self.shared.budget.take(bytes)
    }

    /// Records one thing. Never waits.
    pub fn put(&self, room: Room, record: Record) -> Ticket {
        self.queue(Some(room), [record])
    }

    /// Records what belongs together: all of it is committed at once. The ticket is the last one's. Never waits.
    pub fn put_all(&self, room: Room, records: impl IntoIterator<Item = Record>) -> Ticket {
        self.queue(Some(room), records)
    }

    /// Bins `from_bin .. to_bin` were answered with the flag `not_recorded`. The run gets an event with the range as
    /// soon as the disk takes something again.
    pub fn not_recorded(&self, from_bin: u64, to_bin: u64) {
        let mut queue = self.run.queue.lock();
        if queue.is_stopped || queue.is_closed || from_bin >= to_bin {
            return;
        }
        let is_full = queue.refused.len() >= RANGES;
        match queue.refused.last_mut() {
            Some(last) if last.to_bin == from_bin || is_full => {
                last.to_bin = last.to_bin.max(to_bin);
                last.count += to_bin - from_bin;
            }
            _ => {
                let t_ns = (self.shared.now_ns)();
                queue.refused.push(Refused { from_bin, to_bin, count: to_bin - from_bin, t_ns });
            }
        }
        queue.next_bin = queue.next_bin.max(to_bin);
        self.wake_writer(&mut queue);
    }

    /// Up to which `seq` of a signal frames and results survive `kill -9`; `None`: none yet. `signal`: index in the
    /// head's `signals`.
    pub fn durable_seq(&self, signal: usize) -> Option<u64> {
        self.run.durable.get(signal)?.load(Ordering::Acquire).checked_sub(1)
    }

    /// Waits until what was put up to this ticket is on the disk.
    /// Cancel-safe: nothing is lost when the future is dropped.
    pub async fn durable(&self, ticket: Ticket) -> Result<(), NotDurable> {
        let mut progress = self.run.progress.subscribe();
        let seen = progress.wait_for(|now| now.committed >= ticket.0 || now.is_stopped).await;
        match seen {
            Ok(now) if now.committed >= ticket.0 => Ok(()),
            _ => Err(NotDurable),
        }
    }

    /// Whether what is put is still being recorded.
    pub fn state(&self) -> Recording {
        if self.run.progress.borrow().is_stopped { Recording::Stopped } else { Recording::On }
    }

    /// Ends the run. Nothing may be put after it. The ticket tells when the end is on the disk.
    pub fn close(&self, close: Close) -> Ticket {
        let ticket = self.queue(None, [Record::Close(close)]);
        self.run.queue.lock().is_closed = true;
        ticket
    }

    fn queue(&self, room: Option<Room>, records: impl IntoIterator<Item = Record>) -> Ticket {
        let mut queue = self.run.queue.lock();
        let start = queue.records.len();
        for record in records {
            if queue.is_closed {
                tracing::error!(run.id = %self.run.run, "something was put to a run that is closed");
                break;
            }
            queue.put += 1;
            // A run whose recording stopped still gets its end.
            if !queue.is_stopped || matches!(record, Record::Close(_)) {
                let record = queue.in_order(self.run.run, record, &self.shared);
                queue.records.push(record);
            }
        }
        if let (Some(mut room), false) = (room, queue.is_stopped || queue.is_closed) {
            room.grow_to(queue.records[start..].iter().map(Record::size_bytes).sum());
            match &mut queue.room {
                Some(all) => all.join(room),
                none => *none = Some(room),
            }
        }
        self.wake_writer(&mut queue);
        Ticket(queue.put)
    }

    fn wake_writer(&self, queue: &mut Queue) {
        let has_work = !queue.records.is_empty() || !queue.refused.is_empty();
        if has_work && !queue.is_dirty {
            queue.is_dirty = true;
            self.shared.dirty.lock().push(self.run.clone());
            self.shared.wake.notify_one();
        }
    }
}

impl Queue {
    /// Bins come once and upwards; the library could not tell two values of one bin apart. Others are a mistake of
    /// the session's, which the run names.
    fn in_order(&mut self, run: RunId, record: Record, shared: &Shared) -> Record {
        let Record::Bins { first_bin, n, .. } = record else { return record };
        let to_bin = first_bin.saturating_add(u64::from(n));
        if n > 0 && first_bin >= self.next_bin {
            self.next_bin = to_bin;
            return record;
        }
        tracing::error!(run.id = %run, bin.index = first_bin, bins = n, "bins came twice to the recorder");
        Record::Event(not_recorded(
            first_bin,
            to_bin,
            u64::from(n),
            "these bins came twice",
            (shared.now_ns)(),
        ))
    }
}

fn not_recorded(from_bin: u64, to_bin: u64, count: u64, detail: &str, t_ns: i64) -> Notice {
    Notice {
        kind: EventKind::NotRecorded,
        signal: None,
        from_bin: Some(from_bin),
        to_bin: Some(to_bin),
        count,
        detail: detail.into(),
        t_ns,
    }
}

impl RunShared {
    /// What waits, with the refused bins named first. The next `put` puts the run on the list again.
    pub(super) fn take(&self) -> Waiting {
        let mut queue = self.queue.lock();
        queue.is_dirty = false;
        let mut records = std::mem::take(&mut queue.records);
        if !queue.refused.is_empty() {
            let names = queue.refused.drain(..).map(|refused| {
                let Refused { from_bin, to_bin, count, t_ns } = refused;
                let detail = "the recorder's queue was full";
                Record::Event(not_recorded(from_bin, to_bin, count, detail, t_ns))
            });
            let names: Vec<Record> = names.collect();
            records.splice(0..0, names);
        }
        Waiting { records, _room: queue.room.take(), put: queue.put }
    }

    /// These records are on the disk.
    pub(super) fn committed(&self, waiting: &Waiting) {
        {
            let mut written = self.written.lock();
            waiting.records.iter().for_each(|record| written.take(record));
            for (signal, seq) in written.durable_frames() {
                durable_up_to(&self.durable, signal, seq);
            }
        }
        self.progress.send_modify(|now| now.committed = now.committed.max(waiting.put));
    }

    /// Nothing more of this run is recorded; what waits is given up, except its end.
    pub(super) fn stop(&self) {
        let mut queue = self.queue.lock();
        queue.is_stopped = true;
        queue.records.retain(|record| matches!(record, Record::Close(_)));
        queue.refused.clear();
        queue.room = None;
        drop(queue);
        self.progress.send_modify(|now| now.is_stopped = true);
    }
}

fn durable_up_to(durable: &[AtomicU64], signal: usize, seq: u64) {
    if let Some(mark) = durable.get(signal) {
        mark.store(seq.saturating_add(1), Ordering::Release);
    }
}

impl Written {
    fn take(&mut self, record: &Record) {
        match record {
            Record::Bins { first_bin, n, .. } => {
                self.until_bin = self.until_bin.max(first_bin.saturating_add(u64::from(*n)));
            }
            Record::Skipped { to_bin, .. } => self.until_bin = self.until_bin.max(*to_bin),
            Record::Event(Notice { kind: EventKind::NotRecorded, to_bin: Some(to_bin), .. }) => {
                self.until_bin = self.until_bin.max(*to_bin);
            }
            Record::Frame { signal, seq, bins_until, .. } => {
                if let Some(frames) = self.frames.get_mut(*signal) {
                    frames.push_back((*seq, *bins_until));
                    if frames.len() > FRAMES_WAITING {
                        frames.pop_front();
                    }
                }
            }
            _ => {}
        }
    }

    /// By signal, the last `seq` that has become durable.
    fn durable_frames(&mut self) -> Vec<(usize, u64)> {
        let until_bin = self.until_bin;
        let mut durable = Vec::new();
        for (signal, frames) in self.frames.iter_mut().enumerate() {
            let mut last = None;
            while let Some(&(seq, _)) = frames.front().filter(|(_, bins_until)| *bins_until <= until_bin) {
                last = Some(seq);
                frames.pop_front();
            }
            durable.extend(last.map(|seq| (signal, seq)));
        }
        durable
    }
}
