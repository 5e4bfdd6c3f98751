"""The targets that are built in and never stand in targets.toml."""

from __future__ import annotations

LOOPBACK = "loopback"
EMULATED = "emulated"
BUILT_IN = (LOOPBACK, EMULATED)
CAPTIONS = {
    LOOPBACK: "this computer, not a board",
    EMULATED: "an emulated machine: its milliseconds say nothing about a board",
}
"""What stands beside their names, so that nobody takes their figures for a board's."""
