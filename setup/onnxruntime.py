#!/usr/bin/env python3
"""Bring the ONNX Runtime shared library into `.onnxruntime/`, checked by digest.

It is the library inside the wheel `onnxruntime`; nothing is installed. A second
run finds the right file and does nothing. With `--cuda` it is the one of the
wheel `onnxruntime-gpu` with its CUDA provider, in `.onnxruntime/cuda/`: name it
by ORT_DYLIB_PATH. CUDA 13 and cuDNN 9 must be on the machine.
"""

import argparse
import platform
import sys

import wheel

FOLDER = wheel.ROOT / ".onnxruntime"
VERSION = "1.32.0"
NAME = f"libonnxruntime.so.{VERSION}"
DIGESTS = {
    "x86_64": {NAME: "6c1585d1bbf45b0712ea4a21b705c5fcb4ba04ff2e30f1fbf81a49faf658638f"},
    "aarch64": {NAME: "49852228a93995158b2a813d4df487d47a1b76b0eaa894507ef49e91b6d7954a"},
}
CUDA_VERSION = "1.31.1"
CUDA_DIGESTS = {
    "x86_64": {
        f"libonnxruntime.so.{CUDA_VERSION}": "5104254339ecadae808da771bd0b63b240f0dbd466514234905e54372435c303",
        "libonnxruntime_providers_shared.so": "086ec1d5388f64153d9c63470d126693db9a182c8ce236d3a1119068471b8a0d",
        "libonnxruntime_providers_cuda.so": "8387867e857499e045caff5d13ac6a5de29571c801562fa2dde0e45f1f31de52",
    },
}


def bring(package, version, pinned, folder):
    """Put the files that `pinned` names for this machine into `folder`, out of the wheel of `package`."""
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
    if sys.platform != "linux" or machine not in pinned:
        raise wheel.Failure(
            f"No {package} {version} is pinned for {sys.platform} on {machine}, only for Linux"
            f" on {' and '.join(pinned)}; set ORT_DYLIB_PATH to a library of your own."
        )
    digests = pinned[machine]
    if all(wheel.holds(folder / name, digest) for name, digest in digests.items()):
        print(f"{package} {version} is there: {folder}")
        return
    members = {f"onnxruntime/capi/{name}": digest for name, digest in digests.items()}
    found = wheel.members(f"{package}=={version}", f"manylinux_2_28_{machine}", members)
    for name in digests:
        wheel.place(folder / name, found[f"onnxruntime/capi/{name}"], mode=0o755)
    print(f"{package} {version} brought: {folder}")


def main():
    """By the command line: for the CPU, or with `--cuda` for NVIDIA's GPUs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--cuda", action="store_true", help="the one with the CUDA provider, into .onnxruntime/cuda")
    if parser.parse_args().cuda:
        bring("onnxruntime-gpu", CUDA_VERSION, CUDA_DIGESTS, FOLDER / "cuda")
    else:
        bring("onnxruntime", VERSION, DIGESTS, FOLDER)


if __name__ == "__main__":
    wheel.run(main)
