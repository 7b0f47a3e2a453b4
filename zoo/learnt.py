#!/usr/bin/env python3
"""Write `reference.safetensors` beside every model: what the data that it learnt from were like.

A server holds what a session brings against that (docs/MODELS.md has the format). All
is as the model is given it: after preprocessing, bin by bin, and of latents what the
committed graph answers, state from zeros. It needs no PyTorch.

    python zoo/learnt.py            # all models whose recordings are there
    python zoo/learnt.py --check    # whether the committed files are those

"""

import sys
from dataclasses import dataclass

import cortex
import data
import graph
import numpy as np
import real
import recording
from safetensors.numpy import load_file

STRETCH_S = 10
# Fewer stretches of 10 s do not tell how their means scatter.
STRETCHES = 8
# A value that differs from the one before by less than this share of the spread has not moved.
STILL = 1e-3
NAME = "reference.safetensors"


@dataclass
class Learnt:
    """What one model learnt from: stretches [T, ...] of its input, and of its latents if it gives some."""

    model: str
    bins_per_second: int
    inputs: dict  # {tensor: [rows [T, channels], ...]}
    latents: dict  # {tensor: [rows [T, d], ...]}


def stretches(parts, bins):
    """Means [n, ...] over whole stretches of so many bins of each part."""
    whole = [part[: len(part) // bins * bins].reshape(-1, bins, part.shape[1]) for part in parts]
    return np.concatenate(whole)


def silence(parts, bins, spread):
    """The share of seconds [channels] in which no value differed from the one before."""
    moved = [np.abs(np.diff(part, axis=0, prepend=part[:1])) > STILL * spread for part in parts]
    return 1.0 - stretches(moved, bins).any(1).mean(0)


def described(learnt):
    """The tensors of one model's reference."""
    per = learnt.bins_per_second
    tensors = {}
    for name, parts in learnt.inputs.items():
        parts = [part.astype(np.float64) for part in parts]
        rows = np.concatenate(parts)
        spread = rows.std(0)
        tensors[f"in.{name}.mean"] = rows.mean(0)
        tensors[f"in.{name}.spread"] = spread
        tensors[f"in.{name}.silence"] = silence(parts, per, spread)
        means = stretches(parts, per * STRETCH_S).mean(1)
        if len(means) >= STRETCHES:
            tensors[f"in.{name}.spread_10s"] = means.std(0, ddof=1)
    for name, parts in learnt.latents.items():
        parts = [part.astype(np.float64) for part in parts]
        rows = np.concatenate(parts)
        tensors[f"out.{name}.mean"] = rows.mean(0)
        tensors[f"out.{name}.covariance"] = np.cov(rows.T)
        means = stretches(parts, per * STRETCH_S).mean(1)
        if len(means) >= STRETCHES:
            tensors[f"out.{name}.covariance_10s"] = np.cov(means.T)
    return {name: values.astype(np.float32) for name, values in tensors.items()}


def answers(model, parts, output):
    """What the committed graph answers to each part."""
    return [graph.play(graph.path(model), part)[output] for part in parts]


def of_cortex():
    """The simulated sessions, and the decoder's latents."""
    units = cortex.population()
    counts = [cortex.session(units, seed, data.CORTEX_LEARNT_BINS).counts for seed in data.CORTEX_LEARNT]
    x = [data.square_root(session) for session in counts]
    z = answers("cortex-encoder", x, "z")
    yield Learnt("cortex-encoder", 50, {"x": x}, {"z": z})
    yield Learnt("cortex-decoder", 50, {"z": z}, {})


def of_rat():
    """The rat's track."""
    folder = real.folder("hc_linear_track")
    counts = recording.event_counts(folder, "spikes", real.RAT_BIN_MS, real.RAT_BINS, real.RAT_UNITS)
    counts = counts[real.RAT_LEARNT]
    x = [data.square_root(counts)]
    z = answers("hippocampus-encoder", x, "z")
    yield Learnt("hippocampus-encoder", 10, {"x": x}, {"z": z})
    yield Learnt("hippocampus-linear", 10, {"z": z}, {})
    yield Learnt("hippocampus-decoder", 10, {"z": z}, {})
    yield Learnt("hippocampus-bayes", 10, {"x": [counts.astype(np.float32)]}, {})


def of_monkey():
    """The monkey's ten features."""
    features, _ = real.monkey()
    for model in ("reach-wiener", "reach-kalman", "reach-gru"):
        yield Learnt(model, 10, {"x": [features[real.MONKEY_LEARNT]]}, {})


def of_eeg():
    """The EEG up to the last stimulus that was learnt."""
    binned, stimuli = real.eeg()
    last = real.eeg_bins(stimuli[real.EEG_LEARNT], real.EEG_AFTER_S)[-1]
    yield Learnt("eeg-stimulus", 32, {"x": [binned[: last + 1]]}, {})


def of_receptor():
    """6.5 s of one receptor: too short for the scatter of means over 10 s."""
    spikes, _ = data.receptor("recording.json")
    yield Learnt("receptor-envelope", 500, {"x": [spikes[data.RECEPTOR_LEARNT]]}, {})


def all_learnt():
    """Every model whose recording is there; of the others a line."""
    sources = {
        of_cortex: True,
        of_rat: real.folder("hc_linear_track"),
        of_monkey: real.folder("m1_reach_pcs"),
        of_eeg: real.folder("eeg_attention_events"),
        of_receptor: data.receptor_folder(),
    }
    for source, is_there in sources.items():
        if is_there:
            yield from source()
        else:
            print(f"left out: {source.__name__[3:]}, its recording is missing")


def differences(path, tensors):
    """What of a committed reference is not as it is computed now."""
    if not path.exists():
        return ["there is none"]
    committed = load_file(path)
    if committed.keys() != tensors.keys():
        return [f"has {sorted(committed)}, should have {sorted(tensors)}"]
    near = {name: np.allclose(committed[name], tensors[name], rtol=1e-4, atol=1e-6) for name in tensors}
    return [f"{name} differs" for name, is_near in near.items() if not is_near]


def main():
    """Write them all, or hold them to what is committed; ends with 1 on a difference."""
    faults = 0
    for learnt in all_learnt():
        path, tensors = graph.path(learnt.model).with_name(NAME), described(learnt)
        if "--check" in sys.argv[1:]:
            for fault in differences(path, tensors):
                faults += 1
                print(f"{path}: {fault}")
        else:
            graph.save(path, tensors)
            print(f"{path}: {path.stat().st_size} bytes")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
