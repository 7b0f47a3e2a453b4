#!/usr/bin/env python3
"""Write `parity/` of each model: a raw trial, and what must come out of it.

`parity.py [MODELS]` writes into `<MODELS>/<model>/1/parity/`, by default into `models/`:
`recording/` (raw data in the open format) and `expected.safetensors` (each output
[n, dims], `first_bin`, and of the steps between `counts` and `preprocessed.<input>`).
`latentd models check --parity` plays them.

The cortex's data are simulated, all others made up from a seed: a third party's raw data
are not to be committed. Raw data are made unlike what the model takes where a rig's are:
channels in another order, mV in 16 bits for uV, spikes on the edges of bins. What is
expected is computed here: preprocessing by numpy, outputs by the graph over a whole trial
(`zoo/trials/`, the same weights in another form than the step that is served), on ONNX
Runtime; the EEG's, which has none, by its own graph on windows cut by numpy.
"""

import csv
import sys
from pathlib import Path

import data
import graph
import numpy as np
import real
import recording

BINS = 51
SEED = 41
EEG_SCALE = 1e-4


def rng(model):
    """Random numbers of a model's trial."""
    return np.random.default_rng([SEED, *model.encode()])


def channels(model):
    """Rows of a model's channels.csv."""
    with open(graph.MODELS / model / "channels.csv", newline="") as table:
        return list(csv.DictReader(table))


def about(model, spec):
    """The description of a trial with one signal."""
    how = "made up from a seed by zoo/parity.py; no recording of anything"
    return {"name": f"{model}, raw trial", "licence": "Apache-2.0", "source": how, "signals": [spec]}


def outputs(model, x):
    """Outputs {tensor: [T, ...]} to rows x [T, C], by the graph over the whole trial."""
    answers = graph.trial(graph.trial_path(model), x[:, None])
    return {name: rows[:, 0] for name, rows in answers.items() if name != "hn"}


def expect(folder, first_bin, **arrays):
    """Write `expected.safetensors`; names with a dot come with two underscores."""
    held = {name.replace("__", "."): np.asarray(rows, np.float32) for name, rows in arrays.items()}
    graph.save(folder / "expected.safetensors", held | {"first_bin": np.array([first_bin])})


def cortex():
    """Latents and counts of the simulated session's beginning."""
    described, where = recording.read(data.CORTEX_HELD_OUT)
    (spec,) = (dict(spec) for spec in described["signals"] if spec["name"] == "spikes")
    counts = np.load(where / spec["file"])[:BINS]
    x = data.square_root(counts)
    return described | {"signals": [spec | {"file": "spikes.npy"}]}, counts, x, outputs("cortex-encoder", x)


def cortex_encoder(folder):
    """Counts of a simulated session."""
    described, counts, x, got = cortex()
    recording.write(folder / "recording", described, {"spikes.npy": counts}, {})
    expect(folder, 0, counts=counts, preprocessed__spikes=x, latent=got["z"], rates=got["rates"])


def spikes(model, bin_ms):
    """Poisson spikes of a model's units: times [s] and units, both by time, and counts [BINS, units].

    Some lie on the edge of a bin: they belong to the bin that begins there. The last one
    lies behind the last bin: nothing else says that that one is over.
    """
    units, random = len(channels(model)), rng(model)
    # In whole tenths of a ms, so that text holds them exactly.
    width = round(bin_ms * 10)
    counts = random.poisson(0.4, (BINS, units))
    events = []
    for k, unit in zip(*np.nonzero(counts), strict=True):
        offsets = random.integers(0, width, counts[k, unit])
        if k % 3 == 0:
            offsets[0] = 0
        events += [(k * width + int(offset), int(unit)) for offset in offsets]
    events = [*sorted(events), (BINS * width, 0)]
    return [(f"{at // 10000}.{at % 10000:04d}", unit) for at, unit in events], counts


def of_spikes(model, bin_ms, prepare, names):
    """A model of spike events; the recording has its units in another order."""

    def write(folder):
        events, counts = spikes(model, bin_ms)
        rows = channels(model)
        order = rng(model + ", order").permutation(len(rows))
        place = {int(unit): at for at, unit in enumerate(order)}
        spec = {
            "name": "spikes",
            "type": "spike_events",
            "file": "spikes.csv",
            "channels": [{"name": rows[unit]["name"]} for unit in order],
        }
        text = "unit,time_s\n" + "".join(f"{place[unit]},{time}\n" for time, unit in events)
        recording.write(folder / "recording", about(model, spec), {}, {"spikes.csv": text})
        x = prepare(counts)
        got = outputs(model, x)
        answers = {name: got[tensor] for name, tensor in names.items()}
        # Counts that nothing is done to are told once.
        told = {} if np.array_equal(x, counts) else {"counts": counts}
        expect(folder, 0, **told, preprocessed__spikes=x, **answers)

    return write


def of_latents(model, z, bin_ms, output, tensor):
    """A decoder, alone: it is fed with the latents that its encoder gives, one row per bin."""

    def write(folder):
        spec = {
            "name": "z",
            "type": "binned",
            "file": "z.npy",
            "bin_ms": bin_ms,
            "channels": [{"name": f"z{i}"} for i in range(z.shape[1])],
        }
        recording.write(folder / "recording", about(model, spec), {"z.npy": z}, {})
        expect(folder, 0, preprocessed__z=z, **{output: outputs(model, z)[tensor]})

    return write


def of_features(model):
    """A decoder of the monkey's features: slow noise, channels in another order."""

    def write(folder):
        random, rows = rng(model), channels(model)
        x = np.zeros((BINS, len(rows)), np.float32)
        for k in range(1, BINS):
            x[k] = 0.9 * x[k - 1] + random.normal(0, 0.5, len(rows))
        order = random.permutation(len(rows))
        spec = {
            "name": "features",
            "type": "continuous",
            "file": "features.npy",
            "unit": "1",
            "rate": {"num": 10, "den": 1},
            "channels": [{"name": rows[c]["name"]} for c in order],
        }
        recording.write(folder / "recording", about(model, spec), {"features.npy": x[:, order]}, {})
        expect(folder, 0, preprocessed__features=x, velocity=outputs(model, x)["v"])

    return write


def eeg_stimulus(folder):
    """EEG in mV, 16 bits, channels in another order; the first answer is that of the first full window."""
    model = "eeg-stimulus"
    random, rows = rng(model), channels(model)
    raw = random.normal(0, 200, (BINS * real.EEG_SAMPLES_PER_BIN, len(rows))).round().astype(np.int16)
    order = random.permutation(len(rows))
    spec = {
        "name": "eeg",
        "type": "continuous",
        "file": "eeg.npy",
        "unit": "mV",
        "scale": EEG_SCALE,
        "rate": {"num": 128, "den": 1},
        "channels": [{"name": rows[c]["name"]} for c in order],
    }
    recording.write(folder / "recording", about(model, spec), {"eeg.npy": raw[:, order]}, {})
    samples = raw.astype(np.float64) * EEG_SCALE * 1000
    x = samples.reshape(BINS, real.EEG_SAMPLES_PER_BIN, -1).mean(1).astype(np.float32)
    first = real.EEG_WINDOW - 1
    windows = real.eeg_windows(x, np.arange(first, BINS))
    chance, score = graph.runtime(graph.path(model)).run(["p", "score"], {"x": windows})
    expect(folder, first, preprocessed__eeg=x[first:], stimulus=chance, score=score)


def as_floats(counts):
    """Counts as they are."""
    return counts.astype(np.float32)


def trials():
    """By model, what writes its trial into a folder."""
    rat = "hippocampus-encoder"
    cortex_z = cortex()[3]["z"]
    rat_z = outputs(rat, data.square_root(spikes(rat, real.RAT_BIN_MS)[1]))["z"]
    placed = {"position": "position", "posterior": "posterior"}
    return {
        "cortex-encoder": cortex_encoder,
        "cortex-decoder": of_latents("cortex-decoder", cortex_z, 20, "velocity", "v"),
        "receptor-envelope": of_spikes("receptor-envelope", data.RECEPTOR_BIN_MS, as_floats, {"envelope": "e"}),
        rat: of_spikes(rat, real.RAT_BIN_MS, data.square_root, {"latent": "z", "rates": "rates"}),
        "hippocampus-linear": of_latents("hippocampus-linear", rat_z, 100, "position_linear", "position"),
        "hippocampus-decoder": of_latents("hippocampus-decoder", rat_z, 100, "position", "position"),
        "hippocampus-bayes": of_spikes("hippocampus-bayes", real.RAT_BIN_MS, as_floats, placed),
        **{model: of_features(model) for model in ("reach-wiener", "reach-kalman", "reach-gru")},
        "eeg-stimulus": eeg_stimulus,
    }


def main():
    """Write the folder of each model."""
    models = Path(sys.argv[1]) if len(sys.argv) > 1 else graph.MODELS
    for model, write in trials().items():
        folder = models / model / "1" / "parity"
        folder.mkdir(parents=True, exist_ok=True)
        write(folder)
        print(f"{model}: {folder}")


if __name__ == "__main__":
    main()
