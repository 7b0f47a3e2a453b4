//! Why a model's outputs are others than expected although its inputs are as they should be: its state, its tensors, the node
//! that is the first to differ.

use super::near;
use super::reasons::{Inquiry, Reason, reason, ten_to};
use crate::error::Fault;
use crate::graph::nodes::{leading_to, nodes, probed};
use crate::signal::step::Bin;

impl Inquiry<'_> {
    /// The inputs are as expected, or nothing about them explains it.
    pub(super) fn in_the_graph(&self, bins: &[Bin], inputs_agree: bool) -> Result<Reason, Fault> {
        let (lab, trial, got) = (self.lab, self.trial, self.got);
        let told = &lab.version.manifest.example;
        let differs = self.differing();
        let Some(name) = differs.first() else { return Ok(reason("server", "run again, it agrees")) };
        let (got_here, want) = (&got[*name], &trial.outputs[*name]);
        let gives = |other: &String, wanted: &String| {
            trial.outputs.get(wanted).is_some_and(|want| near::fits(told, &got[other], want))
        };
        let other = got.keys().find(|other| other != name && gives(other, name));
        let exchanged = other.is_some_and(|other| gives(name, other));
        // What is not carried may be what another output says of the bin alone.
        if !exchanged && let Some(found) = self.not_carried(bins, name)? {
            return Ok(found);
        }
        if let Some(other) = other {
            let says = format!(
                "what is expected of `{name}` (tensor `{}`) is what `{other}` gives (tensor `{}`): {}",
                self.tensor(name),
                self.tensor(other),
                if exchanged { "they are exchanged" } else { "is that the tensor that is meant?" }
            );
            return Ok(reason("tensor", says));
        }
        if let Some(order) = near::order(told, got_here, want) {
            let moved = order.iter().enumerate().find(|(to, from)| to != *from);
            let (to, from) = moved.map_or((0, 0), |(to, from)| (to, *from));
            let says = format!(
                "the values of `{name}` (tensor `{}`) stand in another order: expected {to} is {from} here",
                self.tensor(name)
            );
            return Ok(reason("tensor", says));
        }
        if let Some((power, _)) = near::thousands(told, got_here, want) {
            let says = format!("what is expected of `{name}` is {} times what is here", ten_to(power));
            return Ok(reason("unit", says));
        }
        if let Some(by) = near::shift(told, got_here, want) {
            let says = format!(
                "what is expected of `{name}` is what the bin {} gives here: is first_bin right?",
                if by > 0 { format!("{by} behind") } else { format!("{} before", -by) }
            );
            return Ok(reason("bin edge", says));
        }
        if let Some(found) = self.begins_otherwise(name) {
            return Ok(found);
        }
        Ok(reason("node", self.node(&differs, inputs_agree)))
    }

    /// The outputs that differ, by name.
    fn differing(&self) -> Vec<&String> {
        let told = &self.lab.version.manifest.example;
        let all = self.trial.outputs.iter();
        all.filter(|(name, want)| !near::fits(told, &self.got[*name], want)).map(|(name, _)| name).collect()
    }

    /// A value that is not finite, by the first node that makes one.
    pub(super) fn not_finite(&self, bins: &[Bin]) -> Result<Option<Reason>, Fault> {
        let of = |name: &String| {
            let pairs = self.got[name].indexed_iter().zip(&self.trial.outputs[name]);
            let mut lost = pairs.filter(|((_, got), want)| !got.is_finite() && want.is_finite());
            lost.next().map(|(((row, _), _), _)| row)
        };
        let Some(row) = self.differing().into_iter().filter_map(of).min() else { return Ok(None) };
        let bin = self.trial.first_bin + row as u64;
        let Some(fed) = self.lab.fed(bins, bin)? else {
            let says = format!("bin {bin}: no window ends with it, so that the model is not run there");
            return Ok(Some(reason("bin edge", says)));
        };
        if let Some(port) = fed.iter().position(|tensor| !tensor.is_finite()) {
            let says = format!(
                "bin {bin}: `{}` is not finite as it goes in",
                self.lab.version.input_ports()[port].name
            );
            return Ok(Some(reason("tensor", says)));
        }
        let onnx = &self.lab.bytes.onnx;
        for node in nodes(onnx).unwrap_or_default() {
            for made in node.outputs.iter().filter(|made| !made.is_empty()) {
                // Why passed over: what is no f32 cannot be looked at so, and is not what becomes NaN.
                let Some(looked) =
                    probed(onnx, made).ok().and_then(|probed| self.lab.run_probed(probed, &fed).ok())
                else {
                    continue;
                };
                if !looked.is_finite() {
                    let says = format!("bin {bin}: {node} is the first whose value `{made}` is not finite");
                    return Ok(Some(reason("node", says)));
                }
            }
        }
        let says = format!("bin {bin}: an output is not finite, and every node's value is, run alone");
        Ok(Some(reason("node", says)))
    }

    /// Whether what is expected is what a state gives that is not carried.
    fn not_carried(&self, bins: &[Bin], name: &String) -> Result<Option<Reason>, Fault> {
        let (lab, trial) = (self.lab, self.trial);
        let Some(state) = lab.version.manifest.states.first() else { return Ok(None) };
        let anew = lab.outputs(bins, true, trial.first_bin, trial.n)?;
        let told = &lab.version.manifest.example;
        Ok(near::fits(told, &anew[name], &trial.outputs[name]).then(|| {
            let says = format!(
                "what is expected is what a state that begins anew before each bin gives; here `{}` is carried into `{}`",
                state.output, state.input
            );
            reason("state", says)
        }))
    }

    /// Whether an output differs near the beginning alone.
    fn begins_otherwise(&self, name: &String) -> Option<Reason> {
        let (lab, trial) = (self.lab, self.trial);
        let state = lab.version.manifest.states.first()?;
        let from = near::settles(&lab.version.manifest.example, &self.got[name], &trial.outputs[name])?;
        let says = format!(
            "bins before {} differ, less and less, and all later ones agree: the state `{}` begins otherwise than its init \
             says",
            trial.first_bin + from as u64,
            state.input
        );
        Some(reason("state", says))
    }

    /// The graph's tensor that is an output.
    fn tensor(&self, name: &str) -> &str {
        let output = self.lab.plan.outputs.iter().find(|output| output.name == name);
        let bound = output.and_then(|output| self.lab.version.output(&output.output));
        bound.map_or("", |bound| bound.tensor.as_str())
    }

    /// The nodes that lead to what differs and to nothing that agrees.
    fn node(&self, differs: &[&String], inputs_agree: bool) -> String {
        let nodes = nodes(&self.lab.bytes.onnx).unwrap_or_default();
        let agree: Vec<&String> = self.trial.outputs.keys().filter(|name| !differs.contains(name)).collect();
        let name = differs[0];
        let mut suspects = leading_to(&nodes, self.tensor(name));
        for other in &agree {
            let innocent = leading_to(&nodes, self.tensor(other));
            suspects.retain(|node| !innocent.contains(node));
        }
        let inputs = match inputs_agree {
            true => "the inputs agree, so the graph itself gives another value",
            false => "nothing about the inputs explains it, so the graph itself seems to give another value",
        };
        let maker = nodes.iter().find(|node| node.outputs.iter().any(|made| made == self.tensor(name)));
        let maker = maker.map_or_else(|| format!("tensor `{}`", self.tensor(name)), ToString::to_string);
        let named =
            |names: &[&String]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        match (agree.is_empty(), suspects.first()) {
            (false, Some(first)) => format!(
                "{inputs}: {} differs and {} agrees, and the first node that leads to the one alone is {} (of {}; its last \
                 is {maker})",
                named(differs),
                named(&agree),
                nodes[*first],
                suspects.len()
            ),
            (false, None) => format!(
                "{inputs}: {} differs, {} agrees; it comes from {maker}",
                named(differs),
                named(&agree)
            ),
            (true, _) => format!(
                "{inputs}: `{name}` comes from {maker}; are these the weights that the trial was made with?"
            ),
        }
    }
}
