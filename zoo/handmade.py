"""Graphs written node by node, for models that are a formula: no PyTorch.

Each has one streamed input and, if it carries something, a state `h0` that comes out
as `hn`. What is made for one bin, [B, ...], is also made for a whole trial, [T, B, ...],
in another form, so that the one can be held to the other.
"""

import graph
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

IR_VERSION = 10


def tensor(name, *shape):
    """A float32 graph input or output."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def constants(**arrays):
    """Initializers: whole numbers stay i64 (axes, shapes), all else is float32."""
    kinds = {"i": np.int64}
    return [
        numpy_helper.from_array(np.asarray(value, kinds.get(np.asarray(value).dtype.kind, np.float32)), name)
        for name, value in arrays.items()
    ]


def node(op, inputs, outputs, **attributes):
    """A node; inputs and outputs are names with spaces between."""
    return helper.make_node(op, inputs.split(" "), outputs.split(" "), **attributes)


def write(path, nodes, inputs, outputs, held):
    """Write the graph to `path`, checked."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = helper.make_graph(nodes, path.stem, inputs, outputs, initializer=held)
    model = helper.make_model(
        made, opset_imports=[helper.make_opsetid("", graph.OPSET)], ir_version=IR_VERSION, producer_name="zoo"
    )
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    path.chmod(0o644)


def example(model, streamed, x, **outputs):
    """Write `example.safetensors` of version 1: float32, what goes in and what must come out."""
    arrays = {f"in.{streamed}": x, **{f"out.{name}": rows for name, rows in outputs.items()}}
    arrays = {name: np.asarray(rows, np.float32) for name, rows in arrays.items()}
    graph.save(graph.path(model).with_name("example.safetensors"), arrays)


def linear(model, streamed, answer, weights, offset):
    """y = W x + c, without a state. `weights` [C, d], `offset` [d]."""
    held = constants(w=weights, c=offset)
    channels, wide = weights.shape
    nodes = [node("MatMul", f"{streamed} w", "y"), node("Add", "y c", answer)]
    for path, axes in ((graph.path(model), ["batch"]), (graph.trial_path(model), ["time", "batch"])):
        write(path, nodes, [tensor(streamed, *axes, channels)], [tensor(answer, *axes, wide)], held)


def wiener(model, weights, offset):
    """v of the newest and the `lags` - 1 rows before it, which are the state [B, lags - 1, C].

    `weights` [lags, C, d], the newest row last; over a trial it is a convolution.
    """
    lags, channels, wide = weights.shape
    state = [tensor("h0", "batch", lags - 1, channels)], [tensor("hn", "batch", lags - 1, channels)]
    nodes = [
        node("Unsqueeze", "x one", "newest"),
        node("Concat", "h0 newest", "rows", axis=1),
        node("Slice", "rows one end one", "hn"),
        node("Flatten", "rows", "flat", axis=1),
        node("Gemm", "flat w c", "v"),
    ]
    held = constants(one=[1], end=[lags], w=weights.reshape(lags * channels, wide), c=offset)
    inputs, outputs = [tensor("x", "batch", channels), *state[0]], [tensor("v", "batch", wide), *state[1]]
    write(graph.path(model), nodes, inputs, outputs, held)
    nodes = [
        node("Transpose", "x", "along", perm=[1, 0, 2]),
        node("Concat", "h0 along", "rows", axis=1),
        node("Slice", "rows from end one", "hn"),
        node("Transpose", "rows", "planes", perm=[0, 2, 1]),
        node("Conv", "planes w c", "y"),
        node("Transpose", "y", "v", perm=[2, 0, 1]),
    ]
    held = constants(one=[1], end=[2**31 - 1], w=weights.transpose(2, 1, 0), c=offset)
    held += [numpy_helper.from_array(np.array([1 - lags], np.int64), "from")]
    inputs = [tensor("x", "time", "batch", channels), *state[0]]
    outputs = [tensor("v", "time", "batch", wide), *state[1]]
    write(graph.trial_path(model), nodes, inputs, outputs, held)


def recurrence(model, carry, drive, offset, wide):
    """s[t] = M1 s[t-1] + M2 x[t] + m0, of which the first `wide` numbers are the answer v.

    `carry` M1 [d, d], `drive` M2 [d, C], `offset` m0 [d]; over a trial it is an RNN node
    whose activation is the identity.
    """
    size, channels = drive.shape
    nodes = [
        node("Gemm", "x m2 m0", "driven", transB=1),
        node("Gemm", "h0 m1 driven", "hn", transB=1),
        node("Slice", "hn begin end axis", "v"),
    ]
    cut = {"begin": [0], "end": [wide]}
    held = constants(m1=carry, m2=drive, m0=offset, axis=[1], **cut)
    state = [tensor("h0", "batch", size)], [tensor("hn", "batch", size)]
    inputs, outputs = [tensor("x", "batch", channels), *state[0]], [tensor("v", "batch", wide), *state[1]]
    write(graph.path(model), nodes, inputs, outputs, held)
    nodes = [
        node("Unsqueeze", "h0 axis", "first"),
        helper.make_node(
            "RNN", ["x", "m2", "m1", "m0", "", "first"], ["all", "last"],
            hidden_size=size, activations=["Affine"], activation_alpha=[1.0], activation_beta=[0.0],
        ),
        node("Squeeze", "all one", "rows"),
        node("Squeeze", "last axis", "hn"),
        node("Slice", "rows begin end two", "v"),
    ]  # fmt: skip
    bias = np.concatenate([offset, np.zeros(size)])
    held = constants(m1=carry[None], m2=drive[None], m0=bias[None], axis=[0], one=[1], two=[2], **cut)
    inputs = [tensor("x", "time", "batch", channels), *state[0]]
    outputs = [tensor("v", "time", "batch", wide), *state[1]]
    write(graph.trial_path(model), nodes, inputs, outputs, held)


def filtered(model, moves, jump, log_expected, places):
    """A Bayesian filter over S places: what was believed, moved on, times the likelihood of counts.

    `moves` [S, S] from place to place in one bin, to any place with probability `jump`;
    `log_expected` [C, S] of the expected counts per bin; `places` [S, d]. The state is the
    posterior [B, S]; zeros are no belief, that is, all places alike. Gives `position`, its
    mean, and `posterior`. Over a trial it is a Scan.
    """
    channels, size = log_expected.shape
    expected = np.exp(log_expected).sum(0)
    nodes = [
        node("MatMul", "h0 moves", "moved"),
        node("Add", "moved jump", "prior"),
        node("Log", "prior", "log_prior"),
        node("MatMul", "x log_expected", "seen"),
        node("Sub", "seen expected", "likelihood"),
        node("Add", "likelihood log_prior", "joint"),
        node("Softmax", "joint", "posterior", axis=-1),
        node("MatMul", "posterior places", "position"),
        node("Identity", "posterior", "hn"),
    ]
    held = constants(
        moves=(1 - jump) * moves, jump=[jump / size], log_expected=log_expected,
        expected=expected, places=places,
    )  # fmt: skip
    wide = places.shape[1]
    x, h0, hn = tensor("x", "batch", channels), tensor("h0", "batch", size), tensor("hn", "batch", size)
    answers = [tensor("position", "batch", wide), tensor("posterior", "batch", size)]
    write(graph.path(model), nodes, [x, h0], [*answers, hn], held)
    body = helper.make_graph(nodes, "bin", [h0, x], [hn, *answers])
    scan = node("Scan", "h0 x", "hn position posterior", body=body, num_scan_inputs=1)
    inputs = [tensor("x", "time", "batch", channels), h0]
    outputs = [tensor("position", "time", "batch", wide), tensor("posterior", "time", "batch", size), hn]
    write(graph.trial_path(model), [scan], inputs, outputs, held)


def window(model, weights, offset):
    """The chance, by a logistic map of a whole window [B, bins, C], that a stimulus is in it."""
    bins, channels = weights.shape
    nodes = [
        node("Flatten", "x", "flat", axis=1),
        node("Gemm", "flat w c", "score"),
        node("Sigmoid", "score", "p"),
    ]
    held = constants(w=weights.reshape(-1, 1), c=[offset])
    outputs = [tensor("p", "batch", 1), tensor("score", "batch", 1)]
    write(graph.path(model), nodes, [tensor("x", "batch", bins, channels)], outputs, held)
