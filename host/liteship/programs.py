"""Programs that the host sends to a target's Python over stdin, before any release exists there.

A program is some modules of liteship_agent, packed, that import the standard library and each other only. The last one
has `main(arguments, stream)`; the stream is the rest of stdin.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from functools import cached_property
from importlib import resources

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
