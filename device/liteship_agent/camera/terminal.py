"""The camera on the board's own terminal: one line, rewritten in place; a line a second where it is no terminal."""

from __future__ import annotations

import os
from typing import Any, Mapping, Optional, TextIO

_BAR = 20
_FALLBACK_COLUMNS = 80


class TerminalView:
    """Shows the newest frame and figures.

    Args:
        out: Where to.
    """

    def __init__(self, out: TextIO) -> None:
        self._out, self._rewrites = out, out.isatty()
        self._frame: Mapping[str, Any] = {}
        self._figures: Mapping[str, Any] = {}
        self._state = "running"

    def tell(self, event: Mapping[str, Any]) -> None:
        """Take in an event, and show what changed."""
        kind = event["event"]
        if kind == "frame":
            self._frame = event
        elif kind == "figures":
            self._figures = event
        elif kind == "state":
            self._state = event["state"] + (f" ({event['reason']})" if event.get("reason") else "")
        line = _line(event) if kind in ("swapped", "notice", "done") else None
        if line is not None:
            self.end()
            print(line, file=self._out, flush=True)
        elif (kind == "frame" and self._rewrites) or kind in ("figures", "state"):
            self._show()

    def end(self) -> None:
        """Leave the line for what comes."""
        if self._rewrites:
            self._out.write("\r\x1b[2K")
            self._out.flush()

    def _show(self) -> None:
        text = self._text()
        if self._rewrites:
            self._out.write("\r\x1b[2K" + text[: self._columns() - 1])
        else:
            self._out.write(text + "\n")
        self._out.flush()

    def _columns(self) -> int:
        try:
            return os.get_terminal_size(self._out.fileno()).columns
        except OSError:
            return _FALLBACK_COLUMNS

    def _text(self) -> str:
        parts = [self._answer()] if self._state.startswith(("running", "paused")) else []
        if not self._state.startswith("running"):
            parts.insert(0, self._state)
        figures = self._figures if self._state == "running" else {}
        rate_hz, latency_ns = figures.get("rate_hz"), figures.get("latency_p50_ns")
        parts += [f"{rate_hz:.1f} Hz"] if rate_hz is not None else []
        parts += [f"{latency_ns / 1e6:.0f} ms"] if latency_ns is not None else []
        celsius: Optional[float] = figures.get("temperature_celsius")
        parts += [f"{celsius:.0f} °C"] if celsius is not None else []
        parts += [figures["throttled"]] if figures.get("throttled") else []
        return "  ".join(parts)

    def _answer(self) -> str:
        if not self._frame:
            return "no frame yet"
        score, label = self._frame["score"], self._frame["label"]
        filled = round(_BAR * score)
        return f"{printable(label or 'unsure')} {100 * score:3.0f} % {'█' * filled}{'·' * (_BAR - filled)}"


def printable(text: str) -> str:
    """A class name without what would move the cursor or turn the line around."""
    return "".join(mark if mark.isprintable() else "?" for mark in text)


class PlainView:
    """Lines for a person or a service's log: where the page is, what changed, and the summary.

    Args:
        out: Where to.
    """

    def __init__(self, out: TextIO) -> None:
        self._out, self._last = out, ""

    def tell(self, event: Mapping[str, Any]) -> None:
        """Write a line where the event is worth one, and not the last one again."""
        text = _line(event)
        if text is not None and text != self._last:
            self._last = text
            print(text, file=self._out, flush=True)

    def end(self) -> None:
        """Nothing is left half-written."""


def _line(event: Mapping[str, Any]) -> Optional[str]:
    kind = event["event"]
    if kind == "camera":
        where = "" if event["port"] is None else f"{_address(event)} shows "
        return f"{where}{event['source']}, labelled by {event['variant']} of release {event['release']}"
    if kind == "state":
        return str(event["state"]) + (f": {event['reason']}" if event["reason"] else "")
    if kind == "swapped":
        gap = "" if event["gap_ns"] is None else f", {event['gap_ns'] / 1e6:.0f} ms without a label"
        return f"now {event['variant']} of release {event['release']}{gap}"
    if kind == "notice":
        return str(event["message"])
    return _summary_line(event["summary"]) if kind == "done" else None


def _address(event: Mapping[str, Any]) -> str:
    host = f"[{event['host']}]" if ":" in event["host"] else event["host"]
    return f"http://{host}:{event['port']}/" + (f"?token={event['token']}" if event["token"] else "")


def _summary_line(summary: Mapping[str, Any]) -> str:
    counts = f"{summary['captured']} frames captured, {summary['classified']} labelled, {summary['dropped']} dropped"
    rate = "" if summary["rate_hz"] is None else f", {summary['rate_hz']:.1f} a second"
    p50_ns, p90_ns = summary["latency_p50_ns"], summary["latency_p90_ns"]
    latency = "" if p50_ns is None else f"; latency {p50_ns / 1e6:.1f} ms, p90 {p90_ns / 1e6:.1f} ms"
    labels = ", ".join(f"{printable(name)} ({count})" for name, count in summary["labels"].items())
    return f"{summary['seconds']:.1f} s: {counts}{rate}{latency}; {labels or 'no label'}"
