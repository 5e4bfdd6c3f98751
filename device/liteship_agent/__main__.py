"""Entry of the agent archive: `python -I -S -B liteship_agent.zip [--runtime FOLDER] VERB ...`.

Isolated mode and no site module leave the standard library and this archive on the path, nothing of the board's own
packages; `--runtime` adds the one site folder that came with the release.
"""

from __future__ import annotations

import sys


def _start() -> None:
    if len(sys.argv) > 2 and sys.argv[1] == "--runtime":
        sys.path.append(sys.argv[2])
        del sys.argv[1:3]
    from liteship_agent.cli import main

    main()


_start()
