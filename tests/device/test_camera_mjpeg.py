from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
from camera_samples import jpeg, plain
from hypothesis import given, settings
from hypothesis import strategies as st

from liteship_agent.camera.mjpeg import MjpegParser

NOISE = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
PICTURES = [jpeg(plain(0)), jpeg(NOISE), jpeg(plain(2, 40, 8))]
SOI, EOI = b"\xff\xd8\xff", b"\xff\xd9"


def feed(stream: bytes, sizes: Sequence[int], **options: int) -> tuple[list[bytes], MjpegParser]:
    """What a parser finds in a stream that comes in chunks of these sizes, again and again."""
    parser, found, at, turn = MjpegParser(**options), [], 0, 0
    while at < len(stream):
        size = sizes[turn % len(sizes)]
        found += parser.feed(stream[at : at + size])
        at, turn = at + size, turn + 1
    return found, parser


def with_thumbnail(picture: bytes) -> bytes:
    """The picture with a whole small one inside its first segment."""
    body = b"Exif\0\0" + jpeg(plain(1, 8, 8))
    return picture[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + picture[2:]


@given(st.lists(st.integers(1, 2000), min_size=1, max_size=8), st.lists(st.sampled_from(PICTURES), max_size=5))
def test_chunks_make_no_difference(sizes, pictures):
    found, parser = feed(b"".join(pictures), sizes)

    assert found == pictures
    assert parser.broken == 0


hostile = st.lists(
    st.one_of(
        st.sampled_from([SOI, EOI, b"\xff", b"\xff\xda\x00\x02", b"\xff\xe0\xff\xff", b"\xff\x00", b"\xff\xd0"]),
        st.sampled_from(PICTURES),
        st.integers(1, 600).map(lambda size: PICTURES[1][:size]),
        st.binary(max_size=300),
    ),
    max_size=20,
).map(b"".join)


@settings(max_examples=150)
@given(hostile, st.lists(st.integers(1, 400), min_size=1, max_size=5), st.integers(8, 3000))
def test_hostile_bytes_are_cut_the_same_way_in_any_chunks_and_never_pile_up(stream, sizes, longest):
    whole, at_once = feed(stream, [max(1, len(stream))], longest_bytes=longest)
    parser, found, at = MjpegParser(longest), [], 0
    for turn in range(len(stream)):
        size = sizes[turn % len(sizes)]
        found += parser.feed(stream[at : at + size])
        at += size
        assert parser.held_bytes < longest

    assert found == whole
    assert parser.broken == at_once.broken
    assert all(len(picture) <= longest and picture.startswith(SOI) and picture.endswith(EOI) for picture in found)


def test_cut_picture_costs_few_others_wherever_it_is_cut():
    # Cut in the length of a segment, it takes up to 64 KiB until that is noticed; nothing is lost meanwhile. Only where
    # what the length leads to happens to be a marker, the two are one for whoever has no decoder.
    after = [PICTURES[2]] * (3 * 2**15 // len(PICTURES[2]))
    merged, places = 0, range(3, len(PICTURES[1]) - 1, 11)
    for kept in places:
        found, parser = feed(PICTURES[0] + PICTURES[1][:kept] + b"".join(after), [4096])
        assert found[0] == PICTURES[0]
        if found[1:] == after:
            assert parser.broken >= 1
        else:
            merged += 1
            assert len(found[1]) < kept + 2**16 + len(PICTURES[2])
            assert found[2:] == after[len(after) + 2 - len(found) :]

    assert merged < 0.1 * len(places)


def test_picture_cut_in_its_data_is_counted_and_the_next_one_is_whole():
    found, parser = feed(PICTURES[1][:-40] + PICTURES[0], [64])

    assert found == [PICTURES[0]]
    assert parser.broken == 1


def test_markers_of_a_thumbnail_do_not_end_the_picture():
    picture = with_thumbnail(PICTURES[1])

    assert feed(picture + picture, [50])[0] == [picture, picture]


def test_bytes_between_pictures_are_left_out():
    found, parser = feed(b"boundary\r\n" + PICTURES[0] + b"\xff\x00--frame\xff" + PICTURES[1], [7])

    assert found == PICTURES[:2]
    assert parser.broken == 0


def test_picture_without_end_is_given_up_at_the_longest_length():
    endless = SOI + b"\x01" * 5000
    found, parser = feed(endless + PICTURES[0], [100], longest_bytes=3000)

    assert found == [PICTURES[0]]
    assert parser.broken == 1


def test_picture_of_just_the_longest_length_is_kept():
    longest = len(PICTURES[0])

    assert feed(PICTURES[0], [10], longest_bytes=longest)[0] == [PICTURES[0]]
    assert feed(PICTURES[0], [10], longest_bytes=longest - 1)[0] == []
