//! The closed words of a manifest.

use serde::Deserialize;

use crate::domain::output::OutputRole;
use crate::domain::signal::word;
use crate::phrase::serde::Takes;

macro_rules! by_word {
    ($($type:ident),+) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = String::deserialize(from)?;
                $type::parse(&text).ok_or_else(|| {
                    let expected = format!("one of {}", $type::words());
                    serde::de::Error::invalid_value(serde::de::Unexpected::Str(&text), &Takes(&expected))
                })
            }
        }
    )+};
}

word!(
    /// What a model is for.
    #[expect(missing_docs, reason = "each variant is its own name")]
    ModelKind {
        Encoder = "encoder",
        Decoder = "decoder",
        Sae = "sae",
        Probe = "probe",
        Generator = "generator",
        Snn = "snn",
        Memory = "memory",
        Plain = "plain",
    }
);
word!(
    /// How a model is run.
    Mode {
        /// Once per bin, state carried.
        Step = "step",
        /// On the last `size_bins` bins, every `hop_bins`.
        Window = "window",
        /// On a whole trial.
        Trial = "trial",
        /// Until it halts, on one bin.
        Iterate = "iterate",
    }
);
word!(
    /// What feeds an input.
    InputType {
        /// Spike times.
        SpikeEvents = "spike_events",
        /// One row per bin.
        Binned = "binned",
        /// Samples.
        Continuous = "continuous",
        /// Images.
        Frames = "frames",
        /// Events of an event camera.
        AddressEvents = "address_events",
        /// Texts with times.
        Markers = "markers",
        /// An output of another stage.
        Latent = "latent",
    }
);
word!(
    /// When the state goes back to initial by itself.
    ResetOn {
        /// A marker starts a trial.
        TrialStart = "trial_start",
        /// A marker ends a trial.
        TrialEnd = "trial_end",
    }
);
word!(
    /// What stands for masked, missing and stalled channels (after preprocessing).
    Fill {
        /// 0.
        Zero = "zero",
        /// The channel's mean.
        Mean = "mean",
        /// The channel's last good value.
        Hold = "hold",
    }
);
word!(
    /// What becomes of a unit that is not in the vocabulary.
    UnknownUnit {
        /// Its events are left out.
        Drop = "drop",
        /// The session is refused.
        Refuse = "refuse",
    }
);
word!(
    /// How spike events reach a model that takes them as they are.
    InputAs {
        /// Unit index, time in the bin, mask.
        Tokens = "tokens",
    }
);
word!(
    /// How a state tensor grows.
    StateKind {
        /// It does not.
        Fixed = "fixed",
        /// By one entry per bin along `axis`, up to `max`, masked.
        Ring = "ring",
    }
);
word!(
    /// Distribution of a noise input.
    NoiseDist {
        /// Standard normal.
        Normal = "normal",
        /// Uniform in [0, 1).
        Uniform = "uniform",
    }
);
word!(
    /// How rows become batches.
    Batching {
        /// Whatever gathered runs.
        Continuous = "continuous",
        /// Fixed padded batches: bit-equal whatever the neighbours.
        Deterministic = "deterministic",
    }
);
word!(
    /// What a difference from the recorded example means.
    ExampleCheck {
        /// The version is a fault.
        Refuse = "refuse",
        /// It serves, and its page says so.
        Warn = "warn",
    }
);
by_word!(
    ModelKind,
    Mode,
    InputType,
    ResetOn,
    Fill,
    UnknownUnit,
    InputAs,
    StateKind,
    NoiseDist,
    Batching,
    ExampleCheck,
    OutputRole
);
