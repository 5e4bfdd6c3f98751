from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from liteship.report.names import Name, wrap_name, wrap_names


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("magnitude50-float16", 12, ["magnitude50-", "float16"]),
        ("ai-edge-litert 2.3.0", 10, ["ai-edge-", "litert", "2.3.0"]),
        ("none-int8, 4 threads", 14, ["none-int8, 4", "threads"]),
        ("mobilenet_v2_pruning", 13, ["mobilenet_v2_", "pruning"]),
        ("abcdefghij", 4, ["abcd", "efgh", "ij"]),
        ("0-3 -1.2", 20, ["0-3 -1.2"]),
        ("", 5, [""]),
    ],
)
def test_a_name_is_broken_between_words_or_after_a_hyphen(text, width, lines):
    assert wrap_name(text, width) == lines


@given(st.text("ab1-,. 漢", max_size=30), st.integers(2, 20))
def test_nothing_is_lost_and_no_line_is_too_wide(text, width):
    lines = wrap_name(text, width)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert max(map(cell_len, lines)) <= width


def test_a_column_of_names_gives_way_at_hyphens():
    table = Table("name", "figure", box=None)
    table.add_row(Name("magnitude50-dynamic"), "1.000000000000")
    out = io.StringIO()
    Console(file=out, width=30).print(table)
    assert [line.split()[0] for line in out.getvalue().splitlines()[1:]] == ["magnitude50-", "dynamic"]


def test_names_of_a_column_have_the_width_of_their_longest_piece_and_leave_room_for_figures():
    assert [text.plain for text in wrap_names(["magnitude50-float16\n(ai-edge-litert 2.3.0)"])] == [
        "magnitude50-\nfloat16\n(ai-edge-\nlitert 2.3.0)"
    ]
    assert [text.plain for text in wrap_names(["none-int8", "x" * 20])] == ["none-int8", "x" * 16 + "\nxxxx"]
    assert wrap_names([]) == []
