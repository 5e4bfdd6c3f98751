"""Words that can be read from across a room: block letters, five pixels high in three lines of a terminal."""

from __future__ import annotations

_GLYPHS = {
    "A": "25755", "B": "65656", "C": "34443", "D": "65556", "E": "74647", "F": "74644", "G": "34553", "H": "55755",
    "I": "72227", "J": "11152", "K": "55655", "L": "44447", "M": "57755", "N": "65555", "O": "25552", "P": "65644",
    "Q": "25563", "R": "65655", "S": "34216", "T": "72222", "U": "55557", "V": "55552", "W": "55775", "X": "55255",
    "Y": "55222", "Z": "71247", "0": "75557", "1": "26227", "2": "61247", "3": "61216", "4": "55711", "5": "74616",
    "6": "34757", "7": "71222", "8": "75757", "9": "75716", " ": "00000", "-": "00700", "_": "00007", ".": "00002",
    "/": "11244", "'": "22000",
}  # fmt: skip
"""Five rows of three pixels, each row an octal digit."""

_WIDTH = 4
_BLOCKS = " ▀▄█"


def big_text(text: str, width: int) -> list[str]:
    """The lines of a text in block letters, or the text itself where it is too long or has other letters.

    Args:
        text: On one line; capitals and small letters look alike.
        width: Columns that there are.
    """
    letters = [_GLYPHS.get(letter) for letter in text.upper()]
    if not letters or None in letters or len(letters) * _WIDTH > width:
        return [text]
    rows = [[int(glyph[row]) if glyph and row < 5 else 0 for glyph in letters] for row in range(6)]
    return ["".join(map(_pair, rows[row], rows[row + 1])) for row in (0, 2, 4)]


def _pair(upper: int, lower: int) -> str:
    """Two rows of a letter as one line, with a column free after it."""
    columns = ((upper >> shift & 1) + 2 * (lower >> shift & 1) for shift in (2, 1, 0))
    return "".join(_BLOCKS[column] for column in columns) + " "
