#!/usr/bin/env python3
"""Train and export the models of the rat's hippocampus (a few minutes on one core).

`hippocampus-encoder` never sees a position: it predicts counts that were hidden from
its input. `hippocampus-linear` and `hippocampus-decoder` read the position from its
latents; both learn on bins in which the rat moves. `hippocampus-bayes` needs none of
them. Splits stand in `real.py`.
"""

import bayes
import data
import export
import handmade
import learn
import numpy as np
import real
import torch
from metrics import r2, ridge
from modules import Encoder, Readout
from torch.nn import functional
from train_cortex import DROPPED, latents_of, order_latents

HIDDEN, LATENTS = 64, 12
CROP, WARM = 150, 20
EXAMPLE_BINS = 50


def encoder(counts, stretches, steps=600):
    """Poisson reconstruction with coordinated dropout, as in `train_cortex.py`."""
    module = Encoder(real.RAT_UNITS, HIDDEN, LATENTS)
    with torch.no_grad():
        module.log_rate.bias.copy_(torch.from_numpy(counts[stretches.bins()].mean(0) + 1e-3).log())
    inputs, whole = torch.from_numpy(data.square_root(counts)), torch.from_numpy(counts.astype(np.float32))
    seen = stretches.watched

    def loss(rng):
        index = torch.from_numpy(stretches.crops(rng, 32, CROP))
        hidden = torch.from_numpy(rng.random((*index.shape, real.RAT_UNITS), np.float32) < DROPPED)
        _, log_rate = module.sequence(inputs[index].masked_fill(hidden, 0.0) / (1 - DROPPED))
        errors = functional.poisson_nll_loss(log_rate, whole[index], reduction="none")
        return errors[WARM:][hidden[WARM:]].mean()

    def watched():
        _, log_rate = module.sequence(inputs[: seen.stop, None])
        return functional.poisson_nll_loss(log_rate[seen, 0], whole[seen])

    learn.patient("encoder", module, steps, 4e-3, 1e-3, loss, watched)
    order_latents(module, np.concatenate([counts[part] for part in stretches.learnt])[None])
    return module


def linear(latents, position, moving, stretches):
    """Weights [12, 2] and offset of a ridge regression on the moving bins."""
    learnt = stretches.bins()
    learnt = learnt[moving[learnt]]
    return ridge(latents[learnt].astype(np.float64), position[learnt], 10.0)


def decoder(latents, position, moving, stretches):
    """A GRU on the latents."""
    module = Readout(LATENTS, 2, hidden=32, layered=False)
    return learn.readout(
        "decoder", module, latents, position, moving, stretches,
        steps=600, peak=1e-2, decay=1e-2, noise=0.5, crop=CROP, warm=WARM,
    )  # fmt: skip


def trained(counts, position, moving, stretches):
    """All of them: encoder, its latents [T, 12], weights and offset, GRU decoder."""
    torch.manual_seed(0)
    encoding = encoder(counts, stretches)
    latents = latents_of(encoding, counts[None])[0]
    read = linear(latents, position, moving, stretches)
    return encoding, latents, read, decoder(latents, position, moving, stretches)


def main():
    """Train all and write the version 1 of each."""
    torch.set_num_threads(1)
    counts, position, moving = real.rat()
    stretches = learn.Stretches([real.RAT_LEARNT], real.RAT_WATCHED)
    counts, position, moving = (rows[: stretches.watched.stop] for rows in (counts, position, moving))
    encoding, latents, (weights, offset), decoding = trained(counts, position, moving, stretches)
    seen = np.flatnonzero(moving[stretches.watched]) + stretches.watched.start
    print("watched R2, linear:", r2(position[seen], latents[seen] @ weights + offset).round(3))

    # The examples ship with the models, so their spikes are made up, not third-party data.
    made_up = np.random.default_rng(5).poisson(0.05, (EXAMPLE_BINS, real.RAT_UNITS))
    axes = {"x": 0, "h0": 1, "z": 0, "rates": 0, "hn": 1}
    export.export("hippocampus-encoder", encoding, data.square_root(made_up), ["z", "rates"], axes)
    z = latents_of(encoding, made_up[None])[0]
    axes = {"z": 0, "h0": 0, "position": 0, "hn": 0}
    export.export("hippocampus-decoder", decoding, z, ["position"], axes)
    handmade.linear("hippocampus-linear", "z", "position", weights, offset)
    handmade.example("hippocampus-linear", "z", z, position=z @ weights + offset)

    places = bayes.learnt(counts, position, stretches)
    places.write("hippocampus-bayes", made_up)


if __name__ == "__main__":
    main()
