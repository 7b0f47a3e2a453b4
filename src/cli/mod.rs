//! The commands.

pub mod queries; // curl lines, and their proof
pub mod replay; // a recording played as a rig
