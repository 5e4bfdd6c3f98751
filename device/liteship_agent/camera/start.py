"""How a camera begins: the release is looked up once, and this process becomes one with that release's runtime.

`current` may point elsewhere a moment later, and the agent that is running now may be reached through it: the new
process uses names that stay what they are.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import List, Optional, Sequence

import liteship_agent
from liteship_agent.camera.choose import choose, current
from liteship_agent.camera.options import RELEASE_OPTION, RUNTIME_OPTION, VARIANTS_OPTION, CameraOptions
from liteship_agent.camera.web.access import choose_token
from liteship_agent.cpus import parse_cpus, resolve
from liteship_agent.release import AGENT, InstalledRelease
from liteship_agent.watch import python_with, python_with_agent
from liteship_agent.worker import bind

_MOST_THREADS = 4


def start(options: CameraOptions, words: Sequence[str]) -> None:
    """Become the camera's process; returns only by an error.

    Args:
        options: As they were read from the words.
        words: Of the command line, after the verb.
    Raises:
        AgentError: there is no release, or it has nothing that fits.
    """
    if options.view == "web":
        choose_token(options.token, options.host)  # what is refused is refused before anything is loaded
    if options.cpus is not None:
        bind(resolve(parse_cpus(options.cpus), options.threads or 1))
    release = current(options.folder)
    choice = choose(release, options.variant, options.runtime)
    given = [RELEASE_OPTION, choice.release_id, RUNTIME_OPTION, choice.runtime, VARIANTS_OPTION, *choice.variants]
    command = [*_agent(release), "--runtime", str(release.runtime(choice.runtime)), "camera-runtime", *words, *given]
    os.execv(command[0], command)  # noqa: S606 (a list of arguments, no shell)


def default_threads(cpus: Optional[int] = None) -> int:
    """All CPUs that this process may use but one, which frames and viewers need; four at most."""
    usable = len(os.sched_getaffinity(0)) if cpus is None else cpus
    return max(1, min(_MOST_THREADS, usable - 1))


def _agent(release: InstalledRelease) -> List[str]:
    """The command of the release's own agent where this one is an archive, else of this one."""
    is_archive = Path(liteship_agent.__file__).parents[1].is_file()
    return python_with(release.path / AGENT) if is_archive else python_with_agent()
