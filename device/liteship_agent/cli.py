"""Verbs of the agent. The host calls them over SSH; on the board they can be called by hand.

Answers that the host reads are event lines: the record separator, the word liteship, one JSON object.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path
from typing import Any, Dict, Optional, Sequence

from liteship_agent import __version__
from liteship_agent.errors import AgentError, LockedError
from liteship_agent.job import Job
from liteship_agent.manifest import Manifest
from liteship_agent.records import from_json, loads, to_json
from liteship_agent.release import VALIDATION, InstalledRelease


def main(arguments: Optional[Sequence[str]] = None) -> None:
    """Entry point of `liteship-agent`."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except AgentError as exc:
        if options.speaks_events:
            kind = "locked" if isinstance(exc, LockedError) else "agent"
            emit({"event": "error", "kind": kind, "message": str(exc)})
        print(exc, file=sys.stderr)
        raise SystemExit(5) from None


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
    smoke = verb("smoke", _smoke, "compare every model of a release with the host's answers", speaks_events=True)
    run_job = verb("run-job", _run_job, "run a job in this process (used by bench)")
    verb("worker", _worker, "time one model for the request on stdin (used by run-job)")
    verb("decode", _decode, "decode the validation images once (used by run-job)")
    for sub in (bench, stop, smoke, run_job):
        sub.add_argument("--folder", type=Path, required=True, help="the liteship folder")
    for sub in (stop, run_job):
        sub.add_argument("--job", required=True, help="id of the job")
    smoke.add_argument("--release", required=True, help="id of the release")
    return parser


def _bench(options: argparse.Namespace) -> None:
    from liteship_agent import bench

    job = bench.start(options.folder, loads(Job, sys.stdin.buffer.read(), "the job on stdin"))
    emit({"event": "started", "job": to_json(job)})
    report = bench.follow(options.folder, job.job_id, emit)
    emit({"event": "done", "report": to_json(report)})


def _stop(options: argparse.Namespace) -> None:
    from liteship_agent import bench

    bench.stop(options.folder, options.job)
    emit({"event": "done"})


def _run_job(options: argparse.Namespace) -> None:
    from liteship_agent import bench

    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    bench.run_job(options.folder, options.job)


def _smoke(options: argparse.Namespace) -> None:
    release = InstalledRelease(options.folder, options.release)
    sys.path.append(str(release.runtime(release.record().runtimes[0].folder)))
    from liteship_agent.smoke import check_release

    emit({"event": "done", "artefacts": check_release(release)})


def _worker(_: argparse.Namespace) -> None:
    from liteship_agent import worker

    worker.main()


def _decode(_: argparse.Namespace) -> None:
    from liteship_agent.images import decode_all, pixels_path, selected_images

    request = json.load(sys.stdin)
    folder = Path(request["folder"])
    job = from_json(Job, request["job"], "decode request")
    release = InstalledRelease(folder, job.release_id)
    manifest: Manifest = release.manifest()
    entry = manifest.entry(request["artefact"])
    if entry is None:
        raise AgentError(f"an artefact of the manifest is required. Received: {request['artefact']}")
    images = selected_images(manifest, job.limit)
    path = pixels_path(folder, manifest, entry.input, job.limit)
    for _count in decode_all(release.path / VALIDATION, images, entry.input, path):
        pass
