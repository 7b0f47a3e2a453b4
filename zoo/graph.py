"""The exported graphs, run as latentd runs them: ONNX Runtime, CPU, one thread, bin by bin."""

from pathlib import Path

import numpy as np
import onnxruntime

ZOO = Path(__file__).resolve().parent
MODELS = ZOO.parent / "models"


def path(model):
    """Where version 1 of `model` has its graph."""
    return MODELS / model / "1" / "model.onnx"


def runtime(path):
    """An ONNX Runtime session with one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def play(path, x):
    """Step the graph at `path` through rows x [T, C], batch 1, with state `h0` from zeros.

    Returns {output: [T, ...]} without the batch axis and without the state `hn`.
    """
    session = runtime(path)
    (state,) = (i for i in session.get_inputs() if i.name == "h0")
    (streamed,) = (i.name for i in session.get_inputs() if i.name != "h0")
    names = [output.name for output in session.get_outputs()]
    h = np.zeros([size if isinstance(size, int) else 1 for size in state.shape], np.float32)
    rows = {name: [] for name in names if name != "hn"}
    for row in x:
        got = dict(zip(names, session.run(names, {streamed: row[None], "h0": h}), strict=True))
        h = got.pop("hn")
        for name, value in got.items():
            rows[name].append(value[0])
    return {name: np.stack(values) for name, values in rows.items()}
