//! What a run took in, done to an aligner again.

use prost::Message as _;

use crate::domain::signal::SignalSpec;
use crate::error::{Fault, Kind};
use crate::signal::aligner::Aligner;
use crate::signal::step::Step;
use crate::store::intake::Taking;
use crate::wire::{self, v1};

/// Does one thing again, to an aligner made as the session's was; what happens is appended to `out`, as it happened then.
/// `signals`: as open resolved them. Errors: `internal`, for what the session cannot have taken so.
pub fn again(
    aligner: &mut Aligner,
    signals: &[SignalSpec],
    taking: Taking,
    out: &mut Vec<Step>,
) -> Result<(), Fault> {
    let (signal, kept) = match taking {
        Taking::Act(act) => return aligner.act(&act, out).map_err(|refusal| odd("an act", refusal)),
        Taking::Frame(signal, kept) => (signal, kept),
    };
    let what = format!("frame {} of signal {signal}", kept.seq);
    let spec = signals.get(signal).ok_or_else(|| odd(&what, "the session has no such signal"))?;
    let frame = v1::Frame::decode(kept.bytes).map_err(|error| odd(&what, error))?;
    let frame = wire::frame::domain(frame, spec).map_err(|fault| odd(&what, fault))?;
    match aligner.push(signal, &frame, kept.arrived_ns, out) {
        Err(refusal) if !refusal.consumed() => Err(odd(&what, refusal)),
        _ => Ok(()),
    }
}

fn odd(what: &str, why: impl std::fmt::Display) -> Fault {
    Fault::new(Kind::Internal, format!("replay: {what} as it is kept cannot be taken again: {why}"))
}
