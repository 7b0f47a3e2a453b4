//! A session's health as it is told: flags and events as bins pass, and its page.

use super::core::Core;
use super::live::Session;
use crate::domain::output::{EventKind, Flags, Notice};
use crate::health::{InputReport, LatentReport, Report, Row, Told};
use crate::signal::step::Bin;
use crate::wire::v1;

impl Session {
    /// A bin begins: what it brings is taken in, what has begun or ended by it is told. Answers its flag.
    pub(super) fn watch(&self, core: &mut Core, bin: &Bin, now_ns: i64) -> Flags {
        core.health.begin(bin.k);
        let told = core.health.take_told();
        if !told.is_empty() {
            self.meter.shifted(core.health.is_shifted());
            self.tell_shifts(core, told, now_ns);
        }
        // What was filled in is not what came, and what a filter gives before it has settled is not what it gives.
        if !bin.flags.has(Flags::GAP_FILLED) && !bin.flags.has(Flags::WARMING_UP) {
            core.health.inputs(|number| {
                let row = bin.inputs.get(number).filter(|row| row.present)?;
                Some(Row { values: &row.values, mask: &row.mask, cofiring: row.cofiring })
            });
        }
        if core.health.is_shifted() { Flags::INPUT_SHIFT } else { Flags::default() }
    }

    /// What a bin gave is taken in. Before the journey commits, and only if the bin is valid.
    pub(super) fn watch_latents(&self, core: &mut Core) {
        let Core { health, journey, .. } = core;
        health.latents(|number| Some(journey.value(number)?.values::<f32>()));
    }

    /// Another version has taken over: what its training data were like holds from now on.
    pub(super) fn relearn(&self, core: &mut Core) {
        let plan = core.journey.plan();
        core.health.relearn(
            |watched| plan.channel_reference(watched.number, watched.columns.len()),
            |watched| plan.latent_reference(watched.number, watched.latents),
        );
    }

    /// The session ends: so does what holds.
    pub(super) fn end_shifts(&self, core: &mut Core, now_ns: i64) {
        let told = core.health.finish();
        self.meter.shifted(false);
        self.tell_shifts(core, told, now_ns);
    }

    fn tell_shifts(&self, core: &mut Core, told: Vec<Told>, t_ns: i64) {
        for Told { signal, from_bin, to_bin, count, detail } in told {
            let notice = Notice {
                kind: EventKind::InputShift,
                signal,
                from_bin: Some(from_bin),
                to_bin: Some(to_bin),
                count,
                detail,
                t_ns,
            };
            self.tell(core, notice);
        }
    }
}

/// The session's page says both windows.
pub(super) fn windows(report: &Report) -> Vec<v1::HealthWindow> {
    let windows = report.windows.iter().map(|window| v1::HealthWindow {
        window_s: window.window_s,
        inputs: window.inputs.iter().map(input).collect(),
        latents: window.latents.iter().map(latents).collect(),
    });
    windows.collect()
}

fn input(report: &InputReport) -> v1::InputHealth {
    let furthest = report.furthest.iter();
    v1::InputHealth {
        input: report.input.clone(),
        signal: report.signal.to_string(),
        covered_s: report.covered_s,
        channels: report.channels as u32,
        dead: report.dead.clone(),
        noisy: report.noisy.clone(),
        cofiring_per_min: report.cofiring_per_min,
        shift: report.shift,
        furthest: furthest.map(|(channel, z)| v1::ChannelShift { channel: channel.clone(), z: *z }).collect(),
        shifted: report.shifted,
    }
}

fn latents(report: &LatentReport) -> v1::LatentHealth {
    v1::LatentHealth {
        output: report.output.clone(),
        covered_s: report.covered_s,
        distance: report.distance,
        shifted: report.shifted,
    }
}
