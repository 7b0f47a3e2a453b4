//! What of a pipeline a session's health looks at: its inputs of channels and its outputs of latents, each with what its
//! model's training data were like.

use std::sync::Arc;

use super::plan::{Feed, Plan};
use crate::domain::output::OutputRole;
use crate::domain::tensor::Dtype;
use crate::health::reference::{ChannelReference, LatentReference, MOST_LATENTS};
use crate::health::{Watched, WatchedLatents};
use crate::signal::aligner::Aligner;

/// Values per bin of the largest input that is watched: a session keeps about half a kilobyte of each.
const MOST_COLUMNS: usize = 8192;

impl Plan {
    /// Its inputs that are watched. Images are not: what a dead pixel is, only the camera knows.
    pub fn watched_inputs(&self, aligner: &Aligner) -> Vec<Watched> {
        let inputs = self.inputs.iter().enumerate().filter(|(_, input)| !input.is_image());
        let watched = inputs.filter_map(|(number, input)| {
            let (columns, counts) = aligner.values(number)?;
            (1..=MOST_COLUMNS).contains(&columns.len()).then(|| Watched {
                number,
                input: input.name.clone(),
                signal: input.signal.clone(),
                columns: columns.to_vec(),
                counts,
                reference: self.channel_reference(number, columns.len()),
            })
        });
        watched.collect()
    }

    /// Its outputs of latents that are watched.
    pub fn watched_latents(&self) -> Vec<WatchedLatents> {
        let latents = self.outputs.iter().enumerate().filter_map(|(number, spec)| {
            let latents: usize = spec.dims.iter().map(|&dim| dim as usize).product();
            let is_watched = spec.role == OutputRole::Latent && spec.dtype == Dtype::F32;
            (is_watched && (1..=MOST_LATENTS).contains(&latents)).then(|| WatchedLatents {
                number,
                output: spec.name.clone(),
                latents,
                reference: self.latent_reference(number, latents),
            })
        });
        latents.collect()
    }

    /// What an input was like in the training data of the first stage that takes it.
    pub fn channel_reference(&self, number: usize, columns: usize) -> Option<Arc<ChannelReference>> {
        let reference = self.stages.iter().find_map(|stage| {
            let port = stage.feeds.iter().position(|feed| matches!(feed, Feed::Input(n) if *n == number))?;
            stage.version.reference.as_ref()?.input(port)
        });
        reference.filter(|reference| reference.columns() == columns)
    }

    /// What an output of latents was like in its model's training data.
    pub fn latent_reference(&self, number: usize, latents: usize) -> Option<Arc<LatentReference>> {
        let source = self.sources.get(number)?;
        let reference = self.stages[source.stage].version.reference.as_ref()?.output(source.port);
        reference.filter(|reference| reference.latents() == latents)
    }
}
