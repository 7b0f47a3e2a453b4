#!/usr/bin/env python3
"""Write `parity/` of each model that takes raw signals: a raw trial, and what must come out of it.

`parity.py [MODELS]` writes into `<MODELS>/<model>/1/parity/`, by default into `models/`:
`recording/` (the first seconds of a recording, the model's input alone) and
`expected.safetensors` (each output [n, dims], `first_bin`, and of the steps between
`counts` and `preprocessed.<input>`). A third party's raw data are not to be committed,
so that only `cortex-encoder`, which is simulated, has its folder in the repository; the
others are made where the recordings are, and a line is printed for each that is not.
"""

import csv
import sys
from pathlib import Path

import data
import graph
import numpy as np
import real
import recording

BINS = 100


def cut_rows(source, signal, file, rows, folder):
    """Write the first `rows` samples of a signal as a recording of its own."""
    about, where = recording.read(source)
    (spec,) = (dict(spec) for spec in about["signals"] if spec["name"] == signal)
    array = np.load(where / spec["file"])[:rows]
    spec["file"] = file
    recording.write(folder, about | {"signals": [spec]}, {file: array}, {})


def cut_events(source, signal, file, seconds, folder):
    """Write the events of a signal before `seconds`, and the first one behind, as a recording of its own.

    Nothing else says that the last bin is over.
    """
    about, where = recording.read(source)
    (spec,) = (dict(spec) for spec in about["signals"] if spec["name"] == signal)
    with open(where / spec["file"], newline="") as table:
        rows = list(csv.DictReader(table))
    kept = rows[: sum(float(row["time_s"]) < seconds for row in rows) + 1]
    text = "unit,time_s\n" + "".join(f"{row['unit']},{row['time_s']}\n" for row in kept)
    spec["file"] = file
    recording.write(folder, about | {"signals": [spec]}, {}, {file: text})


def expect(folder, first_bin, **arrays):
    """Write `expected.safetensors`; names with a dot come with two underscores."""
    held = {name.replace("__", "."): np.asarray(rows, np.float32) for name, rows in arrays.items()}
    graph.save(folder / "expected.safetensors", held | {"first_bin": np.array([first_bin])})


def cortex_encoder(folder, source):
    """Counts of a simulated session."""
    cut_rows(source, "spikes", "spikes.npy", BINS, folder / "recording")
    counts = recording.array(folder / "recording", "spikes")
    x = data.square_root(counts)
    got = graph.play(graph.path("cortex-encoder"), x)
    expect(folder, 0, counts=counts, preprocessed__spikes=x, latent=got["z"], rates=got["rates"])


def spikes(model, bin_ms, units, prepare, outputs):
    """A model of spike events: counts, prepared, and its outputs {name: tensor}."""

    def write(folder, source):
        cut_events(source, "spikes", "spikes.csv", BINS * bin_ms / 1000, folder / "recording")
        counts = recording.event_counts(folder / "recording", "spikes", bin_ms, BINS, units)
        x = prepare(counts)
        got = graph.play(graph.path(model), x)
        answers = {name: got[tensor] for name, tensor in outputs.items()}
        expect(folder, 0, counts=counts, preprocessed__spikes=x, **answers)

    return write


def features(model):
    """A decoder of the monkey's features."""

    def write(folder, source):
        cut_rows(source, "features", "features.npy", BINS, folder / "recording")
        x = recording.array(folder / "recording", "features")
        velocity = graph.play(graph.path(model), x)["v"]
        expect(folder, 0, preprocessed__features=x, velocity=velocity)

    return write


def eeg_stimulus(folder, source):
    """EEG, averaged in bins; the first answer is that of the first full window."""
    cut_rows(source, "eeg", "eeg.npy", BINS * real.EEG_SAMPLES_PER_BIN, folder / "recording")
    samples = recording.array(folder / "recording", "eeg").astype(np.float64)
    x = samples.reshape(BINS, real.EEG_SAMPLES_PER_BIN, -1).mean(1).astype(np.float32)
    first = real.EEG_WINDOW - 1
    windows = real.eeg_windows(x, np.arange(first, BINS))
    chance, score = graph.runtime(graph.path("eeg-stimulus")).run(["p", "score"], {"x": windows})
    expect(folder, first, preprocessed__eeg=x[first:], stimulus=chance, score=score)


def as_floats(counts):
    """Counts as they are."""
    return counts.astype(np.float32)


def main():
    """Write the folder of each model whose recording is there."""
    models = Path(sys.argv[1]) if len(sys.argv) > 1 else graph.MODELS
    rat, monkey, eeg = (real.folder(name) for name in ("hc_linear_track", "m1_reach_pcs", "eeg_attention_events"))
    encoded, placed = {"latent": "z", "rates": "rates"}, {"position": "position", "posterior": "posterior"}
    trials = {
        "cortex-encoder": (data.CORTEX_HELD_OUT, cortex_encoder),
        "receptor-envelope": (data.receptor_folder(), spikes("receptor-envelope", 2, 1, as_floats, {"envelope": "e"})),
        "hippocampus-encoder": (rat, spikes("hippocampus-encoder", real.RAT_BIN_MS, real.RAT_UNITS, data.square_root, encoded)),
        "hippocampus-bayes": (rat, spikes("hippocampus-bayes", real.RAT_BIN_MS, real.RAT_UNITS, as_floats, placed)),
        **{model: (monkey, features(model)) for model in ("reach-wiener", "reach-kalman", "reach-gru")},
        "eeg-stimulus": (eeg, eeg_stimulus),
    }  # fmt: skip
    for model, (source, write) in trials.items():
        if source is None:
            print(f"{model}: no parity/, its recording is not there")
            continue
        folder = models / model / "1" / "parity"
        folder.mkdir(parents=True, exist_ok=True)
        write(folder, source)
        print(f"{model}: {folder}")


if __name__ == "__main__":
    main()
