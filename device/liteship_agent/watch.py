"""Run one worker process and watch it: what it says, how long it is silent, how much memory it leaves.

A worker writes JSON lines: `{"phase": NAME, "seconds": S}` announces what comes and how long that may take at most,
`{"result": ...}` is the last. One that hangs, crashes or eats the memory gives a reason instead of a result.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

import liteship_agent

_TICK_SECONDS = 0.1
_KEPT_ERROR_BYTES = 4096
_ISOLATED = (sys.executable, "-I", "-S", "-B")


def agent_command(runtime: Path, *arguments: str) -> List[str]:
    """Command line of another process of this agent, with a runtime's site folder on its path."""
    return [*python_with_agent(), "--runtime", str(runtime), *arguments]


def python_with_agent() -> List[str]:
    """An isolated interpreter that runs this agent: the archive of a release, or the installed package."""
    place = Path(liteship_agent.__file__).parents[1]
    if place.is_file():
        return python_with(place)
    program = f"import runpy, sys; sys.path.insert(0, {str(place)!r}); runpy.run_module('liteship_agent')"
    return [*_ISOLATED, "-c", program]


def python_with(archive: Path) -> List[str]:
    """An isolated interpreter that runs the agent of an archive."""
    return [*_ISOLATED, str(archive)]


@dataclass(frozen=True)
class Outcome:
    """How a worker ended: with a result, or with the reason why there is none.

    Args:
        result: What it answered.
        reason: Why it did not.
        was_killed: A signal from elsewhere ended it, so that another try may succeed.
    """

    result: Optional[Dict[str, Any]]
    reason: Optional[str] = None
    was_killed: bool = False


def run_worker(
    command: List[str],
    request: Dict[str, Any],
    stall_seconds: float,
    on_tick: Callable[[int], Optional[str]],
    vmstat: Path = Path("/proc/vmstat"),
) -> Outcome:
    """Start a worker, give it its request, and wait until it has ended.

    Args:
        command: Of the worker.
        request: One JSON object for its stdin.
        stall_seconds: How long it may be silent beyond what it announced.
        on_tick: Called ten times a second with its process id; a text ends the worker for that reason.
        vmstat: Where the kernel counts the processes that it ended for lack of memory.
    """
    kills = _memory_kills(vmstat)
    try:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except OSError as exc:
        return Outcome(None, f"the process could not be started: {exc.strerror}", was_killed=True)
    with process:
        try:
            conversation = _Conversation(process, stall_seconds)
            reason = conversation.hold(request, on_tick)
        finally:
            process.kill()  # it has ended already where all went well
    if reason is not None:
        return Outcome(None, reason)
    if process.returncode == -signal.SIGKILL and _memory_kills(vmstat) > kills:
        return Outcome(None, "the process was ended by the kernel for lack of memory")
    if process.returncode < 0:
        return Outcome(None, f"the process was ended by {_signal_name(-process.returncode)}", was_killed=True)
    if process.returncode > 0:
        return Outcome(None, conversation.last_error() or f"exit code {process.returncode}")
    if conversation.result is None:
        return Outcome(None, "the worker ended without a result")
    return Outcome(conversation.result)


class _Conversation:
    """What a worker says, from its start to its end."""

    def __init__(self, process: subprocess.Popen[bytes], stall_seconds: float) -> None:
        self.process, self.stall_seconds = process, stall_seconds
        self.result: Optional[Dict[str, Any]] = None
        self._text, self._errors = b"", b""
        self._phase, self._announced = "start", 0.0
        self._deadline = time.monotonic() + stall_seconds

    def hold(self, request: Dict[str, Any], on_tick: Callable[[int], Optional[str]]) -> Optional[str]:
        """Listen until the worker ended; the reason where it must be ended."""
        stdin, stdout, stderr = self.process.stdin, self.process.stdout, self.process.stderr
        assert stdin is not None  # noqa: S101 (for the type checker: all three are pipes)
        assert stdout is not None  # noqa: S101
        assert stderr is not None  # noqa: S101
        try:
            with stdin:
                stdin.write(json.dumps(request).encode())
        except BrokenPipeError:
            pass  # it ended at once; its exit code and stderr say why
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ, self._hear)
            selector.register(stderr, selectors.EVENT_READ, self._hear_error)
            while selector.get_map():
                for key, _ in selector.select(_TICK_SECONDS):
                    piece = os.read(key.fd, 65536)
                    if piece:
                        key.data(piece)
                    else:
                        selector.unregister(key.fileobj)
                reason = self._overdue() or on_tick(self.process.pid)
                if reason is not None:
                    return reason
        try:
            self.process.wait(max(0.0, self._deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return self._overdue()
        return None

    def last_error(self) -> str:
        """The last line that it wrote to stderr."""
        lines = self._errors.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def _hear(self, piece: bytes) -> None:
        *lines, self._text = (self._text + piece).split(b"\n")
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if not isinstance(event, dict):
                continue  # a library wrote a number
            if "result" in event:
                self.result = event["result"]
            self._phase, self._announced = event.get("phase", "end"), event.get("seconds", 0.0)
            self._deadline = time.monotonic() + self._announced + self.stall_seconds

    def _hear_error(self, piece: bytes) -> None:
        self._errors = (self._errors + piece)[-_KEPT_ERROR_BYTES:]

    def _overdue(self) -> Optional[str]:
        if time.monotonic() < self._deadline:
            return None
        return f"no answer within {self._announced + self.stall_seconds:.0f} s in phase {self._phase}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _memory_kills(vmstat: Path) -> int:
    """Processes that the kernel ended for lack of memory since boot; 0 where it does not count them."""
    try:
        found = re.search(r"^oom_kill (\d+)$", vmstat.read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found.group(1)) if found else 0
