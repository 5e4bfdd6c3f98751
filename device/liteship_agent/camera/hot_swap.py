"""A new deploy takes over a running camera: its model is loaded beside the one that runs, then put in its place.

`current` is looked at four times a second, which costs one system call. What cannot be loaded is told once, and the
model that runs goes on.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional

from liteship_agent.camera.choose import choose
from liteship_agent.camera.classifier import Classifier, load_classifier
from liteship_agent.errors import AgentError, ModelError, StoreError
from liteship_agent.release import InstalledRelease
from liteship_agent.store.inventory import current_release

LOOK_SECONDS = 0.25


@dataclass(frozen=True)
class ModelLoader:
    """Loads the model of a release as the camera's options want it.

    Args:
        variant: The only one that will do, null for any.
        runtime: Folder name of the one that this process has loaded.
        threads: Of the interpreter.
    """

    variant: Optional[str]
    runtime: str
    threads: int

    def load(self, release: InstalledRelease, preferred: Optional[str] = None) -> Classifier:
        """The wanted variant, else the first that loads.

        Args:
            release: It is installed.
            preferred: The variant to try first.
        Raises:
            AgentError: none can be loaded; the message says why not.
        """
        names = {one.folder for one in release.record().runtimes}
        if self.runtime not in names:
            raise StoreError(
                f"release {release.release_id} with runtime {self.runtime} is required. "
                f"Received: one with {', '.join(sorted(names))}; start the camera again to use it, where it is the "
                "service with systemctl --user restart liteship-camera"
            )
        choice = choose(release, self.variant, self.runtime, preferred)
        error: Optional[ModelError] = None
        for name in choice.variants:
            try:
                return load_classifier(release, name, self.threads)
            except ModelError as exc:
                error = error or exc
        raise error or StoreError(f"{release.release_id}: a variant is required. Received: none")


class HotSwap:
    """Watches which release is active, in a thread of its own.

    Args:
        folder: The liteship folder.
        running: Id of the release whose model runs.
        load: Gives the model of a release.
        may_load: Whether loading would disturb nobody now: not while a job measures.
        uses: Told which releases must stay, before one is read and when one is not needed any more.
        take: Given a model that is to take over.
        tell: Told why a release does not take over; null when that is over.
    """

    def __init__(
        self,
        folder: Path,
        running: str,
        load: Callable[[InstalledRelease], Classifier],
        may_load: Callable[[], bool],
        uses: Callable[..., None],
        take: Callable[[Classifier], None],
        tell: Callable[[Optional[str]], None],
    ) -> None:
        self._folder, self._load, self._may_load = folder, load, may_load
        self._uses, self._take, self._tell = uses, take, tell
        self._running = self._seen = running
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="hot swap", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Watch no more; a model that is being loaded is not waited for."""
        self._stopped.set()

    def _watch(self) -> None:
        while not self._stopped.wait(LOOK_SECONDS):
            self.look()

    def look(self) -> None:
        """See whether another release is active, and let it take over."""
        release_id = self._active()
        if release_id is None or release_id == self._seen or not self._may_load():
            return
        self._seen = release_id
        if release_id == self._running:  # back to what runs, after one that could not
            self._tell(None)
            return
        self._uses(self._running, release_id)
        try:
            classifier = self._load(InstalledRelease(self._folder, release_id))
        except AgentError as exc:
            self._uses(self._running)
            self._tell(f"Release {release_id} cannot take over: {exc}. {self._running} goes on.")
            return
        self._take(classifier)
        self._running = release_id
        self._uses(release_id)
        self._tell(None)

    def _active(self) -> Optional[str]:
        try:
            return current_release(self._folder)
        except OSError:  # the link was replaced between two calls
            return None
