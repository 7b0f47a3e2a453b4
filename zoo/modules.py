"""The modules of the zoo: recurrent encoders and decoders that run step by step.

Each has `sequence` for training (time first, [T, B, ...], state from zeros) and
`forward` for one bin, which is what is exported. Both use the same weights.
"""

import torch
from torch import nn


class Encoder(nn.Module):
    """Counts of a bin to latents and expected counts, past only.

    A GRU reads the preprocessed counts; a linear map takes its state to `latents`
    numbers, and the rates are exp of a linear map of those, so that whatever the
    rates know is in the latents (as in LFADS, without its smoothing over the future).
    """

    def __init__(self, units=96, hidden=128, latents=16):
        super().__init__()
        self.hidden = hidden
        self.gru = nn.GRU(units, hidden)
        self.latent = nn.Linear(hidden, latents)
        self.log_rate = nn.Linear(latents, units)

    def sequence(self, x):
        """x [T, B, units] to latents [T, B, latents] and log rates [T, B, units]."""
        latent = self.latent(self.gru(x)[0])
        return latent, self.log_rate(latent)

    def forward(self, x, h0):
        """x [B, units], h0 [1, B, hidden] to latents, rates (counts per bin) and state."""
        y, hn = self.gru(x.unsqueeze(0), h0)
        return *self.answers(y.squeeze(0)), hn

    def answers(self, y):
        """What is answered, of the GRU's output [..., hidden]: latents and rates."""
        z = self.latent(y)
        return z, torch.exp(self.log_rate(z))


class Readout(nn.Module):
    """A small GRU and a linear map of its state: latents or counts to a decoded value.

    With `layered` the exported state is PyTorch's [1, B, hidden], else [B, hidden].
    """

    def __init__(self, inputs, outputs, hidden, layered):
        super().__init__()
        self.hidden = hidden
        self.layered = layered
        self.gru = nn.GRU(inputs, hidden)
        self.value = nn.Linear(hidden, outputs)

    def sequence(self, x):
        """x [T, B, inputs] to values [T, B, outputs]."""
        return self.value(self.gru(x)[0])

    def forward(self, x, h0):
        """x [B, inputs] and the state to values [B, outputs] and the new state."""
        y, hn = self.gru(x.unsqueeze(0), h0 if self.layered else h0.unsqueeze(0))
        return *self.answers(y.squeeze(0)), hn if self.layered else hn.squeeze(0)

    def answers(self, y):
        """What is answered, of the GRU's output [..., hidden]: the values."""
        return (self.value(y),)
