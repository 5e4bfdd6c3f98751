from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

import pytest

from liteship.errors import HostKeyError, LinkError, LostLinkError, UsageError
from liteship.remote import RemoteError
from liteship.retry import Patience, keep_trying

LOST = LostLinkError("pi: an open connection is required.", "Again.", "link lost (connection closed)")
REFUSED = LostLinkError("An SSH server at pi:22 is required.", "Check.", "Connection refused")
MIB = 1 << 20


class Board:
    """A target that fails as told; each entry is one attempt.

    Args:
        plan: An error of the dialling; or (error or None of the action, bytes sent, events heard).
    """

    def __init__(self, plan: Sequence[LinkError | tuple[Exception | None, int, int]]) -> None:
        self.plan = list(plan)
        self.said: list[str] = []
        self.slept: list[float] = []
        self.opened = self.closed = 0

    def connect(self) -> Connection:
        self.opened += 1
        step = self.plan.pop(0)
        if isinstance(step, LinkError):
            raise step
        return Connection(self, *step)

    def run(self) -> str:
        patience = Patience(sleep=self.slept.append, draw=lambda: 0.5)
        return keep_trying(self.connect, lambda link: link.act(), "pi", self.said.append, patience)


class Connection:
    def __init__(self, board: Board, error: Exception | None, bytes_sent: int, events: int) -> None:
        self.board, self.error, self.bytes_sent, self.events = board, error, bytes_sent, events

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.board.closed += 1

    def act(self) -> str:
        if self.error is not None:
            raise self.error
        return "done"


def test_what_works_at_once_is_done_once_and_silently() -> None:
    board = Board([(None, 0, 0)])
    assert board.run() == "done"
    assert (board.opened, board.closed, board.said, board.slept) == (1, 1, [], [])


def test_board_that_is_still_booting_is_waited_for_a_moment() -> None:
    board = Board([REFUSED, REFUSED, (None, 0, 0)])
    assert board.run() == "done"
    assert board.said == [
        "pi: Connection refused; trying again in 1 s",
        "pi: Connection refused; trying again in 2 s",
    ]
    assert board.slept == [1.125, 2.25], "each pause is twice the one before, with jitter"


def test_board_that_never_answers_is_given_up_after_three_attempts() -> None:
    board = Board([REFUSED] * 9)
    with pytest.raises(LostLinkError, match=r"Tried 3 times\. Check\.") as caught:
        board.run()
    assert caught.value.message == REFUSED.message
    assert (board.opened, len(board.slept)) == (3, 2)


def test_link_that_is_lost_is_tried_five_times_with_growing_pauses() -> None:
    board = Board([(LOST, 100, 0), REFUSED, (LOST, 100, 0), REFUSED, (LOST, 100, 0)])
    with pytest.raises(LostLinkError, match=r"Tried 5 times"):
        board.run()
    assert [round(seconds) for seconds in board.slept] == [1, 2, 4, 9]
    assert board.said[0] == "pi: link lost (connection closed); trying again in 1 s"
    assert board.closed == 3, "every connection is closed before the next one"


@pytest.mark.parametrize("progress", [(MIB, 0), (0, 1)])
def test_count_starts_anew_after_progress(progress: tuple[int, int]) -> None:
    board = Board([(LOST, *progress)] * 20 + [(None, 0, 0)])
    assert board.run() == "done"
    assert set(board.slept) == {1.125}


@pytest.mark.parametrize(
    "error",
    [
        HostKeyError("changed"),
        LinkError("login refused"),
        RemoteError("no space", "", "space"),
        RemoteError("in use", "", "locked"),
        UsageError("no"),
        ValueError("a bug"),
        KeyboardInterrupt(),
    ],
)
def test_what_another_attempt_does_not_cure_ends_it_at_once(error: Exception) -> None:
    board = Board([(error, 0, 0)] * 2)
    with pytest.raises(type(error)):
        board.run()
    assert (board.opened, board.closed, board.said) == (1, 1, [])


def test_refusal_of_the_connection_that_is_no_link_error_ends_it_at_once() -> None:
    board = Board([HostKeyError("changed"), (None, 0, 0)])
    with pytest.raises(HostKeyError):
        board.run()
    assert board.opened == 1


def test_lock_of_the_command_that_was_cut_is_waited_for() -> None:
    locked = RemoteError("pi: in use", "Wait.", "locked")
    board = Board([(LOST, 0, 1), (locked, 0, 0), (None, 0, 0)])
    assert board.run() == "done"
    assert board.said[1] == "pi: in use; trying again in 2 s"
    still = Board([(LOST, 0, 1), *[(locked, 0, 0)] * 9])
    with pytest.raises(RemoteError) as caught:
        still.run()
    assert caught.value is locked


def test_link_that_the_far_side_found_dead_is_tried_again() -> None:
    board = Board([(RemoteError("pi: no byte for 30 s", "", "link"), 0, 0), (None, 0, 0)])
    assert board.run() == "done"


def test_interruption_of_a_pause_ends_it_at_once() -> None:
    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    board = Board([REFUSED] * 3)
    with pytest.raises(KeyboardInterrupt):
        keep_trying(board.connect, lambda link: link.act(), "pi", board.said.append, Patience(sleep=interrupted))
    assert board.opened == 1


@pytest.mark.parametrize("draw", [0.0, 1.0])
def test_jitter_makes_a_pause_longer_by_a_quarter_at_most(draw: float) -> None:
    patience = Patience(draw=lambda: draw)
    assert patience.pause_seconds(3) == 4 * (1 + 0.25 * draw)


def test_link_that_dies_again_and_again_after_a_first_word_is_given_up_in_the_end() -> None:
    board = Board([(LOST, 0, 1)] * 200)
    with pytest.raises(LostLinkError):
        board.run()
    assert board.opened == 100
