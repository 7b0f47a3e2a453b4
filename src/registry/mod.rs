//! The model repository: what stands in its directory, whether it is right, and what serves.
//! Enters: a directory, an engine. Leaves: ready versions with their lanes, pipelines by name, and a sentence for
//! whatever is wrong.
//! Owns: the list of models, their versions and states. Must hold: a version is read once and never changes; one
//! bad entry never stops the scan; what serves was checked and run first.
//! Must not know: sessions, HTTP, gRPC, SQL.

pub mod finding; // file, key, expected, found
pub mod file; // one file, read only if it is one
pub mod manifest; // model.toml
pub mod channels; // channels.csv
pub mod version; // a version as it stands on disk, and its digest
pub mod surface; // which tensor is what
mod fit; // a manifest laid over its graph
mod example; // the recorded example, bound to ports
mod reference; // what the training data were like, bound to ports
pub mod rehearsal; // runs before serving
pub mod ready; // a version that passed
pub mod pipelines; // pipelines/*.toml
pub mod scan; // one look at the directory
pub mod shelf; // models, versions and pipelines with their states
pub mod keeper; // keeps the shelf in step with the directory
pub mod check; // `latentd models check`

pub use finding::{Finding, Findings};
pub use keeper::{Options, Registry};
pub use pipelines::{PipelineSpec, Source, StageSpec};
pub use ready::{Facts, ReadyVersion};
pub use shelf::{Lookup, ModelRow, PipelineRow, VersionRow, VersionState};

#[cfg(test)]
mod tests;
