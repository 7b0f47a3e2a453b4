//! What a rig announces of one stream.

use super::ids::SignalName;
use super::time::Rate;

/// A closed word of the wire: lower case, one spelling.
macro_rules! word {
    ($(#[$doc:meta])* $type:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $type { $($(#[$vdoc])* $variant),+ }

        impl $type {
            /// Every value, in the order of the wire's list.
            pub const ALL: &'static [$type] = &[$($type::$variant),+];
            /// The word for it on the wire.
            pub const fn word(self) -> &'static str {
                match self { $($type::$variant => $word),+ }
            }
            /// The value that `word` means; `None` for a word that is not among them.
            pub fn parse(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.word() == word)
            }
            /// All words, as a sentence lists them.
            pub fn words() -> String {
                Self::ALL.iter().map(|value| value.word()).collect::<Vec<_>>().join(", ")
            }
        }
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}
pub(crate) use word;

word!(
    /// The kind of data in a signal.
    SignalType {
        /// Spike times of named units; a frame covers a stretch of time, also when it is empty.
        SpikeEvents = "spike_events",
        /// Counts or values per bin, one row per bin.
        Binned = "binned",
        /// Samples at an exact rate: LFP, EEG, broadband, calcium, fMRI.
        Continuous = "continuous",
        /// Images at an exact rate.
        Frames = "frames",
        /// Events of an event camera: x, y, polarity, time.
        AddressEvents = "address_events",
        /// Texts with times: TTL edges, codes, trial marks.
        Markers = "markers",
    }
);

word!(
    /// Whether a model may see the signal.
    SignalRole {
        /// May feed a model.
        Input = "input",
        /// Ground truth: recorded, never seen by a model.
        Target = "target",
    }
);

word!(
    /// How a signal's clock is related to the session's.
    ClockBy {
        /// By probes.
        Exchange = "exchange",
        /// By `clock_offset_ns`: t_session = t_device + offset.
        Declared = "declared",
        /// A frame's end is when it came.
        Arrival = "arrival",
    }
);

/// One channel of a signal. Empty texts are "not told".
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Channel {
    /// Its name, by which models find it.
    pub name: String,
    /// Physical unit (uV, mV, V, 1); stands before the signal's.
    pub unit: String,
    /// Electrode it was taken from.
    pub electrode: String,
    /// Array, shank or probe.
    pub group: String,
    /// What kind of channel it is, in the rig's words.
    pub kind: String,
    /// Place (x, y, z); empty or three numbers.
    pub position: Vec<f64>,
    /// Physical = scale · raw + offset; stands before the signal's.
    pub scale: Option<f64>,
    /// As `scale`.
    pub offset: Option<f64>,
}

/// One stream of a session as its rig announced it, every default filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct SignalSpec {
    /// Its name in the session.
    pub name: SignalName,
    /// The kind of its data.
    pub kind: SignalType,
    /// Its channels, in the order of the rig's data. Empty for markers.
    pub channels: Vec<Channel>,
    /// Physical unit of all channels that name none.
    pub unit: String,
    /// Sampling rate; `continuous` and `frames` have one.
    pub rate: Option<Rate>,
    /// Width of a row of `binned` (ms).
    pub bin_ms: Option<f64>,
    /// Name of the clock; signals of one device share it.
    pub clock: String,
    /// How that clock is related to the session's.
    pub clock_by: ClockBy,
    /// With `declared`: t_session − t_device (ns).
    pub clock_offset_ns: Option<i64>,
    /// Input or target.
    pub role: SignalRole,
    /// Physical = scale · raw + offset.
    pub scale: f64,
    /// As `scale`.
    pub offset: f64,
    /// What the device holds back before a frame leaves it (ms); counts in the age.
    pub source_delay_ms: f64,
    /// Whether it has a writer token of its own.
    pub own_writer: bool,
}
