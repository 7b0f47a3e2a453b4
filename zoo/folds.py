#!/usr/bin/env python3
"""Each recipe in five contiguous folds: `folds.py rat`, `monkey`, `eeg`.

What a fold holds out is touched by neither training nor choice; of the rest the last
tenth is watched, the others are learnt from. This tells how far the figure of the one
held-out stretch in `score.py` depends on the stretch. The settings of the recipes were
chosen once, on the watched stretch of the committed models, which four of five folds
learn from.
"""

import sys

import bayes
import learn
import numpy as np
import real
import torch
import train_eeg
import train_monkey
import train_rat
from held_out import lagged, rat_baseline
from metrics import auroc, r2, ridge

FOLDS = 5


def folds(bins):
    """Each fold as (held-out slice, Stretches of the rest)."""
    edges = [bins * k // FOLDS for k in range(FOLDS + 1)]
    for first, end in zip(edges[:-1], edges[1:], strict=True):
        before, after = slice(0, first), slice(end, bins)
        rest = [part for part in (before, after) if part.stop > part.start]
        cut = rest[-1].stop - (bins - end + first) // 10
        watched = slice(cut, rest[-1].stop)
        yield slice(first, end), learn.Stretches([*rest[:-1], slice(rest[-1].start, cut)], watched)


def report(name, scores):
    """Print the mean over folds, and each fold."""
    mean = " / ".join(f"{value:.3f}" for value in np.mean(scores, 0))
    each = ", ".join(" / ".join(f"{value:.2f}" for value in fold) for fold in scores)
    print(f"{name}: mean R2 {mean} ({each})", flush=True)


def rat():
    """Encoder with both decoders, Bayes and ridge."""
    counts, position, moving = real.rat()
    found = {}
    for held_out, stretches in folds(real.RAT_BINS):
        for name, score in rat_fold(counts, position, moving, held_out, stretches).items():
            found.setdefault(name, []).append(score)
    for name, scores in found.items():
        report(name, scores)


def rat_fold(counts, position, moving, held_out, stretches):
    """R2 of each recipe in the held-out bins in which it moves."""
    _, latents, (weights, offset), decoder = train_rat.trained(counts, position, moving, stretches)
    bins = np.flatnonzero(moving[held_out]) + held_out.start
    with torch.no_grad():
        decoded = decoder.sequence(torch.from_numpy(latents)[:, None])[:, 0].numpy()
    rest = np.setdiff1d(np.arange(real.RAT_BINS), np.arange(held_out.start, held_out.stop))
    guesses = {
        "linear": latents[bins] @ weights + offset,
        "decoder": decoded[bins],
        "bayes": bayes.learnt(counts, position, stretches).decode(counts)[0][bins],
        "ridge on 0.5 s of counts": rat_baseline(counts, position, moving, rest, bins),
    }
    return {name: r2(position[bins], guess) for name, guess in guesses.items()}


def monkey():
    """Wiener, Kalman, GRU and ridge."""
    features, velocity = real.monkey()
    found = {}
    for held_out, stretches in folds(real.MONKEY_BINS):
        weights, offset = train_monkey.wiener(features, velocity, stretches)
        carry, drive = train_monkey.kalman(features, velocity, stretches)
        module = train_monkey.gru(features, velocity, stretches)
        with torch.no_grad():
            decoded = module.sequence(torch.from_numpy(features)[:, None])[:, 0].numpy()
        rest = np.setdiff1d(np.arange(real.MONKEY_BINS), np.arange(held_out.start, held_out.stop))
        x = lagged(features, 10)
        base, base_offset = ridge(x[rest], velocity[rest], 1.0)
        guesses = {
            "wiener": lagged(features, train_monkey.LAGS) @ weights.reshape(-1, 2) + offset,
            "kalman": train_monkey.walked(carry, drive, features),
            "gru": decoded,
            "ridge on 10 bins": x @ base + base_offset,
        }
        for name, guess in guesses.items():
            found.setdefault(name, []).append(r2(velocity[held_out], guess[held_out]))
    for name, scores in found.items():
        report(name, scores)


def eeg():
    """The discriminant; with labels shuffled in training; and asked about later windows."""
    binned, stimuli = real.eeg()
    after, before, late = (
        real.eeg_windows(binned, real.eeg_bins(stimuli, at))
        for at in (real.EEG_AFTER_S, real.EEG_BEFORE_S, real.EEG_LATE_S)
    )

    def scores(shuffled=None):
        """Scores [79] of the windows after, before and late, each by the fold that held it out."""
        got = np.empty((3, len(stimuli)))
        for k in range(FOLDS):
            held_out = np.arange(len(stimuli)) * FOLDS // len(stimuli) == k
            pair = np.stack([after[~held_out], before[~held_out]])
            if shuffled is not None:
                flat = shuffled.permutation(pair.reshape(-1, *pair.shape[2:]))
                pair = flat.reshape(pair.shape)
            weights, offset = train_eeg.discriminant(*pair)
            for row, windows in zip(got, (after, before, late), strict=True):
                row[held_out] = np.tensordot(windows[held_out], weights, 2) + offset
        return got

    got = scores()
    print(f"eeg: AUC {auroc(got[0], got[1]):.3f} ({len(stimuli)} stimuli, five contiguous folds)")
    rng = np.random.default_rng(8)
    drawn = [auroc(*scores(rng)[:2]) for _ in range(5)]
    print(f"control, labels shuffled in training, 5 runs: AUC {min(drawn):.3f} to {max(drawn):.3f}")
    print(f"control, 1.1-1.8 s after against before: AUC {auroc(got[2], got[1]):.3f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    recipes = {"rat": rat, "monkey": monkey, "eeg": eeg}
    if len(sys.argv) != 2 or sys.argv[1] not in recipes:
        raise SystemExit(f"Usage: folds.py {'|'.join(recipes)}")
    recipes[sys.argv[1]]()
