#!/usr/bin/env python3
"""Train and export `eeg-stimulus` (seconds; no PyTorch): was there a stimulus in this window?

A linear discriminant with a shrunken covariance over windows of 0.6875 s, learnt from
those that end 0.75 s after a stimulus against those that end 0.1 s before it. Each
window is centred channel by channel and averaged in pairs of bins; since both are
linear, the exported weights hold them already. Splits stand in `real.py`.
"""

import handmade
import numpy as np
import real

SHRINKAGE = 0.5  # chosen by five folds within the learnt stimuli, among 0.05, 0.2 and 0.5
POOLED = 2
EXAMPLE_WINDOWS = 20


def prepared():
    """The linear map [11, 22] that centres a window over its bins and averages pairs of them."""
    centred = np.eye(real.EEG_WINDOW) - 1 / real.EEG_WINDOW
    return centred.reshape(real.EEG_WINDOW // POOLED, POOLED, real.EEG_WINDOW).mean(1)


def discriminant(after, before):
    """Weights [22, 32] and offset: > 0 is nearer to the windows `after` [n, 22, 32] than to those `before`."""
    shape = prepared()
    classes = [(shape @ part.astype(np.float64)).reshape(len(part), -1) for part in (after, before)]
    means = [part.mean(0) for part in classes]
    rest = np.concatenate([part - mean for part, mean in zip(classes, means, strict=True)])
    covariance = rest.T @ rest / (len(rest) - 2)
    size = len(covariance)
    shrunken = (1 - SHRINKAGE) * covariance + SHRINKAGE * np.trace(covariance) / size * np.eye(size)
    weights = np.linalg.solve(shrunken, means[0] - means[1])
    offset = -weights @ (means[0] + means[1]) / 2
    return shape.T @ weights.reshape(len(shape), -1), offset


def main():
    """Train and write version 1."""
    binned, stimuli = real.eeg()
    stimuli = stimuli[real.EEG_LEARNT]
    after, before = (
        real.eeg_windows(binned, real.eeg_bins(stimuli, offset))
        for offset in (real.EEG_AFTER_S, real.EEG_BEFORE_S)
    )
    weights, offset = discriminant(after, before)
    handmade.window("eeg-stimulus", weights, offset)
    # The example ships with the model, so its EEG is made up.
    rng = np.random.default_rng(7)
    x = 10 * rng.standard_normal((EXAMPLE_WINDOWS, real.EEG_WINDOW, real.EEG_CHANNELS)).astype(np.float32)
    score = np.tensordot(x, weights, 2)[:, None] + offset
    handmade.example("eeg-stimulus", "x", x, p=1 / (1 + np.exp(-score)), score=score)


if __name__ == "__main__":
    main()
