//! Tells owners how their rows ended, one after the other and never one inside the other.
//!
//! An owner may submit rows while it is told. Such a row is only queued; if its lane has closed, its own answer waits
//! until the owner that is being told has returned. So the stack never grows with the number of rows.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::row::{Entry, Onward, Owner, Ran, Row, RowFault};

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    static LATER: RefCell<Vec<Entry>> = const { RefCell::new(Vec::new()) };
}

/// Whether this thread is telling an owner just now.
pub(super) fn is_inside() -> bool {
    INSIDE.get()
}

/// Tells the owner; a panic in it is caught and logged.
pub(super) fn finish(
    owner: &Arc<dyn Owner>,
    row: Box<Row>,
    outcome: Result<Ran, RowFault>,
) -> Option<Onward> {
    let is_outermost = !INSIDE.replace(true);
    let onward = tell(owner, row, outcome);
    if is_outermost {
        refuse_all();
        INSIDE.set(false);
    }
    onward
}

/// Answers `Stopped`: now, or as soon as the owner that is being told has returned.
pub(super) fn refuse(entry: Entry) {
    LATER.with_borrow_mut(|later| later.push(entry));
    if !INSIDE.replace(true) {
        refuse_all();
        INSIDE.set(false);
    }
}

/// Must be inside: what these owners submit to a closed lane then comes back to this loop.
fn refuse_all() {
    while let Some(entry) = LATER.with_borrow_mut(Vec::pop) {
        if let Some((lane, entry)) = entry.answer(Err(RowFault::Stopped)) {
            lane.push(entry);
        }
    }
}

fn tell(owner: &Arc<dyn Owner>, row: Box<Row>, outcome: Result<Ran, RowFault>) -> Option<Onward> {
    let owner = Arc::clone(owner);
    catch_unwind(AssertUnwindSafe(move || owner.finished(row, outcome))).unwrap_or_else(|_| {
        tracing::error!("an owner panicked while it was told of its row; the row is gone");
        None
    })
}
