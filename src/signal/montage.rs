//! Which channels of a signal make up each channel of a model's input: matched by name, never by order.

use std::collections::HashMap;

use super::input::{ChannelSpec, InputChannels, InputSpec};
use super::refusal::SignalError;
use super::unit;
use crate::domain::settings::ChannelsBy;
use crate::domain::signal::{Channel, SignalSpec, SignalType};
use crate::error::{clip, there_is};

/// Old and new names of the same place on the scalp (10-20 and 10-10 system).
const EEG_ALIASES: [(&str, &str); 4] = [("T3", "T7"), ("T4", "T8"), ("T5", "P7"), ("T6", "P8")];

/// Names listed in a sentence before it says "and n more".
const NAMED: usize = 5;

/// One term of a model channel: physical value = gain · raw + offset, in the model's unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Source {
    /// The signal's channel.
    pub channel: usize,
    /// Scale of the signal and conversion to the model's unit.
    pub gain: f64,
    /// As `gain`.
    pub offset: f64,
}

/// The way from a signal's channels to an input's.
#[derive(Clone, Debug, PartialEq)]
pub struct Montage {
    /// Terms of all model channels, one after the other.
    sources: Vec<Source>,
    /// Where the terms of channel c end; they begin where those of c − 1 end. None: the channel is absent.
    ends: Vec<usize>,
    /// How a row is laid out.
    layout: Layout,
    /// Values of one channel: the pixels of an image, else 1.
    pixels: usize,
    /// Values of a raw row of the signal.
    raw_width: usize,
}

/// The quickest way to lay out a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// Every channel is the signal's at the same place, raw as it is.
    Plain,
    /// Every channel has one source.
    OneEach,
    /// Sums, absent channels, and images that are not as they are.
    Sums,
}

impl Montage {
    /// Matches the channels; what was taken without names is added to `warnings`.
    pub fn new(
        input: &InputSpec,
        signal: &SignalSpec,
        by: ChannelsBy,
        warnings: &mut Vec<String>,
    ) -> Result<Self, SignalError> {
        let error = |detail: String| SignalError::Channels {
            input: input.name.clone(),
            signal: signal.name.clone(),
            detail,
        };
        let have = input.channels_in(signal);
        let counted = |expected: usize| match expected == have {
            true => Ok(()),
            false => Err(error(format!("expected {expected} channels, found {have}"))),
        };
        let terms: Vec<Vec<Source>> = match &input.channels {
            InputChannels::Any => (0..have).map(|c| vec![source(signal, c, 1.0)]).collect(),
            InputChannels::Count(n) => {
                counted(*n)?;
                if input.image.is_none() {
                    warnings.push(format!(
                        "input `{}`: its model names no channels; those of signal `{}` are taken in their order",
                        input.name, signal.name
                    ));
                }
                (0..have).map(|c| vec![source(signal, c, 1.0)]).collect()
            }
            InputChannels::Named(names) if by == ChannelsBy::Order => {
                counted(names.len())?;
                warnings.push(format!(
                    "input `{}`: channels of signal `{}` are taken in their order, as asked, not by name",
                    input.name, signal.name
                ));
                let mut wrong = Vec::new();
                let terms =
                    names.iter().enumerate().map(|(c, want)| converted(signal, &[c], want, &mut wrong));
                let terms = terms.collect();
                refuse_units(&wrong).map_err(error)?;
                terms
            }
            InputChannels::Named(names) => {
                let terms = by_name(names, signal, input.missing_ok).map_err(error)?;
                warnings.extend(left_out(&input.name, names, signal, &terms));
                terms
            }
        };
        let mut ends = Vec::with_capacity(terms.len());
        let sources: Vec<Source> = terms
            .iter()
            .flat_map(|terms| {
                ends.push(terms.len() + ends.last().copied().unwrap_or(0));
                terms.iter().copied()
            })
            .collect();
        let as_it_is = |(c, s): (usize, &Source)| s.channel == c && s.gain == 1.0 && s.offset == 0.0;
        let one_each = ends.iter().enumerate().all(|(c, end)| *end == c + 1);
        let pixels = input.pixels();
        let layout = match ends.len() == have && sources.iter().enumerate().all(as_it_is) {
            true if one_each => Layout::Plain,
            _ if one_each && pixels == 1 => Layout::OneEach,
            _ => Layout::Sums,
        };
        Ok(Self { sources, ends, layout, pixels, raw_width: have * pixels })
    }

    /// Values of one channel: the pixels of an image, else 1.
    pub fn pixels(&self) -> usize {
        self.pixels
    }

    /// Values of a row of the input, channel by channel.
    pub fn width(&self) -> usize {
        self.channels() * self.pixels
    }

    /// Values of a raw row of the signal.
    pub fn raw_width(&self) -> usize {
        self.raw_width
    }

    /// Channels of the input.
    pub fn channels(&self) -> usize {
        self.ends.len()
    }

    /// The terms of model channel `c`; empty if it is absent.
    pub fn terms(&self, c: usize) -> &[Source] {
        &self.sources[if c == 0 { 0 } else { self.ends[c - 1] }..self.ends[c]]
    }

    /// Whether model channel `c` has no source.
    pub fn is_absent(&self, c: usize) -> bool {
        self.terms(c).is_empty()
    }

    /// Whether signal channel `channel` is used.
    pub fn uses(&self, channel: usize) -> bool {
        self.sources.iter().any(|source| source.channel == channel)
    }

    /// One raw row of the signal to one row of the input, appended to `out`. What is not finite, and what is absent,
    /// is NaN.
    pub fn apply(&self, raw: &[f64], out: &mut Vec<f64>) {
        let known = |x: f64| if x.is_finite() { x } else { f64::NAN };
        match self.layout {
            Layout::Plain => out.extend(raw.iter().map(|&x| known(x))),
            Layout::OneEach => {
                out.extend(self.sources.iter().map(|s| known(raw[s.channel] * s.gain + s.offset)));
            }
            Layout::Sums => {
                for c in 0..self.channels() {
                    let terms = self.terms(c);
                    out.extend((0..self.pixels).map(|p| {
                        let value = |s: &Source| raw[s.channel * self.pixels + p] * s.gain + s.offset;
                        let sum: f64 = terms.iter().map(value).sum();
                        if terms.is_empty() { f64::NAN } else { known(sum) }
                    }));
                }
            }
        }
    }
}

/// Raw to physical: a channel's own scale and offset stand before the signal's.
fn source(signal: &SignalSpec, channel: usize, factor: f64) -> Source {
    // A camera's one channel stands for all of its planes.
    let own: Option<&Channel> = signal.channels.get(channel).or(signal.channels.last());
    let scale = own.and_then(|c| c.scale).unwrap_or(signal.scale);
    let offset = own.and_then(|c| c.offset).unwrap_or(signal.offset);
    Source { channel, gain: scale * factor, offset: offset * factor }
}

/// The sources of one model channel in its unit; a channel of another unit is noted in `wrong`.
fn converted(
    signal: &SignalSpec,
    found: &[usize],
    want: &ChannelSpec,
    wrong: &mut Vec<String>,
) -> Vec<Source> {
    let mut terms = Vec::with_capacity(found.len());
    for &c in found {
        let own = &signal.channels[c];
        let unit = if own.unit.is_empty() { &signal.unit } else { &own.unit };
        let unknown = unit.is_empty() || want.unit.is_empty();
        match if unknown { Some(1.0) } else { unit::factor(unit, &want.unit) } {
            Some(factor) => terms.push(source(signal, c, factor)),
            None => {
                wrong.push(format!("{} is in {}, expected {}", clip(&own.name), clip(unit), clip(&want.unit)))
            }
        }
    }
    terms
}

fn refuse_units(wrong: &[String]) -> Result<(), String> {
    match wrong.len() {
        0 => Ok(()),
        n => Err(format!("{n} channels have another unit: {}", listed(wrong))),
    }
}

fn by_name(
    names: &[ChannelSpec],
    signal: &SignalSpec,
    missing_ok: usize,
) -> Result<Vec<Vec<Source>>, String> {
    let mut at: HashMap<&str, usize> = HashMap::new();
    let mut electrodes: HashMap<&str, Vec<usize>> = HashMap::new();
    for (c, channel) in signal.channels.iter().enumerate() {
        if !channel.name.is_empty() && at.insert(&channel.name, c).is_some() {
            return Err(format!("two channels are named `{}`", clip(&channel.name)));
        }
        if !channel.electrode.is_empty() {
            electrodes.entry(&channel.electrode).or_default().push(c);
        }
    }
    // Counts of units add up to their electrode; voltages do not.
    let counts = matches!(signal.kind, SignalType::SpikeEvents | SignalType::Binned);
    let on_electrode = |want: &ChannelSpec| -> Option<&[usize]> {
        let place = if want.electrode.is_empty() { &want.name } else { &want.electrode };
        let wanted = counts && want.source != "sorted";
        electrodes.get(place.as_str()).filter(|_| wanted).map(Vec::as_slice)
    };
    let alias = |name: &str| {
        let pair = EEG_ALIASES.iter().find(|(old, new)| *old == name || *new == name)?;
        at.get(if pair.0 == name { pair.1 } else { pair.0 })
    };
    let (mut missing, mut wrong) = (Vec::new(), Vec::new());
    let mut terms = Vec::with_capacity(names.len());
    for want in names {
        let named = at.get(want.name.as_str()).or_else(|| alias(&want.name));
        let named = named.map(std::slice::from_ref);
        let found = match want.source == "threshold" {
            true => on_electrode(want).or(named),
            false => named.or_else(|| on_electrode(want)),
        };
        if found.is_none() {
            missing.push(want.name.as_str());
        }
        terms.push(converted(signal, found.unwrap_or_default(), want, &mut wrong));
    }
    if missing.len() > missing_ok {
        let there = there_is(missing[0], signal.channels.iter().map(|c| c.name.as_str()));
        let list = listed(&missing.iter().map(|name| clip(name)).collect::<Vec<_>>());
        return Err(format!(
            "{} of {} channels are missing, at most {missing_ok} may be: {list}; {there}",
            missing.len(),
            names.len()
        ));
    }
    refuse_units(&wrong)?;
    Ok(terms)
}

/// Sentences on channels of the input that nothing feeds, and channels of the signal that feed nothing.
fn left_out(
    input: &str,
    names: &[ChannelSpec],
    signal: &SignalSpec,
    terms: &[Vec<Source>],
) -> impl Iterator<Item = String> {
    let absent = names.iter().zip(terms).filter(|(_, terms)| terms.is_empty());
    let absent: Vec<String> = absent.map(|(want, _)| clip(&want.name)).collect();
    let mut used = vec![false; signal.channels.len()];
    terms.iter().flatten().for_each(|source| used[source.channel] = true);
    let spare = signal.channels.iter().zip(used).filter(|(_, used)| !used);
    let spare: Vec<String> = spare.map(|(channel, _)| clip(&channel.name)).collect();
    let masked = (!absent.is_empty()).then(|| {
        format!(
            "input `{input}`: {} of its {} channels are not in signal `{}` and stay masked: {}",
            absent.len(),
            names.len(),
            signal.name,
            listed(&absent)
        )
    });
    let unused = (!spare.is_empty()).then(|| {
        format!(
            "signal `{}`: {} of its {} channels are not known to input `{input}` and are left out: {}",
            signal.name,
            spare.len(),
            signal.channels.len(),
            listed(&spare)
        )
    });
    masked.into_iter().chain(unused)
}

fn listed(all: &[String]) -> String {
    let head = all[..all.len().min(NAMED)].join(", ");
    if all.len() > NAMED { format!("{head} and {} more", all.len() - NAMED) } else { head }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{binned_signal, named_input};
    use super::*;

    fn row(montage: &Montage, raw: &[f64]) -> Vec<f64> {
        let mut out = Vec::new();
        montage.apply(raw, &mut out);
        out
    }

    fn matched(input: &InputSpec, signal: &SignalSpec) -> Result<Montage, SignalError> {
        Montage::new(input, signal, ChannelsBy::Name, &mut Vec::new())
    }

    #[test]
    fn a_permutation_of_the_channels_is_undone_and_extra_ones_are_left_out() {
        let montage = matched(&named_input(&["a", "b", "c"]), &binned_signal(&["c", "x", "a", "b"])).unwrap();
        assert_eq!(row(&montage, &[3.0, 9.0, 1.0, 2.0]), [1.0, 2.0, 3.0]);
        assert!(montage.uses(0) && !montage.uses(1));
    }

    #[test]
    fn units_are_converted_after_scale_and_offset_and_a_channels_own_stand_first() {
        let mut input = named_input(&["a", "b"]);
        let InputChannels::Named(names) = &mut input.channels else { unreachable!() };
        names.iter_mut().for_each(|c| c.unit = "uV".into());
        let mut signal = binned_signal(&["a", "b"]);
        (signal.unit, signal.scale, signal.offset) = ("mV".into(), 2.0, 1.0);
        signal.channels[1].unit = "V".into();
        signal.channels[1].scale = Some(0.5);
        assert_eq!(row(&matched(&input, &signal).unwrap(), &[3.0, 3.0]), [7e3, 2.5e6]);
    }

    #[test]
    fn a_channel_of_another_unit_is_refused_by_name() {
        let mut input = named_input(&["a"]);
        let InputChannels::Named(names) = &mut input.channels else { unreachable!() };
        names[0].unit = "T".into();
        let mut signal = binned_signal(&["a"]);
        signal.unit = "uV".into();
        let error = matched(&input, &signal).unwrap_err().to_string();
        assert!(error.contains("a is in uV, expected T"), "{error}");
    }

    #[test]
    fn sorted_units_are_summed_to_the_electrode_that_the_model_wants() {
        let mut signal = binned_signal(&["u0", "u1", "u2"]);
        for (channel, electrode) in signal.channels.iter_mut().zip(["e1", "e0", "e1"]) {
            channel.electrode = electrode.into();
        }
        let montage = matched(&named_input(&["e0", "e1"]), &signal).unwrap();
        assert_eq!(row(&montage, &[1.0, 2.0, 4.0]), [2.0, 5.0]);
        signal.kind = SignalType::Continuous;
        assert!(matched(&named_input(&["e0", "e1"]), &signal).is_err(), "voltages are not summed");
    }

    #[test]
    fn missing_channels_up_to_missing_ok_are_absent_and_more_are_refused_with_the_nearest_names() {
        let mut input = named_input(&["ch1", "ch2", "ch3"]);
        let signal = binned_signal(&["ch1", "ch22", "x"]);
        let error = matched(&input, &signal).unwrap_err().to_string();
        assert!(
            error.contains("2 of 3 channels are missing, at most 0 may be: ch2, ch3; there are: ch1"),
            "{error}"
        );
        input.missing_ok = 2;
        let montage = matched(&input, &signal).unwrap();
        let got = row(&montage, &[1.0, 2.0, 3.0]);
        assert!(got[0] == 1.0 && got[1].is_nan() && got[2].is_nan() && montage.is_absent(1));
    }

    #[test]
    fn channels_that_are_masked_and_channels_that_are_left_out_are_named() {
        let mut input = named_input(&["ch1", "ch2", "ch3"]);
        input.missing_ok = 2;
        let mut warnings = Vec::new();
        let signal = binned_signal(&["ch3", "x", "y"]);
        Montage::new(&input, &signal, ChannelsBy::Name, &mut warnings).unwrap();
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].contains("2 of its 3 channels") && warnings[0].ends_with("masked: ch1, ch2"));
        assert!(warnings[1].contains("2 of its 3 channels") && warnings[1].ends_with("left out: x, y"));
        warnings.clear();
        let same = binned_signal(&["ch3", "ch1", "ch2"]);
        Montage::new(&input, &same, ChannelsBy::Name, &mut warnings).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
    }

    #[test]
    fn old_eeg_names_are_found_under_the_new_ones() {
        let montage = matched(&named_input(&["T7", "T4"]), &binned_signal(&["T8", "T3"])).unwrap();
        assert_eq!(row(&montage, &[1.0, 2.0]), [2.0, 1.0]);
    }

    #[test]
    fn two_channels_of_one_name_are_refused() {
        let error = matched(&named_input(&["a"]), &binned_signal(&["a", "a"])).unwrap_err().to_string();
        assert!(error.contains("two channels are named `a`"), "{error}");
    }

    #[test]
    fn without_names_or_by_order_channels_are_taken_in_order_with_a_warning_if_the_count_agrees() {
        let mut input = named_input(&["a", "b"]);
        let mut warnings = Vec::new();
        let signal = binned_signal(&["b", "a"]);
        let montage = Montage::new(&input, &signal, ChannelsBy::Order, &mut warnings).unwrap();
        assert_eq!(row(&montage, &[1.0, 2.0]), [1.0, 2.0]);
        input.channels = InputChannels::Count(2);
        Montage::new(&input, &signal, ChannelsBy::Name, &mut warnings).unwrap();
        assert_eq!(warnings.len(), 2);
        input.channels = InputChannels::Count(3);
        let error = Montage::new(&input, &signal, ChannelsBy::Name, &mut warnings).unwrap_err().to_string();
        assert!(error.contains("expected 3 channels, found 2"), "{error}");
    }
}
