#!/usr/bin/env python3
"""Train and export `cortex-encoder` and `cortex-decoder` (about five minutes on one core).

Learns from simulated sessions, see `data.py`; of the committed recording it only
writes down what the trained models answer, as reference vectors.
"""

import cortex
import data
import export
import numpy as np
import recording
import torch
from modules import Encoder, Readout
from torch.nn import functional

CROP = 200
# The first bins of a crop start from an empty state; they are not learnt from.
WARM = 10
BATCH = 64
DROPPED = 0.3
EXAMPLE_BINS = 50
REFERENCE_BINS = 200


def crops(rng, sessions, *arrays):
    """Random crops [CROP, BATCH, ...] of arrays that are stacked [sessions, T, ...]."""
    which = rng.integers(sessions, size=BATCH)
    start = rng.integers(data.CORTEX_LEARNT_BINS - CROP, size=BATCH)
    index = start[:, None] + np.arange(CROP)
    return [torch.from_numpy(a[which[:, None], index].swapaxes(0, 1)) for a in arrays]


def schedule(optimizer, steps, peak):
    """Learning rate up to `peak` within 50 steps, then down to zero by a cosine."""
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=steps, pct_start=50 / steps)


def train_encoder(counts, watched, steps=800):
    """Poisson reconstruction with coordinated dropout.

    Each step hides DROPPED of the entries from the input and scores only those, so
    that a unit's rate is never learnt from its own spike in the same bin.
    """
    rng = np.random.default_rng(1)
    module = Encoder()
    with torch.no_grad():
        module.log_rate.bias.copy_(torch.from_numpy(counts.mean((0, 1))).log())
    optimizer = torch.optim.Adam(module.parameters(), weight_decay=1e-6)
    rate = schedule(optimizer, steps, 4e-3)
    inputs = data.square_root(counts)
    for step in range(steps):
        x, n = crops(rng, len(counts), inputs, counts)
        n = n.float()
        hidden = torch.from_numpy(rng.random(x.shape, np.float32) < DROPPED)
        _, log_rate = module.sequence(x.masked_fill(hidden, 0.0) / (1 - DROPPED))
        loss = functional.poisson_nll_loss(log_rate, n, reduction="none")
        loss = loss[WARM:][hidden[WARM:]].mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        rate.step()
        if step % 100 == 99:
            with torch.no_grad():
                _, log_rate = module.sequence(torch.from_numpy(data.square_root(watched))[:, None])
                seen = functional.poisson_nll_loss(log_rate[:, 0], torch.from_numpy(watched).float())
            print(f"encoder {step + 1}: loss {loss:.4f}, watched {seen:.4f}", flush=True)
    return module


def latents_of(module, counts):
    """Latents [sessions, T, latents] of counts [sessions, T, units], states from zeros."""
    with torch.no_grad():
        z, _ = module.sequence(torch.from_numpy(data.square_root(counts)).transpose(0, 1))
    return z.transpose(0, 1).contiguous().numpy()


def order_latents(module, counts):
    """Turn and scale the latents, leaving the rates as they are.

    Afterwards each has mean 0 and variance 1, they are uncorrelated, and they stand
    in order of the variance of log rates that they carry.
    """
    z = latents_of(module, counts).reshape(-1, module.latent.out_features).astype(np.float64)
    mean, (values, vectors) = z.mean(0), np.linalg.eigh(np.cov(z.T))
    root = vectors * np.sqrt(values) @ vectors.T
    readout = module.log_rate.weight.detach().numpy().astype(np.float64)
    turn, gain, kept = np.linalg.svd(root @ readout.T, full_matrices=False)
    change = turn.T @ np.linalg.inv(root)
    with torch.no_grad():
        bias = module.log_rate.bias.numpy() + readout @ mean
        module.log_rate.bias.copy_(torch.from_numpy(bias))
        module.log_rate.weight.copy_(torch.from_numpy((gain[:, None] * kept).T))
        weight, offset = module.latent.weight.numpy(), module.latent.bias.numpy()
        module.latent.bias.copy_(torch.from_numpy(change @ (offset - mean)))
        module.latent.weight.copy_(torch.from_numpy(change @ weight))


def train_decoder(latents, velocity, watched, steps=1500):
    """Squared error of velocity from latents; `watched` is (latents [T, 16], velocity)."""
    rng = np.random.default_rng(2)
    module = Readout(latents.shape[-1], 2, hidden=32, layered=False)
    optimizer = torch.optim.Adam(module.parameters(), weight_decay=1e-6)
    rate = schedule(optimizer, steps, 1e-2)
    scale = float(velocity.std())
    for step in range(steps):
        x, v = crops(rng, len(latents), latents, velocity)
        loss = (((module.sequence(x) - v) / scale)[WARM:] ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        rate.step()
        if step % 300 == 299:
            with torch.no_grad():
                error = module.sequence(torch.from_numpy(watched[0])[:, None])[:, 0].numpy()
            error = ((error - watched[1]) ** 2).sum(0) / (watched[1] ** 2).sum(0)
            print(f"decoder {step + 1}: loss {loss:.4f}, watched R2 {1 - error}", flush=True)
    return module


def main():
    """Train both and write the version 1 of each."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    units = cortex.population()
    sessions = [cortex.session(units, seed, data.CORTEX_LEARNT_BINS) for seed in data.CORTEX_LEARNT]
    counts = np.stack([made.counts for made in sessions])
    velocity = np.stack([made.velocity for made in sessions]).astype(np.float32)
    watched = cortex.session(units, data.CORTEX_WATCHED, data.CORTEX_WATCHED_BINS)

    encoder = train_encoder(counts, watched.counts)
    order_latents(encoder, counts)
    latents = latents_of(encoder, counts)
    seen = latents_of(encoder, watched.counts[None])[0]
    decoder = train_decoder(latents, velocity, (seen, watched.velocity.astype(np.float32)))

    x = data.square_root(watched.counts[:EXAMPLE_BINS])
    axes = {"x": 0, "h0": 1, "z": 0, "rates": 0, "hn": 1}
    export.export("cortex-encoder", encoder, x, ["z", "rates"], axes)
    axes = {"z": 0, "h0": 0, "v": 0, "hn": 0}
    export.export("cortex-decoder", decoder, seen[:EXAMPLE_BINS], ["v"], axes)

    # What the server must answer from the raw counts of the committed recording.
    x = data.square_root(recording.array(data.CORTEX_HELD_OUT, "spikes")[:REFERENCE_BINS])
    latent, rates = export.reference(encoder, x, [1, 1, encoder.hidden])
    (velocity,) = export.reference(decoder, latent, [1, decoder.hidden])
    export.write_reference("cortex", 0, latent=latent, rates=rates, velocity=velocity)


if __name__ == "__main__":
    main()
