"""What the recurrent models of real recordings share in training: crops, patience, scale."""

import copy

import numpy as np
import torch
from train_cortex import schedule


class Stretches:
    """Contiguous stretches of bins that may be learnt from, and the one that is watched."""

    def __init__(self, learnt, watched):
        """`learnt` is a list of slices, `watched` a slice."""
        self.learnt, self.watched = learnt, watched

    def bins(self):
        """The learnt bins, as indices."""
        return np.concatenate([np.arange(part.start, part.stop) for part in self.learnt])

    def crops(self, rng, batch, crop):
        """Indices [crop, batch] of random crops; none spans two stretches."""
        room = np.array([part.stop - part.start - crop for part in self.learnt])
        which = rng.choice(len(room), batch, p=room / room.sum())
        start = np.array([part.start for part in self.learnt])[which] + rng.integers(room[which])
        return start + np.arange(crop)[:, None]


def patient(name, module, steps, peak, decay, loss, watched, every=25):
    """Train by `loss(rng)`; keep the weights for which `watched()` was lowest.

    The learning rate rises to `peak` and falls to zero; `decay` is AdamW's.
    """
    optimizer = torch.optim.AdamW(module.parameters(), weight_decay=decay)
    rate = schedule(optimizer, steps, peak)
    rng = np.random.default_rng(1)
    best, kept, at = np.inf, None, 0
    for step in range(1, steps + 1):
        module.train()
        value = loss(rng)
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        rate.step()
        if step % every == 0:
            module.eval()
            with torch.no_grad():
                seen = float(watched())
            if seen < best:
                best, kept, at = seen, copy.deepcopy(module.state_dict()), step
            if step % (4 * every) == 0:
                print(f"{name} {step}: loss {float(value.detach()):.4f}, watched {seen:.4f}", flush=True)
    module.load_state_dict(kept)
    module.eval()
    print(f"{name}: kept step {at}, watched {best:.4f}", flush=True)
    return module


def readout(name, module, x, y, counted, stretches, steps, peak, decay, noise, crop, warm):
    """Squared error of y [T, d] from x [T, C], where `counted` [T], in units of y's spread; then y's own.

    `noise` is the spread of what is added to x, `warm` the first bins of a crop, not learnt from.
    """
    learnt = stretches.bins()
    learnt = learnt[counted[learnt]]
    mean, spread = y[learnt].mean(0), y[learnt].std(0)
    truth = torch.from_numpy(((y - mean) / spread).astype(np.float32))
    inputs, counted = torch.from_numpy(x), torch.from_numpy(counted)
    seen = stretches.watched

    def loss(rng):
        index = torch.from_numpy(stretches.crops(rng, 32, crop))
        blurred = inputs[index] + noise * torch.from_numpy(rng.standard_normal(inputs[index].shape, np.float32))
        errors = ((module.sequence(blurred) - truth[index]) ** 2).mean(-1)
        return errors[warm:][counted[index][warm:]].mean()

    def watched():
        got = module.sequence(inputs[: seen.stop, None])[:, 0]
        return ((got[seen] - truth[seen]) ** 2).mean(-1)[counted[seen]].mean()

    patient(name, module, steps, peak, decay, loss, watched)
    with torch.no_grad():
        spread, mean = torch.from_numpy(spread), torch.from_numpy(mean)
        module.value.weight.mul_(spread[:, None])
        module.value.bias.copy_(module.value.bias * spread + mean)
    return module
