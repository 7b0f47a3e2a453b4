//! The lanes under a fake engine that misbehaves on order.

mod answers; // each row exactly once, whatever happens
mod fake;
mod faults; // errors, panics, losses, rebuilds
mod limits; // runs that do not end
mod numbers; // batched = alone
mod order; // who is run when, where, and with whom
mod places; // admission and guests
