"""Verbs of the agent. The host calls them over SSH; on the board they can be called by hand.

Answers that the host reads are event lines: the record separator, the word liteship, one JSON object.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Optional, Sequence

from liteship_agent import __version__
from liteship_agent.camera.options import CameraOptions, add_camera_options
from liteship_agent.errors import AgentError, LockedError, PreflightError
from liteship_agent.job import Job
from liteship_agent.records import loads, to_json
from liteship_agent.release import InstalledRelease


def main(arguments: Optional[Sequence[str]] = None) -> None:
    """Entry point of `liteship-agent`."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    options = _parser().parse_args(words)
    options.words = words[1:]
    try:
        options.run(options)
    except AgentError as exc:
        if options.speaks_events:
            emit({"event": "error", "kind": _kind(exc), "message": str(exc)})
        print(exc, file=sys.stderr)
        raise SystemExit(5) from None


def _kind(error: AgentError) -> str:
    """What the host tells errors by."""
    kinds = {LockedError: "locked", PreflightError: "preflight"}
    return kinds.get(type(error), "agent")


def emit(event: Dict[str, Any]) -> None:
    """Write one event line to stdout."""
    sys.stdout.write(f"\x1eliteship {json.dumps(event, ensure_ascii=True)}\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="liteship-agent", description="Measures TFLite models on this machine.")
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(name: str, run: Any, description: str, *, speaks_events: bool = False) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=description, description=description)
        sub.set_defaults(run=run, speaks_events=speaks_events)
        return sub

    bench = verb("bench", _bench, "start or go on with the job on stdin and follow it", speaks_events=True)
    stop = verb("stop", _stop, "end a running job; what it measured stays", speaks_events=True)
    fetched = verb("fetched", _fetched, "note that the host has the report of a job", speaks_events=True)
    smoke = verb("smoke", _smoke, "compare every model of a release with the host's answers", speaks_events=True)
    run_job = verb("run-job", _run_job, "run a job in this process (used by bench)")
    resume = verb("resume", _resume, "go on with every job that a reboot or a crash cut (used by the service)")
    verb("worker", _worker, "time one model for the request on stdin (used by run-job)")
    smoke_runtime = verb("smoke-runtime", _smoke_runtime, "the same in one runtime (used by smoke)")
    verb("explain", _explain, "run a model on the host's pixels for the request on stdin", speaks_events=True)
    camera = verb("camera", _camera, "label live frames with the active release's model, until it is ended")
    camera_runtime = verb("camera-runtime", _camera_runtime, "the same in one runtime (used by camera)")
    for sub in (bench, stop, fetched, smoke, smoke_runtime, run_job, resume, camera, camera_runtime):
        sub.add_argument("--folder", type=Path, required=True, help="the liteship folder")
    for sub in (stop, fetched, run_job):
        sub.add_argument("--job", required=True, help="id of the job")
    for sub in (smoke, smoke_runtime):
        sub.add_argument("--release", required=True, help="id of the release")
    smoke_runtime.add_argument("--runtime-folder", required=True, help="name of its folder under runtimes/")
    for sub in (camera, camera_runtime):
        add_camera_options(sub)
    camera_runtime.add_argument("--release", required=True, help="id of the release")
    camera_runtime.add_argument("--runtime-folder", required=True, help="name of its folder under runtimes/")
    camera_runtime.add_argument("--variants", required=True, nargs="+", help="the first that loads is taken")
    return parser


def _bench(options: argparse.Namespace) -> None:
    from liteship_agent import bench
    from liteship_agent.lock import wanted

    request = loads(Job, sys.stdin.buffer.read(), "the job on stdin")
    with bench.sound_disk(options.folder), wanted(options.folder):
        job = bench.start(
            options.folder,
            request,
            lambda job: emit({"event": "started", "job": to_json(job)}),
            lambda reason: emit({"event": "preflight", "reason": reason}),
        )
        report = bench.follow(options.folder, job.job_id, emit)
    _emit_report(report)


def _emit_report(path: Path) -> None:
    """The `done` event with a report that is one line of ASCII already and may be large."""
    sys.stdout.write('\x1eliteship {"event": "done", "report": ')
    sys.stdout.flush()
    with open(path, "rb") as file:
        for piece in iter(lambda: file.read(65536), b""):
            sys.stdout.buffer.write(piece.rstrip(b"\n"))
    sys.stdout.buffer.write(b"}\n")
    sys.stdout.buffer.flush()


def _stop(options: argparse.Namespace) -> None:
    from liteship_agent import bench

    bench.stop(options.folder, options.job)
    emit({"event": "done"})


def _fetched(options: argparse.Namespace) -> None:
    from liteship_agent import bench

    bench.mark_fetched(options.folder, options.job)
    emit({"event": "done"})


def _run_job(options: argparse.Namespace) -> None:
    from liteship_agent import bench

    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    bench.run_job(options.folder, options.job)


def _resume(options: argparse.Namespace) -> None:
    from liteship_agent.resume import resume

    resume(options.folder, lambda line: print(line, flush=True))


def _smoke(options: argparse.Namespace) -> None:
    """Every runtime of the release in a process of its own."""
    from liteship_agent.watch import agent_command

    release = InstalledRelease(options.folder, options.release)
    artefacts: Dict[str, Any] = {}
    for runtime in release.record().runtimes:
        words = ("smoke-runtime", "--folder", str(options.folder), "--release", options.release)
        command = agent_command(release.runtime(runtime.folder), *words, "--runtime-folder", runtime.folder)
        ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if ended.returncode:
            lines = ended.stderr.decode(errors="replace").strip().splitlines()
            raise AgentError(lines[-1] if lines else f"the smoke inference ended with exit code {ended.returncode}")
        artefacts[runtime.folder] = json.loads(ended.stdout.splitlines()[-1])
    emit({"event": "done", "artefacts": artefacts})


def _smoke_runtime(options: argparse.Namespace) -> None:
    from liteship_agent.smoke import check_release

    print(json.dumps(check_release(InstalledRelease(options.folder, options.release), options.runtime_folder)))


def _camera(options: argparse.Namespace) -> None:
    from liteship_agent.camera.start import start

    options.speaks_events = options.events
    start(CameraOptions.of(options), options.words)


def _camera_runtime(options: argparse.Namespace) -> None:
    from liteship_agent.camera.choose import Choice
    from liteship_agent.camera.process import run

    options.speaks_events = options.events
    run(CameraOptions.of(options), Choice(options.release, options.runtime_folder, tuple(options.variants)), emit)


def _explain(_: argparse.Namespace) -> None:
    from liteship_agent.explain import explain

    emit({"event": "done", **explain(json.load(sys.stdin))})


def _worker(_: argparse.Namespace) -> None:
    from liteship_agent import worker

    worker.main()
