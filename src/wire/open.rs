//! What a rig asks for at open, with every default resolved; and signal specs between wire and domain.

use std::collections::BTreeMap;

use super::{tensor, v1};
use crate::domain::ids::SignalName;
use crate::domain::output::OutputSpec;
use crate::domain::settings::{
    Ack, BinsBy, ChannelsBy, GapPolicy, LatePolicy, Loop, NanPolicy, Open, Policies, RecordWish, TrialMarks,
};
use crate::domain::signal::{Channel, ClockBy, SignalRole, SignalSpec, SignalType};
use crate::domain::time::{Rate, ns_from_ms};
use crate::error::{Fault, Kind};

/// What the pipeline gives a session that says nothing.
#[derive(Clone, Debug, Default)]
pub struct PipelineDefaults {
    /// Its declared inputs as signals, channels in the manifest's order.
    pub signals: Vec<SignalSpec>,
    /// The smallest deadline of its models (ms).
    pub deadline_ms: Option<f64>,
    /// Width of its bins, if its models fix one (ns).
    pub width_ns: Option<u64>,
    /// A seed to use where none is told.
    pub seed: u64,
}

const MAX_GAP_MS: f64 = 200.0;
/// Durations end here, where nanoseconds no longer fit 64 bits.
const MAX_MS: f64 = 9.2e12;
/// The latest start: bins need times after it.
const LAST_T0_NS: i64 = i64::MAX - 365 * 86_400 * 1_000_000_000;
const IDLE_TIMEOUT_S: f64 = 3600.0;
const CLOCK_TOLERANCE_MS: f64 = 2.0;

macro_rules! parse_word {
    ($type:ty, $field:expr, $text:expr, $default:expr) => {
        match $text.as_str() {
            "" => $default,
            text => {
                <$type>::parse(text).ok_or_else(|| Fault::unknown_word($field, text, &<$type>::words()))?
            }
        }
    };
}

/// The session as asked for. Errors: `invalid`, naming the field, what was expected and what was found.
pub fn resolve(ask: &v1::OpenRequest, defaults: &PipelineDefaults) -> Result<Open, Fault> {
    if let Some(snapshot) = &ask.from_snapshot {
        return Err(Fault::new(
            Kind::Unsupported,
            format!("from_snapshot `{snapshot}`: this version cannot resume from snapshots"),
        ));
    }
    let channels_by = parse_word!(ChannelsBy, "channels_by", ask.channels_by, ChannelsBy::Name);
    let signals = signals(ask, channels_by, defaults)?;
    let deadline_ms = positive("deadline_ms", ask.deadline_ms)?.or(defaults.deadline_ms);
    let deadline_ns = deadline_ms.map(|ms| ns("deadline_ms", ms)).transpose()?;
    if let (Some(0), Some(ms)) = (deadline_ns, deadline_ms) {
        return Err(Fault::mismatch("deadline_ms", "at least 1 ns, which is 0.000001", told(ms)));
    }
    let width_ns = defaults.width_ns.or_else(|| first_row_ns(&signals));
    let two_bins_ms = width_ns.map_or(100.0, |width| 2e-6 * width as f64);
    let wait_ms = not_negative("wait_ms", ask.wait_ms)?.or(deadline_ms).unwrap_or(two_bins_ms);
    let max_gap_ms = not_negative("max_gap_ms", ask.max_gap_ms)?.unwrap_or(MAX_GAP_MS);
    let tolerance_ms =
        not_negative("clock_tolerance_ms", ask.clock_tolerance_ms)?.unwrap_or(CLOCK_TOLERANCE_MS);
    let lateness_ms = not_negative("lateness_ms", Some(ask.lateness_ms))?.unwrap_or(0.0);
    let policies = Policies {
        gap: parse_word!(GapPolicy, "gap", ask.gap, GapPolicy::Hold),
        max_gap_ns: ns("max_gap_ms", max_gap_ms)?,
        late: parse_word!(LatePolicy, "late", ask.late, LatePolicy::Drop),
        lateness_ns: ns("lateness_ms", lateness_ms)?,
        wait_ns: ns("wait_ms", wait_ms)?,
        nan: parse_word!(NanPolicy, "nan", ask.nan, NanPolicy::Mask),
        clock_tolerance_ns: ns("clock_tolerance_ms", tolerance_ms)?,
        bins: parse_word!(BinsBy, "bins", ask.bins, BinsBy::Whole),
    };
    if let Some(t0_ns) = ask.t0_ns.filter(|t0_ns| *t0_ns > LAST_T0_NS) {
        let expected = format!("at most {LAST_T0_NS}, a year before int64 nanoseconds end");
        return Err(Fault::mismatch("t0_ns", expected, t0_ns.to_string()));
    }
    let idle_timeout_s = positive("idle_timeout_s", ask.idle_timeout_s)?.unwrap_or(IDLE_TIMEOUT_S);
    if idle_timeout_s >= MAX_MS / 1e3 {
        let expected = format!("below {:e} s (292 years)", MAX_MS / 1e3);
        return Err(Fault::mismatch("idle_timeout_s", expected, told(idle_timeout_s)));
    }
    let mut statics = BTreeMap::new();
    for (name, value) in &ask.r#static {
        let field = format!("static.{name}");
        let tensor = tensor::host(&field, value)?;
        if !tensor.is_finite() {
            let place = tensor.to_f64().iter().position(|x| !x.is_finite()).unwrap_or_default();
            let found = format!("NaN or infinity in element {place}");
            return Err(Fault::mismatch(field, "finite values", found));
        }
        statics.insert(name.clone(), tensor);
    }
    let trials = match &ask.trials {
        None => None,
        Some(marks) => {
            let known = signals.iter().find(|spec| spec.name.as_str() == marks.signal);
            if known.is_none_or(|spec| spec.kind != SignalType::Markers) {
                let markers = signals.iter().filter(|spec| spec.kind == SignalType::Markers);
                let names: Vec<&str> = markers.map(|spec| spec.name.as_str()).collect();
                return Err(Fault::mismatch(
                    "trials.signal",
                    format!("a signal of type markers ({})", crate::error::there_is(&marks.signal, names)),
                    format!("`{}`", crate::error::clip(&marks.signal)),
                ));
            }
            for (field, text) in [("trials.start", &marks.start), ("trials.end", &marks.end)] {
                if text.is_empty() {
                    return Err(Fault::mismatch(field, "a marker's text", "nothing"));
                }
            }
            if marks.start == marks.end {
                let found = format!("`{}` for both", crate::error::clip(&marks.end));
                let expected = "another text than trials.start, so that a start is told from an end";
                return Err(Fault::mismatch("trials.end", expected, found));
            }
            Some(TrialMarks {
                signal: SignalName::from(marks.signal.as_str()),
                start: marks.start.clone(),
                end: marks.end.clone(),
                key: marks.key.clone(),
            })
        }
    };
    Ok(Open {
        pipeline: ask.pipeline.as_str().into(),
        rig: ask.rig.clone(),
        signals,
        channels_by,
        t0_ns: ask.t0_ns,
        seed: ask.seed.unwrap_or(defaults.seed),
        record: ask.record.as_ref().map(|record| RecordWish {
            outputs: record.outputs.clone(),
            inputs: record.inputs.unwrap_or(true),
            broadband: record.broadband.unwrap_or(false),
        }),
        policies,
        deadline_ns,
        ack: parse_word!(Ack, "ack", ask.ack, Ack::None),
        feedback: parse_word!(Loop, "loop", ask.r#loop, Loop::Open),
        outputs: ask.outputs.clone(),
        trials,
        statics,
        versions: ask.versions.clone().into_iter().collect(),
        idle_timeout_s,
        tags: ask.tags.clone(),
        notes: ask.notes.clone(),
        dry_run: ask.dry_run,
    })
}

/// The request as resolved, for the answer and for the run. `outputs` and `versions` are those really given.
pub fn resolved(
    ask: &v1::OpenRequest,
    open: &Open,
    outputs: Vec<String>,
    versions: impl IntoIterator<Item = (String, u32)>,
) -> v1::OpenRequest {
    let policies = &open.policies;
    let ms = |ns: u64| ns as f64 / 1e6;
    v1::OpenRequest {
        signals: open.signals.iter().map(signal_message).collect(),
        channels_by: open.channels_by.word().into(),
        seed: Some(open.seed),
        record: open.record.as_ref().map(|wish| v1::Record {
            outputs: if wish.outputs.is_empty() { outputs.clone() } else { wish.outputs.clone() },
            inputs: Some(wish.inputs),
            broadband: Some(wish.broadband),
        }),
        gap: policies.gap.word().into(),
        max_gap_ms: Some(ms(policies.max_gap_ns)),
        late: policies.late.word().into(),
        lateness_ms: ms(policies.lateness_ns),
        wait_ms: Some(ms(policies.wait_ns)),
        nan: policies.nan.word().into(),
        deadline_ms: open.deadline_ns.map(ms),
        ack: open.ack.word().into(),
        outputs,
        r#loop: open.feedback.word().into(),
        bins: policies.bins.word().into(),
        versions: versions.into_iter().collect(),
        idle_timeout_s: Some(open.idle_timeout_s),
        clock_tolerance_ms: Some(ms(policies.clock_tolerance_ns)),
        ..ask.clone()
    }
}

fn signals(
    ask: &v1::OpenRequest,
    by: ChannelsBy,
    defaults: &PipelineDefaults,
) -> Result<Vec<SignalSpec>, Fault> {
    if ask.signals.is_empty() {
        if by == ChannelsBy::Order {
            return Ok(defaults.signals.clone());
        }
        return Err(Fault::mismatch(
            "signals",
            "the rig's signals with their channels' names (or channels_by = \"order\" to take the pipeline's own)",
            "none",
        ));
    }
    let mut all: Vec<SignalSpec> = Vec::with_capacity(ask.signals.len());
    for (at, wire) in ask.signals.iter().enumerate() {
        let declared = defaults.signals.iter().find(|spec| spec.name.as_str() == wire.name);
        let spec = signal(at, wire, by, declared)?;
        if all.iter().any(|other| other.name == spec.name) {
            return Err(Fault::mismatch(
                format!("signals[{at}].name"),
                "a name of its own",
                format!("`{}` twice", spec.name),
            ));
        }
        all.push(spec);
    }
    Ok(all)
}

fn signal(
    at: usize,
    wire: &v1::SignalSpec,
    by: ChannelsBy,
    declared: Option<&SignalSpec>,
) -> Result<SignalSpec, Fault> {
    let field = |name: &str| format!("signals[{at}].{name}");
    if wire.name.is_empty() {
        return Err(Fault::mismatch(field("name"), "a name", "nothing"));
    }
    let kind = SignalType::parse(&wire.r#type)
        .ok_or_else(|| Fault::unknown_word(&field("type"), &wire.r#type, &SignalType::words()))?;
    let rate = match (&wire.rate, kind) {
        (Some(rate), SignalType::Continuous | SignalType::Frames) => {
            Some(Rate::new(rate.num, rate.den).ok_or_else(|| {
                Fault::mismatch(
                    field("rate"),
                    "num and den of at least 1",
                    format!("{}/{}", rate.num, rate.den),
                )
            })?)
        }
        (None, SignalType::Continuous | SignalType::Frames) => {
            return Err(Fault::mismatch(field("rate"), format!("a rate for type {kind}"), "none"));
        }
        (Some(_), _) => {
            return Err(Fault::mismatch(field("rate"), format!("none for type {kind}"), "a rate"));
        }
        (None, _) => None,
    };
    let bin_ms = match (wire.bin_ms, kind) {
        (Some(ms), SignalType::Binned) => {
            let ns = ms * 1e6;
            let whole = ns.is_finite() && ns >= 1.0 && (ns - ns.round()).abs() <= 1e-3;
            if !whole {
                return Err(Fault::mismatch(
                    field("bin_ms"),
                    "a whole number of nanoseconds above 0",
                    told(ms),
                ));
            }
            self::ns(&field("bin_ms"), ms)?;
            Some(ms)
        }
        (None, SignalType::Binned) => {
            return Err(Fault::mismatch(field("bin_ms"), "the width of a row, for type binned", "none"));
        }
        (Some(_), _) => {
            return Err(Fault::mismatch(field("bin_ms"), format!("none for type {kind}"), "a width"));
        }
        (None, _) => None,
    };
    let mut channels = Vec::with_capacity(wire.channels.len());
    for (c, channel) in wire.channels.iter().enumerate() {
        channels.push(channel_of(&field(&format!("channels[{c}]")), channel)?);
    }
    // Images have planes of pixels, which the model's shape tells.
    let may_have_none = matches!(kind, SignalType::Markers | SignalType::Frames | SignalType::AddressEvents);
    if channels.is_empty() && !may_have_none {
        match declared.filter(|_| by == ChannelsBy::Order) {
            Some(spec) => channels.clone_from(&spec.channels),
            None => return Err(Fault::mismatch(field("channels"), "the signal's channels", "none")),
        }
    }
    if by == ChannelsBy::Name && kind != SignalType::Markers {
        let mut seen = std::collections::HashSet::new();
        for (c, channel) in channels.iter().enumerate() {
            if channel.name.is_empty() {
                return Err(Fault::mismatch(
                    field(&format!("channels[{c}].name")),
                    "a name (or channels_by = \"order\")",
                    "nothing",
                ));
            }
            if !seen.insert(channel.name.as_str()) {
                let name = crate::error::clip(&channel.name);
                return Err(Fault::mismatch(
                    field(&format!("channels[{c}].name")),
                    "a name of its own",
                    format!("`{name}` twice"),
                ));
            }
        }
    }
    let source_delay_ms = not_negative(&field("source_delay_ms"), Some(wire.source_delay_ms))?.unwrap_or(0.0);
    ns(&field("source_delay_ms"), source_delay_ms)?;
    let clock_by = parse_word!(ClockBy, &field("clock_by"), wire.clock_by, ClockBy::Exchange);
    match (clock_by, wire.clock_offset_ns) {
        (ClockBy::Declared, None) => {
            return Err(Fault::mismatch(
                field("clock_offset_ns"),
                "an offset with clock_by = \"declared\"",
                "none",
            ));
        }
        (ClockBy::Exchange | ClockBy::Arrival, Some(_)) => {
            return Err(Fault::mismatch(
                field("clock_offset_ns"),
                format!("none with clock_by = \"{clock_by}\""),
                "an offset",
            ));
        }
        _ => {}
    }
    Ok(SignalSpec {
        name: SignalName::from(wire.name.as_str()),
        kind,
        channels,
        unit: wire.unit.clone(),
        rate,
        bin_ms,
        clock: if wire.clock.is_empty() { "device".into() } else { wire.clock.clone() },
        clock_by,
        clock_offset_ns: wire.clock_offset_ns,
        role: parse_word!(SignalRole, &field("role"), wire.role, SignalRole::Input),
        scale: finite(&field("scale"), wire.scale)?.unwrap_or(1.0),
        offset: finite(&field("offset"), wire.offset)?.unwrap_or(0.0),
        source_delay_ms,
        own_writer: wire.own_writer,
    })
}

fn channel_of(field: &str, wire: &v1::Channel) -> Result<Channel, Fault> {
    let placed = matches!(wire.position.len(), 0 | 3) && wire.position.iter().all(|x| x.is_finite());
    if !placed {
        return Err(Fault::mismatch(
            format!("{field}.position"),
            "nothing or three finite numbers",
            format!("{:?}", wire.position),
        ));
    }
    Ok(Channel {
        name: wire.name.clone(),
        unit: wire.unit.clone(),
        electrode: wire.electrode.clone(),
        group: wire.group.clone(),
        kind: wire.kind.clone(),
        position: wire.position.clone(),
        scale: finite(&format!("{field}.scale"), wire.scale)?,
        offset: finite(&format!("{field}.offset"), wire.offset)?,
    })
}

/// A signal's spec for the wire, every default written out.
pub fn signal_message(spec: &SignalSpec) -> v1::SignalSpec {
    v1::SignalSpec {
        name: spec.name.as_str().into(),
        r#type: spec.kind.word().into(),
        channels: spec
            .channels
            .iter()
            .map(|channel| v1::Channel {
                name: channel.name.clone(),
                unit: channel.unit.clone(),
                electrode: channel.electrode.clone(),
                group: channel.group.clone(),
                kind: channel.kind.clone(),
                position: channel.position.clone(),
                scale: channel.scale,
                offset: channel.offset,
            })
            .collect(),
        unit: spec.unit.clone(),
        rate: spec.rate.map(|rate| v1::Rate { num: rate.num, den: rate.den }),
        bin_ms: spec.bin_ms,
        clock: spec.clock.clone(),
        clock_by: spec.clock_by.word().into(),
        clock_offset_ns: spec.clock_offset_ns,
        role: spec.role.word().into(),
        scale: Some(spec.scale),
        offset: Some(spec.offset),
        source_delay_ms: spec.source_delay_ms,
        own_writer: spec.own_writer,
    }
}

/// Width of the rows of the first binned input (ns).
fn first_row_ns(signals: &[SignalSpec]) -> Option<u64> {
    let inputs = signals.iter().filter(|spec| spec.role == SignalRole::Input);
    inputs.filter_map(|spec| spec.bin_ms).find_map(ns_from_ms)
}

fn ns(field: &str, ms: f64) -> Result<u64, Fault> {
    ns_from_ms(ms).ok_or_else(|| Fault::mismatch(field, format!("below {MAX_MS:e} ms (292 years)"), told(ms)))
}

/// A number as a sentence has it: short, whatever its size.
fn told(x: f64) -> String {
    if x == 0.0 || (1e-6..1e15).contains(&x.abs()) { x.to_string() } else { format!("{x:e}") }
}

fn finite(field: &str, value: Option<f64>) -> Result<Option<f64>, Fault> {
    match value {
        Some(x) if !x.is_finite() => Err(Fault::mismatch(field, "a finite number", told(x))),
        _ => Ok(value),
    }
}

fn not_negative(field: &str, value: Option<f64>) -> Result<Option<f64>, Fault> {
    match finite(field, value)? {
        Some(x) if x < 0.0 => Err(Fault::mismatch(field, "0 or more", told(x))),
        value => Ok(value),
    }
}

fn positive(field: &str, value: Option<f64>) -> Result<Option<f64>, Fault> {
    match finite(field, value)? {
        Some(x) if x <= 0.0 => Err(Fault::mismatch(field, "more than 0", told(x))),
        value => Ok(value),
    }
}

/// An output's spec for the wire.
pub fn output_message(spec: &OutputSpec) -> v1::OutputSpec {
    v1::OutputSpec {
        number: spec.number,
        name: spec.name.clone(),
        stage: spec.stage.to_string(),
        output: spec.output.clone(),
        role: spec.role.word().into(),
        dims: spec.dims.clone(),
        labels: spec.labels.clone(),
        unit: spec.unit.clone(),
        dtype: spec.dtype.word().into(),
        sparse: spec.sparse,
        delay_ms: spec.delay_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_behind_which_no_time_is_left_is_refused() {
        let resolved =
            |t0_ns| resolve(&v1::OpenRequest { t0_ns: Some(t0_ns), ..ask() }, &PipelineDefaults::default());
        assert!(resolved(LAST_T0_NS).is_ok());
        let refused = resolved(i64::MAX).unwrap_err().detail;
        assert!(refused.contains("t0_ns") && refused.contains("9223372036854775807"), "{refused}");
    }

    fn ask() -> v1::OpenRequest {
        let signal = |name: &str, kind: &str, channels: Vec<v1::Channel>| v1::SignalSpec {
            name: name.into(),
            r#type: kind.into(),
            channels,
            bin_ms: (kind == "binned").then_some(10.0),
            ..Default::default()
        };
        let channel = v1::Channel { name: "a".into(), ..Default::default() };
        let signals = vec![signal("spikes", "binned", vec![channel]), signal("ttl", "markers", vec![])];
        v1::OpenRequest { signals, ..Default::default() }
    }

    fn refused(change: impl FnOnce(&mut v1::OpenRequest)) -> (String, String, String) {
        let mut ask = ask();
        change(&mut ask);
        let fault = resolve(&ask, &PipelineDefaults::default()).unwrap_err();
        assert_eq!(fault.kind, Kind::Invalid);
        (fault.tensor, fault.expected, fault.found)
    }

    fn said(field: &str, expected: &str, found: &str) -> (String, String, String) {
        (field.into(), expected.into(), found.into())
    }

    #[test]
    fn durations_end_where_nanoseconds_do_and_a_deadline_is_at_least_one() {
        assert!(resolve(&ask(), &PipelineDefaults::default()).is_ok());
        let bound = "below 9.2e12 ms (292 years)";
        assert_eq!(refused(|ask| ask.wait_ms = Some(1e300)), said("wait_ms", bound, "1e300"));
        assert_eq!(
            refused(|ask| ask.signals[0].source_delay_ms = 1e300),
            said("signals[0].source_delay_ms", bound, "1e300")
        );
        assert_eq!(
            refused(|ask| ask.signals[0].bin_ms = Some(9.2e12)),
            said("signals[0].bin_ms", bound, "9200000000000")
        );
        assert_eq!(
            refused(|ask| ask.idle_timeout_s = Some(1e10)),
            said("idle_timeout_s", "below 9.2e9 s (292 years)", "10000000000")
        );
        assert_eq!(
            refused(|ask| ask.deadline_ms = Some(4e-7)),
            said("deadline_ms", "at least 1 ns, which is 0.000001", "4e-7")
        );
        let mut least = ask();
        least.deadline_ms = Some(1e-6);
        assert_eq!(resolve(&least, &PipelineDefaults::default()).unwrap().deadline_ns, Some(1));
    }

    #[test]
    fn a_static_input_is_finite_and_a_trial_starts_with_another_text_than_it_ends_with() {
        let (dtype, shape, values) = ("f64".into(), vec![3], vec![0.0, 1.0, f64::INFINITY]);
        let tensor = v1::Tensor { dtype, shape, values, ..Default::default() };
        assert_eq!(
            refused(|ask| drop(ask.r#static.insert("pos".into(), tensor))),
            said("static.pos", "finite values", "NaN or infinity in element 2")
        );
        let trials = |start: &str, end: &str| v1::Trials {
            signal: "ttl".into(),
            start: start.into(),
            end: end.into(),
            key: None,
        };
        let (field, _, found) = refused(|ask| ask.trials = Some(trials("go", "go")));
        assert_eq!((&field[..], &found[..]), ("trials.end", "`go` for both"));
        assert_eq!(
            refused(|ask| ask.trials = Some(trials("", "stop"))),
            said("trials.start", "a marker's text", "nothing")
        );
    }
}
