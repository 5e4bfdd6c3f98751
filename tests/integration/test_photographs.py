"""Real photographs with ImageNet weights, from the recipe to the table; needs LITESHIP_DATA and LITESHIP_WEIGHTS."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import tomlkit

pytestmark = [
    pytest.mark.images,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(
        not (os.environ.get("LITESHIP_DATA") and os.environ.get("LITESHIP_WEIGHTS")), reason="not run: no images"
    ),
]

RECIPE = Path(__file__).parents[2] / "benchmarks" / "mobilenet_v2_pruning.toml"


def test_photographs_end_to_end(tmp_path: Path) -> None:
    recipe = tomlkit.parse(RECIPE.read_text())
    recipe["compress"][1]["sparsity"] = [0.5]
    recipe["compress"][1]["quantization"] = ["none"]
    recipe["compress"][1]["epochs"] = 6
    (tmp_path / "recipe.toml").write_text(tomlkit.dumps(recipe))
    options = [
        *("--data", str(Path(os.environ["LITESHIP_DATA"]).absolute())),
        *("--weights", str(Path(os.environ["LITESHIP_WEIGHTS"]).absolute())),
    ]
    command = [str(Path(sys.executable).with_name("liteship")), "run", "recipe.toml", *options, "--json"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    rows = {row["variant"]: row for row in json.loads(ended.stdout)["rows"]}
    print(json.dumps({name: (row["target_accuracy_ratio"], row["median_ns"]) for name, row in rows.items()}))
    baseline = rows["none-none"]
    assert baseline["image_count"] >= 100
    assert baseline["target_accuracy_ratio"] >= 0.92
    image = 1 / baseline["image_count"]
    assert abs(baseline["target_accuracy_ratio"] - baseline["host_accuracy_ratio"]) <= image
    assert {row["validity"] for row in rows.values()} <= {"valid", "repeated", "unknown", "unstable"}
    assert all(row["golden_within_tolerance"] for row in rows.values())
    assert all(row["parity_passed"] for row in rows.values())
    assert all(row["parity_equal_ratio"] == 1 for name, row in rows.items() if name.endswith("-none"))
    assert rows["magnitude50-none"]["target_accuracy_ratio"] >= baseline["target_accuracy_ratio"] - 0.06
    assert rows["magnitude50-none"]["keras_gzip_bytes"] <= 5.3 * 2**20
    assert all(row["rss_anon_bytes"] <= 250e6 for row in rows.values())
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 <= 4e9
