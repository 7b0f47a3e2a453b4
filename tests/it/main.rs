//! All tests that look at latentd from outside its rooms: one binary, linked once.

mod layers; // who may know whom
