#!/usr/bin/env python3
"""Walk the Dockerfile's steps for one target in a bare directory, then use what comes out as a container would be used.

There is no container engine in it, and no image: a stage is a folder, the context is what `.dockerignore` lets through,
and the base system is the few shared libraries that the program and ONNX Runtime ask for, taken from this host. Not done
are `apt-get` and `cargo build`; the program is the one that `--program` names. What is run runs in namespaces of its own
(mounts, processes, network), chrooted, as the image's user, without privileges, on a tree that is mounted read-only; so
it needs root. Each line of its output is something that was seen; the first that is otherwise ends it with code 1.
"""

import argparse
import ctypes
import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# What comes with Debian's libc6, libgcc-s1 and libstdc++6, which the final stage has.
BASE_LIBRARIES = re.compile(r"(ld-linux.*|lib(c|m|dl|rt|pthread|gcc_s|stdc\+\+))\.so\.\d+")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
FILES = {"FROM", "COPY", "RUN", "WORKDIR"}
SETTINGS = {"ENV", "USER", "EXPOSE", "VOLUME", "STOPSIGNAL", "HEALTHCHECK", "LABEL", "ENTRYPOINT", "CMD"}
READY_S = 60


class Failure(Exception):
    """What was not as it should be: one sentence."""


def expect(holds, sentence):
    """Raise `sentence` as a Failure unless `holds`."""
    if not holds:
        raise Failure(sentence)


# --- reading


class Stage:
    """One stage of the Dockerfile: its base and its instructions, as (word, rest of the line)."""

    def __init__(self, base):
        self.base = base
        self.steps = []

    def all(self, word):
        """The rests of the lines with that instruction."""
        return [rest for each, rest in self.steps if each == word]

    def one(self, word):
        """The rest of the only line with that instruction."""
        found = self.all(word)
        expect(len(found) == 1, f"Dockerfile: {len(found)} times {word} in one stage, expected once")
        return found[0]

    def settings(self):
        """What the stage says of running it; labels aside."""
        return [step for step in self.steps if step[0] in SETTINGS - {"LABEL"} or step[0] == "WORKDIR"]


def stages(text):
    """{name: Stage} of a Dockerfile whose instructions stand in one line each."""
    found, stage = {}, None
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        word, _, rest = line.partition(" ")
        expect(word in FILES | SETTINGS, f"Dockerfile:{number}: found {word}, which rehearse.py does not know")
        if word == "FROM":
            parts = rest.split()
            expect(len(parts) == 3 and parts[1] == "AS", f"Dockerfile:{number}: expected FROM image AS name")
            expect(":" in parts[0] and not parts[0].endswith(":latest"), f"Dockerfile:{number}: {parts[0]} names no version")
            stage = found[parts[2]] = Stage(parts[0])
        else:
            stage.steps.append((word, rest.strip()))
    return found


class Ignored:
    """The rules of `.dockerignore`: the last that fits decides, and a folder's fate is that of what lies in it."""

    def __init__(self, text):
        lines = [line.strip() for line in text.splitlines()]
        self.rules = [(line[0] == "!", self.pattern(line.lstrip("!"))) for line in lines if line and line[0] != "#"]

    @staticmethod
    def pattern(line):
        """The rule as a regular expression on paths and what lies below them."""
        parts = [re.escape(part).replace(r"\*", "[^/]*") for part in line.strip("/").split("/")]
        return re.compile("/".join(parts).replace("[^/]*[^/]*/", "(?:.*/)?") + "(?:/.*)?")

    def __call__(self, path):
        ignored = False
        for keeps, pattern in self.rules:
            if pattern.fullmatch(path):
                ignored = not keeps
        return ignored


def context():
    """Paths of the files that a build is given, relative to the repository's root."""
    ignored, found = Ignored((ROOT / ".dockerignore").read_text()), []
    for folder, folders, files in os.walk(ROOT):
        at = Path(folder).relative_to(ROOT)
        # Rules that bring something back name whole folders, so one that is ignored need not be looked into.
        folders[:] = [name for name in folders if not ignored(str(at / name))]
        found += [at / name for name in files if not ignored(str(at / name))]
    return sorted(found)


# --- building


def copy(source, target):
    """One file with its mode; a link where the file system can."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


class Build:
    """The stages as folders below `folder`."""

    def __init__(self, folder, program):
        self.folder, self.program = folder, program
        self.stages, self.context = stages((ROOT / "Dockerfile").read_text()), context()
        self.made = set()

    def make(self, name):
        """Walk the stage's steps once, and answer its folder."""
        root = self.folder / name
        if name in self.made:
            return root
        root.mkdir()
        place = Path("/")
        for word, rest in self.stages[name].steps:
            if word == "WORKDIR":
                place = Path(rest)
                (root / place.relative_to("/")).mkdir(parents=True, exist_ok=True)
            elif word == "COPY":
                self.copy(root, place, rest.split())
            elif word == "RUN":
                self.run(root, place, rest)
        self.made.add(name)
        return root

    def copy(self, root, place, words):
        """COPY [--from=STAGE] SOURCE... TARGET"""
        given = words.pop(0).removeprefix("--from=") if words[0].startswith("--from=") else None
        *sources, target = words
        into = target.endswith("/")
        target = root / (place / target).relative_to("/")
        for source in sources:
            if given:
                origin = self.make(given)
                files = [path.relative_to(origin) for path in origin.rglob("*") if path.is_file()]
                source = source.lstrip("/")
            else:
                origin, files = ROOT, self.context
            source = Path(source)
            within = [path for path in files if path == source or source in path.parents]
            expect(within, f"COPY {source}: nothing of that name reaches the build")
            for path in within:
                whole = path == source and not into
                below = path.name if path == source else path.relative_to(source)
                copy(origin / path, target if whole else target / below)

    def run(self, root, place, command):
        """RUN, on this host, with the stage's own /out and /data; without what asks a package archive, and the compiler."""
        if command.startswith("apt-get "):
            return
        here = root / place.relative_to("/")
        if command.startswith("--mount="):
            command = re.sub(r"^(--mount=\S+ )+cargo build --release --locked && ", "", command)
            copy(self.program, here / "target/release/latentd")
        if "setup/onnxruntime.py" in command and (ROOT / ".onnxruntime").is_dir():
            # What is there already is not brought again; setup checks its digest all the same.
            for file in (ROOT / ".onnxruntime").rglob("lib*"):
                copy(file.resolve(), here / ".onnxruntime" / file.relative_to(ROOT / ".onnxruntime"))
        command = re.sub(r"(?<=\s)/(?=out\b|data\b)", f"{root}/", command)
        done = subprocess.run(["sh", "-euc", command], cwd=here, capture_output=True, text=True)
        expect(done.returncode == 0, f"RUN {command} ended with {done.returncode}: {done.stderr.strip()}")


def add_base(root):
    """Put the libraries that the image's programs ask for where this host has them. None may lie beyond the base's."""
    asked = set()
    for file in [root / "usr/local/bin/latentd", root / "opt/onnxruntime/lib/libonnxruntime.so"]:
        done = subprocess.run(["ldd", file], capture_output=True, text=True)
        expect("not found" not in done.stdout, f"{file.name} asks for what this host lacks: {done.stdout}")
        asked |= set(re.findall(r"/\S+(?= \(0x)", done.stdout))
    for path in map(Path, sorted(asked)):
        expect(BASE_LIBRARIES.fullmatch(path.name), f"{path.name} is asked for, which Debian's base does not have")
        copy(path.resolve(), root / path.relative_to("/"))
    for folder in ["tmp", "proc", "dev"]:
        (root / folder).mkdir()
    return sorted(path.rsplit("/", 1)[1] for path in asked)


# --- using


def mount(*words):
    """The system's mount."""
    subprocess.run(["mount", *map(str, words)], check=True)


def close(root, volume):
    """The tree read-only, with the volume on /data, and a small /tmp, as compose.yaml has it."""
    mount("--bind", root, root)
    mount("-t", "tmpfs", "-o", "size=64m,mode=1777", "tmpfs", root / "tmp")
    mount("-t", "proc", "proc", root / "proc")
    mount("--bind", volume, root / "data")
    mount("-o", "remount,bind,ro", root)


def loopback_up():
    """Bring up this network namespace's loopback, which is all that it has."""
    up_and_running, set_flags = 0x41, 0x8914
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        fcntl.ioctl(asked, set_flags, struct.pack("16sh14x", b"lo", up_and_running))


class Image:
    """The final stage, closed and ready to run."""

    def __init__(self, root, stage):
        self.root = root
        self.env = {"PATH": PATH}
        for line in stage.all("ENV"):
            self.env |= dict(word.split("=", 1) for word in shlex.split(line))
        self.user, self.group = map(int, stage.one("USER").split(":"))
        self.place = stage.all("WORKDIR")[-1]
        self.entry, self.command = json.loads(stage.one("ENTRYPOINT")), json.loads(stage.one("CMD"))
        self.health = json.loads(stage.one("HEALTHCHECK").split(" CMD ", 1)[1])
        self.stop = getattr(signal, stage.one("STOPSIGNAL"))

    def enter(self):
        """In the new process: the image's root, user and folder, and no way to more rights."""
        os.chroot(self.root)
        os.chdir(self.place)
        os.setgroups([])
        os.setgid(self.group)
        os.setuid(self.user)
        no_new_privileges = 38
        ctypes.CDLL(None).prctl(no_new_privileges, 1, 0, 0, 0)

    def start(self, words, **options):
        """A process in the image."""
        return subprocess.Popen(words, env=self.env, preexec_fn=self.enter, **options)

    def run(self, words, said=None):
        """A process in the image to its end, told `said`: its code, and what it wrote; errors aside where it succeeds."""
        process = self.start(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        text, errors = process.communicate(said, timeout=120)
        return process.returncode, (text if process.returncode == 0 else text + errors).strip()


def get(path, key=None):
    """JSON of the server in this network namespace, by its published port."""
    shown = {"authorization": f"Bearer {key}"} if key else {}
    asked = urllib.request.Request(f"http://127.0.0.1:8080{path}", headers=shown)
    with urllib.request.urlopen(asked, timeout=10) as answer:
        return json.load(answer)


def use(root, stage, volume):
    """The image's life: ready, streamed to, stopped."""
    image = Image(root, stage)
    log = volume.parent / "log"
    with log.open("w") as out:
        server = image.start(image.entry + image.command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
    try:
        begun = time.monotonic()
        while (health := image.run(image.health))[0] != 0:
            expect(server.poll() is None, f"it ended with {server.returncode}:\n{log.read_text()}")
            expect(time.monotonic() - begun < READY_S, f"not healthy after {READY_S} s: {health[1]}")
            time.sleep(0.1)
        print(f"the health check says: {health[1]}")
        expect(get("/readyz")["ready"], "/readyz is 200 but says otherwise")
        expect(f"\nUid:\t{image.user}\t" in (root / f"proc/{server.pid}/status").read_text(), "another user runs it")

        try:
            get("/v1/models")
        except urllib.error.HTTPError as refused:
            expect(refused.code == 401, f"without a key /v1/models is {refused.code}")
        else:
            raise Failure("/v1/models is open to who shows no key")
        code, key = image.run(image.entry + "keys create --name first --scopes stream,read".split())
        expect(code == 0, f"keys create ended with {code}: {key}")
        while True:
            try:
                models = get("/v1/models", key)["models"]
                break
            except urllib.error.HTTPError as refused:
                expect(refused.code == 401 and time.monotonic() - begun < READY_S, f"with a key it is {refused.code}")
                time.sleep(0.1)
        print("who shows no key is refused; a key that was made in the image is heard")
        versions = [(model["name"], each["state"]) for model in models for each in model["versions"]]
        expect(versions and all(state == "ready" for _, state in versions), f"bundled models: {versions}")
        print(f"{len(versions)} bundled models are ready, on a read-only tree, as user {image.user}")

        play = "replay /recordings/simulated-cortex --pipeline cortex --record --speed max --key-file -".split()
        code, text = image.run(image.entry + play, key)
        expect(code == 0, f"replay ended with {code}: {text}")
        runs = get("/v1/runs", key)["runs"]
        expect(len(runs) == 1, f"{len(runs)} runs are recorded, expected the one that was streamed")
        print("a recording was streamed, and its run is in the library")

        server.send_signal(image.stop)
        code = server.wait(timeout=60)
        expect(code == 0, f"{image.stop.name} ended it with {code}:\n{log.read_text()}")
    finally:
        server.kill()
    code, _ = image.run(image.health)
    expect(code == 1, f"the health check of a server that is gone ended with {code}")
    expect((volume / "latentd.sqlite").is_file(), "the volume holds no library")
    expect(all(json.loads(line) for line in log.read_text().splitlines()), "the log is not JSON")
    print(f"{image.stop.name} drained it: exit code 0")


def build(target, program, folder):
    """Everything before the first run, in `folder`; with this host's network, as a builder has it."""
    steps = Build(folder, program)
    cpu, cuda = steps.stages["cpu"], steps.stages["cuda"]
    expect(cpu.settings() == cuda.settings(), "the targets cpu and cuda are not run alike")
    expect(list(steps.stages)[-1] == "cpu", "the last stage, which a build without a target makes, is not cpu")
    expect(int(cpu.one("USER").split(":")[0]) > 0, "the user is root")
    size = sum((ROOT / path).stat().st_size for path in steps.context) >> 10
    print(f"{len(steps.context)} files reach the build, {size} KiB")
    root = steps.make(target)
    print(f"the image has, beside its base: {', '.join(add_base(root))}", flush=True)
    volume = folder / "volume"
    volume.mkdir()
    # As an engine does with an empty volume.
    of = (root / "data").stat()
    os.chown(volume, of.st_uid, of.st_gid)
    volume.chmod(of.st_mode & 0o7777)


def main():
    """By the command line: builds in a folder, then calls itself for that folder in namespaces of its own."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--target", default="cpu", choices=["cpu", "cuda"], help="cuda fetches 250 MB")
    parser.add_argument("--program", type=Path, help="a latentd that stands for the one built in the image")
    parser.add_argument("--built", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    try:
        if asked.built:
            root, volume = asked.built / asked.target, asked.built / "volume"
            loopback_up()
            close(root, volume)
            use(root, stages((ROOT / "Dockerfile").read_text())[asked.target], volume)
            return
        expect(asked.program, "--program is missing")
        namespaces = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--"]
        allowed = os.geteuid() == 0 and subprocess.run([*namespaces, "true"], capture_output=True).returncode == 0
        expect(allowed, "it needs root that may make namespaces: in them it mounts, and changes its root and its user")
        with tempfile.TemporaryDirectory(prefix="latentd-image-") as folder:
            os.chmod(folder, 0o755)
            build(asked.target, asked.program.resolve(), Path(folder))
            # What is mounted there ends with these namespaces.
            again = [sys.executable, __file__, "--target", asked.target, "--built", folder]
            done = subprocess.run([*namespaces, *again])
        sys.exit(done.returncode)
    except Failure as failure:
        sys.exit(f"rehearse.py: {failure}")


if __name__ == "__main__":
    main()
