//! What a run took in, in the order in which its session took it: what replay does again.
//! Must hold: with what open resolved, the intake decides every bin, to the bit. Not in it: frames whose data the run
//! does not keep (`record.inputs`, `record.broadband`), and what the recorder had no room for, which an event names.

use super::Store;
use super::codec;
use super::error::StoreError;
use super::extent::Track;
use super::pack::KeptFrame;
use super::query::{Frames, odd};
use crate::domain::ids::RunId;
use crate::signal::act::Act;

/// One thing that was taken in.
#[derive(Clone, Debug, PartialEq)]
pub enum Taking {
    /// A frame of a signal, by its index in the head's `signals`.
    Frame(usize, KeptFrame),
    /// What was done beside.
    Act(Act),
}

/// The intake of a run, one by one.
pub struct Intake {
    /// Acts, then the signals, each with its next one, once that was read.
    tracks: Vec<(Frames, Option<KeptFrame>)>,
    is_begun: bool,
}

impl Store {
    /// What a run took in. `None`: no such run. What came after this call may or may not be in it.
    pub async fn intake(&self, run: RunId) -> Result<Option<Intake>, StoreError> {
        let Some(record) = self.run(run).await? else { return Ok(None) };
        let signals = (0..record.head.signals.len()).map(|signal| Track::number(signal as u32));
        let mut tracks = Vec::new();
        for track in std::iter::once(Track::OWN).chain(signals) {
            tracks.push((self.frames(run, track).await?, None));
        }
        Ok(Some(Intake { tracks, is_begun: false }))
    }
}

impl Intake {
    /// The next thing; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Taking>, StoreError> {
        if !self.is_begun {
            for (frames, next) in &mut self.tracks {
                *next = frames.next().await?;
            }
            self.is_begun = true;
        }
        let places = self.tracks.iter().enumerate().filter_map(|(i, (_, next))| Some((next.as_ref()?.at, i)));
        let Some((_, first)) = places.min() else { return Ok(None) };
        let (frames, next) = &mut self.tracks[first];
        let Some(taken) = next.take() else { return Ok(None) };
        *next = frames.next().await?;
        Ok(Some(match first {
            0 => Taking::Act(codec::act(taken.bytes).map_err(odd)?),
            signal => Taking::Frame(signal - 1, taken),
        }))
    }
}
