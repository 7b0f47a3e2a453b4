//! The worker threads, and the lanes that are ready for them, the earliest due first.

use std::cmp::Ordering as Order;
use std::collections::BinaryHeap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::ingest::{Ingest, Shapes};
use super::lane::{Lane, Rebuild};
use super::mender::Mender;
use super::observer::Observer;
use super::place::{self, Load, Place, Refused};
use super::row::{LaneSpec, RowFault};
use super::walk::{Hands, Step};
use super::watchdog::Watchdog;
use crate::engine::Instance;

/// Called once, on the watchdog's thread, when more runs are stuck than `max_abandoned`; gets a sentence that says so.
/// The rows of those runs have been answered. It is expected to end the process, and may return.
pub type Fatal = Arc<dyn Fn(&str) + Send + Sync>;

/// How a pool treats its lanes.
#[derive(Clone)]
pub struct PoolConfig {
    /// A lone row may run on the thread that brought it if its run is known to take less than this.
    pub inline_us: u64,
    /// Runs that may be stuck in the engine at one time before `fatal` is called.
    pub max_abandoned: usize,
    /// Part of the workers' time that open sessions may take, 0 to 1.
    pub load_limit: f64,
    /// Wait before an instance that could not be rebuilt is tried again; doubles each time, up to 30 s.
    pub rebuild_backoff: Duration,
    /// What happens past `max_abandoned`.
    pub fatal: Fatal,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            inline_us: 50,
            max_abandoned: 2,
            load_limit: 0.8,
            rebuild_backoff: Duration::from_millis(100),
            fatal: Arc::new(|sentence| tracing::error!("{sentence}")),
        }
    }
}

/// What lanes and threads share.
pub(super) struct Core {
    pub(super) observer: Arc<dyn Observer>,
    pub(super) inline: Duration,
    pub(super) backoff: Duration,
    pub(super) max_abandoned: usize,
    pub(super) fatal: Fatal,
    pub(super) is_fatal: AtomicBool,
    pub(super) mender: Mender,
    /// Threads that are stuck in an abandoned run, callers' too.
    pub(super) stuck: AtomicUsize,
    /// Places that sessions hold, on all lanes.
    pub(super) places: AtomicUsize,
    watchdog: Watchdog,
    workers: usize,
    load_limit: f64,
    ready: Mutex<Ready>,
    /// Workers wait here for a listed lane.
    wake: Condvar,
    /// `Pool::stop` waits here for rows in flight, and then for threads.
    quiet: Condvar,
    /// Claims that are not yet told to their owners.
    in_flight: AtomicUsize,
    stopping: AtomicBool,
    lanes: Mutex<Vec<Weak<Lane>>>,
    shapes: Shapes,
    /// Taken while places are counted and given, so that two opens cannot both get the last of the load.
    admission: Mutex<()>,
    threads: Mutex<Threads>,
}

#[derive(Default)]
struct Ready {
    heap: BinaryHeap<Listing>,
    next_order: u64,
    idle_workers: usize,
    /// Workers that took a lane for rows without a session.
    with_guests: Vec<u64>,
    live_threads: usize,
    /// Of these, the workers that are stuck in a run that was given up.
    forgotten: usize,
    stop: bool,
}

impl Ready {
    /// The worker is done with rows without a session; whether it had any.
    fn leave_guests(&mut self, worker: u64) -> bool {
        let at = self.with_guests.iter().position(|with| *with == worker);
        at.map(|at| self.with_guests.swap_remove(at)).is_some()
    }
}

#[derive(Default)]
struct Threads {
    next_id: u64,
    handles: Vec<(u64, JoinHandle<()>)>,
}

/// A lane that may have something to do, by its most urgent row. May be outdated: the lane knows.
struct Listing {
    due: Instant,
    order: u64,
    /// Whether that row is without a session.
    is_of_a_guest: bool,
    lane: Arc<Lane>,
}

/// A claim that is not yet told to its owners; whoever holds the rows holds it.
pub(super) struct InFlight(Arc<Core>);

impl InFlight {
    pub(super) fn new(core: &Arc<Core>) -> Self {
        core.in_flight.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(core))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.0.in_flight.fetch_sub(1, Ordering::SeqCst) == 1 && self.0.stopping.load(Ordering::SeqCst) {
            // Why the lock: `stop` is then either before its look at the count, or already waiting.
            drop(self.0.ready.lock());
            self.0.quiet.notify_all();
        }
    }
}

/// The threads that run lanes. Stops when dropped, without waiting; `stop` waits.
pub struct Pool {
    core: Arc<Core>,
}

impl Pool {
    /// Starts `workers` threads (at least 1), a watchdog and a mender.
    pub fn start(workers: usize, config: PoolConfig, observer: Arc<dyn Observer>) -> std::io::Result<Self> {
        let workers = workers.max(1);
        let core = Arc::new(Core {
            observer,
            inline: Duration::from_micros(config.inline_us),
            backoff: config.rebuild_backoff,
            max_abandoned: config.max_abandoned,
            fatal: config.fatal,
            is_fatal: AtomicBool::new(false),
            mender: Mender::default(),
            stuck: AtomicUsize::new(0),
            places: AtomicUsize::new(0),
            watchdog: Watchdog::default(),
            workers,
            load_limit: config.load_limit,
            ready: Mutex::default(),
            wake: Condvar::new(),
            quiet: Condvar::new(),
            in_flight: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            lanes: Mutex::default(),
            shapes: Shapes::default(),
            admission: Mutex::new(()),
            threads: Mutex::default(),
        });
        // From here on, a thread that cannot be started drops the pool, which stops those that were.
        let pool = Self { core };
        let core = &pool.core;
        core.spawn("watchdog", |core, _| core.watchdog.run(core))?;
        core.spawn("mender", |core, _| core.mender.run())?;
        for _ in 0..workers {
            core.spawn("worker", work)?;
        }
        Ok(pool)
    }

    /// Adds a lane with these instances; one without any makes its first with its first row. It lives as long as somebody holds it, or it has rows. `spec.deterministic`
    /// is for models that were not measured batch invariant.
    pub fn add_lane(&self, spec: LaneSpec, instances: Vec<Box<dyn Instance>>, rebuild: Rebuild) -> Arc<Lane> {
        let mut lanes = self.core.lanes.lock();
        let is_open = !self.core.stopping.load(Ordering::SeqCst);
        let lane = Lane::new(spec, Arc::clone(&self.core), instances, rebuild, is_open);
        lanes.retain(|lane| lane.strong_count() > 0);
        lanes.push(Arc::downgrade(&lane));
        drop(lanes);
        self.core.watchdog.look_again();
        lane
    }

    /// What the ingest of a session costs that has this shape (any text: sessions with the same cost alike) and so many
    /// bins per second. It counts for nothing until the session is admitted.
    pub fn ingest(&self, shape: &str, bins_per_s: f64) -> Ingest {
        self.core.shapes.ingest(shape, bins_per_s, self.core.inline)
    }

    /// Places for one session: on each lane, at so many rows per second; and its ingest, if it is a new one, counts from
    /// now on. All or none: refused if the load would pass its limit, or a lane is closed.
    pub fn admit(&self, asked: &[(Arc<Lane>, f64)], ingest: Option<&Ingest>) -> Result<Vec<Place>, Refused> {
        let _one_at_a_time = self.core.admission.lock();
        if asked.iter().any(|(lane, _)| !lane.is_open()) {
            return Err(Refused::Closed);
        }
        let nobody_is_in = self.load().busy() == 0.0;
        let places: Vec<Place> =
            asked.iter().map(|(lane, rows_per_s)| Place::on_lane(Arc::clone(lane), *rows_per_s)).collect();
        if let Some(ingest) = ingest {
            ingest.enter();
        }
        let mut load = self.load();
        let mut has_room = load.busy() <= load.limit;
        if !has_room && nobody_is_in {
            // Why: where nothing runs, nothing corrects times that were measured while the machine was busy otherwise,
            // and a slow moment would shut the door for ever. Ingest is not held against one who is alone: it takes one
            // thread at most, and nobody else's.
            asked.iter().for_each(|(lane, _)| lane.busy_times.back_to_least());
            load = self.load();
            has_room = load.runs <= load.limit;
        }
        if has_room {
            return Ok(places);
        }
        if let Some(ingest) = ingest {
            ingest.leave();
        }
        Err(Refused::Overload { load, new_ingest: ingest.map_or(0.0, Ingest::busy) })
    }

    /// A place for a session that goes on another lane instead of the one where it has `leaves`, which it keeps until it
    /// has gone: the load is judged as if it had. Refused as `admit` does, unless the load gets no larger.
    pub fn exchange(&self, asked: (Arc<Lane>, f64), leaves: &Place) -> Result<Place, Refused> {
        let (lane, rows_per_s) = asked;
        let _one_at_a_time = self.core.admission.lock();
        if !lane.is_open() {
            return Err(Refused::Closed);
        }
        let before = self.load();
        let (place, load) = leaves.set_aside(|| (Place::on_lane(lane, rows_per_s), self.load()));
        // The sum's order is another; that is no larger load.
        let most = load.limit.max(before.busy()) * (1.0 + 1e-9);
        if load.busy() > most { Err(Refused::Overload { load, new_ingest: 0.0 }) } else { Ok(place) }
    }

    /// What the open sessions cost, and what they may.
    pub fn load(&self) -> Load {
        let (limit, ingest) = (self.core.budget(), self.core.shapes.busy());
        Load { runs: place::load(&self.core.lanes(), limit - ingest), ingest, limit }
    }

    /// Threads that are stuck in the engine, in runs that were given up.
    pub fn stuck(&self) -> usize {
        self.core.stuck.load(Ordering::Acquire)
    }

    /// Runs nothing new, waits for what is in flight, answers `Stopped` to every row that waits, joins the threads.
    /// What is still in flight at the deadline is interrupted and answered `Stopped`. True if no thread was left behind.
    /// Must not be called by an owner that is being told.
    pub fn stop(&self, deadline: Instant) -> bool {
        let core = &self.core;
        let lanes = {
            let lanes = core.lanes.lock();
            core.stopping.store(true, Ordering::SeqCst);
            lanes.iter().filter_map(Weak::upgrade).collect::<Vec<_>>()
        };
        lanes.iter().for_each(|lane| lane.start_closing());
        core.wait_until(deadline, |core, _| core.in_flight.load(Ordering::SeqCst) == 0);
        let mut hands = Hands::passing();
        for lane in &lanes {
            for flight in lane.flights() {
                let Some(run) = flight.seize() else { continue };
                core.stuck.fetch_add(1, Ordering::AcqRel);
                if let Some(id) = run.worker {
                    core.forget_worker(id);
                }
                run.entries.into_iter().for_each(|entry| hands.answer(entry, Err(RowFault::Stopped)));
            }
        }
        for lane in &lanes {
            lane.close().into_iter().for_each(|entry| hands.answer(entry, Err(RowFault::Stopped)));
        }
        hands.pass_on();
        core.end_threads(deadline)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if !self.core.stopping.load(Ordering::SeqCst) {
            self.stop(Instant::now());
        }
    }
}

impl Core {
    /// Threads that open sessions may keep busy.
    pub(super) fn budget(&self) -> f64 {
        self.workers as f64 * self.load_limit
    }

    /// The lanes that are still held by somebody.
    pub(super) fn lanes(&self) -> Vec<Arc<Lane>> {
        self.lanes.lock().iter().filter_map(Weak::upgrade).collect()
    }

    /// A lane has something to do by then, for a session or for a guest.
    pub(super) fn list(&self, due: Instant, is_of_a_guest: bool, lane: Arc<Lane>) {
        let mut ready = self.ready.lock();
        if ready.stop {
            return;
        }
        let order = ready.next_order;
        ready.next_order += 1;
        ready.heap.push(Listing { due, order, is_of_a_guest, lane });
        let is_awaited = ready.idle_workers > 0;
        drop(ready);
        if is_awaited {
            self.wake.notify_one();
        }
    }

    /// Whether a lane is listed that is more urgent than this.
    pub(super) fn has_before(&self, due: Instant) -> bool {
        self.ready.lock().heap.peek().is_some_and(|first| first.due < due)
    }

    /// The most urgent lane, as soon as there is one for this worker; `None` when the pool stops.
    ///
    /// While sessions are open one worker, if there are several, takes no rows without a session: a run cannot be broken
    /// off for a session's row that comes meanwhile. Such rows are due last, so that behind the first of them are only more.
    fn next(&self, worker: u64) -> Option<Listing> {
        let mut ready = self.ready.lock();
        if ready.leave_guests(worker) && !ready.heap.is_empty() && ready.idle_workers > 0 {
            self.wake.notify_one();
        }
        loop {
            if ready.stop {
                return None;
            }
            let is_free = ready.with_guests.len() < self.workers_for_guests();
            if ready.heap.peek().is_some_and(|first| is_free || !first.is_of_a_guest) {
                let listing = ready.heap.pop();
                if listing.as_ref().is_some_and(|listing| listing.is_of_a_guest) {
                    ready.with_guests.push(worker);
                }
                return listing;
            }
            ready.idle_workers += 1;
            self.wake.wait(&mut ready);
            ready.idle_workers -= 1;
        }
    }

    fn workers_for_guests(&self) -> usize {
        match self.places.load(Ordering::Acquire) {
            0 => self.workers,
            _ => (self.workers - 1).max(1),
        }
    }

    fn spawn(self: &Arc<Self>, role: &str, life: fn(&Arc<Core>, u64)) -> std::io::Result<()> {
        let mut threads = self.threads.lock();
        let id = threads.next_id;
        threads.next_id += 1;
        self.ready.lock().live_threads += 1;
        let live = Live(Arc::clone(self));
        let handle =
            std::thread::Builder::new().name(format!("{role}-{id}")).spawn(move || life(&live.0, id))?;
        threads.handles.push((id, handle));
        Ok(())
    }

    /// A worker is stuck: another one takes its part, and nobody waits for it at the end.
    pub(super) fn replace_worker(self: &Arc<Self>, id: u64) {
        self.forget_worker(id);
        if let Err(error) = self.spawn("worker", work) {
            tracing::error!(%error, "a stuck worker could not be replaced");
        }
    }

    fn forget_worker(&self, id: u64) {
        let mut ready = self.ready.lock();
        ready.forgotten += 1;
        ready.leave_guests(id);
        drop(ready);
        self.threads.lock().handles.retain(|(other, _)| *other != id);
    }

    fn wait_until(&self, deadline: Instant, is_so: impl Fn(&Core, &Ready) -> bool) -> bool {
        let mut ready = self.ready.lock();
        while !is_so(self, &ready) {
            if self.quiet.wait_until(&mut ready, deadline).timed_out() {
                return is_so(self, &ready);
            }
        }
        true
    }

    /// Tells the threads to end and joins them; those that have not ended by the deadline are left behind.
    fn end_threads(&self, deadline: Instant) -> bool {
        let listed = {
            let mut ready = self.ready.lock();
            ready.stop = true;
            std::mem::take(&mut ready.heap)
        };
        drop(listed);
        self.wake.notify_all();
        self.mender.stop();
        self.watchdog.stop();
        // A thread that only has to notice gets a moment, even when the deadline has passed.
        let deadline = deadline.max(Instant::now() + Duration::from_millis(100));
        let all_ended = self.wait_until(deadline, |_, ready| ready.live_threads <= ready.forgotten);
        let handles = std::mem::take(&mut self.threads.lock().handles);
        for (_, handle) in handles {
            if all_ended || handle.is_finished() {
                // A panic of a thread was caught and logged where it happened.
                let _ = handle.join();
            }
        }
        all_ended && self.ready.lock().forgotten == 0
    }
}

/// A thread of the pool; gone when dropped.
struct Live(Arc<Core>);

impl Drop for Live {
    fn drop(&mut self) {
        self.0.ready.lock().live_threads -= 1;
        self.0.quiet.notify_all();
    }
}

/// A worker's whole life.
fn work(core: &Arc<Core>, id: u64) {
    let mut hands = Hands::of_worker(id);
    while let Some(listing) = core.next(id) {
        let worked = catch_unwind(AssertUnwindSafe(|| {
            let mut claim = listing.lane.claim(listing.due);
            while let Some(next) = claim {
                match hands.run(next) {
                    Step::Next(next) => claim = next,
                    Step::Abandoned => return false,
                }
            }
            true
        }));
        match worked {
            Ok(true) => {}
            Ok(false) => {
                core.ready.lock().forgotten -= 1;
                return;
            }
            Err(_) => {
                tracing::error!("a worker panicked outside of an engine");
                // What it held is dropped: entries answer then, and the instance is written off by its lane.
                hands = Hands::of_worker(id);
            }
        }
    }
}

impl PartialEq for Listing {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Order::Equal
    }
}

impl Eq for Listing {}

impl PartialOrd for Listing {
    fn partial_cmp(&self, other: &Self) -> Option<Order> {
        Some(self.cmp(other))
    }
}

impl Ord for Listing {
    /// The greatest is the most urgent, as `BinaryHeap` wants it.
    fn cmp(&self, other: &Self) -> Order {
        (other.due, other.order).cmp(&(self.due, self.order))
    }
}
