//! All tests that look at latentd from outside its rooms: one binary, linked once.

mod deadlines; // lag, silence, the end
mod engine; // a failing engine, in process
mod faults; // every kind of fault, on every road
mod gaps; // samples that never came
mod late; // data before, again, too late; a backlog
mod layers; // who may know whom
mod live; // sessions and frames: the main road
mod model_based; // random sessions against a plain model
mod nan; // what is not finite, in and out
mod order; // which frame comes next
mod parity; // every road answers alike
mod preprocess; // what a chain does to a stream
mod released; // the schema, against the released one
mod resets; // the state starting anew
mod signals; // what a rig may send
mod stalls; // silence, clocks, restarts
mod start; // starts that must fail
mod support; // the real binary, small models, rigs
mod writers; // who may write
