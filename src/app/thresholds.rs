//! Thresholds of crossings that a session gives at open: `static` under `<input>.thresholds`.

use crate::domain::settings::Open;
use crate::domain::tensor::{Dtype, Tensor};
use crate::error::{Fault, clip, there_is};
use crate::pipeline::plan::Plan;
use crate::signal::aligner::Aligner;

/// What stands behind the input's name.
const SUFFIX: &str = ".thresholds";

/// Sets what the session gives in a new aligner of the plan.
/// Errors: `invalid`, for an input that counts no crossings, and for what cannot be its thresholds.
pub(super) fn give(plan: &Plan, open: &Open, aligner: &mut Aligner) -> Result<(), Fault> {
    for (name, given) in &open.statics {
        let Some(input) = input_of(plan, name) else { continue };
        let Some(takes) = aligner.takes_thresholds(input) else {
            let there_are = names(plan, aligner);
            let expected = format!(
                "an input that a signal feeds and whose preprocess has threshold_crossings ({})",
                there_is(name, there_are.iter().map(String::as_str))
            );
            let found = format!("input `{}` without it", clip(&plan.inputs[input].name));
            return Err(Fault::mismatch(format!("static.{}", clip(name)), expected, found));
        };
        let side = if takes.times < 0.0 { "below" } else { "above" };
        let refused = |found: String| {
            let expected = format!(
                "f32 or f64 [{}], a number {side} 0 for each {} (times = {})",
                takes.count, takes.each, takes.times
            );
            Fault::mismatch(format!("static.{}", clip(name)), expected, found)
        };
        let Tensor { dtype, shape, .. } = given;
        if !matches!(dtype, Dtype::F32 | Dtype::F64) || *shape != [takes.count] {
            return Err(refused(format!("{dtype} {shape:?}")));
        }
        let thresholds = given.to_f64();
        let is_wrong = |threshold: &f64| *threshold == 0.0 || (*threshold < 0.0) != (takes.times < 0.0);
        if let Some(at) = thresholds.iter().position(is_wrong) {
            return Err(refused(format!("{} in element {at}", thresholds[at])));
        }
        aligner.give_thresholds(input, &thresholds);
    }
    Ok(())
}

/// The names under which thresholds may be given.
pub(super) fn names(plan: &Plan, aligner: &Aligner) -> Vec<String> {
    let inputs = plan.inputs.iter().enumerate();
    let takes = inputs.filter(|(at, _)| aligner.takes_thresholds(*at).is_some());
    takes.map(|(_, input)| format!("{}{SUFFIX}", input.name)).collect()
}

/// The input whose thresholds `name` speaks of. A static input that a model declares under such a name is the model's.
pub(super) fn input_of(plan: &Plan, name: &str) -> Option<usize> {
    let input = name.strip_suffix(SUFFIX)?;
    let is_the_models = plan.statics.iter().any(|known| known.name == name);
    plan.inputs.iter().position(|known| known.name == input).filter(|_| !is_the_models)
}
