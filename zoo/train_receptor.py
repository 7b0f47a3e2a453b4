#!/usr/bin/env python3
"""Train and export `receptor-envelope` (about a minute on one core).

Decodes the amplitude modulation of a sound from the spikes of one auditory
receptor of a grasshopper. A spike follows the sound by a few ms, so a causal
decoder can know the envelope only some time later: the output of bin k is the
mean of the envelope in bin k - DELAY.

Recording 1 is cut into stretches: learnt from [0, 6.5) s, watched (for when to
stop) on [6.5, 8) s, held out [8, 10) s. Recording 2, another sound, is touched by
nothing here but the reference vectors.
"""

import copy

import data
import export
import numpy as np
import torch
from modules import Readout
from train_cortex import schedule

CROP = 150
WARM = 20
BATCH = 64
EXAMPLE_BINS = 50


def train(counts, envelope, hidden=16, steps=400, peak=1e-2, decay=1e-3):
    """Squared error of the envelope DELAY bins ago; keeps the best on the watched stretch."""
    rng = np.random.default_rng(3)
    module = Readout(1, 1, hidden, layered=True)
    truth = np.roll(envelope, data.RECEPTOR_DELAY)
    with torch.no_grad():
        module.value.bias.fill_(float(envelope[data.RECEPTOR_LEARNT].mean()))
    optimizer = torch.optim.AdamW(module.parameters(), weight_decay=decay)
    rate = schedule(optimizer, steps, peak)
    variance = float(envelope[data.RECEPTOR_LEARNT].var())
    best, kept = np.inf, None
    for step in range(steps):
        start = rng.integers(data.RECEPTOR_LEARNT.stop - CROP, size=BATCH)
        index = start + np.arange(CROP)[:, None]
        x, y = torch.from_numpy(counts[index]), torch.from_numpy(truth[index])
        loss = ((module.sequence(x)[WARM:, :, 0] - y[WARM:]) ** 2).mean() / variance
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        rate.step()
        if step % 20 == 19:
            with torch.no_grad():
                got = module.sequence(torch.from_numpy(counts)[:, None])[:, 0, 0].numpy()
            part = truth[data.RECEPTOR_WATCHED]
            error = ((got[data.RECEPTOR_WATCHED] - part) ** 2).sum() / ((part - part.mean()) ** 2).sum()
            if error < best:
                best, kept = error, copy.deepcopy(module.state_dict())
            if step % 100 == 99:
                print(f"receptor {step + 1}: loss {loss:.4f}, watched R2 {1 - error:.4f}", flush=True)
    module.load_state_dict(kept)
    print(f"receptor: kept watched R2 {1 - best:.4f}")
    return module


def main():
    """Train and write version 1."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = train(*data.receptor("recording.json"))

    # The example ships with the model, so its spikes are made up, not third-party data.
    rng = np.random.default_rng(4)
    x = rng.poisson(0.2, (EXAMPLE_BINS, 1)).astype(np.float32)
    axes = {"x": 0, "h0": 1, "e": 0, "hn": 1}
    export.export("receptor-envelope", module, x, ["e"], axes)

    counts, _ = data.receptor("recording_2.json")
    (envelope,) = export.reference(module, counts, [1, 1, module.hidden])
    export.write_reference("receptor", 0, envelope=envelope)


if __name__ == "__main__":
    main()
