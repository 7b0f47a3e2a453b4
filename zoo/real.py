"""Third parties' recordings: where they are, and what of them is learnt, watched and held out.

All splits are contiguous. Of each recording the last fifth of what is decoded is
held out: no training and no choice has used it. What is chosen (when to stop, a
penalty, a grid) is chosen on the watched stretch in front of it.
"""

import csv
import os
from pathlib import Path

import graph
import numpy as np
import recording

# Rat, CA1: spikes of 31 units in bins of 100 ms, while it runs the track (the first 900 s).
RAT_BIN_MS = 100
RAT_BINS = 9000
RAT_UNITS = 31
RAT_LEARNT, RAT_WATCHED, RAT_HELD_OUT = slice(0, 6300), slice(6300, 7200), slice(7200, 9000)
# It moves where its position changes by more than this (px/s) over the half second around a bin.
RAT_MOVING = 20.0
RAT_SPEED_BINS = 5

# Monkey, M1: ten features in bins of 100 ms, as they were recorded.
MONKEY_BIN_MS = 100
MONKEY_BINS = 7792
MONKEY_FEATURES = 10
MONKEY_LEARNT, MONKEY_WATCHED, MONKEY_HELD_OUT = slice(0, 5454), slice(5454, 6233), slice(6233, 7792)

# EEG: means of 4 samples, windows of 22 bins. A stimulus is asked for in the window that
# ends 0.75 s after it, and in the one that ends 0.1 s before it; as a control also later.
EEG_BIN_MS = 31.25
EEG_SAMPLES_PER_BIN = 4
EEG_WINDOW = 22
EEG_CHANNELS = 32
EEG_AFTER_S, EEG_BEFORE_S, EEG_LATE_S = 0.75, -0.1, 1.8
EEG_LEARNT, EEG_HELD_OUT = slice(0, 63), slice(63, 79)


def folder(name):
    """The folder of a recording: in LATENTD_RECORDINGS, ../shared/recordings or .recordings; else None."""
    root = graph.ZOO.parent
    given = os.environ.get("LATENTD_RECORDINGS", root.parent / "shared" / "recordings")
    places = (Path(given) / name, root / ".recordings" / name)
    return next((place for place in places if (place / "recording.json").exists()), None)


def needed(name):
    """As `folder`, but ends the program where it is missing."""
    found = folder(name)
    if found is None:
        raise SystemExit(f"The recording {name} is missing; say where it is by LATENTD_RECORDINGS.")
    return found


def rat():
    """Counts u8 [9000, 31], position [9000, 2] (px, mean of the bin) and whether it moves [9000]."""
    where = needed("hc_linear_track")
    counts = recording.event_counts(where, "spikes", RAT_BIN_MS, RAT_BINS, RAT_UNITS)
    samples = recording.array(where, "position")[: RAT_BINS * 6].astype(np.float64)
    position = samples.reshape(RAT_BINS, 6, 2).mean(1)
    return counts, position, rat_speed(position) > RAT_MOVING


def rat_speed(position):
    """Speed [T] in px/s by the positions [T, 2] two bins before and behind, held at the ends."""
    reach = RAT_SPEED_BINS // 2
    padded = np.pad(position, ((reach, reach), (0, 0)), mode="edge")
    moved = padded[2 * reach :] - padded[: -2 * reach]
    return np.hypot(*moved.T) / (2 * reach * RAT_BIN_MS / 1000)


def monkey():
    """Features f32 [7792, 10] and hand velocity [7792, 2]."""
    where = needed("m1_reach_pcs")
    return recording.array(where, "features"), recording.array(where, "velocity").astype(np.float64)


def eeg():
    """EEG f32 [7626, 32] (uV, mean of the bin), and stimuli [79] (s).

    The second of the 80 stimuli follows the first within 0.7 s, so that its window
    before would hold the first one: it is left out.
    """
    where = needed("eeg_attention_events")
    samples = recording.array(where, "eeg").astype(np.float64)
    bins = len(samples) // EEG_SAMPLES_PER_BIN
    binned = samples[: bins * EEG_SAMPLES_PER_BIN].reshape(bins, EEG_SAMPLES_PER_BIN, EEG_CHANNELS).mean(1)
    with open(where / "events.csv", newline="") as file:
        stimuli = [float(row["time_s"]) for row in csv.DictReader(file) if row["type"] == "square"]
    return binned.astype(np.float32), np.delete(stimuli, 1)


def eeg_bins(stimuli, offset_s):
    """The bin [n] that is the last one to end by `offset_s` after each stimulus."""
    return np.floor((stimuli + offset_s) / (EEG_BIN_MS / 1000) + 1e-9).astype(int) - 1


def eeg_windows(binned, last):
    """The windows [n, 22, 32] that end with the bins `last` [n]."""
    return binned[last[:, None] + np.arange(1 - EEG_WINDOW, 1)]
