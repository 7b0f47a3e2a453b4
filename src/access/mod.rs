//! Who may come in: API keys, what each may, and their end.
//! Enters: what a call shows and what it needs. Leaves: a `Caller`, or `unauthenticated`, or `forbidden`.
//! Owns: the keys as last seen. Must hold: a secret is shown once, never kept, logged or repeated; what is shown is
//! compared in constant time; a key that was revoked lets nobody in two seconds later, and what it has open ends.
//! Must not know: which call needs what, HTTP, gRPC, sessions.

pub mod secret; // what its holder has
pub mod keys; // those that hold, and who comes with one
pub mod register; // making, listing, revoking

pub use keys::Keys;
pub use secret::Secret;
