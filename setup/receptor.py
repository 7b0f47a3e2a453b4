#!/usr/bin/env python3
"""Bring the grasshopper auditory receptor into `.recordings/`, in latentd's open format.

Two recordings of 10 s: the spike times of one receptor neuron and the amplitude
modulation of the sound that drove it (20 kHz). They are data files of the wheel
`nitime` (BSD-3-Clause), which is read, checked by digest, and not installed. A
second run finds the right files and does nothing.
"""

import array
import json
import sys

import wheel

WHEEL = "nitime==0.12.1"
FOLDER = wheel.ROOT / ".recordings" / "grasshopper_receptor"
# The files are text, the same on every machine, so one platform's wheel serves all.
PLATFORM = "manylinux_2_28_x86_64"
SOURCES = {
    "nitime/LICENSE": "c2e7890b53b80b106aac803ec138c97a98bf02d270aa169919a5c468e37a3de8",
    "nitime/data/grasshopper_spike_times1.txt": "840014ad9a8f591d02ab108bcbd46715badb3459e0ef7eac95fdd661ff134e3d",
    "nitime/data/grasshopper_spike_times2.txt": "389e5dccb709fbe0552589ff2e0b64e15d46665e4d2d4172071f2175c8641541",
    "nitime/data/grasshopper_stimulus1.txt": "4b47a4cbca8c5f694f87dd510db608a868dffbaba96845199c8afa545a4c37fa",
    "nitime/data/grasshopper_stimulus2.txt": "69f257a8e7a5019897111b07f9cd317b136357d256e99682d40c09d5add18e6a",
}
RESULTS = {
    "LICENSE": "c2e7890b53b80b106aac803ec138c97a98bf02d270aa169919a5c468e37a3de8",
    "recording.json": "0b6a2c5e886f8108a9ec6eea9cfe0e847727352bcd090d8fdee93585e0cfe84d",
    "recording_2.json": "e55a33d90779fbd19a4cfdf971adb9ebf1aa1be2752a6ffd9be85c385bf2b1c4",
    "spikes_1.csv": "f73857220966c1d201be34cb86e22a4253c9a2dc500f13297c286c44e4b3b28d",
    "spikes_2.csv": "4d825b98f51a90269c61195da562c728a5457fa8d76c03e2f8c4d9945d4efce7",
    "stimulus_1.npy": "61e58f8316e8ad40592b40c5c9832a56cbcc20c21986630946a1ae9ce13d0532",
    "stimulus_2.npy": "41d3296d67d1fe9f5b4c8aede398e2bc8c758ac42e1c7c310536e63a49d53f9b",
}


def spikes(text):
    """CSV `unit,time_s` from whole microseconds, one a line (`#` starts a remark)."""
    lines = (line.strip() for line in text.splitlines())
    times = [int(line) for line in lines if line and not line.startswith("#")]
    rows = (f"0,{t // 10**6}.{t % 10**6:06d}\n" for t in times)
    return ("unit,time_s\n" + "".join(rows)).encode()


def stimulus(text):
    """NPY float32 [T, 1] from lines `<microseconds> <amplitude>`, one every 50 us."""
    rows = [line.split() for line in text.splitlines()]
    if any(int(time) != 50 * i for i, (time, _) in enumerate(rows)):
        raise wheel.Failure("The stimulus is not sampled every 50 us.")
    samples = array.array("f", (float(amplitude) for _, amplitude in rows))
    if sys.byteorder == "big":
        samples.byteswap()
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({len(rows)}, 1), }}"
    head = b"\x93NUMPY\x01\x00\x76\x00" + header.ljust(117).encode() + b"\n"
    return head + samples.tobytes()


def recording(number):
    """`recording.json` of recording 1 or 2."""
    signals = [
        {
            "name": "spikes",
            "type": "spike_events",
            "file": f"spikes_{number}.csv",
            "channels": [{"name": "receptor"}],
        },
        {
            "name": "stimulus",
            "type": "continuous",
            "file": f"stimulus_{number}.npy",
            "channels": [{"name": "amplitude"}],
            "unit": "1",
            "rate": {"num": 20000, "den": 1},
            "role": "target",
        },
    ]
    whole = {
        "name": "grasshopper_receptor",
        "signals": signals,
        "licence": "BSD-3-Clause",
        "source": "PyPI nitime 0.12.1, nitime/data/grasshopper_*.txt",
        "citation": "nitime, NIPY developers",
    }
    return (json.dumps(whole, indent=1) + "\n").encode()


def bring():
    """Put both recordings and the licence notice where the demo looks for them."""
    if all(wheel.holds(FOLDER / name, digest) for name, digest in RESULTS.items()):
        print(f"The receptor's recordings are there: {FOLDER}")
        return
    found = wheel.members(WHEEL, PLATFORM, SOURCES)
    files = {"LICENSE": found["nitime/LICENSE"]}
    for number in (1, 2):
        data = "nitime/data/grasshopper_{}" + f"{number}.txt"
        files[f"spikes_{number}.csv"] = spikes(found[data.format("spike_times")].decode())
        files[f"stimulus_{number}.npy"] = stimulus(found[data.format("stimulus")].decode())
    files["recording.json"] = recording(1)
    files["recording_2.json"] = recording(2)
    for name, data in files.items():
        if wheel.sha256(data) != RESULTS[name]:
            raise wheel.Failure(f"{name} was converted to other bytes than expected.")
        wheel.place(FOLDER / name, data)
    print(f"The receptor's recordings brought: {FOLDER}")


if __name__ == "__main__":
    wheel.run(bring)
