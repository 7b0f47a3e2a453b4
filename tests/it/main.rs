//! All tests that look at latentd from outside its rooms: one binary, linked once.

mod durability; // what a rig was told against what is found afterwards
mod footprint; // memory
mod golden; // numbers against numbers that others computed
mod layers; // who may know whom
mod library; // the database file, looked at from beside
mod live; // sessions and frames: the main road
mod overload; // more sessions than there is room for
mod recordings; // what the tests stream
mod rig; // rigs that play recordings and keep account
mod sixty_four; // 64 rigs in real time
mod stamps; // stamps of 19 digits
mod support; // the real binary, small models, rigs
mod usage; // memory and processor time
