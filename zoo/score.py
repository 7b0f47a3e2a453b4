#!/usr/bin/env python3
"""The scores of the README: `score.py cortex`, `receptor`, `delays`, `rat`, `monkey`, `eeg`.

They are those of the exported graphs on ONNX Runtime, stepped bin by bin from state
zeros as the server does it; PyTorch is not needed. R2 is 1 - SSres / SStot about
the mean of the truth, for each output.
"""

import math
import sys

import cortex
import data
import graph
import held_out
import numpy as np
import recording
from metrics import r2, ridge


def bits_per_spike(rates, counts):
    """Poisson log-likelihood gain of rates [T, N] over each unit's mean, in bits per spike."""
    logs = np.vectorize(math.lgamma)(np.arange(counts.max() + 1) + 1.0)[counts]

    def cost(expected):
        return (expected - counts * np.log(expected) + logs).sum()

    null = np.broadcast_to(counts.mean(0), counts.shape)
    return (cost(null) - cost(np.where(rates == 0, 1e-9, rates))) / (math.log(2) * counts.sum())


def smooth(counts, tau_ms):
    """Causal exponential smoothing of counts [T, N], from zero."""
    keep = math.exp(-cortex.BIN_S * 1000 / tau_ms)
    out, now = np.empty(counts.shape), np.zeros(counts.shape[1])
    for k, row in enumerate(counts):
        now = keep * now + (1 - keep) * row
        out[k] = now
    return out


def smoothed_ridge(learnt, watched, held_out):
    """Velocity [T, 2] from smoothed counts: tau and alpha are the best on `watched`."""
    best = (-np.inf, None)
    for tau_ms in (40, 60, 80, 100, 130, 170):
        x = np.concatenate([smooth(made.counts, tau_ms) for made in learnt])
        y = np.concatenate([made.velocity for made in learnt])
        seen = smooth(watched.counts, tau_ms)
        for alpha in (0.1, 1.0, 10.0, 100.0):
            weights, offset = ridge(x, y, alpha)
            score = r2(watched.velocity, seen @ weights + offset).mean()
            best = max(best, (score, tau_ms, alpha, weights, offset), key=lambda b: b[0])
    _, tau_ms, alpha, weights, offset = best
    return smooth(held_out, tau_ms) @ weights + offset, tau_ms, alpha


def unseen_rates(counts, folds=4):
    """Rates [T, N] where each unit is predicted while it and its fold are hidden from the input.

    What is left is scaled up as it was under dropout in training.
    """
    x = data.square_root(counts)
    rates = np.empty(counts.shape)
    for fold in range(folds):
        hidden = np.arange(counts.shape[1]) % folds == fold
        seen = np.where(hidden, 0, x / (1 - 1 / folds)).astype(np.float32)
        rates[:, hidden] = graph.play(graph.path("cortex-encoder"), seen)["rates"][:, hidden]
    return rates


def score_cortex():
    """Scores on the committed recording, whole."""
    units = cortex.population()
    learnt = [cortex.session(units, seed, data.CORTEX_LEARNT_BINS) for seed in data.CORTEX_LEARNT]
    watched = cortex.session(units, data.CORTEX_WATCHED, data.CORTEX_WATCHED_BINS)
    counts = recording.array(data.CORTEX_HELD_OUT, "spikes")
    truth = cortex.session(units, data.CORTEX_HELD_OUT_SEED, len(counts))
    if not np.array_equal(truth.counts, counts):
        raise SystemExit("The committed recording is not what zoo/cortex.py makes from its seed.")
    encoded = graph.play(graph.path("cortex-encoder"), data.square_root(counts))
    decoded = graph.play(graph.path("cortex-decoder"), encoded["z"])["v"]
    vx, vy = r2(truth.velocity, decoded)
    print(f"velocity R2, encoder and decoder: vx {vx:.3f}, vy {vy:.3f}")
    guess, tau_ms, alpha = smoothed_ridge(learnt, watched, counts)
    vx, vy = r2(truth.velocity, guess)
    print(f"velocity R2, ridge on smoothed counts (tau {tau_ms} ms, alpha {alpha}): vx {vx:.3f}, vy {vy:.3f}")
    z = graph.play(graph.path("cortex-encoder"), data.square_root(learnt[0].counts))["z"]
    weights, offset = ridge(z.astype(np.float64), learnt[0].latents, 1e-6)
    each = r2(truth.latents, encoded["z"] @ weights + offset)
    listed = ", ".join(f"{name} {value:.3f}" for name, value in zip(cortex.LATENTS, each, strict=True))
    print(
        f"true latents R2, linear map fitted on session {data.CORTEX_LEARNT[0]}:"
        f" mean {each.mean():.3f} ({listed})"
    )
    tuned = ~units.distractor
    print(f"bits/spike: {bits_per_spike(encoded['rates'].astype(np.float64), counts):.3f}")
    unseen = unseen_rates(counts)
    print(f"bits/spike, each unit hidden from the input: {bits_per_spike(unseen, counts):.3f}")
    print(f"bits/spike of the true rates: {bits_per_spike(truth.rates, counts):.3f}")
    print(
        "bits/spike, the 80 tuned units alone: each hidden"
        f" {bits_per_spike(unseen[:, tuned], counts[:, tuned]):.3f},"
        f" true rates {bits_per_spike(truth.rates[:, tuned], counts[:, tuned]):.3f}"
    )


def windows(counts, before, after):
    """Counts [T] around each bin: [T, before + 1 + after], zero outside."""
    padded = np.concatenate([np.zeros(before), counts, np.zeros(after)])
    return np.lib.stride_tricks.sliding_window_view(padded, before + 1 + after)


def shifted(truth, guess):
    """R2 against the truth turned round by 0.2 s and more: mean and largest over all such shifts."""
    least = round(200 / data.RECEPTOR_BIN_MS)
    scores = [r2(np.roll(truth, s), guess) for s in range(least, len(truth) - least)]
    return np.mean(scores), np.max(scores)


def score_receptor():
    """Scores on the held-out end of recording 1 and on recording 2."""
    counts, envelope = data.receptor("recording.json")
    before, after = (round(ms / data.RECEPTOR_BIN_MS) for ms in (40, 20))
    fitted = slice(0, data.RECEPTOR_HELD_OUT.start)
    x = windows(counts[:, 0], before, after)
    weights, offset = ridge(x[fitted], envelope[fitted].astype(np.float64), 1.0)
    parts = (
        ("recording 1, held-out 8-10 s", "recording.json", data.RECEPTOR_HELD_OUT),
        ("recording 2, whole", "recording_2.json", slice(data.RECEPTOR_DELAY, None)),
    )
    for name, file, part in parts:
        counts, envelope = data.receptor(file)
        truth = np.roll(envelope, data.RECEPTOR_DELAY)[part].astype(np.float64)
        guess = graph.play(graph.path("receptor-envelope"), counts)["e"][part, 0].astype(np.float64)
        mean, largest = shifted(truth, guess)
        print(f"{name}: R2 {r2(truth, guess):.3f}, r {np.corrcoef(truth, guess)[0, 1]:.3f}")
        print(f"{name}: R2 with the truth shifted: mean {mean:.3f}, largest {largest:.3f}")
        # The same truth by the two-sided window: its bin k is the decoder's bin k + DELAY.
        guess = np.roll(windows(counts[:, 0], before, after) @ weights + offset, data.RECEPTOR_DELAY)[part]
        print(
            f"{name}: two-sided ridge (40 ms before, 20 ms after), same training:"
            f" R2 {r2(truth, guess):.3f}, r {np.corrcoef(truth, guess)[0, 1]:.3f}"
        )


def score_delays():
    """Ridge R2 of the envelope by bin width and lookahead, learnt and watched stretch alone."""
    folder = data.receptor_folder() or sys.exit("Run `python3 setup/receptor.py` first.")
    sound = recording.array(folder, "stimulus").astype(np.float64)
    for bin_ms in (1, 2, 5, 10):
        bins = 10000 // bin_ms
        counts = recording.event_counts(folder, "spikes", bin_ms, bins, 1)[:, 0]
        truth = sound.reshape(bins, -1).mean(1)
        learnt, watched = (
            slice(*(k * data.RECEPTOR_BIN_MS // bin_ms for k in (part.start, part.stop)))
            for part in (data.RECEPTOR_LEARNT, data.RECEPTOR_WATCHED)
        )
        scores = []
        for ahead_ms in (0, 5, 10, 15, 20):
            x = windows(counts, 40 // bin_ms, ahead_ms // bin_ms)
            weights, offset = ridge(x[learnt], truth[learnt], 3.0)
            scores.append(f"{ahead_ms} ms {r2(truth[watched], x[watched] @ weights + offset):.3f}")
        print(f"bins of {bin_ms} ms, R2 by lookahead: " + ", ".join(scores))


if __name__ == "__main__":
    scores = {"cortex": score_cortex, "receptor": score_receptor, "delays": score_delays} | held_out.SCORES
    if len(sys.argv) != 2 or sys.argv[1] not in scores:
        raise SystemExit(f"Usage: score.py {'|'.join(scores)}")
    scores[sys.argv[1]]()
