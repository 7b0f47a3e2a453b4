"""What scipy makes of a stretch of the EEG recording: the numbers in continuous.json beside this file.

    python continuous.py <folder of eeg_attention_events> > continuous.json      (numpy, scipy)

Causal throughout, each filter from the steady state of the first sample.
"""

import json
import sys

import numpy as np
from scipy import signal

FS, SAMPLES, BIN = 128.0, 2560, 8
BANDS = [(8.0, 12.0), (13.0, 30.0)]
CHANNELS = [0, 5, 31]


def steady(sos, x):
    state = signal.sosfilt_zi(sos)[:, :, None] * x[0]
    return signal.sosfilt(sos, x, axis=0, zi=state)[0]


def notch(x, hz, q, fs):
    return steady(signal.tf2sos(*signal.iirnotch(hz, q, fs)), x)


def band_power(x, n=64):
    rows = []
    for end in range(BIN, len(x) + 1, BIN):
        if end < n:
            rows.append(np.full(x.shape[1] * len(BANDS), np.nan))
            continue
        f, p = signal.welch(x[end - n:end], FS, "hann", nperseg=n, axis=0)
        inside = [(f >= low) & (f <= high) for low, high in BANDS]
        power = [np.trapezoid(p[i], f[i], axis=0) for i in inside]
        rows.append(np.log(np.stack(power, axis=1)).ravel())
    return np.stack(rows)


def main(folder):
    raw = np.load(f"{folder}/eeg.npy")[:SAMPLES].astype(np.float64)
    x = steady(signal.butter(4, [1.0, 40.0], "band", output="sos", fs=FS), raw)
    power = band_power(notch(x, 50.0, 30.0, FS))

    x = raw - raw.mean(axis=1, keepdims=True)
    x = steady(signal.butter(2, 1.0, "high", output="sos", fs=FS), x)
    x = steady(signal.butter(8, 0.8 * FS / 4, "low", output="sos", fs=FS), x)[::2]
    mean = x.reshape(-1, BIN // 2, x.shape[1]).mean(axis=1)

    bins = list(range(8, SAMPLES // BIN, 24))
    picked = [c * len(BANDS) + b for c in CHANNELS for b in range(len(BANDS))]
    json.dump(
        {
            "samples": SAMPLES,
            "bins": bins,
            "power": {"columns": picked, "values": power[np.ix_(bins, picked)].tolist()},
            "mean": {"columns": CHANNELS, "values": mean[np.ix_(bins, CHANNELS)].tolist()},
        },
        sys.stdout,
        indent=1,
    )
    print()


main(sys.argv[1])
