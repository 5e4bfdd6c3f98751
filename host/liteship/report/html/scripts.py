"""Vega, Vega-Lite and Vega-Embed as one script, from the copy that vl-convert brings along.

To bundle them takes two seconds of computing, so the script is kept. `ScriptBundle` makes it in another process, while
this one reads the report.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from liteship.errors import LiteshipError
from liteship_agent.records import write_atomic

_PROGRAM = "import sys, vl_convert; sys.stdout.buffer.write(vl_convert.javascript_bundle().encode())"


class ScriptBundle:
    """The script, made as soon as this object is if it is not kept already.

    Args:
        cache: Folder where it is kept, by the version of vl-convert.
    """

    def __init__(self, cache: Path) -> None:
        self._path = cache / f"vega-{version('vl-convert-python')}.js"
        self._script: bytes | None = None
        self._making: tuple[subprocess.Popen[bytes], IO[bytes]] | None = None
        if not self._path.is_file():
            # No pipe: nobody reads it where the report turns out to be damaged.
            script = TemporaryFile()  # noqa: SIM115  closed when it was read
            process = subprocess.Popen([sys.executable, "-I", "-c", _PROGRAM], stdout=script)
            self._making = process, script

    def text(self) -> str:
        """The script.

        Raises:
            LiteshipError: it could not be made.
        """
        if self._script is None:
            self._script = self._path.read_bytes() if self._making is None else self._made(*self._making)
        return self._script.decode()

    def _made(self, process: subprocess.Popen[bytes], file: IO[bytes]) -> bytes:
        code = process.wait()
        with file:
            file.seek(0)
            script = file.read()
        if code or not script:
            raise LiteshipError(f"vl-convert: a bundle of its scripts is required. Received: exit code {code}.")
        with contextlib.suppress(OSError):  # a folder that cannot be written to costs two seconds each time, no more
            write_atomic(self._path, script)
        return script
