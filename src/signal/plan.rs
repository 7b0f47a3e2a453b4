//! What an aligner is made of, and whether it fits together: signals, inputs, clocks, widths.

use std::num::NonZeroU64;

use super::chain::{Chain, ChainSite, Columns};
use super::cofiring::Cofiring;
use super::feed::Feed;
use super::image::Image;
use super::input::{InputChannels, InputSpec};
use super::montage::Montage;
use super::op::Op;
use super::pace::Pace;
use super::refusal::SignalError;
use super::track::{Placed, Track};
use super::trial::ResetOn;
use crate::domain::settings::{BinsBy, ChannelsBy, Policies, TrialMarks};
use crate::domain::signal::{ClockBy, SignalSpec, SignalType};
use crate::domain::time::{Rate, ns_from_ms};

/// Widest bin: a day. Products with it stay within 128 bits.
const MAX_WIDTH_NS: u64 = 86_400 * 1_000_000_000;

/// What the session knows at open.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Width of the pipeline's bins.
    pub width_ns: NonZeroU64,
    /// Start of bin 0 on the session's clock, if the rig gave it.
    pub t0_ns: Option<i64>,
    /// What becomes of data that are not as they should be.
    pub policies: Policies,
    /// How channels are matched.
    pub channels_by: ChannelsBy,
    /// Every signal of the session, in the rig's order.
    pub signals: Vec<SignalSpec>,
    /// Every input of the pipeline that streams, and the signal (by its place in `signals`) that feeds it. `None` only
    /// where it is not required: it is absent in every bin.
    pub inputs: Vec<(InputSpec, Option<usize>)>,
    /// Markers that start and end trials.
    pub trials: Option<TrialMarks>,
    /// When the models' state goes back to its beginning by itself.
    pub reset_on: ResetOn,
}

/// A plan that fits together.
#[derive(Debug)]
pub(super) struct Fitted {
    pub width_ns: NonZeroU64,
    /// The signal whose clock is the session's.
    pub anchor: usize,
    /// By signal: its track, if it feeds an input.
    pub by_signal: Vec<Option<usize>>,
    pub tracks: Vec<Track>,
    /// By input: `None` where no signal feeds it.
    pub feeds: Vec<Option<Feed>>,
    pub warnings: Vec<String>,
}

impl Plan {
    pub(super) fn fit(&self) -> Result<Fitted, SignalError> {
        let mut warnings = Vec::new();
        self.check_places()?;
        let fed = |required: bool| {
            let feeds = move |s: usize| {
                move |(spec, by): &(InputSpec, Option<usize>)| *by == Some(s) && spec.required >= required
            };
            (0..self.signals.len()).find(|s| self.inputs.iter().any(feeds(*s)))
        };
        let anchor = fed(true).or_else(|| fed(false)).ok_or_else(|| {
            SignalError::mismatch("signals", "one that feeds an input of the pipeline", "none that does")
        })?;
        let width_ns = self.width(anchor, &mut warnings)?;
        let session_clock = &self.signals[anchor].clock;
        let (mut by_signal, mut tracks, mut feeds) = (vec![None; self.signals.len()], Vec::new(), Vec::new());
        for (spec, by) in &self.inputs {
            let Some(s) = *by else {
                feeds.push(None);
                continue;
            };
            let signal = &self.signals[s];
            fits_type(spec, signal)?;
            if by_signal[s].is_none() {
                by_signal[s] = Some(tracks.len());
                tracks.push(track(spec, signal, session_clock, width_ns)?);
            }
            let at = by_signal[s].unwrap_or_default();
            let track = &mut tracks[at];
            same_images(spec, signal, track)?;
            let feed = feed(spec, signal, at, self.channels_by, width_ns, track.pace, &mut warnings)?;
            track.required |= spec.required;
            track.used.iter_mut().enumerate().for_each(|(c, used)| *used |= feed.montage.uses(c));
            // Only sums can take what came late.
            track.counts &= feed.chain.sums();
            feeds.push(Some(feed));
        }
        let none_required = tracks.iter().all(|track| !track.required);
        tracks.iter_mut().for_each(|track| track.leads = track.required || none_required);
        Ok(Fitted { width_ns, anchor, by_signal, tracks, feeds, warnings })
    }

    fn check_places(&self) -> Result<(), SignalError> {
        if self.width_ns.get() > MAX_WIDTH_NS {
            return Err(SignalError::mismatch("bin_ms", "at most a day", format!("{} ns", self.width_ns)));
        }
        for (spec, by) in &self.inputs {
            if spec.bin_width_ns != self.width_ns {
                let (want, found) =
                    (format!("{} ns", spec.bin_width_ns), format!("bins of {} ns", self.width_ns));
                return Err(SignalError::mismatch(format!("input `{}`: bin_ms", spec.name), want, found));
            }
            match by {
                Some(s) if *s < self.signals.len() => {}
                None if !spec.required => {}
                _ => {
                    let expected = "a signal of the session that feeds it, since it is required";
                    return Err(SignalError::mismatch(format!("input `{}`", spec.name), expected, "none"));
                }
            }
        }
        Ok(())
    }

    /// The width of bins: whole samples of the session's sampled signal.
    fn width(&self, anchor: usize, warnings: &mut Vec<String>) -> Result<NonZeroU64, SignalError> {
        let signal = &self.signals[anchor];
        let (SignalType::Continuous | SignalType::Frames, Some(rate)) = (signal.kind, signal.rate) else {
            return Ok(self.width_ns);
        };
        let pace = Pace::of_rate(rate);
        if pace.steps_in(self.width_ns).is_some() {
            return Ok(self.width_ns);
        }
        let (below, above) = pace.nearest_widths(self.width_ns);
        let asked = self.width_ns.get();
        let ms = |ns: u64| ns as f64 / 1e6;
        if self.policies.bins == BinsBy::Nearest {
            let near = below.filter(|below| asked - below.get() <= above.get() - asked).unwrap_or(above);
            warnings.push(format!(
                "bins are {} ms wide, the nearest to {} ms in whole samples",
                ms(near.get()),
                ms(asked)
            ));
            return Ok(near);
        }
        let near = below.map_or(String::new(), |below| format!("{} or ", ms(below.get())));
        Err(SignalError::mismatch(
            "bin_ms",
            format!(
                "whole samples of signal `{}`: {near}{} ms, or bins = \"nearest\"",
                signal.name,
                ms(above.get())
            ),
            format!("{} ms", ms(asked)),
        ))
    }
}

/// A signal feeds inputs of its type; counts and events stand for each other.
fn fits_type(spec: &InputSpec, signal: &SignalSpec) -> Result<(), SignalError> {
    let counted = |kind| matches!(kind, SignalType::SpikeEvents | SignalType::Binned);
    let images = matches!(signal.kind, SignalType::Frames | SignalType::AddressEvents);
    let expected = if spec.kind != signal.kind && !(counted(spec.kind) && counted(signal.kind)) {
        format!("`{}`", spec.kind)
    } else if images && spec.image.is_none() {
        "one value per channel, since no model.toml says that it takes images".to_owned()
    } else {
        return Ok(());
    };
    let found = format!("`{}` (signal `{}`)", signal.kind, signal.name);
    Err(SignalError::mismatch(format!("input `{}`: type", spec.name), expected, found))
}

/// The track of a signal, as `spec`, the first input that it feeds, has its rows.
fn track(
    spec: &InputSpec,
    signal: &SignalSpec,
    session_clock: &str,
    width_ns: NonZeroU64,
) -> Result<Track, SignalError> {
    let field = |what: &str| format!("signal `{}`: {what}", signal.name);
    let (pace, row_ns) = match signal.kind {
        SignalType::SpikeEvents | SignalType::AddressEvents => (None, None),
        SignalType::Continuous | SignalType::Frames => {
            let rate = signal
                .rate
                .ok_or_else(|| SignalError::mismatch(field("rate"), "num and den in Hz", "none"))?;
            (Some(Pace::of_rate(rate)), None)
        }
        SignalType::Binned => {
            let bin_ms = signal.bin_ms.unwrap_or(f64::NAN);
            let row = ns_from_ms(bin_ms).filter(|ns| *ns as f64 == bin_ms * 1e6).and_then(NonZeroU64::new);
            let whole =
                row.filter(|row| Pace::every(*row).steps_in(width_ns).is_some()).ok_or_else(|| {
                    let expected =
                        format!("the pipeline's {} ms, or a whole part of it", width_ns.get() as f64 / 1e6);
                    SignalError::mismatch(
                        field("bin_ms"),
                        expected,
                        signal.bin_ms.map_or("none".into(), |ms| ms.to_string()),
                    )
                })?;
            (Some(Pace::every(whole)), Some(whole.get()))
        }
        SignalType::Markers => {
            let what = format!("a signal of type `{}` (`{}`) as an input", signal.kind, signal.name);
            return Err(SignalError::NotServed { input: signal.name.to_string(), what });
        }
    };
    let placed = match (signal.clock == session_clock, signal.clock_by, signal.clock_offset_ns) {
        (true, ..) => Placed::Session,
        (_, ClockBy::Declared, Some(offset_ns)) => Placed::Declared(offset_ns),
        (_, ClockBy::Declared, None) => {
            return Err(SignalError::mismatch(
                field("clock_offset_ns"),
                "t_session - t_device in ns",
                "none",
            ));
        }
        (_, ClockBy::Exchange, _) => Placed::Exchange,
        (_, ClockBy::Arrival, _) => Placed::Arrival,
    };
    let channels = spec.channels_in(signal);
    if channels == 0 {
        return Err(SignalError::mismatch(field("channels"), "at least one", "none"));
    }
    if signal.kind == SignalType::AddressEvents && channels > 2 {
        let expected = "one, or two (darker, brighter), of an event camera";
        return Err(SignalError::mismatch(field("channels"), expected, channels.to_string()));
    }
    let names = (0..channels).map(|c| match signal.channels.get(c).map(|channel| channel.name.as_str()) {
        None | Some("") => c.to_string(),
        Some(name) => name.to_owned(),
    });
    let mut track = Track::new(signal.name.clone(), signal.clock.clone(), placed, pace, names.collect());
    track.image = spec.image;
    track.channels = channels * spec.pixels();
    track.on_grid = row_ns.is_some();
    if signal.kind == SignalType::SpikeEvents {
        track.cofiring = Cofiring::of(track.channels, width_ns);
    }
    track.row_ns = row_ns.unwrap_or(0);
    track.counts = !matches!(signal.kind, SignalType::Continuous | SignalType::Frames);
    Ok(track)
}

/// A signal's images have one shape for all the inputs that it feeds.
fn same_images(spec: &InputSpec, signal: &SignalSpec, track: &Track) -> Result<(), SignalError> {
    let form = |channels: usize, image: Option<Image>| match image {
        Some(Image { height, width }) => format!("{channels} channels of {height} x {width} pixels"),
        None => format!("{channels} channels of one value"),
    };
    let (channels, found) = (track.names.len(), (spec.channels_in(signal), spec.image));
    if found == (channels, track.image) {
        return Ok(());
    }
    let expected =
        format!("{}, as another input has of signal `{}`", form(channels, track.image), signal.name);
    Err(SignalError::mismatch(format!("input `{}`", spec.name), expected, form(found.0, found.1)))
}

fn feed(
    spec: &InputSpec,
    signal: &SignalSpec,
    track: usize,
    channels_by: ChannelsBy,
    width_ns: NonZeroU64,
    pace: Option<Pace>,
    warnings: &mut Vec<String>,
) -> Result<Feed, SignalError> {
    let field = |what: &str| format!("input `{}`: {what}", spec.name);
    if let (Some(trained), Some(rate)) = (spec.rate, signal.rate)
        && !suits(trained, rate, &spec.chain)
    {
        let found = format!("{} Hz (signal `{}`)", rate.hz(), signal.name);
        return Err(SignalError::mismatch(field("rate"), rates(trained, &spec.chain), found));
    }
    let montage = Montage::new(spec, signal, channels_by, warnings)?;
    let site = ChainSite {
        kind: signal.kind,
        sample: pace,
        bin_width_ns: width_ns,
        channels: columns(spec, signal, &montage),
    };
    let chain = match spec.image {
        Some(image) => Chain::new(&image.by_pixel(&spec.chain, montage.channels()), site),
        None => Chain::new(&spec.chain, site),
    };
    let chain = chain.map_err(|error| error.of_input(&spec.name))?;
    Ok(Feed::new(spec.clone(), track, signal, montage, chain))
}

/// Whether a signal of `rate` may feed a model that was trained on `trained`: it is that rate, or the chain decimates
/// it to that.
fn suits(trained: Rate, rate: Rate, chain: &[Op]) -> bool {
    let (want, have) =
        (u128::from(trained.num) * u128::from(rate.den), u128::from(rate.num) * u128::from(trained.den));
    want == have || factor(chain).and_then(|factor| want.checked_mul(factor)) == Some(have)
}

/// By how much a chain decimates; `None` beyond all rates.
fn factor(chain: &[Op]) -> Option<u128> {
    chain.iter().try_fold(1u128, |all, op| match op {
        Op::Decimate { factor, .. } => all.checked_mul((*factor).into()),
        _ => Some(all),
    })
}

fn rates(trained: Rate, chain: &[Op]) -> String {
    match factor(chain) {
        Some(factor @ 2..) => format!(
            "{} Hz, or {} Hz, which its chain decimates to that",
            trained.hz(),
            trained.hz() * factor as f64
        ),
        _ => format!("{} Hz", trained.hz()),
    }
}

/// The channels of an input with their groups, pixel by pixel of an image: the model's own, else the signal's.
fn columns(spec: &InputSpec, signal: &SignalSpec, montage: &Montage) -> Columns {
    let one = |j: usize| {
        let c = j / montage.pixels();
        let own = match &spec.channels {
            InputChannels::Named(named) => named.get(c),
            InputChannels::Any | InputChannels::Count(_) => None,
        };
        let source = montage.terms(c).first().and_then(|term| signal.channels.get(term.channel));
        let name = own.map(|own| &own.name).or(source.map(|source| &source.name));
        let name = name.filter(|name| !name.is_empty()).cloned().unwrap_or_else(|| c.to_string());
        let group = own.map(|own| &own.group).filter(|group| !group.is_empty());
        let group = group.or(source.map(|source| &source.group)).cloned();
        // An absent channel is in no reference, whatever its group.
        (name, group.unwrap_or_else(|| "absent".into()), vec![j])
    };
    (0..montage.width()).map(one).collect()
}
