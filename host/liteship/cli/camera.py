"""`liteship camera`: the deployed model on live frames of a target, with its page and its figures here."""

from __future__ import annotations

import re
import socket
import webbrowser
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from liteship.built_in import LOOPBACK
from liteship.camera.attach import has_ended, show_running
from liteship.camera.follow import Camera, CameraState
from liteship.camera.log import Event, FrameLog
from liteship.camera.options import CameraOptions
from liteship.cli.camera_view import Drawing, Lines, Notes, print_summary
from liteship.cli.common import check_options, open_study, reporter, runtime_cache, with_connection
from liteship.cli.options import JsonOption, TargetOption, print_json
from liteship.deploy import deploy
from liteship.errors import LinkError, UsageError
from liteship.link.forward import listen
from liteship.progress import Reporter
from liteship.remote import Connection
from liteship.retry import Patience
from liteship.targets import split_runtimes

_PATIENCE = Patience(attempts=7)
"""A board that boots anew is waited for: about a minute."""


class View(StrEnum):
    """Where the camera is looked at."""

    web = "web"
    terminal = "terminal"
    none = "none"


class Rotation(StrEnum):
    """Degrees clockwise."""

    none = "0"
    quarter = "90"
    half = "180"
    three_quarters = "270"


def camera_command(
    target: TargetOption = LOOPBACK,
    study: Annotated[
        str | None,
        typer.Option(
            "--study", help="Folder under models/ to deploy first.  \\[default: what is active there, else the latest]"
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option("--source", help="auto, pattern, rpicam, /dev/videoN, a file or a folder, on the target."),
    ] = None,
    size: Annotated[str | None, typer.Option("--size", metavar="WxH", help="Of a frame.  \\[default: 640x480]")] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            "--rate", min=0, metavar="HZ", help="Frames per second; 0: a file as fast as it goes.  \\[default: 30]"
        ),
    ] = None,
    rotate: Annotated[Rotation | None, typer.Option("--rotate", help="Degrees clockwise.")] = None,
    mirror: Annotated[bool, typer.Option("--mirror", help="Swap left and right.")] = False,
    crop: Annotated[
        str | None, typer.Option("--crop", metavar="X,Y,W,H", help="Part of the frame, as shares from 0 to 1.")
    ] = None,
    loop: Annotated[bool, typer.Option("--loop", help="Begin a file again at its end.")] = False,
    variant: Annotated[
        str | None, typer.Option("--variant", help="Of the release.  \\[default: the baseline, else one that loads]")
    ] = None,
    runtime: Annotated[
        str | None, typer.Option("--runtime", help="Of the release.  \\[default: one that loads the variant]")
    ] = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Of the interpreter.")] = None,
    cpus: Annotated[str | None, typer.Option("--cpus", metavar="SET", help="That it may use, such as 2,3.")] = None,
    threshold: Annotated[
        float | None, typer.Option("--threshold", min=0, max=1, help="Below it: unsure.  \\[default: 0.6]")
    ] = None,
    smoothing: Annotated[
        float | None, typer.Option("--smoothing", min=0, max=0.99, help="Of the answers over time; 0 for none.")
    ] = None,
    view: Annotated[View, typer.Option("--view", help="A page, a drawing in this terminal, or nothing.")] = View.web,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Of the page, on this computer; 0 takes any free one.")
    ] = 0,
    token: Annotated[str | None, typer.Option("--token", help="That the page requires: a text, auto or none.")] = None,
    save_folder: Annotated[str | None, typer.Option("--save-folder", help="For saved frames, on the target.")] = None,
    log: Annotated[
        Path | None, typer.Option("--log", help="Add a line of JSON per classified frame to this file, here.")
    ] = None,
    duration: Annotated[
        float | None, typer.Option("--duration", min=0.1, metavar="SECONDS", help="End after so long.")
    ] = None,
    frames: Annotated[int | None, typer.Option("--frames", min=1, help="End after so many classified frames.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Run the deployed model of a target on live frames, and look at it here: a page, or the terminal.

    Ctrl-C ends it there and prints the summary; that is exit code 0. A lost link is dialled again, and the page keeps
    its address; exit code 5 when it stays lost. Without options for the camera, one that runs as a service is shown;
    Ctrl-C then ends only the view of it.
    """
    check_options(target, None)
    if open_browser and view is not View.web:
        raise UsageError(f"--open: --view web is required. Received: --view {view.value}.")
    options = CameraOptions(
        source=source,
        size=_checked("--size", size, r"[1-9]\d*x[1-9]\d*", "such as 640x480"),
        rate=rate,
        rotate=int(rotate.value) if rotate else None,
        mirror=mirror,
        crop=_checked("--crop", crop, r"[01](\.\d*)?(,[01]?(\.\d*)?){3}", "of four shares such as 0.25,0,0.5,1"),
        loop=loop,
        variant=variant,
        runtime=runtime,
        threads=threads,
        cpus=cpus,
        threshold=threshold,
        smoothing=smoothing,
        view="web" if view is View.web else "none",
        token=token,
        save_folder=save_folder,
        duration=duration,
        frames=frames,
        log_events=log is not None,
    )
    say = reporter()
    with ExitStack() as stack:
        listener = stack.enter_context(listen(port)) if view is View.web else None
        frame_log = stack.enter_context(FrameLog(log)) if log else None
        page = _Page(target, say, as_json, open_browser)
        is_plain = options == CameraOptions(view="web") and study is None and not as_json
        visitor = _Visitor(target, listener, page, say) if listener is not None and is_plain else None
        shown = stack.enter_context(_view(view, say))

        def watch(state: CameraState, event: Event) -> None:
            if event["event"] == "camera" and state.address is not None:
                page.tell(state.address)
            shown(state, event)

        camera = Camera(target, options, watch, listener, frame_log)
        _follow(camera, target, study, say, visitor, partial(_finish, camera, stack, as_json))


def _follow(
    camera: Camera,
    target: str,
    study: str | None,
    say: Reporter,
    visitor: _Visitor | None,
    finish: Callable[[], None],
) -> None:
    """Follow the camera to its end, and tell what it did, whatever ended it; or visit one that runs there."""
    is_wanted = study is not None

    def act(connection: Connection) -> None:
        nonlocal is_wanted
        probe = connection.probe() if not is_wanted else {}
        if visitor is not None and visitor.is_welcome(probe, camera.has_begun):
            visitor.visit(connection, probe["camera"])
            return
        active = (probe["folder"], probe["current"]) if probe.get("current") else None
        if active is None:
            runtimes = split_runtimes(connection.target.runtime)
            done = deploy(connection, *open_study(study), runtimes, runtime_cache(), say)
            active = (done.folder, done.release)
            is_wanted = False  # over the next connection: whatever is active by then
        camera.follow(connection, *active)

    try:
        with_connection(target, act, say, _PATIENCE)
    except (LinkError, KeyboardInterrupt) as exc:
        if not camera.has_begun:
            raise
        finish()
        if isinstance(exc, LinkError):
            raise
        say.say(f"{target}: not waited for the end of the camera, which follows that of the link")
        raise typer.Exit(LinkError.exit_code) from exc
    if visitor is None or not visitor.was_there:
        finish()


def _finish(camera: Camera, stack: ExitStack, as_json: bool) -> None:
    """Close view and log, then print the summary."""
    stack.close()
    summary = camera.summary()
    if as_json:
        print_json(summary.to_json())
    else:
        print_summary(summary, Console())


def _view(view: View, say: Reporter) -> Notes:
    if view is not View.terminal:
        return Notes(say)
    can_draw = say.console.is_terminal and say.console.encoding.startswith("utf")
    return Drawing(say) if can_draw else Lines(say)


class _Page:
    """Tells the address of the page, once it can be opened.

    Args:
        target: Its name.
        say: Lines on stderr.
        as_json: Whether stdout is for JSON.
        open_browser: Whether it is opened too.
    """

    def __init__(self, target: str, say: Reporter, as_json: bool, open_browser: bool) -> None:
        self._target, self._say, self._as_json, self._open_browser = target, say, as_json, open_browser
        self._told: str | None = None

    def tell(self, address: str) -> None:
        """Tell it, or that the page is where it was."""
        if address == self._told:
            self._say.say(f"{self._target}: connected again; the page is where it was")
            return
        self._told = address
        if self._as_json:
            self._say.say(address)
        else:
            typer.echo(address)
        if self._open_browser and not webbrowser.open(address):
            self._say.say("no browser was found here; open the address yourself")


class _Visitor:
    """Shows the page of a camera that runs on the target by itself.

    Args:
        target: Its name.
        listener: Of the page here.
        page: Tells the address.
        say: Lines on stderr.
    """

    def __init__(self, target: str, listener: socket.socket, page: _Page, say: Reporter) -> None:
        self._target, self._listener, self._page, self._say = target, listener, page, say
        self.was_there = False

    def is_welcome(self, probe: Mapping[str, Any], has_own: bool) -> bool:
        """Whether there is a camera to visit; never beside a camera of one's own.

        Raises:
            LostLinkError: it was there before, and may come back.
        """
        if self.was_there and not probe.get("camera"):
            raise has_ended(self._target)
        return not has_own and bool(probe.get("camera"))

    def visit(self, connection: Connection, camera: Mapping[str, Any]) -> None:
        """Show its page until Ctrl-C."""
        if not self.was_there:
            self._say.say(
                f"{self._target}: a camera runs there by itself ({camera['source']}); Ctrl-C ends only the view of it"
            )
        self.was_there = True
        show_running(connection, camera, self._listener, self._page.tell)
        self._say.say(f"{self._target}: the camera goes on")


def _checked(option: str, text: str | None, pattern: str, required: str) -> str | None:
    if text is not None and re.fullmatch(pattern, text) is None:
        raise UsageError(f"{option}: a value {required} is required. Received: {text}.")
    return text
