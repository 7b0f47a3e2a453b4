"""Place fields on a linear track, and the Bayesian filter that reads the position from spikes.

A place is a square of the track and what the rat does there: rest, run one way, run
the other. Each unit has a rate at each place (its place field). What was believed a
bin ago is moved on, as the rat moves, and multiplied with the Poisson likelihood of
the counts; answered is the mean of the posterior.
"""

import handmade
import numpy as np
import real

BIN_S = real.RAT_BIN_MS / 1000
# Chosen on the watched stretch among a few values each.
GRID_PX, SMOOTHED = 20.0, 1.5  # width of a place, and of the blur in places
SPREAD_PX = 60.0  # of the unforeseen movement in a second at rest; half of it on a run
PRIOR_S, JUMP = 0.03, 1e-5  # seconds at the mean rate that each place is given; chance to be anywhere


class Fields:
    """What was learnt: places, rates, and how one place follows another."""

    def __init__(self, centres, log_expected, moves):
        """`centres` [S, 2] px, `log_expected` [C, S] per bin, `moves` [S, S]."""
        self.centres, self.log_expected, self.moves = centres, log_expected, moves

    def decode(self, counts):
        """Position [T, 2] and posterior [T, S] of counts [T, C], in f64, from no belief."""
        size = len(self.centres)
        expected, believed, rows = np.exp(self.log_expected).sum(0), np.zeros(size), []
        for row in counts:
            prior = (1 - JUMP) * believed @ self.moves + JUMP / size
            joint = row @ self.log_expected - expected + np.log(prior)
            believed = np.exp(joint - joint.max())
            believed /= believed.sum()
            rows.append(believed)
        return np.stack(rows) @ self.centres, np.stack(rows)

    def write(self, model, made_up):
        """The graphs of `model`, and its example on made-up counts [T, C]."""
        handmade.filtered(model, self.moves, JUMP, self.log_expected, self.centres)
        position, posterior = self.decode(made_up)
        handmade.example(model, "x", made_up, position=position, posterior=posterior)


def blurred(grid):
    """Gaussian smoothing of [ways, x, y, ...] over x and y, nothing beyond the edge."""
    reach = int(4 * SMOOTHED + 1)
    kernel = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * SMOOTHED**2))
    kernel /= kernel.sum()
    for axis in (1, 2):
        grid = np.apply_along_axis(np.convolve, axis, grid, kernel, "same")
    return grid


def learnt(counts, position, stretches):
    """The fields by the learnt bins of counts [T, C] and position [T, 2] (px)."""
    bins = stretches.bins()
    where = position[bins]
    along = np.linalg.svd(where - where.mean(0), full_matrices=False)[2][0]
    reach = real.RAT_SPEED_BINS // 2
    padded = np.pad(position, ((reach, reach), (0, 0)), mode="edge")
    pace = (padded[2 * reach :] - padded[: -2 * reach]) @ along / (2 * reach * BIN_S)
    moving = real.rat_speed(position) > real.RAT_MOVING
    way = np.where(moving, np.where(pace > 0, 1, 2), 0)

    low = np.floor(where.min(0) / GRID_PX) * GRID_PX
    cells = ((where - low) / GRID_PX).astype(int)
    shape = (3, *(cells.max(0) + 1))
    at = (way[bins], *cells.T)
    seconds, spikes = np.zeros(shape), np.zeros((*shape, counts.shape[1]))
    np.add.at(seconds, at, BIN_S)
    np.add.at(spikes, at, counts[bins])
    mean = counts[bins].mean(0) / BIN_S
    rate = (blurred(spikes) + PRIOR_S * mean) / (blurred(seconds)[..., None] + PRIOR_S)

    visited = np.argwhere(seconds.sum(0) >= 2 * BIN_S)
    ways = np.repeat(np.arange(3), len(visited))
    places = np.tile(visited, (3, 1))
    centres = low + (places + 0.5) * GRID_PX
    log_expected = np.log(rate[ways, places[:, 0], places[:, 1]] * BIN_S + 1e-5).T

    follows = np.ones((3, 3))
    for part in stretches.learnt:
        np.add.at(follows, (way[part][:-1], way[part][1:]), 1)
    follows /= follows.sum(1, keepdims=True)
    step = np.array([0.0] + [np.median(pace[bins][way[bins] == k]) * BIN_S for k in (1, 2)])
    spread = SPREAD_PX * np.sqrt(BIN_S) * np.where(ways == 0, 1.0, 0.5)
    target = centres + step[ways][:, None] * along
    square = ((target[:, None] - centres[None]) ** 2).sum(-1)
    near = np.exp(-square / (2 * spread[:, None] ** 2)) + 1e-12
    moves = np.empty_like(near)
    for k in range(3):
        part = near[:, ways == k]
        moves[:, ways == k] = follows[ways, k][:, None] * part / part.sum(1, keepdims=True)
    return Fields(centres, log_expected, moves)
