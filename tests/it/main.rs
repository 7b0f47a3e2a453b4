//! All tests that look at latentd from outside its rooms: one binary, linked once.

mod layers; // who may know whom
mod live; // sessions and frames: the main road
mod support; // the real binary, small models, rigs
