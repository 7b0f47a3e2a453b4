#!/usr/bin/env python3
"""A simulated motor cortex whose ground truth is known.

A hand makes centre-out reaches to eight targets, 45 degrees apart on a circle of
10 cm, and returns to the centre after each. Every movement has three phases:

1. *preparation* (the target is known, the hand rests),
2. *go*: the reaction time of 100 ms,
3. *movement*: minimum jerk, 0.5 to 0.7 s.

Eight latents [T, 8] stand behind the activity:

=========  ==================================================================
rot1_x/y   a plane that settles on a point set by the reach's direction during
rot2_x/y   preparation, and after go rotates and decays (1.6 and 2.6 Hz)
trigger    a pulse after go, the same for all reaches
vel_x/y    hand velocity in units of 0.3 m/s, 100 ms *before* the hand has it
speed      its length
=========  ==================================================================

Of the 96 units 80 are tuned: log rate = baseline + loadings · latents, where the
loading on (vel_x, vel_y) is a vector along the unit's preferred direction, which
is cosine tuning. The other 16 are distractors: their log rates wander on their
own (tau 0.5 s) and know nothing of the reaches. Counts are Poisson in bins of 20 ms.

`drift` (off by default, in radians per root minute) lets preferred directions and
baselines walk slowly through a session, as a chronic implant does.

Two seeds: `population` makes the units (the same brain again), `seed` makes the
session (reaches and spikes). The same seeds give the same bytes.
"""

import argparse
from dataclasses import dataclass

import numpy as np
import recording

BIN_S = 0.02
UNITS = 96
TUNED = 80
TARGETS = 8
RADIUS_M = 0.10
SPEED_M_S = 0.3
LEAD_BINS = 5
REACTION_S = 0.1
LATENTS = ("rot1_x", "rot1_y", "rot2_x", "rot2_y", "trigger", "vel_x", "vel_y", "speed")
ROTATION_HZ = (1.6, 2.6)
DECAY_S = 0.35
SETTLE_S = 0.08
PULSE_S = 0.06
RATE_LIMIT_HZ = 150.0
POPULATION = 1


@dataclass
class Population:
    """The units: what stays the same from session to session."""

    baseline: np.ndarray  # [units], log Hz
    loadings: np.ndarray  # [units, latents], 0 for distractors
    distractor: np.ndarray  # [units], bool


@dataclass
class Session:
    """One session, bin by bin; the kinematics of a bin are means over it."""

    counts: np.ndarray  # [T, units], u8, spikes
    rates: np.ndarray  # [T, units], expected spikes per bin
    latents: np.ndarray  # [T, 8], see LATENTS
    velocity: np.ndarray  # [T, 2], m/s
    position: np.ndarray  # [T, 2], m from the centre, at the bin's end
    condition: np.ndarray  # [T], 0 to 7, -1 outside of trials
    markers: list  # of (bin, text), sorted by bin
    trials: int  # trials that ended


def population(seed=POPULATION):
    """The units of brain `seed`."""
    rng = np.random.default_rng([seed, 0])
    distractor = np.zeros(UNITS, bool)
    distractor[rng.choice(UNITS, UNITS - TUNED, replace=False)] = True
    loadings = rng.normal(0.0, 0.4, (UNITS, len(LATENTS)))
    angle, depth = rng.uniform(0, 2 * np.pi, UNITS), rng.uniform(0.5, 1.3, UNITS)
    loadings[:, 5], loadings[:, 6] = depth * np.cos(angle), depth * np.sin(angle)
    loadings[:, 7] = rng.normal(0.1, 0.2, UNITS)
    loadings[distractor] = 0.0
    baseline = np.log(rng.lognormal(np.log(8.0), 0.5, UNITS))
    return Population(baseline, loadings, distractor)


def session(units, seed, bins, drift=0.0):
    """Simulate `bins` bins of the Population `units`."""
    rng = np.random.default_rng([seed, 1])
    plan = _plan(rng, bins + LEAD_BINS)
    edges = _position(plan, bins + LEAD_BINS)
    velocity = np.diff(edges, axis=0) / BIN_S
    latents = _latents(plan, velocity, bins)
    log_rate = units.baseline + latents @ units.loadings.T
    wander = _wander(rng, bins, units.distractor.sum())
    log_rate[:, units.distractor] += wander
    if drift:
        log_rate += _drift(rng, units, latents, drift)
    rates = np.minimum(np.exp(log_rate), RATE_LIMIT_HZ) * BIN_S
    markers, condition, trials = _trials(plan, bins)
    return Session(
        counts=rng.poisson(rates).astype(np.uint8),
        rates=rates,
        latents=latents,
        velocity=velocity[:bins],
        position=edges[1 : bins + 1],
        condition=condition,
        markers=markers,
        trials=trials,
    )


def _plan(rng, bins):
    """Movements, each (outward, condition, prepare, go, onset, end, start, stop).

    The middle four are bins, `start` and `stop` are positions in m.
    """
    plan, order, now = [], [], 10
    centre = np.zeros(2)

    def draw(low, high):
        return round(rng.uniform(low, high) / BIN_S)

    while now < bins:
        if not order:
            order = list(rng.permutation(TARGETS))
        condition = int(order.pop())
        angle = 2 * np.pi * condition / TARGETS
        target = RADIUS_M * np.array([np.cos(angle), np.sin(angle)])
        for outward in (True, False):
            go = now + (draw(0.4, 0.7) if outward else draw(0.2, 0.3))
            onset = go + round(REACTION_S / BIN_S)
            end = onset + draw(0.5, 0.7)
            ends = (centre, target) if outward else (target, centre)
            plan.append((outward, condition, now, go, onset, end, *ends))
            now = end + (round(0.2 / BIN_S) if outward else draw(0.1, 0.2))
    return plan


def _position(plan, bins):
    """Hand position at the edges of bins: [bins + 1, 2], m."""
    position = np.zeros((bins + 1, 2))
    for _, _, _, _, onset, end, start, stop in plan:
        s = (np.arange(onset, end + 1) - onset) / (end - onset)
        s = s**3 * (10 - 15 * s + 6 * s**2)
        path = start + s[:, None] * (stop - start)
        position[onset : end + 1] = path[: max(0, bins + 1 - onset)]
        position[end + 1 :] = stop
    return position


def _latents(plan, velocity, bins):
    """Latents [bins, 8] from the movements and the velocity [bins + LEAD_BINS, 2]."""
    latents = np.zeros((bins, len(LATENTS)))
    goal, moving = np.zeros((bins, 2), complex), np.ones(bins, bool)
    for _, _, prepare, go, _, _, start, stop in plan:
        angle = np.arctan2(*(stop - start)[::-1])
        goal[prepare:go] = np.exp(1j * angle), np.exp(1j * (0.8 - angle))
        moving[prepare:go] = False
        after = np.arange(max(0, bins - go)) * BIN_S / PULSE_S
        latents[go:, 4] += (after**2 * np.exp(2 - after) / 4)[:bins]
    turn = np.exp((2j * np.pi * np.array(ROTATION_HZ) - 1 / DECAY_S) * BIN_S)
    settle = np.exp(-BIN_S / SETTLE_S)
    plane = np.zeros(2, complex)
    for k in range(bins):
        plane = plane * turn if moving[k] else goal[k] + settle * (plane - goal[k])
        latents[k, :4] = plane[0].real, plane[0].imag, plane[1].real, plane[1].imag
    latents[:, 5:7] = velocity[LEAD_BINS : bins + LEAD_BINS] / SPEED_M_S
    latents[:, 7] = np.linalg.norm(latents[:, 5:7], axis=1)
    return latents


def _wander(rng, bins, units):
    """Log-rate fluctuations [bins, units] of distractors: sd 0.4, tau 0.5 s."""
    keep = np.exp(-BIN_S / 0.5)
    steps = rng.normal(0.0, 0.4, (bins, units))
    steps[1:] *= np.sqrt(1 - keep**2)
    for k in range(1, bins):
        steps[k] += keep * steps[k - 1]
    return steps


def _drift(rng, units, latents, drift):
    """Change of log rate [bins, units] by slow walks of preferred direction and baseline."""
    step = drift * np.sqrt(BIN_S / 60)
    turn = np.cumsum(rng.normal(0.0, step, (len(latents), UNITS)), axis=0)
    shift = np.cumsum(rng.normal(0.0, step / 2, (len(latents), UNITS)), axis=0)
    cosine, sine = units.loadings[:, 5], units.loadings[:, 6]
    turned_x = cosine * np.cos(turn) - sine * np.sin(turn) - cosine
    turned_y = cosine * np.sin(turn) + sine * np.cos(turn) - sine
    return shift + turned_x * latents[:, 5:6] + turned_y * latents[:, 6:7]


def _trials(plan, bins):
    """`(markers, condition [bins], trials)`: a trial is an outward reach and its hold."""
    markers, condition, trials = [], np.full(bins, -1), 0
    for outward, which, prepare, go, _, end, _, _ in plan:
        if not outward:
            continue
        stop = end + round(0.2 / BIN_S)
        condition[prepare:stop] = which
        trial = [(prepare, "trial_start"), (prepare, f"cond={which}"), (go, "go")]
        markers += [m for m in [*trial, (stop, "trial_end")] if m[0] < bins]
        trials += stop < bins
    return markers, condition, trials


def write(folder, units_seed, seed, bins, drift=0.0):
    """Simulate a session and write it as a recording; returns the Session."""
    made = session(population(units_seed), seed, bins, drift)
    names = [{"name": f"u{i:02}", "unit": "1"} for i in range(UNITS)]
    bin_ms = BIN_S * 1000

    def target(name, file, channels, unit):
        channels = [{"name": channel, "unit": unit} for channel in channels]
        return {"name": name, "type": "binned", "file": file, "channels": channels,
                "unit": unit, "bin_ms": bin_ms, "role": "target"}  # fmt: skip

    about = {
        "name": "simulated-cortex",
        "signals": [
            {"name": "spikes", "type": "binned", "file": "spikes.npy", "channels": names,
             "unit": "1", "bin_ms": bin_ms},
            target("velocity", "velocity.npy", ("vx", "vy"), "m/s"),
            target("latents", "latents.npy", LATENTS, "1"),
            {"name": "trials", "type": "markers", "file": "trials.csv", "value": "value"},
        ],
        "licence": "Apache-2.0",
        "source": f"zoo/cortex.py: population {units_seed}, seed {seed}, {bins} bins, drift {drift}",
        "citation": "latentd",
    }  # fmt: skip
    arrays = {
        "spikes.npy": made.counts,
        "velocity.npy": made.velocity.astype("<f4"),
        "latents.npy": made.latents.astype("<f4"),
    }
    rows = "".join(f"{k * BIN_S:.6f},{text}\n" for k, text in made.markers)
    recording.write(folder, about, arrays, {"trials.csv": "time_s,value\n" + rows})
    return made


def main():
    """Write a recording as the command line says."""
    parser = argparse.ArgumentParser(description="Simulate a session of motor cortex.")
    parser.add_argument("folder", help="where the recording goes")
    parser.add_argument("--population", type=int, default=POPULATION, help="seed of the units")
    parser.add_argument("--seed", type=int, required=True, help="seed of reaches and spikes")
    parser.add_argument("--bins", type=int, default=3000, help="length in bins of 20 ms")
    parser.add_argument("--drift", type=float, default=0.0, help="radians per root minute")
    asked = parser.parse_args()
    made = write(asked.folder, asked.population, asked.seed, asked.bins, asked.drift)
    print(f"{asked.folder}: {asked.bins} bins, {made.counts.sum()} spikes, {made.trials} trials")


if __name__ == "__main__":
    main()
