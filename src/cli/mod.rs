//! The commands.

pub mod bench; // beside the floors
pub mod demo; // two rigs side by side
pub mod queries; // curl lines, and their proof
pub mod replay; // a recording played as a rig
