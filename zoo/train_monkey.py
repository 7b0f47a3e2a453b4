#!/usr/bin/env python3
"""Train and export the decoders of the monkey's motor cortex (a minute on one core).

Three ways from ten features to the hand's velocity: `reach-wiener` (a linear map of
the newest bins), `reach-kalman` (a Kalman filter in its steady state) and `reach-gru`.
Splits stand in `real.py`.
"""

import export
import handmade
import learn
import numpy as np
import real
import torch
from held_out import lagged
from metrics import r2, ridge
from modules import Readout

LAGS = 15  # chosen with the penalty on the watched stretch, among 1, 5, 10, 15, 20 and 1, 100, 1000
PENALTY = 100.0
PAST = 3  # velocities in the state of the Kalman filter
EXAMPLE_BINS = 50


def wiener(features, velocity, stretches, lags=LAGS):
    """Weights [lags, 10, 2] and offset [2] of a ridge regression on the newest `lags` bins."""
    bins = stretches.bins()
    weights, offset = ridge(lagged(features, lags)[bins], velocity[bins], PENALTY)
    return weights.reshape(lags, features.shape[1], 2), offset


def kalman(features, velocity, stretches):
    """Carry [d, d], drive [d, C] of a Kalman filter whose gain has settled.

    Its state is the velocity now and in the PAST - 1 bins before; the observation is
    linear in it. All is fitted by least squares on the learnt bins.
    """
    state = lagged(velocity, PAST)
    state = np.hstack([state[:, 2 * k : 2 * k + 2] for k in reversed(range(PAST))])
    before, after = (
        np.concatenate([state[part][cut] for part in stretches.learnt])
        for cut in (slice(None, -1), slice(1, None))
    )
    moves = np.linalg.lstsq(before, after, rcond=None)[0].T
    process = np.cov((after - before @ moves.T).T)
    bins = stretches.bins()
    shows = np.linalg.lstsq(state[bins], features[bins].astype(np.float64), rcond=None)[0].T
    noise = np.cov((features[bins] - state[bins] @ shows.T).T)
    spread = np.eye(len(moves))
    for _ in range(1000):
        prior = moves @ spread @ moves.T + process
        gain = np.linalg.solve(shows @ prior @ shows.T + noise, shows @ prior).T
        spread = (np.eye(len(moves)) - gain @ shows) @ prior
    return (np.eye(len(moves)) - gain @ shows) @ moves, gain


def gru(features, velocity, stretches):
    """A GRU on the features."""
    torch.manual_seed(0)
    module = Readout(real.MONKEY_FEATURES, 2, hidden=48, layered=True)
    counted = np.ones(len(features), bool)
    return learn.readout(
        "gru", module, features, velocity, counted, stretches,
        steps=800, peak=1e-2, decay=3e-2, noise=0.3, crop=100, warm=15,
    )  # fmt: skip


def main():
    """Train all and write the version 1 of each."""
    torch.set_num_threads(1)
    stretches = learn.Stretches([real.MONKEY_LEARNT], real.MONKEY_WATCHED)
    features, velocity = (rows[: stretches.watched.stop] for rows in real.monkey())
    # The examples ship with the models, so their features are made up.
    made_up = np.random.default_rng(6).standard_normal((EXAMPLE_BINS, real.MONKEY_FEATURES)).astype(np.float32)

    weights, offset = wiener(features, velocity, stretches)
    flat = weights.reshape(-1, 2)
    guess = lagged(features, LAGS) @ flat + offset
    print("watched R2, wiener:", r2(velocity[stretches.watched], guess[stretches.watched]).round(3))
    handmade.wiener("reach-wiener", weights, offset)
    handmade.example("reach-wiener", "x", made_up, v=lagged(made_up, LAGS) @ flat + offset)

    carry, drive = kalman(features, velocity, stretches)
    guess = walked(carry, drive, features)
    print("watched R2, kalman:", r2(velocity[stretches.watched], guess[stretches.watched]).round(3))
    handmade.recurrence("reach-kalman", carry, drive, np.zeros(len(carry)), 2)
    handmade.example("reach-kalman", "x", made_up, v=walked(carry, drive, made_up))

    module = gru(features, velocity, stretches)
    axes = {"x": 0, "h0": 1, "v": 0, "hn": 1}
    export.export("reach-gru", module, made_up, ["v"], axes)


def walked(carry, drive, features):
    """The first two numbers of s[t] = carry s[t-1] + drive x[t], from zeros: [T, 2]."""
    state, rows = np.zeros(len(carry)), []
    for row in features:
        state = carry @ state + drive @ row
        rows.append(state[:2])
    return np.stack(rows)


if __name__ == "__main__":
    main()
