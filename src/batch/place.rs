//! Who may queue rows: places on lanes for sessions, a bounded number of places for guests; and what the places' rows
//! will cost, for admission.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::lane::Lane;

/// The right to have one row at a time in a queue; given back by drop.
#[derive(Debug)]
pub struct Place {
    of: Of,
}

enum Of {
    Lane { lane: Arc<Lane>, rows_per_s: f64 },
    Guest(Arc<AtomicUsize>),
}

impl std::fmt::Debug for Of {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Of::Lane { lane, rows_per_s } => write!(f, "{} at {rows_per_s} rows/s", lane.name()),
            Of::Guest(_) => f.write_str("guest"),
        }
    }
}

impl Place {
    pub(super) fn on_lane(lane: Arc<Lane>, rows_per_s: f64) -> Self {
        let places = lane.demand.lock().add(rows_per_s);
        lane.reserve(places);
        lane.core.places.fetch_add(1, Ordering::AcqRel);
        Self { of: Of::Lane { lane, rows_per_s } }
    }
}

impl Place {
    /// Does `work` while this place counts for nothing in the load.
    pub(super) fn set_aside<T>(&self, work: impl FnOnce() -> T) -> T {
        let Of::Lane { lane, rows_per_s } = &self.of else { return work() };
        lane.demand.lock().remove(*rows_per_s);
        let done = work();
        lane.demand.lock().add(*rows_per_s);
        done
    }

    /// Whether it is one of the places for rows without a session.
    pub(super) fn is_of_a_guest(&self) -> bool {
        matches!(self.of, Of::Guest(_))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        match &self.of {
            Of::Lane { lane, rows_per_s } => {
                lane.core.places.fetch_sub(1, Ordering::AcqRel);
                lane.demand.lock().remove(*rows_per_s);
            }
            Of::Guest(inside) => {
                inside.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }
}

/// A bounded number of places for rows without a session. When full, a guest is refused at once; nobody waits to enter.
#[derive(Debug)]
pub struct Guests {
    limit: usize,
    inside: Arc<AtomicUsize>,
}

/// Too few places for rows without a session are free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("fewer than {asked} of the {limit} places for rows without a session are free")]
pub struct Full {
    /// How many were asked for.
    pub asked: usize,
    /// How many there are.
    pub limit: usize,
}

impl Guests {
    /// So many places (`queue`).
    pub fn new(limit: usize) -> Self {
        Self { limit, inside: Arc::default() }
    }

    /// Takes so many places, all or none, or says at once that there are too few. Let each row `hold` one.
    pub fn enter(&self, rows: usize) -> Result<Vec<Place>, Full> {
        self.inside
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |inside| {
                (rows <= self.limit - inside).then(|| inside + rows)
            })
            .map_err(|_| Full { asked: rows, limit: self.limit })?;
        Ok((0..rows).map(|_| Place { of: Of::Guest(Arc::clone(&self.inside)) }).collect())
    }

    /// How many places there are.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Places that are taken.
    pub fn inside(&self) -> usize {
        self.inside.load(Ordering::Acquire)
    }
}

/// What open sessions will cost, in threads that they keep busy on average.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Σ rows/s × run time per row, in the batch that the rows will ride in.
    pub runs: f64,
    /// Σ bins/s × time that a bin's data take before its rows reach a lane.
    pub ingest: f64,
    /// What is allowed: workers × `load_limit`.
    pub limit: f64,
}

impl Load {
    /// All of it.
    pub fn busy(&self) -> f64 {
        self.runs + self.ingest
    }
}

/// Why places were not given.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum Refused {
    /// The load would pass its limit.
    #[error(
        "load would be {:.2} of {:.2} threads: {:.2} for runs of models, {:.2} for ingest (preprocessing), of which \
         {new_ingest:.2} for the new session, by what the last such took",
        load.busy(), load.limit, load.runs, load.ingest
    )]
    Overload {
        /// With the new session in it.
        load: Load,
        /// The new session's part of `load.ingest`.
        new_ingest: f64,
    },
    /// A lane is closed: the server is stopping.
    #[error("the server is stopping")]
    Closed,
}

/// The rows that the places on a lane may bring.
#[derive(Debug, Default)]
pub(super) struct Demand {
    places: usize,
    /// How many places have this rate; the key is f64 bits, which sort like the numbers since none is negative.
    rates: BTreeMap<u64, usize>,
}

impl Demand {
    fn add(&mut self, rows_per_s: f64) -> usize {
        self.places += 1;
        *self.rates.entry(key(rows_per_s)).or_default() += 1;
        self.places
    }

    fn remove(&mut self, rows_per_s: f64) {
        self.places -= 1;
        if let Some(count) = self.rates.get_mut(&key(rows_per_s)) {
            *count -= 1;
            if *count == 0 {
                self.rates.remove(&key(rows_per_s));
            }
        }
    }

    fn rows_per_s(&self) -> f64 {
        self.rates.iter().map(|(&rate, &count)| f64::from_bits(rate) * count as f64).sum()
    }

    fn fastest(&self) -> f64 {
        self.rates.last_key_value().map_or(0.0, |(&rate, _)| f64::from_bits(rate))
    }
}

fn key(rows_per_s: f64) -> u64 {
    if rows_per_s.is_finite() { rows_per_s.max(0.0).to_bits() } else { 0 }
}

/// One lane's part in the load.
struct Part<'a> {
    lane: &'a Lane,
    rows_per_s: f64,
    places: usize,
}

impl Part<'_> {
    /// If the workers come round every `cycle_s`: a batch holds what came in one cycle, at most one row of each place.
    fn busy(&self, cycle_s: f64) -> f64 {
        let most = self.places.min(self.lane.spec.claim_rows()).max(1);
        let rows = ((self.rows_per_s * cycle_s) as usize).clamp(1, most);
        self.rows_per_s * self.lane.busy_times.row_ns(rows).unwrap_or(0.0) * 1e-9
    }
}

/// Threads that the lanes' places keep busy: in the smallest batches in which that fits under `budget`, else in the
/// largest that their rows can ride in.
///
/// Batches grow when threads come round less often; a row then waits for up to one cycle, so the longest cycle is half
/// the shortest bin: its row is answered before its session's next one comes. Times that were never measured count 0.
pub(super) fn load<L: AsRef<Lane>>(lanes: &[L], budget: f64) -> f64 {
    let mut fastest = 0.0_f64;
    let parts: Vec<Part<'_>> = lanes
        .iter()
        .map(|lane| {
            let lane = lane.as_ref();
            let demand = lane.demand.lock();
            fastest = fastest.max(demand.fastest());
            Part { lane, rows_per_s: demand.rows_per_s(), places: demand.places }
        })
        .collect();
    if fastest <= 0.0 {
        return 0.0;
    }
    let longest_s = 0.5 / fastest;
    let mut cycle_s = longest_s / 1024.0;
    loop {
        let busy = parts.iter().map(|part| part.busy(cycle_s)).sum();
        if busy <= budget || cycle_s >= longest_s {
            return busy;
        }
        cycle_s *= 2.0;
    }
}
