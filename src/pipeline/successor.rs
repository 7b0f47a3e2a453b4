//! Another version of one stage, made ready beside the running one: whatever must be checked, compiled or allocated is
//! done here, so that its taking over between two bins only moves it in.

use std::sync::Arc;
use std::time::Instant;

use super::journey::row_of;
use super::plan::{Feed, Plan, Stage};
use super::window::Window;
use crate::batch::{Port, Row};
use crate::domain::output::OutputSpec;
use crate::domain::settings::SwitchState;
use crate::domain::tensor::Tensor;
use crate::error::Fault;
use crate::registry::ready::ReadyVersion;

/// A stage's next version, with the plan that it makes.
pub struct Successor {
    /// The plan with this version in its stage; all else is as in the running one.
    pub plan: Arc<Plan>,
    /// Index of the stage.
    pub stage: usize,
    /// What it begins with.
    pub state: SwitchState,
    pub(super) row: Box<Row>,
    /// Its empty window; `None`: it has none, or goes on in the running one's.
    pub(super) window: Option<Window>,
    /// Input ports, the running version's and its own, whose tensors it takes over.
    pub(super) kept: Vec<(usize, usize)>,
}

/// What a successor has left without work, or itself, where it does not take over. To be dropped where there is time: it
/// may hold the last of a version.
pub struct Outgone {
    pub(super) _plan: Arc<Plan>,
    pub(super) _row: Option<Box<Row>>,
}

impl Outgone {
    /// A plan that nobody travels any more.
    pub fn of(plan: Arc<Plan>) -> Self {
        Self { _plan: plan, _row: None }
    }
}

impl From<Successor> for Outgone {
    fn from(unused: Successor) -> Self {
        Self { _plan: unused.plan, _row: Some(unused.row) }
    }
}

impl Successor {
    /// `version` for the stage at that index of the plan that runs by then; `statics` as the session gave them.
    /// Errors: `invalid`, naming what must be the same, what was expected and what was found.
    pub fn new(
        running: &Plan,
        stage: usize,
        version: Arc<ReadyVersion>,
        state: SwitchState,
        statics: &[Tensor],
        now: Instant,
    ) -> Result<Self, Fault> {
        let mut versions: Vec<_> = running.stages.iter().map(|stage| Arc::clone(&stage.version)).collect();
        versions[stage] = version;
        let plan = Plan::compile(&running.spec, versions)?;
        let (old, new) = (&running.stages[stage], &plan.stages[stage]);
        fits(running, &plan).map_err(|fault| of_version(new, fault))?;
        let kept = match state {
            SwitchState::Keep => kept(old, new).map_err(|fault| of_version(new, fault))?,
            SwitchState::Reset | SwitchState::Warm => Vec::new(),
        };
        let window = new.window.filter(|_| state != SwitchState::Keep).map(Window::new);
        let row = Box::new(row_of(new, statics, now));
        Ok(Self { stage, state, row, window, kept, plan: Arc::new(plan) })
    }
}

impl Successor {
    /// One that has been warmed: it takes over with the state in its row and with its window.
    pub(super) fn warmed(plan: Arc<Plan>, stage: usize, row: Box<Row>, window: Option<Window>) -> Self {
        Self { plan, stage, state: SwitchState::Warm, row, window, kept: Vec::new() }
    }
}

/// The fault, said of the version.
fn of_version(stage: &Stage, fault: Fault) -> Fault {
    let (model, version) = (&stage.version.model, stage.version.version);
    Fault { detail: format!("stage `{}`, model {model}/{version}: {}", stage.name, fault.detail), ..fault }
}

/// What a session was told at open, and what its aligner was made for, must stay true.
fn fits(running: &Plan, plan: &Plan) -> Result<(), Fault> {
    let names = |plan: &Plan| plan.inputs.iter().map(|input| input.name.clone()).collect::<Vec<_>>();
    same("streamed inputs", &names(running), &names(plan))?;
    running.inputs.iter().zip(&plan.inputs).try_for_each(|(old, new)| old.same_as(new))?;
    same("values per bin of the inputs", &running.input_rows(), &plan.input_rows())?;
    same("static inputs", &running.statics, &plan.statics)?;
    let names = |plan: &Plan| plan.outputs.iter().map(|spec| spec.name.clone()).collect::<Vec<_>>();
    same("outputs", &names(running), &names(plan))?;
    for (old, new) in running.outputs.iter().zip(&plan.outputs) {
        let told = |what: &str| format!("output `{}`: {what}", old.name);
        let form = |spec: &OutputSpec| format!("{} {:?}", spec.dtype, spec.dims);
        if form(old) != form(new) {
            return Err(Fault::mismatch(told("dtype and dims"), form(old), form(new)));
        }
        same(&told("labels"), &old.labels, &new.labels)?;
        same(&told("unit"), &old.unit, &new.unit)?;
        same(&told("role"), &old.role, &new.role)?;
        same(&told("sparse"), &old.sparse, &new.sparse)?;
    }
    same("reset_on", &running.reset_on(), &plan.reset_on())
}

/// What `keep` takes over: states by the names of their input tensors, and the bins of a window by what feeds them.
fn kept(old: &Stage, new: &Stage) -> Result<Vec<(usize, usize)>, Fault> {
    same("window", &old.window, &new.window)?;
    let port = |stage: &Stage, at: usize| stage.version.input_ports()[at].clone();
    let states = |stage: &Stage| {
        let mut ports: Vec<(usize, Port)> =
            stage.states.iter().map(|state| (state.input_port, port(stage, state.input_port))).collect();
        ports.sort_by(|(_, a), (_, b)| a.name.cmp(&b.name));
        ports
    };
    let (from, to) = (states(old), states(new));
    let form = |ports: &[(usize, Port)]| -> Vec<String> {
        ports.iter().map(|(_, port)| format!("{} {} {:?}", port.name, port.dtype, port.row_shape)).collect()
    };
    same("states (state = \"keep\")", &form(&from), &form(&to))?;
    let mut kept: Vec<(usize, usize)> =
        from.iter().zip(&to).map(|((from, _), (to, _))| (*from, *to)).collect();
    if new.window.is_some() {
        for (to, feed) in new.feeds.iter().enumerate().filter(|(_, feed)| feed.slides()) {
            let from = old.feeds.iter().position(|other| same_source(other, feed));
            let from = from.filter(|&from| {
                let (a, b) = (port(old, from), port(new, to));
                (a.dtype, a.row_shape) == (b.dtype, b.row_shape)
            });
            let key = format!("tensor {}", port(new, to).name);
            let from = from.ok_or_else(|| {
                Fault::mismatch(key, "the running version's dtype and shape (state = \"keep\")", "another")
            })?;
            kept.push((from, to));
        }
    }
    Ok(kept)
}

fn same_source(a: &Feed, b: &Feed) -> bool {
    match (a, b) {
        (Feed::Input(a), Feed::Input(b)) | (Feed::Mask(a), Feed::Mask(b)) => a == b,
        (Feed::Stage { stage: a, port: p }, Feed::Stage { stage: b, port: q }) => (a, p) == (b, q),
        _ => false,
    }
}

/// Errors: `invalid`, with both.
pub(super) fn same<T: PartialEq + std::fmt::Debug>(what: &str, running: &T, new: &T) -> Result<(), Fault> {
    if running == new {
        return Ok(());
    }
    let words = |value: &T| crate::error::clip(&format!("{value:?}"));
    Err(Fault::mismatch(what, format!("{}, as in the running version", words(running)), words(new)))
}
