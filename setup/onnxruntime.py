#!/usr/bin/env python3
"""Bring the ONNX Runtime shared library into `.onnxruntime/`, checked by digest.

It is the library inside the wheel `onnxruntime`; nothing is installed. A second
run finds the right file and does nothing.
"""

import platform
import sys

import wheel

VERSION = "1.32.0"
NAME = f"libonnxruntime.so.{VERSION}"
TARGET = wheel.ROOT / ".onnxruntime" / NAME
DIGESTS = {
    "x86_64": "6c1585d1bbf45b0712ea4a21b705c5fcb4ba04ff2e30f1fbf81a49faf658638f",
    "aarch64": "49852228a93995158b2a813d4df487d47a1b76b0eaa894507ef49e91b6d7954a",
}


def bring():
    """Put the library for this machine where latentd looks for it."""
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
    if sys.platform != "linux" or machine not in DIGESTS:
        raise wheel.Failure(
            f"No ONNX Runtime {VERSION} is pinned for {sys.platform} on {machine}, only for Linux"
            f" on {' and '.join(DIGESTS)}; set ORT_DYLIB_PATH to a library of your own."
        )
    if wheel.holds(TARGET, DIGESTS[machine]):
        print(f"ONNX Runtime {VERSION} is there: {TARGET}")
        return
    member = f"onnxruntime/capi/{NAME}"
    found = wheel.members(f"onnxruntime=={VERSION}", f"manylinux_2_28_{machine}", {member: DIGESTS[machine]})
    wheel.place(TARGET, found[member], mode=0o755)
    print(f"ONNX Runtime {VERSION} brought: {TARGET}")


if __name__ == "__main__":
    wheel.run(bring)
