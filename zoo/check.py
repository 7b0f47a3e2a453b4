#!/usr/bin/env python3
"""Hold the committed models to what is committed beside them; ends with 1 on a difference.

For every `models/<model>/<version>`: the size, the batch axes, the manifest's names,
the example replayed bin by bin, batch 7 against batch 1, the step against the same
model over a whole trial (`zoo/trials/`), the recordings in `[provenance]` by digest;
then the reference vectors from raw counts, and each raw trial made again. What needs
third parties' recordings is left out, in a printed line, where they are missing.
"""

import sys
import tempfile
import tomllib
from pathlib import Path

import cortex
import data
import graph
import numpy as np
import parity
import real
import recording
from safetensors.numpy import load_file

SIZE_LIMIT = 2 * 10**6
REL, ABS = 1e-5, 1e-5
TRIAL_BINS, TRIAL_ROWS = 200, 3
THIRD_PARTIES = ("hc_linear_track", "m1_reach_pcs", "eeg_attention_events")


def batch_sizes(session):
    """Shapes of inputs and outputs as {name: [size or "batch", ...]}."""
    return {part.name: part.shape for part in [*session.get_inputs(), *session.get_outputs()]}


def difference(got, expected):
    """Largest excess of |got - expected| over the tolerance; at most 0 is equal."""
    return float((np.abs(got - expected) - (ABS + REL * np.abs(expected))).max())


def check_batch(session):
    """Whether seven rows together give what each gives alone, bit for bit."""
    rng = np.random.default_rng(0)
    inputs = {
        part.name: rng.random([7 if size == "batch" else size for size in part.shape], np.float32)
        for part in session.get_inputs()
    }
    axes = {name: shape.index("batch") for name, shape in batch_sizes(session).items()}
    names = [part.name for part in session.get_outputs()]
    together = session.run(names, inputs)
    for row in range(7):
        alone = session.run(names, {k: v.take([row], axes[k]) for k, v in inputs.items()})
        for name, one, all_rows in zip(names, alone, together, strict=True):
            if not np.array_equal(one, all_rows.take([row], axes[name])):
                yield f"{name}: row {row} of seven differs from the row alone"


def check_version(folder, manifest):
    """Faults of one version."""
    path = folder / "model.onnx"
    for file in folder.iterdir():
        if file.stat().st_size > SIZE_LIMIT:
            yield f"{file.name} has {file.stat().st_size} bytes, over {SIZE_LIMIT}"
    session = graph.runtime(path)
    shapes = batch_sizes(session)
    if any(shape.count("batch") != 1 for shape in shapes.values()):
        yield f"not every tensor has one axis `batch`: {shapes}"
    named = {part["tensor"] for kind in ("input", "output") for part in manifest[kind]}
    named |= {state[end] for state in manifest.get("state", []) for end in ("input", "output")}
    if named != set(shapes):
        yield f"the manifest names {sorted(named)}, the graph has {sorted(shapes)}"
    yield from check_batch(session)
    example = load_file(folder / manifest["example"]["file"])
    (streamed,) = (name for name in example if name.startswith("in."))
    window = manifest["mode"] == "window"
    got = windows(session, streamed[3:], example[streamed]) if window else graph.play(path, example[streamed])
    for name, expected in example.items():
        if name.startswith("out.") and difference(got[name[4:]], expected) > 0:
            yield f"{name} of the example differs"


def windows(session, streamed, x):
    """Answers {output: [T, ...]} to whole windows x [T, bins, C], each alone."""
    names = [output.name for output in session.get_outputs()]
    rows = [session.run(names, {streamed: row[None]}) for row in x]
    return {name: np.concatenate(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)}


def check_trial(model):
    """Whether the step, bin after bin, gives what the same model gives over a whole trial at once."""
    step = graph.path(model)
    (channels,) = (i.shape[-1] for i in graph.runtime(step).get_inputs() if i.name != "h0")
    x = np.random.default_rng(0).poisson(0.3, (TRIAL_BINS, TRIAL_ROWS, channels)).astype(np.float32)
    whole = graph.trial(graph.trial_path(model), x)
    whole.pop("hn", None)
    for row in range(TRIAL_ROWS):
        for name, rows in graph.play(step, x[:, row]).items():
            excess = difference(rows, whole[name][:, row])
            if excess > 0:
                yield f"{name}: the step differs from the whole trial, by {excess:.1e} more than is allowed"


def known_digests():
    """Digests of the recordings that models may have learnt from."""
    digests = set()
    for seed in data.CORTEX_LEARNT:
        with tempfile.TemporaryDirectory() as folder:
            cortex.write(folder, cortex.POPULATION, seed, data.CORTEX_LEARNT_BINS)
            digests.add(recording.digest(folder))
    if data.receptor_folder():
        digests.add(recording.digest(data.receptor_folder()))
    return digests | {recording.digest(real.folder(name)) for name in THIRD_PARTIES if real.folder(name)}


def check_references():
    """Faults of the vectors from raw counts."""
    expected = load_file(graph.ZOO / "reference" / "cortex.safetensors")
    first = int(expected["first_bin"][0])
    counts = recording.array(data.CORTEX_HELD_OUT, "spikes")[: first + len(expected["latent"])]
    encoded = graph.play(graph.path("cortex-encoder"), data.square_root(counts))
    decoded = graph.play(graph.path("cortex-decoder"), encoded["z"])
    got = {"latent": encoded["z"], "rates": encoded["rates"], "velocity": decoded["v"]}
    if data.receptor_folder():
        got["envelope"] = graph.play(graph.path("receptor-envelope"), data.receptor("recording_2.json")[0])[
            "e"
        ]
        expected |= load_file(graph.ZOO / "reference" / "receptor.safetensors")
    for name, rows in got.items():
        if difference(rows[first:], expected[name]) > 0:
            yield f"{name} from raw counts differs"


def check_held_out():
    """Faults of the committed recording: it must be what its seed makes."""
    with tempfile.TemporaryDirectory() as folder:
        cortex.write(folder, cortex.POPULATION, data.CORTEX_HELD_OUT_SEED, data.CORTEX_HELD_OUT_BINS)
        if recording.digest(folder) != recording.digest(data.CORTEX_HELD_OUT):
            yield "the committed recording is not what zoo/cortex.py makes from its seed"


def check_parity():
    """Faults of the raw trials: each model has one, which must be what zoo/parity.py makes."""
    with tempfile.TemporaryDirectory() as made:
        for model, write in parity.trials().items():
            made_here, committed = Path(made) / model, graph.MODELS / model / "1" / "parity"
            made_here.mkdir()
            write(made_here)
            if recording.digest(made_here / "recording") != recording.digest(committed / "recording"):
                yield f"the raw data of {model} are not what zoo/parity.py makes"
            want = load_file(made_here / "expected.safetensors")
            got = load_file(committed / "expected.safetensors")
            if set(got) != set(want) or any(difference(got[name], want[name]) > 0 for name in want):
                yield f"what is expected of {model} is not what zoo/parity.py makes"
    for folder in graph.MODELS.glob("*/[0-9]*"):
        if not (folder / "parity").is_dir():
            yield f"{folder.parent.name}/{folder.name} has no raw trial"


def main():
    """Print each fault and the count of what held."""
    if not data.receptor_folder():
        print("not checked: the receptor's recordings are missing (python3 setup/receptor.py)")
    missing = [name for name in THIRD_PARTIES if not real.folder(name)]
    if missing:
        print(f"not checked: the recordings {', '.join(missing)} are missing (LATENTD_RECORDINGS says where)")
    digests = known_digests()
    reports = [("zoo/reference", check_references()), ("zoo/recordings", check_held_out())]
    reports.append(("parity", check_parity()))
    for path in sorted(graph.MODELS.glob("*/model.toml")):
        manifest = tomllib.loads(path.read_text())
        learnt = {part["recording"] for part in manifest["provenance"]["trained_on"]}
        unseen = "real" in manifest["tags"] and (missing or not data.receptor_folder())
        strange = [] if unseen else [f"unknown recording {d}" for d in sorted(learnt - digests)]
        reports.append((path, strange))
        if manifest["mode"] == "step":
            reports.append((f"{path.parent.name}, step = trial", check_trial(path.parent.name)))
        for folder in sorted(path.parent.glob("[0-9]*")):
            reports.append((folder, check_version(folder, manifest)))
    failed = 0
    for where, faults in reports:
        faults = list(faults)
        failed += bool(faults)
        for fault in faults:
            print(f"{where}: {fault}")
    print(f"{len(reports) - failed} passed, {failed} failed")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
