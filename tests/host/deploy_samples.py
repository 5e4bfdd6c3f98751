"""A made-up deployment of a made-up study, for the tests of what comes after a deploy."""

from __future__ import annotations

from typing import Any

from report_samples import LITERT

from liteship.deploy import Deployment
from liteship_agent.manifest import Manifest


def make_deployment(manifest: Manifest, **changes: Any) -> Deployment:
    """One runtime that loads all."""
    fields: dict[str, Any] = {
        "target": "pi",
        "release": "0123456789ab",
        "activated": True,
        "bytes_sent": 0,
        "bytes_skipped": 0,
        "blobs_sent": 0,
        "round_trips": 2,
        "runtimes": {LITERT: "ai-edge-litert==2.3.0"},
        "refused": {LITERT: {}},
        "artefacts": tuple(dict.fromkeys(entry.sha256 for entry in manifest.entries)),
        "folder": "/home/pi/liteship",
        "machine": "aarch64",
        "smoke": None,
    }
    return Deployment(**{**fields, **changes})
