//! A session's way in: what was asked for, laid against its pipeline; and the aligner that brings its signals into bins.
//! One place for who opens a session, replays one, or looks into a trial of a model.

use std::num::NonZeroU64;
use std::time::Duration;

use super::thresholds;
use crate::domain::settings::Open;
use crate::domain::signal::{SignalRole, SignalSpec, SignalType};
use crate::domain::tensor::Tensor;
use crate::error::{Fault, Kind, clip, there_is};
use crate::pipeline::plan::Plan;
use crate::signal;
use crate::signal::aligner::Aligner;
use crate::wire::open::{PipelineDefaults, resolve};
use crate::wire::v1;

/// Width of the session's bins: the models', or that of its first binned signal.
fn width(plan: &Plan, open: &Open) -> Result<NonZeroU64, Fault> {
    if let Some(width) = plan.width_ns() {
        return Ok(width);
    }
    let feeds = |name: &str| plan.inputs.iter().any(|input| input.signal.as_str() == name);
    let of_signal = open.signals.iter().filter(|spec| feeds(spec.name.as_str()));
    let width = of_signal.filter_map(|spec| spec.bin_ms).find_map(crate::domain::time::ns_from_ms);
    width.and_then(NonZeroU64::new).ok_or_else(|| {
        let expected = format!("a binned signal for pipeline {}, whose models fix no bin_ms", plan.name);
        Fault::mismatch("signals", expected, "none")
    })
}

/// What a device holds back before it sends, the most of the signals that feed inputs.
pub(super) fn source_delay(plan: &Plan, open: &Open) -> Duration {
    let feeds = |spec: &&SignalSpec| plan.inputs.iter().any(|input| input.signal == spec.name);
    let ms = open.signals.iter().filter(feeds).map(|spec| spec.source_delay_ms).fold(0.0, f64::max);
    Duration::try_from_secs_f64(ms / 1e3).unwrap_or(Duration::MAX)
}

/// A session as asked for, and the way of its signals into bins.
/// Errors: `invalid`, naming the field, what was expected and what was found.
pub fn way_in(plan: &Plan, ask: &v1::OpenRequest) -> Result<(Open, signal::plan::Plan), Fault> {
    let defaults = PipelineDefaults {
        signals: plan.declared_signals(),
        deadline_ms: plan.deadline_ms,
        width_ns: plan.width_ns().map(NonZeroU64::get),
        seed: random_u64()?,
    };
    let open = resolve(ask, &defaults)?;
    let width_ns = width(plan, &open)?;
    let mut inputs = Vec::with_capacity(plan.inputs.len());
    for input in &plan.inputs {
        let Some(at) = open.signals.iter().position(|spec| spec.name == input.signal) else {
            if input.is_required() {
                let names = open.signals.iter().map(|spec| spec.name.as_str());
                let detail = format!("the signal `{}` that feeds input `{}`", input.signal, input.name);
                return Err(Fault::mismatch("signals", detail, named(names)));
            }
            inputs.push((input.spec(width_ns, input.kind.unwrap_or(SignalType::Binned)), None));
            continue;
        };
        let spec = &open.signals[at];
        if spec.role == SignalRole::Target {
            let field = format!("signals[{at}].role");
            return Err(Fault::mismatch(field, format!("input: it feeds input `{}`", input.name), "target"));
        }
        inputs.push((input.spec(width_ns, spec.kind), Some(at)));
    }
    let way = signal::plan::Plan {
        width_ns,
        t0_ns: open.t0_ns,
        policies: open.policies.clone(),
        channels_by: open.channels_by,
        signals: open.signals.clone(),
        inputs,
        trials: open.trials.clone(),
        reset_on: plan.reset_on(),
    };
    Ok((open, way))
}

/// The aligner of a session that was asked for so, with what is to be known about it. For a run's request as resolved it
/// is as that of the run's session was.
/// Errors: `invalid`, for a signal that does not fit its input, and for thresholds that cannot be.
pub fn aligner(plan: &Plan, open: &Open, way: signal::plan::Plan) -> Result<(Aligner, Vec<String>), Fault> {
    let (mut aligner, warnings) = Aligner::new(way)?;
    thresholds::give(plan, open, &mut aligner)?;
    Ok((aligner, warnings))
}

/// A chain may change the number of values; what leaves it must fill the model's row. Errors: `invalid`.
pub(super) fn fills_rows(plan: &Plan, aligner: &Aligner) -> Result<(), Fault> {
    for (number, row) in plan.input_rows().into_iter().enumerate() {
        if let Some(width) = aligner.width(number).filter(|width| *width != row) {
            let field = format!("input `{}`", plan.inputs[number].name);
            return Err(Fault::mismatch(field, format!("{row} values per bin"), width.to_string()));
        }
    }
    Ok(())
}

/// `a, b, c`, or `none`.
pub(super) fn named<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.map(|name| format!("`{}`", clip(name))).collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

/// Static inputs in the plan's order; one that is not required and not given is 0. `static` also holds thresholds, which
/// are the aligner's.
pub(super) fn statics(plan: &Plan, open: &Open, aligner: &Aligner) -> Result<Vec<Tensor>, Fault> {
    let is_known = |name: &String| {
        plan.statics.iter().any(|known| known.name == *name) || thresholds::input_of(plan, name).is_some()
    };
    if let Some(name) = open.statics.keys().find(|name| !is_known(name)) {
        let of_crossings = thresholds::names(plan, aligner);
        let there_are = plan.statics.iter().map(|known| known.name.as_str());
        let there_are = there_are.chain(of_crossings.iter().map(String::as_str));
        let expected = format!("a static input of the pipeline ({})", there_is(name, there_are));
        return Err(Fault::mismatch("static", expected, format!("`{}`", clip(name))));
    }
    let one = |known: &crate::pipeline::plan::PlanStatic| match open.statics.get(&known.name) {
        Some(tensor) if tensor.dtype == known.dtype && tensor.shape == known.shape => Ok(tensor.clone()),
        Some(tensor) => Err(Fault::mismatch(
            format!("static.{}", known.name),
            format!("{} {:?}", known.dtype, known.shape),
            format!("{} {:?}", tensor.dtype, tensor.shape),
        )),
        None if known.required => {
            let field = format!("static.{}", known.name);
            Err(Fault::mismatch(field, format!("{} {:?}", known.dtype, known.shape), "none"))
        }
        None => Ok(Tensor::zeros(known.dtype, &known.shape)),
    };
    plan.statics.iter().map(one).collect()
}

/// Whether a signal's frames are recorded whole.
pub(super) fn keeps_data(kind: SignalType, role: SignalRole, open: &Open) -> bool {
    let Some(record) = &open.record else { return false };
    match (role, kind) {
        (SignalRole::Target, _) | (_, SignalType::Markers) => true,
        (_, SignalType::Continuous | SignalType::Frames) => record.broadband,
        _ => record.inputs,
    }
}

fn random_u64() -> Result<u64, Fault> {
    getrandom::u64().map_err(no_randomness)
}

pub(super) fn no_randomness(error: getrandom::Error) -> Fault {
    Fault::new(Kind::Internal, format!("the system gives no randomness: {error}"))
}
