from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from liteship.data import Dataset, check_images, find_images, limit_dataset, overlap, require_sound
from liteship.errors import DataError


def write_images(folder: Path, count: int, suffix: str = ".jpg") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([len(str(folder)), *str(folder).encode()])
    for index in range(count):
        _, data = cv2.imencode(suffix.lower(), rng.integers(0, 256, (12, 10, 3), np.uint8))
        (folder / f"{index:03}{suffix}").write_bytes(data.tobytes())


@pytest.fixture
def halves(tmp_path: Path) -> Path:
    """A folder with train/ and validation/, classes cats and dogs."""
    for split, count in (("train", 6), ("validation", 3)):
        for name in ("cats", "dogs"):
            write_images(tmp_path / "pets" / split / name, count)
    return tmp_path / "pets"


def find(source: Path | str, split: float = 0.2, seed: int = 0, cache: Path = Path("unused")) -> Dataset:
    return find_images(str(source), split=split, seed=seed, cache=cache)


def refusal(source: Path, split: float = 0.2) -> str:
    with pytest.raises(DataError) as info:
        find(source, split)
    assert info.value.exit_code == 2
    assert "\n" not in str(info.value)
    return str(info.value)


def test_folder_with_halves_is_listed_by_class(halves: Path) -> None:
    dataset = find(halves)
    assert dataset.classes == ("cats", "dogs")
    assert [file.relative for file in dataset.validation] == [
        f"{name}/{index:03}.jpg" for name in ("cats", "dogs") for index in range(3)
    ]
    assert [file.label for file in dataset.train] == [0] * 6 + [1] * 6
    assert dataset.train[0].path == halves / "train/cats/000.jpg"
    assert (dataset.source, dataset.ignored) == (str(halves), 0)


def test_all_image_suffixes_in_any_case_are_found_and_others_counted(halves: Path) -> None:
    write_images(halves / "train/cats", 1, ".PNG")
    write_images(halves / "train/cats", 1, ".webp")
    write_images(halves / "train/cats", 1, ".Jpeg")
    for ignored in ("train/cats/notes.txt", "train/cats/._000.jpg", "train/.DS_Store", "validation/README.md"):
        (halves / ignored).write_text("x")
    (halves / "train/.cache").mkdir()
    dataset = find(halves)
    assert len(dataset.train) == 15
    assert dataset.ignored == 5


def test_class_names_may_have_spaces_and_any_letters(tmp_path: Path) -> None:
    for name in ("große Hunde", "кошки"):
        write_images(tmp_path / name, 5)
    dataset = find(tmp_path)
    assert dataset.classes == ("große Hunde", "кошки")
    assert len(dataset.sha256()) == 64


def test_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("bus", "train"):
        write_images(tmp_path / name, 5)
    assert find(tmp_path).classes == ("bus", "train")


def test_one_folder_of_classes_is_split_by_class_and_seed(tmp_path: Path) -> None:
    write_images(tmp_path / "a", 20)
    write_images(tmp_path / "b", 10)
    dataset = find(tmp_path, split=0.3)
    assert Counter(file.label for file in dataset.validation) == {0: 6, 1: 3}
    assert Counter(file.label for file in dataset.train) == {0: 14, 1: 7}
    assert {file.path for file in dataset.train}.isdisjoint(file.path for file in dataset.validation)
    assert find(tmp_path, split=0.3) == dataset
    assert find(tmp_path, split=0.3, seed=1).validation != dataset.validation


def test_split_that_leaves_a_class_without_images_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "a", 20)
    write_images(tmp_path / "b", 2)
    assert refusal(tmp_path).startswith(
        f"{tmp_path}/b: enough images that a split of 0.2 leaves some on both sides are required. Received: 2."
    )


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no").startswith(
        f"{tmp_path}/no: a folder of images is required. Received: nothing there."
    )
    (tmp_path / "file").write_text("x")
    assert "Received: a file." in refusal(tmp_path / "file")


def test_folder_without_classes_is_refused(tmp_path: Path) -> None:
    expected = f"{tmp_path}: two or more folders, one a class, are required. Received: "
    assert refusal(tmp_path).startswith(expected + "no folders.")
    write_images(tmp_path / "cats", 3)
    assert refusal(tmp_path).startswith(expected + "one class, cats.")


def test_empty_class_is_refused(halves: Path) -> None:
    shutil.rmtree(halves / "validation/dogs")
    (halves / "validation/dogs").mkdir()
    (halves / "validation/dogs/notes.txt").write_text("x")
    assert refusal(halves) == (
        f"{halves}/validation/dogs: an image (jpg, jpeg, png, webp) is required in every class. "
        "Received: none among 1 files."
    )


@pytest.mark.parametrize(("has", "lacks"), [("validation", "train"), ("train", "validation")])
def test_class_in_one_half_only_is_refused(halves: Path, has: str, lacks: str) -> None:
    write_images(halves / has / "birds", 3)
    assert refusal(halves) == (
        f"{halves}: the same classes in train and validation are required. Received: birds missing in {lacks}."
    )


def test_half_without_its_counterpart_is_refused(halves: Path) -> None:
    (halves / "validation").rename(halves / "val")
    assert refusal(halves).startswith(
        f"{halves}: a folder validation with classes beside train is required. Received: train, val. Layouts: "
    )


def test_name_that_is_not_utf8_is_refused(halves: Path) -> None:
    (halves / "train/cats/000.jpg").rename(halves / "train/cats/\udcff.jpg")
    assert "names in UTF-8 are required" in refusal(halves)


def test_digits_are_written_once_as_decodable_files(tmp_path: Path) -> None:
    dataset = find("digits", cache=tmp_path)
    assert dataset.classes == tuple("0123456789")
    assert (len(dataset.train), len(dataset.validation)) == (1438, 359)
    assert set(Counter(file.label for file in dataset.validation).values()) <= {35, 36, 37}
    image = cv2.imread(str(dataset.train[0].path), cv2.IMREAD_UNCHANGED)
    assert (image.shape, image.dtype) == ((8, 8), np.uint8)
    assert max(cv2.imread(str(file.path)).max() for file in dataset.train[:20]) == 255
    assert check_images(dataset) == []
    before = dataset.train[0].path.stat().st_mtime_ns
    assert find("digits", seed=7, split=0.5, cache=tmp_path) == dataset
    assert dataset.train[0].path.stat().st_mtime_ns == before
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]


def test_digits_without_a_place_to_write_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match=r"a folder to write the digits is required\. Received: "):
        find("digits", cache=tmp_path / "file")


def test_limit_keeps_the_proportion_of_classes_in_each_half(tmp_path: Path) -> None:
    write_images(tmp_path / "a", 75)
    write_images(tmp_path / "b", 25)
    dataset = find(tmp_path)
    limited = limit_dataset(dataset, 8, seed=0)
    assert Counter(file.label for file in limited.train) == {0: 6, 1: 2}
    assert Counter(file.label for file in limited.validation) == {0: 6, 1: 2}
    assert set(limited.train) <= set(dataset.train)
    assert limit_dataset(dataset, 8, seed=0) == limited
    assert limit_dataset(dataset, 8, seed=1) != limited
    assert limit_dataset(dataset, 1000, seed=0) == dataset


def test_limit_keeps_a_rare_class_and_is_not_below_the_number_of_classes(tmp_path: Path) -> None:
    write_images(tmp_path / "a", 60)
    write_images(tmp_path / "b", 5)
    dataset = find(tmp_path)
    assert Counter(file.label for file in limit_dataset(dataset, 2, seed=0).train) == {0: 1, 1: 1}
    with pytest.raises(DataError, match=r"one image or more for each of 2 classes is required\. Received: 1"):
        limit_dataset(dataset, 1, seed=0)


def damage(halves: Path) -> None:
    path = halves / "train/cats/001.jpg"
    path.write_bytes(path.read_bytes()[:-40])
    (halves / "train/dogs/002.jpg").write_text("not an image")
    (halves / "validation/cats/000.jpg").write_bytes(b"")


def test_corrupt_images_are_found_with_their_reason(halves: Path) -> None:
    damage(halves)
    seen: list[tuple[int, int]] = []
    corrupt = check_images(find(halves), lambda done, total: seen.append((done, total)))
    assert [file.relative for file, _ in corrupt] == ["cats/001.jpg", "dogs/002.jpg", "cats/000.jpg"]
    assert [reason.split(" of ")[0] for _, reason in corrupt] == [
        "a truncated file",
        "12 bytes that are none",
        "an empty file",
    ]
    assert seen == [(done, 18) for done in range(1, 19)]


def test_corrupt_images_are_refused_by_name(halves: Path) -> None:
    damage(halves)
    with pytest.raises(DataError) as info:
        require_sound(find(halves), skip_corrupt=False)
    assert info.value.exit_code == 2
    assert str(info.value).startswith(f"{halves}: images that can be decoded are required. Received: 3 corrupt: ")
    assert f"{halves}/train/dogs/002.jpg (12 bytes that are none)" in str(info.value)
    assert "--skip-corrupt" in str(info.value)


def test_only_the_first_ten_corrupt_images_are_named(halves: Path) -> None:
    for path in (halves / "train").rglob("*.jpg"):
        path.write_text("no")
    with pytest.raises(DataError, match=r"Received: 12 corrupt: .* and 2 more\.") as info:
        require_sound(find(halves), skip_corrupt=False)
    assert str(info.value).count(".jpg (") == 10


def test_corrupt_images_are_left_out_on_request_and_reported(halves: Path) -> None:
    damage(halves)
    dataset = require_sound(find(halves), skip_corrupt=True)
    assert (len(dataset.train), len(dataset.validation)) == (10, 5)
    assert [file.relative for file, _ in dataset.skipped] == ["cats/001.jpg", "dogs/002.jpg", "cats/000.jpg"]
    assert require_sound(dataset, skip_corrupt=False) == dataset


def test_class_that_becomes_empty_by_skipping_is_refused(halves: Path) -> None:
    for path in (halves / "validation/dogs").iterdir():
        path.write_text("no")
    with pytest.raises(DataError, match=r"in every class\. Received: none in validation of dogs\."):
        require_sound(find(halves), skip_corrupt=True)


def test_image_that_vanishes_is_reported(halves: Path) -> None:
    dataset = find(halves)
    dataset.train[0].path.unlink()
    assert check_images(dataset) == [(dataset.train[0], "a file that cannot be read (No such file or directory)")]
    with pytest.raises(DataError, match=r"a readable image is required\. Received: No such file"):
        dataset.sha256()


def test_sha256_is_of_names_and_bytes_wherever_the_folder_is(halves: Path, tmp_path: Path) -> None:
    expected = find(halves).sha256()
    copy = tmp_path / "copy"
    shutil.copytree(halves, copy)
    assert find(copy).sha256() == expected
    (copy / "train/cats/000.jpg").rename(copy / "train/cats/009.jpg")
    renamed = find(copy).sha256()
    (copy / "train/cats/009.jpg").write_bytes(b"other")
    assert len({expected, renamed, find(copy).sha256()}) == 3


def test_sha256_differs_when_an_image_changes_its_half(halves: Path) -> None:
    first, *others = find(halves).validation
    one = Dataset(("cats", "dogs"), (first,), tuple(others), "x")
    assert Dataset(("cats", "dogs"), (first, others[0]), tuple(others[1:]), "x").sha256() != one.sha256()


def test_files_are_hashed_once(halves: Path) -> None:
    dataset = find(halves)
    seen: list[int] = []
    first = dataset.sha256(lambda done, total: seen.append(done))
    for path in halves.rglob("*.jpg"):
        path.unlink()
    assert dataset.sha256() == first
    assert overlap(dataset) == []
    assert seen == list(range(1, 19))


def test_equal_bytes_in_both_halves_are_found(halves: Path) -> None:
    shutil.copy(halves / "train/cats/002.jpg", halves / "validation/dogs/009.jpg")
    pairs = [(train.relative, validation.relative) for train, validation in overlap(find(halves))]
    assert pairs == [("cats/002.jpg", "dogs/009.jpg")]
