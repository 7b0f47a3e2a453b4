//! HTTP: sockets, headers, JSON and problem+json around the use cases.
//! Enters: connections. Leaves: one call of `app` per request, and its answer.
//! Owns: the accept loop and its limits. Must hold: handlers decode, call, encode; every fault is problem+json.
//! Must not know: any room but `app`, `wire`, `domain`, `error`, `metrics`.

pub mod accept; // connections: limits, tracking, an end with grace
pub mod request; // the id, the span and the log line of each request
