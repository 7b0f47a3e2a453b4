"""Recordings in latentd's open format: a folder with `recording.json` and the files it names."""

import csv
import hashlib
import json
from decimal import Decimal
from pathlib import Path

import numpy as np

NS = 10**9


def write(folder, about, arrays, texts):
    """Write a recording.

    `about` becomes `recording.json`; `arrays` is {file: array [T, channels]} for
    `.npy` files, `texts` is {file: str} for all others.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        np.save(folder / name, np.ascontiguousarray(array))
    for name, text in texts.items():
        (folder / name).write_text(text)
    (folder / "recording.json").write_text(json.dumps(about, indent=1) + "\n")


def read(path):
    """`(about, folder)` of a recording given as its folder or as its json file."""
    path = Path(path)
    if path.is_dir():
        path = path / "recording.json"
    return json.loads(path.read_text()), path.parent


def array(path, signal):
    """The array [T, channels] of the named signal."""
    about, folder = read(path)
    named = {spec["name"]: spec for spec in about["signals"]}
    return np.load(folder / named[signal]["file"])


def digest(path):
    """`sha256:<hex>` over the json file and every file that it names.

    It is the SHA-256 over the lines `<SHA-256 in hex>  <name>\\n`, sorted by name.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "recording.json"
    about, folder = read(path)
    names = {path.name, *(spec["file"] for spec in about["signals"])}
    lines = (
        f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in sorted(names)
    )
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def event_counts(path, signal, bin_ms, bins, units):
    """Events of the named `spike_events` signal per bin: u8 [bins, units].

    Bin k is the half-open [k w, (k + 1) w) from t0 = 0; times are read as decimals
    and compared as whole nanoseconds, so that an event on an edge is in the later bin.
    """
    about, folder = read(path)
    named = {spec["name"]: spec for spec in about["signals"]}
    width = round(bin_ms * 10**6)
    counts = np.zeros((bins, units), np.uint8)
    with open(folder / named[signal]["file"], newline="") as file:
        for row in csv.DictReader(file):
            k = int(Decimal(row["time_s"]) * NS) // width
            if 0 <= k < bins:
                counts[k, int(row["unit"])] += 1
    return counts
