"""What runs on a target: programs that the host sends to its Python over stdin, and the agent of a release.

A program is some modules of liteship_agent, packed, that import the standard library and each other only. The last one
has `main(arguments, stream)`; the stream is the rest of stdin.
"""

from __future__ import annotations

import json
import shlex
import zlib
from dataclasses import dataclass
from functools import cached_property
from importlib import resources

from liteship_agent.release import AGENT

_LOADER = """import json, sys, types, zlib
for name, text in json.loads(zlib.decompress(sys.stdin.buffer.read({length}))):
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(text, name, "exec"), module.__dict__)
sys.exit(module.main(sys.argv[1:], sys.stdin.buffer))"""


@dataclass(frozen=True)
class Program:
    """Modules in an order in which each imports earlier ones only.

    Args:
        modules: Their names in liteship_agent.
    """

    modules: tuple[str, ...]

    @cached_property
    def packed(self) -> bytes:
        """What goes ahead of the data on stdin."""
        package = resources.files("liteship_agent")
        texts = {name: package.joinpath(f"{name.replace('.', '/')}.py").read_text("utf-8") for name in self.modules}
        sources = [(f"liteship_agent.{name}", text) for name, text in texts.items()]
        return zlib.compress(json.dumps(sources).encode(), 9)

    @property
    def loader(self) -> str:
        """For `python -c`."""
        return _LOADER.format(length=len(self.packed))


def _store(*names: str) -> Program:
    return Program(tuple(f"store.{name}" for name in names))


_ASKING = ("events", "inventory", "machine", "probe")
_STORING = ("disk", "transfer", "runtimes", "releases", "collection", "verification", "main")
PROBE = _store(*_ASKING)
STORE = _store(*_ASKING, *_STORING)
SENSORS = Program(("store.events", "sensors", "store.sense"))


def release_command(python: str, folder: str, release: str, *arguments: str, runtime: str | None = None) -> str:
    """Shell command for the agent of a release.

    Args:
        python: The target's, as a word for its shell.
        folder: The liteship folder there, absolute.
        release: Its id.
        arguments: The verb and its options.
        runtime: Folder name of the runtime that the verb imports, None for verbs that import none.
    """
    words = ["-I", "-S", "-B", f"{folder}/releases/{release}/{AGENT}"]
    words += [] if runtime is None else ["--runtime", f"{folder}/runtimes/{runtime}"]
    return " ".join([python, *(shlex.quote(word) for word in (*words, *arguments))])
