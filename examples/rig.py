"""A rig: one call per bin, and an answer in time or a clear word that there is none.

    python3 setup/rig.py
    .venv/rig/bin/python examples/rig.py [ADDRESS [BINS]]

sends a bin of 96 simulated units every 20 ms to the pipeline `cortex` and prints its number, `fresh`, `held` or
`missed`, the bin that the value speaks of, and the value.
"""

import array
import queue
import sys
import threading
import time
from pathlib import Path

import grpc

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "proto"))
live, services = grpc.protos_and_services("latentd/v1/live.proto")
messages = grpc.protos("latentd/v1/messages.proto")

BIN_MS = 20
NOT_NEW = 1 << 6 | 1 << 9  # output_invalid, stale: the value is not one to act on


class Miss(Exception):
    """No answer in time, and none that may stand in for it."""


class Rig:
    def __init__(self, address, pipeline, output):
        self.live = services.LiveStub(grpc.insecure_channel(address))
        self.opened = self.live.Open(
            messages.OpenRequest(pipeline=pipeline, channels_by="order", outputs=[output], record={})
        )
        attach = live.Attach(session=self.opened.session, writer=self.opened.writers["spikes"])
        # What the server does not read yet waits in `ups`; it is not lost.
        self.ups, self.downs = queue.Queue(4096), queue.Queue()
        self.ups.put(live.Up(attach=attach))
        self.bin, self.last = 0, (None, [])
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        try:
            for down in self.live.Stream(iter(self.ups.get, None)):
                self.downs.put(down)
            self.downs.put(ConnectionError("the stream ended"))
        except grpc.RpcError as error:
            self.downs.put(error)

    def step(self, x, timeout_ms, on_miss="hold", max_stale_ms=100):
        """Sends a bin (bytes, one count a unit); returns (bin that the value speaks of, value).

        An older bin stands in (`hold`: its value, `zero`: zeros) for at most `max_stale_ms`; else, and with `raise`,
        Miss. An old value is never given as a new one.
        """
        this, until = self.bin, time.monotonic() + timeout_ms / 1e3
        self.bin += 1
        counts = messages.Tensor(dtype="u8", shape=[1, len(x)], raw=bytes(x))
        frame = messages.Frame(signal="spikes", seq=this, first_index=this, count=1, tensor=counts)
        self.ups.put_nowait(live.Up(frame=frame))
        while self.last[0] != this:
            try:
                self._take(self.downs.get(timeout=max(0, until - time.monotonic())))
            except queue.Empty:
                break
        of, value = self.last
        if of == this:
            return of, value
        if on_miss == "raise" or of is None or (this - of) * BIN_MS > max_stale_ms:
            raise Miss(f"bin {this}: no answer within {timeout_ms} ms")
        return of, value if on_miss == "hold" else [0.0] * len(value)

    def _take(self, down):
        if isinstance(down, Exception):
            raise down
        if down.HasField("fault"):
            raise RuntimeError(down.fault.detail)
        output = down.output
        if down.HasField("output") and output.n and not output.flags[-1] & NOT_NEW:
            values = array.array("f", output.blocks[0].tensor.raw).tolist()
            self.last = output.first_bin + output.n - 1, values[-len(values) // output.n :]


if __name__ == "__main__":
    address, bins = (sys.argv[1:] + ["127.0.0.1:8081", "500"][len(sys.argv) - 1 :])[:2]
    rig, begun = Rig(address, "cortex", "velocity"), time.monotonic()
    for k in range(int(bins)):
        time.sleep(max(0, begun + k * BIN_MS / 1e3 - time.monotonic()))
        try:
            of, value = rig.step(bytes((unit + k) % 7 == 0 for unit in range(96)), timeout_ms=10)
            print(k, "fresh" if of == k else "held", of, value, flush=True)
        except Miss:  # a state of the experiment, not its end: the cursor stands still
            print(k, "missed", flush=True)
    closed = rig.live.Close(live.CloseRequest(session=rig.opened.session))
    print(f"closed: {closed.bins} bins, {closed.gaps} gaps, run {rig.opened.run}")
