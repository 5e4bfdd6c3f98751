"""The images of a study: which files, which class, which half.

`find_images` lists them (a folder with train/ and validation/, one folder of classes that is split here, or the
built-in digits), `limit_dataset` takes a part, `require_sound` decodes every file before training starts. Files are
listed and hashed, never held: what is in memory is their names.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from liteship.errors import DataError
from liteship_agent.errors import ImageError
from liteship_agent.preprocess import decode

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
SPLITS = ("train", "validation")

_DIGITS_SPLIT = 0.2
_NAMED_CORRUPT = 10
_LAYOUTS = "Layouts: FOLDER/train/<class>/* with FOLDER/validation/<class>/*, or FOLDER/<class>/*."

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ImageFile:
    """One image file.

    Args:
        path: Where it is.
        label: Index into the dataset's classes.
        relative: `<class>/<name>`, the same on every machine.
    """

    path: Path
    label: int
    relative: str


@dataclass(frozen=True)
class Dataset:
    """The images of a study.

    Args:
        classes: Names, sorted; a label is an index into them.
        train, validation: Sorted by class, then name; every class is in both.
        source: As the recipe names it.
        ignored: Files and folders beside the images that were left out: hidden ones, other kinds of files.
        skipped: Corrupt images that were left out, with the reason.
    """

    classes: tuple[str, ...]
    train: tuple[ImageFile, ...]
    validation: tuple[ImageFile, ...]
    source: str
    ignored: int = 0
    skipped: tuple[tuple[ImageFile, str], ...] = ()
    _hashes: dict[Path, str] = field(default_factory=dict, repr=False, compare=False)

    def hashes(self, on_progress: Progress | None = None) -> Mapping[Path, str]:
        """The sha256 of every file's bytes, 64 hex digits; each file is read once in the life of the dataset.

        Args:
            on_progress: Called with the number of files done and of all files.

        Raises:
            DataError: a file cannot be read.
        """
        files = (*self.train, *self.validation)
        for done, file in enumerate(files, start=1):
            if file.path not in self._hashes:
                self._hashes[file.path] = _hash_file(file.path)
            if on_progress:
                on_progress(done, len(files))
        return self._hashes

    def sha256(self, on_progress: Progress | None = None) -> str:
        """64 hex digits over split, relative name and bytes of every image: equal on every machine.

        Raises:
            DataError: a file cannot be read.
        """
        hashes = self.hashes(on_progress)
        lines = (
            f"{split}\0{file.relative}\0{hashes[file.path]}\n"
            for split, files in zip(SPLITS, (self.train, self.validation), strict=True)
            for file in sorted(files, key=lambda file: file.relative)
        )
        digest = hashlib.sha256()
        for line in lines:
            digest.update(line.encode())
        return digest.hexdigest()


def find_images(source: str, *, split: float, seed: int, cache: Path) -> Dataset:
    """List the images of a source.

    Args:
        source: A folder, or `digits`: 1,797 handwritten digits of scikit-learn, written to the cache as PNG files.
        split: Validation ratio, used only for one folder of classes.
        seed: Of that split.
        cache: Where the digits are written once.

    Raises:
        DataError: the folder is missing, a class is empty or in one half only, or there are fewer than two.
    """
    folder = _write_digits(cache) if source == "digits" else Path(source).expanduser()
    if not folder.is_dir():
        raise DataError(
            f"{folder}: a folder of images is required. Received: {'a file' if folder.exists() else 'nothing there'}.",
            '"digits" needs no folder; `liteship data fetch cats_and_dogs_filtered` gets photographs.',
        )
    if not _has_splits(folder):
        classes, files, ignored = _list_classes(folder)
        train, validation = _split(files, split, seed, folder, classes)
        return Dataset(classes, train, validation, source, ignored)
    halves = [_list_classes(folder / name) for name in SPLITS]
    (classes, train, ignored_train), (others, validation, ignored_validation) = halves
    _require_same_classes(folder, classes, others)
    return Dataset(classes, train, validation, source, ignored_train + ignored_validation)


def limit_dataset(dataset: Dataset, limit: int, seed: int) -> Dataset:
    """At most `limit` images of each half, each class in proportion and every class at least once.

    Raises:
        DataError: the limit is below the number of classes.
    """
    if limit < len(dataset.classes):
        raise DataError(
            f"A limit of one image or more for each of {len(dataset.classes)} classes is required. Received: {limit}."
        )
    return replace(dataset, train=_take(dataset.train, limit, seed), validation=_take(dataset.validation, limit, seed))


def check_images(dataset: Dataset, on_progress: Progress | None = None) -> list[tuple[ImageFile, str]]:
    """Decode every file as the board will; the corrupt ones with what was found instead of an image.

    Args:
        dataset: Whose files, of both halves.
        on_progress: Called with the number of files done and of all files.
    """
    files = (*dataset.train, *dataset.validation)
    corrupt = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, (file, defect) in enumerate(zip(files, pool.map(_find_defect, files), strict=True), start=1):
            if defect:
                corrupt.append((file, defect))
            if on_progress:
                on_progress(done, len(files))
    return corrupt


def require_sound(dataset: Dataset, skip_corrupt: bool, on_progress: Progress | None = None) -> Dataset:
    """The dataset once every image of it has been decoded, see `check_images`.

    Args:
        dataset: What to check.
        skip_corrupt: Leave corrupt images out, and name them in `Dataset.skipped`, instead of refusing.
        on_progress: Called with the number of files done and of all files.

    Raises:
        DataError: an image is corrupt, or leaving the corrupt ones out leaves a class without images.
    """
    corrupt = check_images(dataset, on_progress)
    if not corrupt:
        return dataset
    if not skip_corrupt:
        raise DataError(
            f"{dataset.source}: images that can be decoded are required. Received: {_list_corrupt(corrupt)}.",
            "Repair or remove them, or leave them out with --skip-corrupt.",
        )
    left_out = {file.path for file, _ in corrupt}
    halves = []
    for name, files in zip(SPLITS, (dataset.train, dataset.validation), strict=True):
        kept = tuple(file for file in files if file.path not in left_out)
        for label in sorted({file.label for file in files} - {file.label for file in kept}):
            raise DataError(
                f"{dataset.source}: an image that can be decoded is required in every class. "
                f"Received: none in {name} of {dataset.classes[label]}."
            )
        halves.append(kept)
    return replace(dataset, train=halves[0], validation=halves[1], skipped=tuple(corrupt))


def overlap(dataset: Dataset) -> list[tuple[ImageFile, ImageFile]]:
    """Pairs of a training and a validation image with the same bytes; what is learnt must not be what is examined.

    Raises:
        DataError: a file cannot be read.
    """
    hashes = dataset.hashes()
    by_hash = defaultdict(list)
    for file in dataset.train:
        by_hash[hashes[file.path]].append(file)
    return [(twin, file) for file in dataset.validation for twin in by_hash.get(hashes[file.path], ())]


def _has_splits(folder: Path) -> bool:
    """Whether there are halves; a class may be called `train`, but then it holds images and not folders."""
    found = [name for name in SPLITS if any(map(_is_class, _entries(folder / name)))]
    if len(found) == 1:
        missing = next(name for name in SPLITS if name not in found)
        names = ", ".join(entry.name for entry in _entries(folder) if _is_class(entry))
        raise DataError(
            f"{folder}: a folder {missing} with classes beside {found[0]} is required. Received: {names}.", _LAYOUTS
        )
    return len(found) == 2


def _list_classes(folder: Path) -> tuple[tuple[str, ...], tuple[ImageFile, ...], int]:
    """Names, images and the number of ignored entries of one folder of classes."""
    entries = _entries(folder)
    folders = [entry for entry in entries if _is_class(entry)]
    if len(folders) < 2:
        received = f"one class, {folders[0].name}" if folders else "no folders"
        raise DataError(f"{folder}: two or more folders, one a class, are required. Received: {received}.", _LAYOUTS)
    files: list[ImageFile] = []
    ignored = len(entries) - len(folders)
    for label, entry in enumerate(folders):
        inside = _entries(entry)
        images = [path for path in inside if _is_image(path)]
        if not images:
            raise DataError(
                f"{entry}: an image (jpg, jpeg, png, webp) is required in every class. Received: none among "
                f"{len(inside)} files."
            )
        ignored += len(inside) - len(images)
        files.extend(ImageFile(path, label, f"{entry.name}/{path.name}") for path in images)
    return tuple(entry.name for entry in folders), tuple(files), ignored


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, sorted by name; nothing where there is no folder."""
    if not folder.is_dir():
        return []
    try:
        entries = sorted(folder.iterdir(), key=lambda path: path.name)
    except OSError as exc:
        raise DataError(f"{folder}: a readable folder is required. Received: {exc.strerror}.") from exc
    for entry in entries:
        try:
            entry.name.encode()
        except UnicodeEncodeError as exc:
            raise DataError(f"{folder}: names in UTF-8 are required. Received: {entry.name!a}.", "Rename it.") from exc
    return entries


def _is_class(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and not path.is_dir()


def _require_same_classes(folder: Path, train: Iterable[str], validation: Iterable[str]) -> None:
    for name, missing in (("train", set(validation) - set(train)), ("validation", set(train) - set(validation))):
        if missing:
            raise DataError(
                f"{folder}: the same classes in train and validation are required. "
                f"Received: {', '.join(sorted(missing))} missing in {name}."
            )


def _split(
    files: Sequence[ImageFile], ratio: float, seed: int, folder: Path, classes: Sequence[str]
) -> tuple[tuple[ImageFile, ...], tuple[ImageFile, ...]]:
    """Training and validation images; of every class the same ratio."""
    counts = Counter(file.label for file in files)
    for label, name in enumerate(classes):
        if not 0 < round(counts[label] * ratio) < counts[label]:
            raise DataError(
                f"{folder / name}: enough images that a split of {ratio:g} leaves some on both sides are required. "
                f"Received: {counts[label]}.",
                "Add images, or change data.split.",
            )
    seen: Counter[int] = Counter()
    train: list[ImageFile] = []
    validation: list[ImageFile] = []
    for file in _shuffled(files, seed):
        seen[file.label] += 1
        half = validation if seen[file.label] <= round(counts[file.label] * ratio) else train
        half.append(file)
    return _sorted(train), _sorted(validation)


def _take(files: Sequence[ImageFile], limit: int, seed: int) -> tuple[ImageFile, ...]:
    """The images whose place within their class, as a share of the class, comes first."""
    counts = Counter(file.label for file in files)
    seen: Counter[int] = Counter()
    places = []
    for file in _shuffled(files, seed):
        places.append((seen[file.label] / counts[file.label], file.label, file))
        seen[file.label] += 1
    places.sort(key=lambda place: place[:2])
    return _sorted(file for _, _, file in places[:limit])


def _shuffled(files: Iterable[ImageFile], seed: int) -> list[ImageFile]:
    """An order that depends on the seed and each name alone: an image more does not move the others."""
    return sorted(files, key=lambda file: hashlib.sha256(f"{seed}/{file.relative}".encode()).digest())


def _sorted(files: Iterable[ImageFile]) -> tuple[ImageFile, ...]:
    return tuple(sorted(files, key=lambda file: (file.label, file.relative)))


def _find_defect(file: ImageFile) -> str:
    """What is wrong with a file, or nothing."""
    try:
        decode(file.path.read_bytes(), str(file.path))
    except ImageError as exc:
        return " ".join(str(exc).rpartition("Received: ")[2].split())
    except OSError as exc:
        return f"a file that cannot be read ({exc.strerror})"
    return ""


def _list_corrupt(corrupt: Sequence[tuple[ImageFile, str]]) -> str:
    named = "; ".join(f"{file.path} ({defect})" for file, defect in corrupt[:_NAMED_CORRUPT])
    more = len(corrupt) - _NAMED_CORRUPT
    return f"{len(corrupt)} corrupt: {named}" + (f" and {more} more" if more > 0 else "")


def _hash_file(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as exc:
        raise DataError(f"{path}: a readable image is required. Received: {exc.strerror}.") from exc


def _write_digits(cache: Path) -> Path:
    """Write scikit-learn's digits, 8x8 pixels each, as PNG files; the folder has its name only when it is whole."""
    folder = cache / "digits"
    if folder.is_dir():
        return folder
    import cv2
    from sklearn.datasets import load_digits  # takes a second to import

    images, labels = load_digits(return_X_y=True)
    files = [ImageFile(Path(f"{i:04}.png"), int(label), f"{label}/{i:04}.png") for i, label in enumerate(labels)]
    halves = _split(files, _DIGITS_SPLIT, 0, folder, [str(digit) for digit in range(10)])
    pixels = (images.reshape(-1, 8, 8) * (255 / 16)).round().astype("uint8")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".digits-") as temporary:
            for name, half in zip(SPLITS, halves, strict=True):
                for file in half:
                    path = Path(temporary, "digits", name, file.relative)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    _, png = cv2.imencode(".png", pixels[int(path.stem)])
                    path.write_bytes(png.tobytes())
            os.rename(Path(temporary, "digits"), folder)
    except OSError as exc:
        if not folder.is_dir():  # another process may have been faster
            raise DataError(f"{folder}: a folder to write the digits is required. Received: {exc.strerror}.") from exc
    return folder
