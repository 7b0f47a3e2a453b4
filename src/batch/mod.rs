//! Lanes and the threads that run them.
//! Enters: a `Row` with its `Owner`, from whoever has one. Leaves: the same row, answered once, on the thread that ran it.
//! Owns: the waiting rows, the instances with their buffers, the worker threads and the watchdog.
//! Must hold: each row is answered exactly once; no lock is held while an engine runs or an owner is told; a lane that
//! has rows and an idle instance is always listed with the pool; no row waits for a timer.
//! Must not know: what a model means, sessions, HTTP, SQL.
//!
//! The walk of a row: `Lane::submit` queues it (`lane`), or runs it in place; a worker takes the most urgent lane
//! (`pool`), drains what gathered, runs it (`walk`: sift, gather, run, scatter), puts the instance back, tells each
//! owner, and runs on what they hand it. What fails is queued again, alone. `watchdog` ends what takes too long.

pub mod invariance; // what a lone row has, has it in a batch? and how long does it take?
mod flight; // the rows of a run in progress
mod gather; // rows to batch and back
mod ingest; // what sessions cost before their rows come here
mod hand; // tells owners, never recursing
mod lane; // one model's queue and instances
mod machine; // an instance with its buffers
mod mender; // rebuilds lost instances
mod observer; // who is told of runs and waits
mod place; // who may queue, and how much that will cost
mod pool; // the threads, and the lanes that are ready
mod row; // what is run, and for whom
mod times; // how long runs take
mod walk; // a claim, from the queue to the owners
mod watchdog; // ends runs that take too long

#[cfg(test)]
mod tests;

pub use gather::{outputs_of, repeated, rows_of};
pub use ingest::Ingest;
pub use lane::{Lane, Rebuild};
pub use observer::{LaneObserver, Observer, Silent};
pub use place::{Full, Guests, Load, Place, Refused};
pub use pool::{Fatal, Pool, PoolConfig};
pub use row::{LaneSpec, Onward, Owner, PADDED_ROWS, Port, Ran, Row, RowFault};
