"""What the models of the zoo learn from, what is held out, and what the server does to it first."""

import os
from pathlib import Path

import graph
import numpy as np
import recording

# Simulated sessions, by seed: learnt from (10 minutes each), and watched (a minute).
# The committed recording is touched by no training.
CORTEX_LEARNT = (11, 12, 13, 14)
CORTEX_LEARNT_BINS = 30000
CORTEX_WATCHED = 21
CORTEX_WATCHED_BINS = 3000
CORTEX_HELD_OUT_SEED = 31
CORTEX_HELD_OUT_BINS = 3000
CORTEX_HELD_OUT = graph.ZOO / "recordings" / "simulated-cortex"

# The receptor: bins of recording 1 that are learnt from, watched (for when to stop)
# and held out. Recording 2, another sound, is held out whole.
RECEPTOR_BIN_MS = 2
RECEPTOR_BINS = 5000
RECEPTOR_LEARNT = slice(0, 3250)
RECEPTOR_WATCHED = slice(3250, 4000)
RECEPTOR_HELD_OUT = slice(4000, 5000)
# The output of bin k is the mean of the envelope in bin k - DELAY.
RECEPTOR_DELAY = 5
SAMPLES_PER_BIN = 40


def square_root(counts):
    """The op `sqrt` of a manifest: in f64, then f32."""
    return np.sqrt(counts.astype(np.float64)).astype(np.float32)


def receptor_folder():
    """Where `setup/receptor.py` put the recordings, else those of LATENTD_RECORDINGS, else None."""
    places = [graph.ZOO.parent / ".recordings", Path(os.environ.get("LATENTD_RECORDINGS", "."))]
    folders = (place / "grasshopper_receptor" for place in places)
    return next((folder for folder in folders if (folder / "recording.json").exists()), None)


def receptor(name):
    """Spikes per bin f32 [5000, 1] and mean envelope per bin f32 [5000] of `recording[_2].json`."""
    folder = receptor_folder()
    if folder is None:
        raise SystemExit("The receptor's recordings are missing; run `python3 setup/receptor.py`.")
    counts = recording.event_counts(folder / name, "spikes", RECEPTOR_BIN_MS, RECEPTOR_BINS, 1)
    sound = recording.array(folder / name, "stimulus").astype(np.float64)
    envelope = sound.reshape(RECEPTOR_BINS, SAMPLES_PER_BIN).mean(1)
    return counts.astype(np.float32), envelope.astype(np.float32)
