#!/usr/bin/env python3
"""Brings the Python packages of `examples/rig.py` into `.venv/rig`; a no-op while `examples/requirements.txt` stands."""

import subprocess
import venv

import wheel

VENV = wheel.ROOT / ".venv" / "rig"
REQUIREMENTS = wheel.ROOT / "examples" / "requirements.txt"
STAMP = VENV / "requirements.sha256"


def bring():
    """Make the folder and install; the stamp is written last, so that a broken set-up is begun anew."""
    wanted = wheel.sha256(REQUIREMENTS.read_bytes()).encode()
    if wheel.holds(STAMP, wheel.sha256(wanted)):
        return
    try:
        venv.create(VENV, clear=True, with_pip=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise wheel.Failure(f"{VENV} could not be made ({error}); Debian's package is python3-venv.") from None
    pip = [VENV / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*pip, "-r", REQUIREMENTS], stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise wheel.Failure(f"pip could not install {REQUIREMENTS}: {done.stderr.strip().splitlines()[-1]}")
    wheel.place(STAMP, wanted)
    print(f"The packages of examples/rig.py brought: {VENV}")


if __name__ == "__main__":
    wheel.run(bring)
