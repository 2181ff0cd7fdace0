# SPDX-License-Identifier: Apache-2.0
"""The folders that peers load from, made once outside the source tree: weights and requests by workload.py, then each
library's own form of them, then the reference's answers."""

import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys

import registry
from process import PeerError, PeerProcess

HERE = pathlib.Path(__file__).resolve().parent
PREPARED = ("workload.py", "ctranslate2_peer.py", "optimum_peer.py", "onnxruntime_peer.py", "transformers_peer.py",
            "requirements.txt", "requirements-optimum.txt")


def cache_folder():
    default = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return pathlib.Path(os.environ.get("BEAMLINE_CACHE") or f"{default}/beamline")


def workload_key():
    return hashlib.sha256(b"".join((HERE / name).read_bytes() for name in PREPARED)).hexdigest()[:12]


class Environments:
    """Interpreters of environment.sh, asked for when first needed: the second one costs minutes to make."""

    def __init__(self):
        self.commands = {}

    def python(self, name):
        if name not in self.commands:
            result = subprocess.run(["bash", HERE / "environment.sh", name], stdout=subprocess.PIPE, text=True)
            if result.returncode:
                sys.exit(f"peers: the Python environment '{name}' could not be made")
            self.commands[name] = result.stdout.split()
        return self.commands[name]


def run(what, command, log):
    """A step of preparation; its output goes to the log, and to the screen where it fails."""
    print(f"  preparing {what}", flush=True)
    with open(log, "a") as file:
        status = subprocess.run([str(part) for part in command], stdout=file, stderr=subprocess.STDOUT).returncode
    if status:
        lines = pathlib.Path(log).read_text().splitlines()[-15:]
        sys.exit("\n".join(lines) + f"\npeers: preparing {what} failed with status {status}; all of it is in {log}")


class Preparation:
    """beamline, peer_binary: commands, as lists."""

    def __init__(self, environments, beamline, peer_binary, logs):
        self.environments, self.beamline, self.peer_binary, self.logs = environments, beamline, peer_binary, logs
        self.imported = set()
        self.root = cache_folder() / f"peers-{workload_key()}"

    def command(self, entry):
        if entry.script == "beamline":
            return self.peer_binary
        return [*self.environments.python(entry.environment), str(HERE / entry.script)]

    def folder(self, size, entries):
        """Everything that these peers need of this size."""
        folder, log = self.root / size, self.logs / f"prepare-{size}.log"
        if not (folder / "workload.json").exists():
            work = self.root / f"{size}.tmp"
            shutil.rmtree(work, ignore_errors=True)
            run(f"size {size}: weights, items, requests",
                [*self.environments.python("main"), HERE / "workload.py", "--size", size, "--out", work], log)
            work.rename(folder)
        scripts = {}
        for entry in entries:
            scripts.setdefault(entry.script, entry)
        for script, entry in scripts.items():
            if script == "beamline":
                self.import_to_beamline(folder, size, log)
            elif script in PREPARED and not (folder / f"{script}.done").exists():
                run(f"size {size}: {entry.label}", [*self.command(entry), "--prepare", folder], log)
                (folder / f"{script}.done").touch()
        return folder

    def import_to_beamline(self, folder, size, log):
        if size in self.imported:  # once per call, by the binary that is measured
            return
        self.imported.add(size)
        options = json.loads((folder / "workload.json").read_text())["import"]
        command = [*self.beamline, "import", "hf", folder / "hf", "--sid-index", folder / "index.json", "--id-offset", "1",
                   "--max-items", options["max_items"], "--out", folder / "beamline", "--overwrite"]
        for name in ("prefix", "suffix"):
            if options[name]:
                command += [f"--{name}", " ".join(options[name])]
        run(f"size {size}: Beamline", command, log)

    def references(self, folder, beams, constrained, count):
        """{label: lists} for the first requests of the pool, at this width."""
        return {entry.label: self.reference(folder, beams, entry, count) for entry in registry.REFERENCES[constrained]}

    def reference(self, folder, beams, entry, count):
        path = folder / f"reference-{entry.name}-{beams}-{count}.json"
        if not path.exists():
            print(f"  preparing the reference for {beams} beams: {entry.label}", flush=True)
            process = PeerProcess(self.command(entry), 1, self.logs / "reference.log")
            try:
                process.ask({"do": "load", "folder": str(folder), "threads": 1, "options": entry.options}, 300)
                process.ask({"do": "cell", "beams": beams, "batch": 1}, 600)
                lists = process.ask({"do": "answer", "requests": list(range(count))}, 1800)["lists"]
            except PeerError as error:
                sys.exit(f"peers: the reference failed: {error}")
            finally:
                process.stop()
            path.with_suffix(".tmp").write_text(json.dumps(lists))
            path.with_suffix(".tmp").rename(path)
        return json.loads(path.read_text())
