"""Nothing of this process's settings may leak from one test to the next."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import pytest


@pytest.fixture(autouse=True)
def opencv_threads() -> Iterator[None]:
    """A worker sets how many threads OpenCV has; the next test has its own again."""
    threads = cv2.getNumThreads()
    yield
    cv2.setNumThreads(threads)
