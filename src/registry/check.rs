//! `latentd models check DIR`: every version of a repository loaded, checked and shown as a table.

use std::path::Path;
use std::sync::Arc;

use super::keeper::{Options, Registry};
use super::shelf::VersionRow;
use crate::batch::{Pool, PoolConfig, Port, Silent};
use crate::engine::Engine;

const HEADS: [&str; COLUMNS] = [
    "model",
    "version",
    "mode",
    "device",
    "inputs",
    "outputs",
    "batch",
    "invariance",
    "example",
    "reference",
    "verdict",
];
const COLUMNS: usize = 11;
/// The last column.
const VERDICT: usize = COLUMNS - 1;

/// Checks the repository at `dir`. The table ends with a line that sums up; true: all of it can be served.
pub fn table(dir: &Path, engine: Arc<dyn Engine>) -> (String, bool) {
    let pool = match Pool::start(1, PoolConfig::default(), Arc::new(Silent)) {
        Ok(pool) => Arc::new(pool),
        Err(error) => return (format!("the check needs threads, and has none: {error}\n"), false),
    };
    let registry = Registry::new(Options::new(dir), engine, pool);
    registry.first_scan();
    let mut rows: Vec<[String; COLUMNS]> = vec![HEADS.map(str::to_owned)];
    let (mut good, mut bad) = (0, 0);
    for model in registry.models() {
        for version in &model.versions {
            *(if version.ready.is_some() && version.fault.is_none() { &mut good } else { &mut bad }) += 1;
            rows.push(row(model.name.as_str(), version));
        }
        if let Some(fault) = model.fault {
            bad += 1;
            rows.push(wrong(model.name.as_str(), fault));
        }
    }
    for fault in registry.faults() {
        bad += 1;
        rows.push(wrong("-", fault));
    }
    // A model alone says nothing that its own line does not.
    for pipeline in registry.pipelines().into_iter().filter(|pipeline| !pipeline.is_model) {
        let name = format!("pipelines/{}", pipeline.name);
        match pipeline.fault {
            Some(fault) => {
                bad += 1;
                rows.push(wrong(&name, fault));
            }
            None => {
                good += 1;
                let stages = pipeline.spec.iter().flat_map(|spec| &spec.stages);
                let stages: Vec<&str> = stages.map(|stage| stage.name.as_str()).collect();
                rows.push(wrong(&name, format!("ok ({})", stages.join(" > "))));
            }
        }
    }
    let mut text = aligned(&rows);
    text.push_str(&match (good, bad) {
        (0, 0) => format!("no models in {}\n", dir.display()),
        (good, 0) => format!("{good} checked, all well\n"),
        (good, bad) => format!("{} checked, {bad} with a fault\n", good + bad),
    });
    (text, bad == 0)
}

fn row(model: &str, version: &VersionRow) -> [String; COLUMNS] {
    let mut cells = wrong(model, version.fault.clone().unwrap_or_default());
    cells[1] = version.version.to_string();
    let Some(ready) = &version.ready else { return cells };
    let list = |parts: Vec<String>| if parts.is_empty() { "-".into() } else { parts.join(" ") };
    let shaped = |name: &str, port: &Port| {
        let dims: Vec<String> = port.row_shape.iter().map(usize::to_string).collect();
        format!("{name}[{}]", dims.join(","))
    };
    let inputs = ready
        .inputs
        .iter()
        .map(|bound| shaped(&ready.manifest.inputs[bound.input].name, &ready.input_ports()[bound.port]));
    let outputs = ready.outputs.iter().map(|output| shaped(&output.name, &ready.output_ports()[output.port]));
    cells[2] = ready.manifest.mode.to_string();
    cells[3] = ready.device.clone();
    cells[4] = list(inputs.collect());
    cells[5] = list(outputs.collect());
    cells[6] = ready.max_batch.to_string();
    cells[7] = match ready.batch_invariant.exact {
        true => "exact".into(),
        false => format!("{:.1e}", ready.batch_invariant.max_error),
    };
    cells[8] = ready.example.to_string();
    let untold = "none: no session can tell whether its input is what this learnt";
    cells[9] = ready.reference.as_ref().map_or_else(|| untold.into(), ToString::to_string);
    if version.fault.is_none() {
        let notes = ready.not_streamed.iter().chain(&ready.notes).cloned();
        cells[VERDICT] = std::iter::once("ok".to_owned()).chain(notes).collect::<Vec<_>>().join("; ");
    }
    cells
}

/// A line that has a name and a verdict alone.
fn wrong(name: &str, verdict: String) -> [String; COLUMNS] {
    let mut cells: [String; COLUMNS] = std::array::from_fn(|_| "-".into());
    cells[0] = name.into();
    cells[VERDICT] = verdict;
    cells
}

/// The rows in columns; the last column is as long as it is.
fn aligned(rows: &[[String; COLUMNS]]) -> String {
    let mut widths = [0; COLUMNS];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if column + 1 < row.len() {
                let gap = widths[column] - cell.chars().count() + 2;
                text.extend(std::iter::repeat_n(' ', gap));
            }
        }
        text.push('\n');
    }
    text
}
