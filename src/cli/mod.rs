//! The commands.

pub mod replay; // a recording played as a rig
