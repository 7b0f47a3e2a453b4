"""From a trained step module to a version of a model: `model.onnx` and its example."""

import warnings

import graph
import numpy as np
import onnx
import torch


def reference(module, x, state_shape):
    """The same walk in PyTorch, float32: a list of outputs [T, ...], the state left out.

    `module(x [B, C], h [layers, B, H])` gives its outputs and, last, the new state.
    """
    state, rows = torch.zeros(state_shape), []
    with torch.no_grad():
        for row in torch.from_numpy(x):
            *got, state = module(row[None], state)
            rows.append([value[0].numpy() for value in got])
    return [np.stack(values) for values in zip(*rows, strict=True)]


def export(model, module, x, outputs, batch_axes):
    """Write `models/<model>/1/`: the graph and an example of it on x [T, C].

    `outputs` names what `module` gives before the state, `batch_axes` is
    {tensor: axis} of every graph input and output; the input is the first, `h0`
    and `hn` are the state [1, B, H] or [B, H].
    """
    path = graph.path(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    width = module.hidden
    streamed = next(iter(batch_axes))
    shape = [1, 1, width] if batch_axes["h0"] == 1 else [1, width]
    several = [3 if axis == batch_axes["h0"] else size for axis, size in enumerate(shape)]
    with warnings.catch_warnings():
        # The tracing exporter keeps a GRU one node; the newer one takes it apart and is slower here.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, (torch.zeros(3, x.shape[1]), torch.zeros(several)), path, dynamo=False,
            input_names=[streamed, "h0"], output_names=[*outputs, "hn"], opset_version=graph.OPSET,
            dynamic_axes={name: {axis: "batch"} for name, axis in batch_axes.items()},
        )  # fmt: skip
    onnx.checker.check_model(onnx.load(path), full_check=True)
    whole_trial(model, module, outputs, batch_axes)
    expected = dict(zip(outputs, reference(module, x, shape), strict=True))
    example = {f"in.{streamed}": x, **{f"out.{name}": rows for name, rows in expected.items()}}
    graph.save(path.with_name("example.safetensors"), example)


class WholeTrial(torch.nn.Module):
    """The same weights over a whole trial: x [T, B, C] and the state to outputs [T, B, ...] and the state."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x, h0):
        """All bins at once, by the one GRU node."""
        layered = h0.dim() == 3
        y, hn = self.module.gru(x, h0 if layered else h0.unsqueeze(0))
        return *self.module.answers(y), hn if layered else hn.squeeze(0)


def whole_trial(model, module, outputs, batch_axes):
    """Write `zoo/trials/<model>.onnx`: the module over a whole trial, batch behind the time."""
    path = graph.trial_path(model)
    path.parent.mkdir(exist_ok=True)
    streamed = next(iter(batch_axes))
    channels, width, layered = module.gru.input_size, module.hidden, batch_axes["h0"] == 1
    state = torch.zeros([1, 3, width] if layered else [3, width])
    over_time = {name: {0: "time", 1: "batch"} for name in [streamed, *outputs]}
    carried = {name: {batch_axes["h0"]: "batch"} for name in ("h0", "hn")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            WholeTrial(module), (torch.zeros(5, 3, channels), state), path, dynamo=False,
            input_names=[streamed, "h0"], output_names=[*outputs, "hn"], opset_version=graph.OPSET,
            dynamic_axes=over_time | carried,
        )  # fmt: skip
    onnx.checker.check_model(onnx.load(path), full_check=True)


def write_reference(name, first_bin, **outputs):
    """Write `zoo/reference/<name>.safetensors`: outputs [T, dims] and `first_bin` (i64 [1])."""
    folder = graph.ZOO / "reference"
    folder.mkdir(exist_ok=True)
    graph.save(folder / f"{name}.safetensors", {**outputs, "first_bin": np.array([first_bin])})
