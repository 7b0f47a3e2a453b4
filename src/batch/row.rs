//! What is run, and for whom: rows, the ports they fill, and the owners that are told.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::hand;
use super::lane::Lane;
use super::place::Place;
use crate::domain::tensor::{Dtype, Tensor};

/// Rows of a padded batch on a `deterministic` lane.
pub const PADDED_ROWS: usize = 8;

/// A tensor of a row as the lane sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name in the graph.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Lengths of the axes of one row, without the batch axis.
    pub row_shape: Vec<usize>,
    /// Where the batch axis stands in the graph's tensor; `None`: one value for the whole batch, rows share a batch
    /// only when it is equal. At most `row_shape.len()`; a larger one is taken as that.
    pub batch_axis: Option<usize>,
}

/// What a lane runs, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneSpec {
    /// `model/version`, for messages and metrics.
    pub name: String,
    /// Inputs in the order of the graph's signature.
    pub inputs: Vec<Port>,
    /// Outputs in the order of the graph's signature.
    pub outputs: Vec<Port>,
    /// Most rows of one run; 0 is taken as 1.
    pub max_batch: usize,
    /// Runs are padded to `PADDED_ROWS` rows (or `max_batch`, if that is less) by repeating the last row. Leave it
    /// false for a model that was measured batch invariant: there it costs and gives nothing.
    pub deterministic: bool,
    /// A run longer than this is interrupted; one twice as long is abandoned.
    pub run_limit: Duration,
}

impl LaneSpec {
    /// Most rows that one run takes.
    pub(super) fn claim_rows(&self) -> usize {
        let most = self.max_batch.max(1);
        if self.deterministic { most.min(PADDED_ROWS) } else { most }
    }

    /// Rows of the batch in which `rows` rows are run.
    pub(super) fn batch_rows(&self, rows: usize) -> usize {
        if self.deterministic { self.claim_rows() } else { rows }
    }
}

/// One row: its tensors, and when it is due. Box and tensors are its owner's, to be used again bin after bin.
#[derive(Debug)]
pub struct Row {
    /// Input tensors in port order, each of its port's `row_shape`.
    pub inputs: Vec<Tensor>,
    /// Output tensors in port order; written by the run, their buffers are reused.
    pub outputs: Vec<Tensor>,
    /// By when it should be answered: the earliest due is run first.
    pub due: Instant,
    place: Option<Place>,
}

impl Row {
    /// A row with these inputs; the outputs grow with the first run.
    pub fn new(inputs: Vec<Tensor>, due: Instant) -> Self {
        Self { inputs, outputs: Vec::new(), due, place: None }
    }

    /// Lets the row hold the place by which it may queue, so that a caller who leaves cannot give it up too early.
    pub fn hold(&mut self, place: Place) {
        self.place = Some(place);
    }

    /// Takes the place out again.
    pub fn release(&mut self) -> Option<Place> {
        self.place.take()
    }

    /// Whether it holds a place for rows without a session.
    pub(super) fn is_of_a_guest(&self) -> bool {
        self.place.as_ref().is_some_and(Place::is_of_a_guest)
    }
}

/// Who is told of a row's end.
pub trait Owner: Send + Sync {
    /// Called exactly once for each submitted row, on the thread that ran it (or that gave it up), never with a lane or
    /// pool lock held. May hand the row on to its next stage, or submit others; must not block. A panic in it is
    /// caught and logged, and the row is gone.
    fn finished(self: Arc<Self>, row: Box<Row>, outcome: Result<Ran, RowFault>) -> Option<Onward>;

    /// Rows whose owner has left are answered without being run. Asked before each run; must be cheap.
    fn is_gone(&self) -> bool {
        false
    }
}

/// A row handed on to its next lane, for the same owner.
pub struct Onward {
    /// Where it goes.
    pub lane: Arc<Lane>,
    /// The row, with the inputs of that lane.
    pub row: Box<Row>,
}

/// How a row was run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ran {
    /// From `submit` (or from being handed on) to the start of the run that answered it.
    pub queued: Duration,
    /// When that run began.
    pub started: Instant,
    /// Of the run, all rows together.
    pub compute: Duration,
    /// Rows that shared the run, padding not counted.
    pub rows: usize,
}

/// Why a row has no outputs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowFault {
    /// The run failed for this row alone; in the engine's words.
    #[error("run failed: {0}")]
    Run(String),
    /// The run went over its limit.
    #[error("run was ended at its time limit")]
    Limit,
    /// The instance is lost and could not be replaced in time.
    #[error("instance is lost: {0}")]
    Lost(String),
    /// The engine panicked on this row.
    #[error("the engine panicked")]
    Panicked,
    /// The owner had left before the row was run.
    #[error("the caller has left")]
    Gone,
    /// The pool stopped before the row was run.
    #[error("the server is stopping")]
    Stopped,
}

/// Why a row is to be run by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alone {
    /// The batch that it was in failed, panicked, or lost its instance.
    Failed,
    /// The batch that it was in went over the limit.
    Slow,
}

/// A row that waits or runs, and its owner. Answers even if it is dropped.
pub(super) struct Entry {
    row: Option<Box<Row>>,
    owner: Arc<dyn Owner>,
    due: Instant,
    /// Arrival in the lane, to keep rows of equal due in order.
    pub(super) order: u64,
    pub(super) t_queued: Instant,
    pub(super) alone: Option<Alone>,
}

impl Entry {
    pub(super) fn new(row: Box<Row>, owner: Arc<dyn Owner>, now: Instant) -> Self {
        let due = row.due;
        Self { row: Some(row), owner, due, order: 0, t_queued: now, alone: None }
    }

    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Whether nobody waits for it. An owner that panics here is taken as gone.
    pub(super) fn is_gone(&self) -> bool {
        let asked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.owner.is_gone()));
        asked.unwrap_or(true)
    }

    /// Tells the owner; what it hands on comes back as an entry for that lane.
    pub(super) fn answer(mut self, outcome: Result<Ran, RowFault>) -> Option<(Arc<Lane>, Entry)> {
        let row = self.row.take()?;
        let Onward { lane, row } = hand::finish(&self.owner, row, outcome)?;
        (self.due, self.alone, self.t_queued) = (row.due, None, Instant::now());
        self.row = Some(row);
        Some((lane, self))
    }
}

impl Drop for Entry {
    /// The last resort, for a fault of this room: no row is lost in silence.
    fn drop(&mut self) {
        if let Some(row) = self.row.take() {
            let lost = RowFault::Lost("the row was dropped by a fault of the lane".into());
            if let Some(Onward { lane, row }) = hand::finish(&self.owner, row, Err(lost)) {
                lane.submit(row, Arc::clone(&self.owner), false);
            }
        }
    }
}

impl AsRef<Row> for Entry {
    fn as_ref(&self) -> &Row {
        self.row.as_ref().expect("an entry has its row until it is answered")
    }
}

impl AsMut<Row> for Entry {
    fn as_mut(&mut self) -> &mut Row {
        self.row.as_mut().expect("an entry has its row until it is answered")
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// The greatest is the most urgent, as `BinaryHeap` wants it.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.due, other.order).cmp(&(self.due, self.order))
    }
}
