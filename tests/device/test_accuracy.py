from __future__ import annotations

import hashlib
import itertools
import threading
from concurrent.futures import Future
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from release_samples import LABELS, RUNTIME, good_artefact, install, photographs, sha

from liteship_agent import accuracy, images
from liteship_agent.accuracy import prepare_ahead, run_accuracy_pass
from liteship_agent.errors import ImageError, ModelError
from liteship_agent.images import Images, load_pixels
from liteship_agent.preprocess import decode, resize
from liteship_agent.runtime import Model

GOOD = good_artefact()
CONTRACT = GOOD.input


@pytest.fixture
def release(tmp_path):
    return install(tmp_path, {"none-none": GOOD, "none-int8": good_artefact("int8")})


def score(release, artefact=GOOD, limit=None, announce=lambda *_, **__: None):
    """One pass in this process; its result and where it keeps the decoded pixels."""
    manifest, entry = release.manifest_entry(sha(artefact.content))
    model = Model(release.artefact(entry), 1, entry.variant)
    with Images.of_release(release, manifest, entry.input, limit) as selected:
        return run_accuracy_pass(model, release, entry, RUNTIME, selected, announce), selected.path


@pytest.fixture
def files_read(monkeypatch):
    """Paths of the image files that are read."""
    read = []
    real = images.read_image
    monkeypatch.setattr(images, "read_image", lambda archive, image: (read.append(image.path), real(archive, image))[1])
    return read


def serial_pixels():
    return np.stack([resize(decode(data, path), CONTRACT) for path, _, data in photographs()])


# --- a whole pass, with the real runtime ---


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_scores_are_one_row_per_image_in_the_order_of_the_set(release, dtype):
    result, _ = score(release, good_artefact(dtype))

    answers = [LABELS[row.index(max(row))] for row in result["scores"]]
    labels = [path.split("/")[0] for path, _, _ in photographs()]
    assert answers == ["green", *labels[1:]]  # the first file shows another color than its folder says
    assert all(sum(row) == pytest.approx(1, abs=0.02) for row in result["scores"])


def test_pass_says_what_it_ran_and_how_long(release):
    result, _ = score(release)

    assert (result["artefact"], result["runtime"]) == (sha(GOOD.content), RUNTIME)
    assert result["pass_ns"] > 0
    assert (result["golden_difference"], result["golden_tolerance"]) == (0.0, 1e-3)


def test_pixel_hashes_are_those_of_a_serial_decode(release):
    result, _ = score(release)

    assert result["pixel_hashes"] == [hashlib.sha256(pixels.tobytes()).hexdigest()[:16] for pixels in serial_pixels()]


def test_first_pass_reads_every_file_once_and_keeps_the_pixels_of_a_serial_decode(release, files_read):
    result, path = score(release)

    assert result["decoded"]
    assert sorted(files_read) == sorted(path for path, _, _ in photographs())
    assert (load_pixels(path) == serial_pixels()).all()
    assert [file.name for file in path.parent.iterdir()] == ["pixels.npy"]


def test_later_passes_read_no_file_and_give_the_same(release, files_read):
    first, path = score(release)
    kept = path.stat()
    files_read.clear()

    second, _ = score(release)
    integer, _ = score(release, good_artefact("int8"))

    assert files_read == []
    assert not second["decoded"]
    assert not integer["decoded"]
    assert {**second, "pass_ns": 0, "decoded": True} == {**first, "pass_ns": 0}
    assert integer["pixel_hashes"] == first["pixel_hashes"]
    assert path.stat().st_mtime_ns == kept.st_mtime_ns


def test_later_passes_hash_nothing(release, monkeypatch):
    first, _ = score(release)
    monkeypatch.delattr(accuracy, "pixel_hash")

    assert score(release)[0]["pixel_hashes"] == first["pixel_hashes"]


def test_every_image_is_run_exactly_once_and_in_order(release, monkeypatch):
    model_runs = []
    real = Model.run

    def run(self, tensor):
        model_runs.append(tensor.copy())
        return real(self, tensor)

    monkeypatch.setattr(Model, "run", run)

    score(release)

    expected = (serial_pixels().astype(np.float32) - 127.5) / 127.5
    assert (np.concatenate(model_runs[:12]) == expected).all()
    assert len(model_runs) == 12 + len(LABELS)  # the golden inputs follow


def test_limit_scores_so_many_images(release):
    result, path = score(release, limit=5)

    assert len(result["scores"]) == len(result["pixel_hashes"]) == len(load_pixels(path)) == 5


def test_broken_image_is_named_in_one_line_and_leaves_no_pixels(tmp_path):
    files = [(path, label, data[:-30] if path == "green/1.png" else data) for path, label, data in photographs()]
    release = install(tmp_path, {"none-none": GOOD}, files)

    with pytest.raises(ImageError, match=r"^green/1\.png: a whole image is required[^\n]*$"):
        score(release)

    assert list((tmp_path / "cache").rglob("*.npy*")) == []


def test_pixels_that_a_killed_pass_left_half_way_are_written_anew(release):
    _, path = score(release)
    path.rename(path.with_name(f".{path.name}.tmp"))
    path.with_name(f".{path.name}.tmp").write_bytes(b"half")

    result, _ = score(release)

    assert result["decoded"]
    assert [file.name for file in path.parent.iterdir()] == ["pixels.npy"]
    assert (load_pixels(path) == serial_pixels()).all()


def test_full_disk_keeps_no_pixels_and_every_pass_says_that_it_decoded(release, monkeypatch):
    monkeypatch.setattr(images, "_KEPT_FREE_BYTES", 1 << 62)

    passes = [score(release) for _ in range(2)]

    assert [result["decoded"] for result, _ in passes] == [True, True]
    assert passes[0][0]["scores"] == passes[1][0]["scores"]
    assert list(passes[0][1].parent.iterdir()) == []


def test_nan_is_refused(release, monkeypatch):
    monkeypatch.setattr(accuracy, "to_scores", lambda output, contract: np.full((1, len(LABELS)), np.nan))

    with pytest.raises(ModelError, match=r"none-none: finite scores are required\. Received: NaN"):
        score(release)


def test_other_golden_outputs_are_reported_with_the_tolerance(tmp_path):
    wrong = np.array([[0.5, 0.25, 0.25], [0, 1, 0], [0, 0, 1]], np.float32)
    artefact = replace(GOOD, scores=wrong, tolerance=0.02)

    result, _ = score(install(tmp_path, {"none-none": artefact}), artefact)

    assert result["golden_difference"] > 0.4
    assert result["golden_tolerance"] == 0.02


def test_progress_is_told_about_once_a_second(release, monkeypatch):
    """Every reading of the clock is 0.25 s later: one before the first image and one for each."""
    readings = (0.25 * number for number in itertools.count())
    monkeypatch.setattr(accuracy, "time", SimpleNamespace(monotonic=lambda: next(readings)))
    lines = []

    score(release, announce=lambda phase, seconds, done, total: lines.append((phase, done, total)))

    assert lines == [("accuracy", done, 12) for done in (0, 4, 8, 12)]


# --- preparing ahead ---


class EagerPool:
    """A pool whose work is done when it is submitted: what is ahead is ahead as far as it may be."""

    def __init__(self, threads):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def submit(self, work, *arguments):
        future = Future()
        try:
            future.set_result(work(*arguments))
        except ImageError as exc:
            future.set_exception(exc)
        return future


@pytest.mark.parametrize(
    ("interpreter_threads", "ahead"), [(1, 2 * accuracy._CHUNKS_AHEAD), (2, accuracy._TURN_CHUNKS)]
)
@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 100])
def test_every_chunk_is_prepared_once_in_order_and_no_more_ahead_than_allowed(
    monkeypatch, count, interpreter_threads, ahead
):
    monkeypatch.setattr(accuracy, "ThreadPoolExecutor", EagerPool)
    prepared, taken = [], []

    for chunk in prepare_ahead(lambda chunk: (prepared.append(chunk), chunk)[1], count, 2, interpreter_threads):
        assert len(prepared) <= len(taken) + ahead
        taken.append(chunk)

    assert prepared == taken == list(range(count))


@pytest.mark.parametrize(
    ("interpreter_threads", "prepared_at", "waited_for"),
    [(1, [4, 5, 6, 7, 8, 9, 9, 9, 9], []), (2, [3] * 3 + [6] * 3 + [9] * 3, [3, 3, 3])],
)
def test_interpreter_that_takes_all_cpus_and_the_preparing_threads_take_turns(
    monkeypatch, interpreter_threads, prepared_at, waited_for
):
    """How many of nine chunks are prepared when the interpreter gets each of them, on two CPUs."""
    waits, prepared = [], []
    monkeypatch.setattr(accuracy, "ThreadPoolExecutor", EagerPool)
    monkeypatch.setattr(accuracy, "_TURN_CHUNKS", 3)
    monkeypatch.setattr(accuracy, "wait", lambda futures: waits.append(len(futures)))

    chunks = prepare_ahead(prepared.append, 9, 2, interpreter_threads)

    assert [len(prepared) for _ in chunks] == prepared_at
    assert waits == waited_for


@pytest.mark.parametrize("interpreter_threads", [1, 2])
def test_chunks_keep_their_order_when_a_later_one_is_ready_first(interpreter_threads):
    second_is_ready = threading.Event()

    def prepare(chunk):
        if chunk == 0:
            second_is_ready.wait()
        elif chunk == 1:
            second_is_ready.set()
        return chunk

    assert list(prepare_ahead(prepare, 20, 2, interpreter_threads)) == list(range(20))


def test_failure_of_one_chunk_ends_the_pass_there(monkeypatch):
    monkeypatch.setattr(accuracy, "ThreadPoolExecutor", EagerPool)

    def prepare(chunk):
        if chunk == 3:
            raise ImageError("cats/3.jpg: an image is required")
        return chunk

    taken = []
    with pytest.raises(ImageError, match=r"cats/3\.jpg"):
        taken.extend(prepare_ahead(prepare, 100, 2, 1))

    assert taken == [0, 1, 2]


def test_chunks_that_nobody_takes_are_not_prepared(monkeypatch):
    futures = []

    class SlowPool(EagerPool):
        """Has done the first chunk so far."""

        def submit(self, work, *arguments):
            futures.append(Future() if futures else super().submit(work, *arguments))
            return futures[-1]

    monkeypatch.setattr(accuracy, "ThreadPoolExecutor", SlowPool)
    chunks = prepare_ahead(lambda chunk: chunk, 100, 4, 1)
    assert next(chunks) == 0

    chunks.close()

    assert len(futures) == 4 * accuracy._CHUNKS_AHEAD
    assert all(future.cancelled() for future in futures[1:])


@pytest.mark.parametrize(("chunk_bytes", "lengths"), [(1, [1] * 12), (5 * 192, [5, 5, 2]), (1 << 30, [12])])
def test_chunks_hold_every_image_once_in_order_and_no_more_bytes_than_allowed(
    release, monkeypatch, chunk_bytes, lengths
):
    """An image of 8 x 8 pixels has 192 bytes."""
    monkeypatch.setattr(accuracy, "_CHUNK_BYTES", chunk_bytes)

    with Images.of_release(release, release.manifest(), CONTRACT, None) as selected:
        chunks = accuracy._chunks(selected)

    assert [len(chunk) for chunk in chunks] == lengths
    assert [index for chunk in chunks for index in chunk] == list(range(12))


def test_pass_in_chunks_gives_and_keeps_what_one_chunk_does(release, monkeypatch):
    whole, path = score(release)
    pixels = path.read_bytes()
    path.unlink()
    monkeypatch.setattr(accuracy, "_CHUNK_BYTES", 5 * 192)

    in_chunks, _ = score(release)

    assert {**in_chunks, "pass_ns": 0} == {**whole, "pass_ns": 0}
    assert path.read_bytes() == pixels
