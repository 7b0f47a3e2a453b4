#!/usr/bin/env python3
"""Which graph of a GRU step is fastest on ONNX Runtime, one thread: why the zoo exports as it does.

Times the step of an untrained `cortex-encoder` (96 to 128) in three forms: the GRU
node of the tracing exporter, that of the newer exporter, and a cell written out of
Gemm, Sigmoid and Tanh. The forms take turns, so that a busy machine slows all alike.
"""

import tempfile
import time
import warnings
from pathlib import Path

import graph
import numpy as np
import torch
from modules import Encoder
from torch.nn import functional

ROUNDS, STEPS = 20, 500
INPUTS, OUTPUTS = ["x", "h0"], ["z", "rates", "hn"]


class WrittenOut(torch.nn.Module):
    """The same step as Encoder's, without a GRU node."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, x, h0):
        """x [B, 96], h0 [1, B, 128] to latents, rates and state."""
        gru, h = self.encoder.gru, h0.squeeze(0)
        fresh = functional.linear(x, gru.weight_ih_l0, gru.bias_ih_l0).chunk(3, -1)
        kept = functional.linear(h, gru.weight_hh_l0, gru.bias_hh_l0).chunk(3, -1)
        reset, update = torch.sigmoid(fresh[0] + kept[0]), torch.sigmoid(fresh[1] + kept[1])
        new = torch.tanh(fresh[2] + reset * kept[2])
        h = new + update * (h - new)
        z = self.encoder.latent(h)
        return z, torch.exp(self.encoder.log_rate(z)), h.unsqueeze(0)


def traced(module, path):
    """Export by the tracing exporter."""
    axes = {
        "x": {0: "batch"},
        "h0": {1: "batch"},
        "z": {0: "batch"},
        "rates": {0: "batch"},
        "hn": {1: "batch"},
    }
    torch.onnx.export(
        module, (torch.zeros(3, 96), torch.zeros(1, 3, 128)), path, dynamo=False,
        input_names=INPUTS, output_names=OUTPUTS, opset_version=18, dynamic_axes=axes,
    )  # fmt: skip


def newer(module, path):
    """Export by the exporter on torch.export."""
    batch = torch.export.Dim("batch")
    torch.onnx.export(
        module, (torch.zeros(3, 96), torch.zeros(1, 3, 128)), path, dynamo=True, verbose=False,
        input_names=INPUTS, output_names=OUTPUTS, opset_version=18, external_data=False,
        dynamic_shapes=({0: batch}, {1: batch}),
    )  # fmt: skip


def main():
    """Print the median step of each form at batch 1 and 64."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    encoder = Encoder().eval()
    forms = {
        "GRU node, tracing exporter": (traced, encoder),
        "GRU node, newer exporter": (newer, encoder),
        "written out of Gemm": (newer, WrittenOut(encoder)),
    }
    with tempfile.TemporaryDirectory() as folder:
        sessions = {}
        for name, (export, module) in forms.items():
            path = Path(folder) / "form.onnx"
            export(module, path)
            sessions[name] = graph.runtime(path)
    rng = np.random.default_rng(0)
    for batch in (1, 64):
        feed = {"x": rng.random((batch, 96), np.float32), "h0": rng.random((1, batch, 128), np.float32)}
        taken = {name: [] for name in sessions}
        for _ in range(ROUNDS):
            for name, session in sessions.items():
                for _ in range(STEPS):
                    start = time.perf_counter_ns()
                    session.run(OUTPUTS, feed)
                    taken[name].append(time.perf_counter_ns() - start)
        for name, times in taken.items():
            print(f"batch {batch:2}: {np.median(times) / 1000:6.1f} us  {name}")


if __name__ == "__main__":
    main()
