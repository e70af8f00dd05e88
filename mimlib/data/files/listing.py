"""Which files make a data set: what folders and lists name, without what systems leave there."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from mimlib.data.files.reading import reading
from mimlib.data.source import fingerprint

FORMATS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
LEFT_BY_SYSTEMS = {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
SPLIT_LINE = re.compile(rf"(.+?)({'|'.join(map(re.escape, FORMATS))})?(\s+-?\d+)*", re.IGNORECASE)
NAMED = 5  # files that an error names
WHAT_GOES_WHERE = "data/README.md says what goes where"
MEASURED = 1000  # items at most whose sizes in bytes are part of an identity


class Listing:
    """The files of a data set: n items of k files each, as paths below a folder.

    Paths are kept in one array of bytes: a list of a million strings would be copied into every
    worker process.
    """

    def __init__(self, root: str | Path, items: Iterable[Sequence[str | Path]], kind: str = ""):
        """Take paths relative to `root`, or below it; ValueError, with the `kind`, if none."""
        self.root = os.fspath(root)
        above = os.path.join(self.root, "")
        self._paths = np.array(
            [[os.fsencode(os.fspath(path).removeprefix(above)) for path in item] for item in items]
        )  # [n, k]
        if not len(self._paths):
            raise ValueError(f"{root} holds nothing {kind}; {WHAT_GOES_WHERE}")

    def __len__(self) -> int:
        return len(self._paths)

    def paths(self, index: int) -> tuple[str, ...]:
        """Return the full paths of the files of an item."""
        return tuple(os.path.join(self.root, os.fsdecode(bytes(p))) for p in self._paths[index])

    def path(self, index: int) -> str:
        """Return the full path of the first file of an item."""
        return self.paths(index)[0]

    def check(self, advice: str) -> "Listing":
        """Return itself, if every file is there: missing ones are found now, not after hours.

        Folders are listed once, not files asked for one by one. ValueError names the first missing.
        """
        listed: dict[str, frozenset[str]] = {}
        names = [os.fsdecode(bytes(path)) for path in np.unique(self._paths)]
        lost = [name for name in names if not self._is_there(name, listed)]
        if lost:
            raise ValueError(
                f"{len(lost)} of {len(names)} files in {self.root} are missing: "
                f"{', '.join(lost[:NAMED])}; {advice}"
            )
        return self

    def _is_there(self, name: str, listed: dict[str, frozenset[str]]) -> bool:
        folder, file = os.path.split(os.path.join(self.root, name))
        if folder not in listed:
            listed[folder] = frozenset(os.listdir(folder) if os.path.isdir(folder) else ())
        # The file system may know the name in another case.
        return file in listed[folder] or os.path.exists(os.path.join(folder, file))

    def identity(self) -> str:
        """Return a hash of how many files there are, of their names and some of their sizes."""
        chosen = np.unique(np.linspace(0, len(self) - 1, min(len(self), MEASURED)).astype(int))
        sizes = [_bytes_in(path) for index in chosen for path in self.paths(index)]
        return fingerprint(len(self), self._paths, np.array(sizes))


def _bytes_in(path: str) -> int:
    """Return how long a file is; -1 of a link to nowhere, which is read around like other files."""
    try:
        return os.path.getsize(path)
    except OSError:
        return -1


def walk_files(
    root: str | Path, endings: tuple[str, ...] = ("",), below: str = "", above: tuple = ()
) -> Iterator[str]:
    """Yield the files under `root` as relative paths; links are followed, but not in circles.

    Nothing if it is no folder. A file has one of the endings, given in small letters, in whatever
    case; `below` is the sub-folder to start in, `above` the folders on the way there.
    """
    here = os.path.join(root, below)
    if not os.path.isdir(here):
        return
    above = (*above, os.path.realpath(here))
    with os.scandir(here) as entries:
        for entry in entries:
            if is_hidden(entry.name):
                continue
            path = f"{below}/{entry.name}" if below else entry.name
            if not entry.is_dir():
                if path.lower().endswith(endings):
                    yield path
            elif not entry.is_symlink() or os.path.realpath(entry.path) not in above:
                yield from walk_files(root, endings, path, above)


def find_files(root: Path, pattern: str) -> list[Path]:
    """List the files under `root` that a pattern fits, sorted, without hidden ones."""
    found = root.glob(pattern)
    return sorted(p for p in found if not any(map(is_hidden, p.relative_to(root).parts)))


def files_by_stem(root: str | Path, endings: tuple[str, ...] = FORMATS) -> dict[str, str]:
    """Return the files under `root` by their relative paths without endings.

    Of files that differ in their endings alone, the one whose ending is named first is taken.
    """
    found: dict[str, str] = {}
    rank = {ending: place for place, ending in enumerate(endings)}
    for path in sorted(walk_files(root, endings), key=lambda p: rank[Path(p).suffix.lower()]):
        found.setdefault(os.path.splitext(path)[0], path)
    return found


def find_beside(
    root: Path, images: str, truth: str, names: Iterable[str] | None = None
) -> list[tuple[str, str]]:
    """List images with the files of their ground truth, as paths below root, there or not.

    `images` says where they lie, * for their names: "rgb/*"; they may end in any format. `truth`
    likewise, with its ending: "depth/*.png". Without names all that have ground truth are taken,
    sub-folders included.
    """
    (folder, mark), (below, ending) = images.split("*"), truth.split("*")
    pictures = files_by_stem(root / folder)
    known = {path[: -len(ending)]: path for path in walk_files(root / below, (ending,))}
    return [
        (
            folder + pictures.get(name + mark, f"{name}{mark}.jpg"),
            below + known.get(name, name + ending),
        )
        for name in (sorted(known) if names is None else names)
    ]


def is_hidden(name: str) -> bool:
    """Whether a file or folder is one of those that systems and editors hide or leave behind."""
    return name.startswith(".") or name in LEFT_BY_SYSTEMS


def is_image(path: str) -> bool:
    """Whether a name ends as one of the formats does."""
    return path.lower().endswith(FORMATS)


def read_text(path: str | Path) -> str:
    """Read a text file, with or without a byte order mark; ValueError if there is none."""
    with reading(path):
        return Path(path).read_text(encoding="utf-8-sig")


def spoken_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text file that say something, with their numbers; # is a comment."""
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if line.strip() and not line.strip().startswith("#"):
            yield number, line.strip()


def read_names(path: Path) -> list[str]:
    """Read a split: one name per line, which may have spaces, without folder and ending.

    Whole numbers behind it, the flags or classes of VOC's and ImageNet's lists, do not count; a
    name that ends in a number of its own wants its ending. ValueError if there is no file or name.
    """
    names = [SPLIT_LINE.fullmatch(line)[1] for _, line in spoken_lines(path)]
    if not names:
        raise ValueError(f"{path} names no image; expected one name per line, without ending")
    return names
