"""Scores of the committed models on the held-out parts of real recordings, and of baselines on the same bins.

Each graph is stepped from the recording's first bin, state from zeros, as a server
does it that is played the whole recording. What the server must reach is also written
down, in `zoo/scores.json`: pipeline, output, bins and value of each score.
"""

import json

import data
import graph
import numpy as np
import real
from metrics import auroc, r2, ridge

SCORES_FILE = graph.ZOO / "scores.json"


def ranges(bins):
    """Bins, ascending, as half-open ranges [from, to]."""
    cuts = np.split(bins, np.flatnonzero(np.diff(bins) != 1) + 1)
    return [[int(part[0]), int(part[-1]) + 1] for part in cuts]


def write_down(recording, found):
    """Put the scores of a recording into `scores.json`, in place of those that stood there."""
    all_scores = json.loads(SCORES_FILE.read_text()) if SCORES_FILE.exists() else {}
    all_scores[recording] = found
    lines = json.dumps(dict(sorted(all_scores.items())), indent=1)
    SCORES_FILE.write_text(lines + "\n")


def noted(pipeline, output, target, bins, truth, guess):
    """An entry of `scores.json`: R2 of the output against the target over the bins; printed too."""
    value = r2(truth, guess.astype(np.float64))
    print(f"{pipeline}, {output}: R2 " + " / ".join(f"{each:.3f}" for each in value))
    return {
        "pipeline": pipeline, "output": output, "metric": "r2", "target": target,
        "bins": ranges(bins), "value": value.tolist(),
    }  # fmt: skip


def recent(counts, bins):
    """Counts [T, N] of the newest `bins` bins together."""
    sums = np.cumsum(np.concatenate([np.zeros((bins, counts.shape[1])), counts]), 0)
    return sums[bins:] - sums[:-bins]


def rat_baseline(counts, position, moving, learnt, held_out):
    """Ridge on the counts of the newest half second, learnt on moving bins: position at `held_out`."""
    x = recent(counts, 500 // real.RAT_BIN_MS)
    learnt = learnt[moving[learnt]]
    weights, offset = ridge(x[learnt], position[learnt], 10.0)
    return x[held_out] @ weights + offset


def score_rat():
    """Position of the rat in the held-out bins in which it moves."""
    counts, position, moving = real.rat()
    bins = np.flatnonzero(moving[real.RAT_HELD_OUT]) + real.RAT_HELD_OUT.start
    z = graph.play(graph.path("hippocampus-encoder"), data.square_root(counts))["z"]
    bayes = graph.play(graph.path("hippocampus-bayes"), counts.astype(np.float32))
    got = {
        ("hippocampus", "position_linear"): graph.play(graph.path("hippocampus-linear"), z)["position"],
        ("hippocampus", "position"): graph.play(graph.path("hippocampus-decoder"), z)["position"],
        ("hippocampus-bayes", "position"): bayes["position"],
    }
    truth = position[bins]
    print(f"{len(bins)} of {real.RAT_HELD_OUT.stop - real.RAT_HELD_OUT.start} held-out bins, moving")
    found = []
    for (pipeline, output), guess in got.items():
        found.append(noted(pipeline, output, "position", bins, truth, guess[bins]))
        print(f"  median error {np.median(np.hypot(*(truth - guess[bins]).T)):.0f} px")
    write_down("hc_linear_track", found)
    guess = rat_baseline(counts, position, moving, np.arange(real.RAT_HELD_OUT.start), bins)
    print("baseline, ridge on 0.5 s of counts: R2 " + " / ".join(f"{each:.3f}" for each in r2(truth, guess)))
    shift = 300
    shifted = np.roll(got["hippocampus", "position"], shift, 0)[bins]
    print(f"control, decoder shifted by {shift} bins: R2 " + " / ".join(f"{v:.3f}" for v in r2(truth, shifted)))


def lagged(x, lags):
    """Each row [C] behind the `lags` - 1 before it, zeros before the first: [T, lags * C]."""
    padded = np.concatenate([np.zeros((lags - 1, x.shape[1])), x])
    return np.hstack([padded[k : k + len(x)] for k in range(lags)])


def score_monkey():
    """Velocity of the monkey's hand in the held-out bins."""
    features, velocity = real.monkey()
    bins = np.arange(real.MONKEY_HELD_OUT.start, real.MONKEY_HELD_OUT.stop)
    truth, found = velocity[bins], []
    for model in ("reach-wiener", "reach-kalman", "reach-gru"):
        guess = graph.play(graph.path(model), features)["v"]
        found.append(noted(model, "velocity", "velocity", bins, truth, guess[bins]))
    write_down("m1_reach_pcs", found)
    x = lagged(features, 10)
    weights, offset = ridge(x[: bins[0]], velocity[: bins[0]], 1.0)
    value = r2(truth, x[bins] @ weights + offset)
    print("baseline, ridge on 10 bins: R2 " + " / ".join(f"{each:.3f}" for each in value))
    guess = np.roll(guess, 3000, 0)[bins]
    print("control, reach-gru shifted by 300 s: R2 " + " / ".join(f"{v:.3f}" for v in r2(truth, guess)))


def eeg_played(binned):
    """Answers of `eeg-stimulus` in each bin [T], NaN until the first window is full."""
    session = graph.runtime(graph.path("eeg-stimulus"))
    windows = np.lib.stride_tricks.sliding_window_view(binned, real.EEG_WINDOW, 0).transpose(0, 2, 1)
    scores = [session.run(["score"], {"x": np.ascontiguousarray(rows)[None]})[0][0, 0] for rows in windows]
    return np.concatenate([np.full(real.EEG_WINDOW - 1, np.nan), scores])


def score_eeg():
    """Windows after against windows before each held-out stimulus."""
    binned, stimuli = real.eeg()
    stimuli = stimuli[real.EEG_HELD_OUT]
    answers = eeg_played(binned)
    after, before = (real.eeg_bins(stimuli, at) for at in (real.EEG_AFTER_S, real.EEG_BEFORE_S))
    value = auroc(answers[after], answers[before])
    print(f"eeg-stimulus: AUC {value:.3f} ({len(stimuli)} held-out stimuli, after against before)")
    late = real.eeg_bins(stimuli, real.EEG_LATE_S)
    print(f"control, 1.1-1.8 s after against before: AUC {auroc(answers[late], answers[before]):.3f}")
    found = {
        "pipeline": "eeg-stimulus", "output": "score", "metric": "auroc",
        "positive": after.tolist(), "negative": before.tolist(), "value": value,
    }  # fmt: skip
    write_down("eeg_attention_events", [found])


SCORES = {"rat": score_rat, "monkey": score_monkey, "eeg": score_eeg}
