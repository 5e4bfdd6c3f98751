"""Which TFLite runtime a target gets, and the site folder that holds it.

`choose` reads what the target tells about itself, `needs` what the shared objects of each runtime ask for, `pack`
assembles the folder here, so that nothing has to be installed there.
"""

from liteship.provision.choose import RUNTIMES, Interpreter, Runtime, choose_runtime, named_runtimes
from liteship.provision.pack import PackedRuntime, pack_runtime

__all__ = ["RUNTIMES", "Interpreter", "PackedRuntime", "Runtime", "choose_runtime", "named_runtimes", "pack_runtime"]
