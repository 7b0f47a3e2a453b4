//! A stage's next version while it is warmed: it runs beside the one that answers, on the same bins, and nobody hears it
//! until it takes over.
//! Enters: per bin what its stage had before it. Leaves: rows for its lane; at last the successor, with the state and the
//! window that it has by then. Owns: its row, the bins that it has not run yet, its place in the lane.
//! Must hold: what it has made of its bins does not depend on when it ran them; its rows give way to those of bins that
//! wait for an answer; it is never more than so many bins behind.
//! Must not know: sessions, the wire.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::backlog::{Backlog, Shown, Task};
use super::journey::{Journey, begin_anew, carry, lay, lay_given, unsound};
use super::plan::{Feed, Plan, Stage};
use super::successor::Successor;
use super::window::Window;
use crate::batch::{Onward, Owner, Place, Ran, Row, RowFault};
use crate::domain::tensor::Tensor;
use crate::signal::step::InputRow;

/// Without a bin named, a version is warmed for so long, or for its window where that is longer.
const WARMED: Duration = Duration::from_secs(1);

/// A version that is warmed beside the one that it will follow.
pub struct Understudy {
    plan: Arc<Plan>,
    stage: usize,
    statics: Arc<[Tensor]>,
    /// Whether streamed inputs come to it; else only what earlier stages bring.
    hears: bool,
    /// Earlier stages' outputs that feed it, in the order of its ports. By name: the version that runs there may have the
    /// output on another port than the one that this plan was compiled against.
    fed: Vec<(usize, String)>,
    inner: Mutex<Inner>,
    /// Nobody waits for it any more.
    gone: AtomicBool,
    /// Called without a lock when it has failed, or when it is done and somebody waits for that.
    told: Box<dyn Fn() + Send + Sync>,
}

struct Inner {
    /// `None` while it is under way.
    row: Option<Box<Row>>,
    window: Option<Window>,
    place: Option<Place>,
    /// What it has not done yet, in order; nothing while the row is home.
    waiting: Backlog,
    /// The bin that is under way.
    at: Option<Shown>,
    /// Bins that it has been through.
    bins: u64,
    is_awaited: bool,
}

/// Bins for which a stage's version is warmed where none is named as the first that it is to answer.
pub fn warming_bins(stage: &Stage, width: Duration) -> u64 {
    let bins = WARMED.as_nanos().div_ceil(width.as_nanos().max(1)).max(1);
    let window = stage.window.map_or(0, |window| u64::from(window.size_bins));
    u64::try_from(bins).unwrap_or(u64::MAX).max(window)
}

impl Understudy {
    /// A version that has seen no bin. `told` is called, without a lock held and on whatever thread ran its row, when it
    /// has failed, and when it is done once `is_done` was asked in vain.
    pub fn new(
        next: Successor,
        statics: Arc<[Tensor]>,
        place: Place,
        told: impl Fn() + Send + Sync + 'static,
    ) -> Arc<Self> {
        let Successor { plan, stage, row, window, .. } = next;
        let fed = plan.stages[stage].feeds.iter().filter_map(|feed| match feed {
            Feed::Stage { stage, port } => {
                let mut outputs = plan.stages[*stage].version.outputs.iter();
                let output = outputs.find(|output| output.port == *port);
                Some((*stage, output.expect("a stage is fed by an output").name.clone()))
            }
            _ => None,
        });
        let fed = fed.collect();
        let mut feeds = plan.stages[stage].feeds.iter();
        let hears = feeds.any(|feed| matches!(feed, Feed::Input(_) | Feed::Mask(_)));
        let inner = Inner {
            row: Some(row),
            window,
            place: Some(place),
            waiting: Backlog::default(),
            at: None,
            bins: 0,
            is_awaited: false,
        };
        let (inner, gone, told) = (Mutex::new(inner), AtomicBool::new(false), Box::new(told));
        Arc::new(Self { plan, stage, statics, hears, fed, inner, gone, told })
    }

    /// Shows it bin `k`, which has passed every stage of `journey` and is not committed yet; `due` is the bin's, and
    /// `spare` how much later that of the bin is which the version takes over. What comes back is to be submitted in its
    /// name, once no lock is held.
    pub fn show(
        &self,
        k: u64,
        inputs: &Arc<[InputRow]>,
        (due, spare): (Instant, Duration),
        journey: &Journey,
    ) -> Option<Onward> {
        self.put(|| {
            let fed = self.fed.iter().map(|(stage, output)| journey.gave(*stage, output).cloned());
            // What it does not hear of is not kept for it.
            let inputs = if self.hears { Arc::clone(inputs) } else { Arc::default() };
            let (fed, failed) = (fed.collect(), journey.fault().map(|(stage, _)| stage));
            Task::Bin(Shown { k, inputs, fed, failed, due, spare })
        })
    }

    /// State and window begin anew with the next bin that it is shown.
    pub fn reset(&self) {
        // Nothing to submit: only a bin is.
        let _ = self.put(|| Task::Reset);
    }

    /// The next bin that it is shown does not follow on the last.
    pub fn break_window(&self) {
        let _ = self.put(|| Task::Break);
    }

    /// Takes what `task` makes; nothing is made once it has failed.
    fn put(&self, task: impl FnOnce() -> Task) -> Option<Onward> {
        let mut inner = self.inner.lock();
        inner.waiting.put(task);
        if inner.row.is_some() { self.go_on(&mut inner) } else { None }
    }

    /// Does what waits, until a row must be run.
    fn go_on(&self, inner: &mut Inner) -> Option<Onward> {
        let stage = &self.plan.stages[self.stage];
        while let Some(task) = inner.waiting.take() {
            let row = inner.row.as_mut()?;
            match task {
                Task::Break => inner.window.iter_mut().for_each(Window::empty),
                Task::Reset => {
                    inner.window.iter_mut().for_each(Window::empty);
                    begin_anew(stage, row, &self.statics);
                }
                Task::Bin(shown) => {
                    inner.bins += 1;
                    if !self.enter(row, inner.window.as_mut(), &shown) {
                        continue;
                    }
                    row.due = shown.row_due(inner.is_awaited);
                    inner.at = Some(shown);
                    return inner.row.take().map(|row| Onward { lane: Arc::clone(&stage.lane), row });
                }
            }
        }
        None
    }

    /// Lays a bin into the row, as `Journey` does; whether it is to be run.
    fn enter(&self, row: &mut Row, mut window: Option<&mut Window>, shown: &Shown) -> bool {
        let feeds = &self.plan.stages[self.stage].feeds;
        let Some(slot) = lay(row, feeds, window.as_deref_mut(), &shown.inputs) else { return false };
        let Some(fed) = &shown.fed else {
            window.into_iter().for_each(Window::empty);
            return false;
        };
        lay_given(row, feeds, slot, fed);
        // Where another stage failed no state moves, so that nothing would come of a run.
        window.is_none_or(Window::enter) && shown.failed.is_none_or(|stage| stage == self.stage)
    }

    /// Whether it has been through every bin that it was shown, or has failed. If not, `told` is called once it is so, and
    /// the rows that it submits from now on give way no longer; one that is queued already keeps its due time.
    pub fn is_done(&self) -> bool {
        let mut inner = self.inner.lock();
        let is_done = inner.waiting.fault().is_some() || (inner.row.is_some() && inner.waiting.is_empty());
        inner.is_awaited = !is_done;
        is_done
    }

    /// Why it must not take over.
    pub fn fault(&self) -> Option<String> {
        self.inner.lock().waiting.fault().map(str::to_owned)
    }

    /// What takes over, its place, and the number of bins that it has been through. `None` before it is done.
    pub fn take_over(&self) -> Option<(Successor, Place, u64)> {
        let mut inner = self.inner.lock();
        let (row, place) = inner.row.take().zip(inner.place.take())?;
        let (plan, window) = (Arc::clone(&self.plan), inner.window.take());
        Some((Successor::warmed(plan, self.stage, row, window), place, inner.bins))
    }

    /// Nobody waits for it any more: what is still under way is not run.
    pub fn retire(&self) {
        self.gone.store(true, Ordering::Release);
        let mut inner = self.inner.lock();
        inner.waiting.clear();
        inner.is_awaited = false;
    }

    /// The row came back.
    fn came_back(&self, inner: &mut Inner, mut row: Box<Row>, outcome: Result<Ran, RowFault>) {
        let stage = &self.plan.stages[self.stage];
        let reason = match outcome {
            Ok(_) => unsound(stage, &row),
            Err(fault) => Some(fault.to_string()),
        };
        let shown = inner.at.take();
        match (reason, &shown) {
            (None, _) => carry(stage, &mut row),
            // The running version failed there, too: it is the bin.
            (Some(_), Some(shown)) if shown.failed.is_some() => {}
            (Some(reason), shown) => {
                let k = shown.as_ref().map_or(0, |shown| shown.k);
                inner.waiting.fail(format!("in bin {k}: {reason}"));
            }
        }
        inner.row = Some(row);
    }
}

impl Owner for Understudy {
    fn finished(self: Arc<Self>, row: Box<Row>, outcome: Result<Ran, RowFault>) -> Option<Onward> {
        let mut inner = self.inner.lock();
        if self.is_gone() {
            return None;
        }
        // A fault of ours must not leave a session waiting for it for ever.
        let gone_on = catch_unwind(AssertUnwindSafe(|| {
            self.came_back(&mut inner, row, outcome);
            self.go_on(&mut inner)
        }));
        let onward = gone_on.unwrap_or_else(|_| {
            inner.waiting.fail("a fault of ours".into());
            None
        });
        let is_told =
            inner.waiting.fault().is_some() || (onward.is_none() && std::mem::take(&mut inner.is_awaited));
        drop(inner);
        if is_told {
            (self.told)();
        }
        onward
    }

    fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }
}
