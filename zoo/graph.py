"""The exported graphs, run as latentd runs them: ONNX Runtime, CPU, one thread, bin by bin."""

from pathlib import Path

import numpy as np
import onnxruntime
from safetensors.numpy import save_file

OPSET = 18
ZOO = Path(__file__).resolve().parent
MODELS = ZOO.parent / "models"


def path(model):
    """Where version 1 of `model` has its graph."""
    return MODELS / model / "1" / "model.onnx"


def trial_path(model):
    """Where the same model stands as a graph over a whole trial; it is not served, only held against the step."""
    return ZOO / "trials" / f"{model}.onnx"


def runtime(path):
    """An ONNX Runtime session with one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def play(path, x):
    """Step the graph at `path` through rows x [T, C], batch 1, with state `h0`, if it has one, from zeros.

    Returns {output: [T, ...]} without the batch axis and without the state `hn`.
    """
    session = runtime(path)
    (streamed,) = (i.name for i in session.get_inputs() if i.name != "h0")
    names = [output.name for output in session.get_outputs()]
    feed = {
        i.name: np.zeros([size if isinstance(size, int) else 1 for size in i.shape], np.float32)
        for i in session.get_inputs()
    }
    rows = {name: [] for name in names if name != "hn"}
    for row in x:
        got = dict(zip(names, session.run(names, feed | {streamed: row[None]}), strict=True))
        if "hn" in got:
            feed["h0"] = got.pop("hn")
        for name, value in got.items():
            rows[name].append(value[0])
    return {name: np.stack(values) for name, values in rows.items()}


def trial(path, x):
    """Run the whole-trial graph at `path` on x [T, B, C], state from zeros: {output: [T, B, ...]}, `hn` [...]."""
    session = runtime(path)
    shapes = {i.name: i.shape for i in session.get_inputs()}
    (streamed,) = (name for name in shapes if name != "h0")
    feed = {streamed: x}
    if "h0" in shapes:
        feed["h0"] = np.zeros([x.shape[1] if s == "batch" else s for s in shapes["h0"]], np.float32)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


def save(path, arrays):
    """Write a safetensors file that everyone may read."""
    save_file({name: np.ascontiguousarray(rows) for name, rows in arrays.items()}, path)
    path.chmod(0o644)
