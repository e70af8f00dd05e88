"""Image files as uint8 RGB, and folders of them as a list in a fixed order."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageOps
from torch import Tensor
from torchvision import io

JPEG = (".jpg", ".jpeg")
FORMATS = (*JPEG, ".png", ".webp", ".bmp", ".tif", ".tiff")


def read_image(path: str | Path) -> Tensor:
    """Read any image as 8-bit RGB, upright.

    EXIF orientation is applied, grey becomes three equal channels, palettes and CMYK are converted,
    16-bit values are scaled to 8 bits, transparent pixels show white, and of an animation or a
    multi-page file the first picture is taken. Colour profiles are ignored.

    Returns:
        [3, H, W] uint8.

    Raises:
        ValueError: if the file is missing, truncated, or no image that can be read.
    """
    path = os.fspath(path)
    if path.lower().endswith(JPEG):
        try:  # from file to crop a quarter faster than Pillow
            return io.decode_jpeg(io.read_file(path), "RGB", apply_exif_orientation=True)
        except (RuntimeError, AttributeError):
            pass  # Pillow judges: another format, or a torchvision without its (deprecated) decoder
    try:
        with Image.open(path) as image:
            pixels = _to_rgb(ImageOps.exif_transpose(image))
    except Exception as error:  # decoders raise SyntaxError, struct.error, EOFError and others
        raise ValueError(f"cannot read {path}: {type(error).__name__}: {error}") from error
    return rearrange(torch.from_numpy(pixels), "h w c -> c h w")


def _to_rgb(image: Image.Image) -> np.ndarray:
    """Convert a picture of any mode to 8-bit RGB, [H, W, 3]."""
    if image.mode == "F":
        raise ValueError("32-bit float pixels have no agreed range; save as 8- or 16-bit")
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip at 255
        values = np.asarray(image).astype(np.int64).clip(0, 65535)
        grey = ((values + 128) // 257).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


class ImageFolder:
    """The images of a folder and its sub-folders, in the order of their paths.

    Hidden files and files of other formats are not counted. The first sub-folder on the way to an
    image is its class; classes are numbered in the order of their names, which for ImageNet is the
    standard numbering.

    Paths are kept in one array of bytes: a list of a million strings would be copied into every
    worker process.
    """

    def __init__(self, root: str | Path):
        self.root = os.fspath(root)
        if not os.path.exists(self.root):
            raise ValueError(f"there is no folder {self.root}; data/README.md says what goes where")
        if not os.path.isdir(self.root):
            raise ValueError(f"{self.root} is a file; name the folder that holds the images")
        found = list(walk_files(self.root))
        paths = sorted(os.fsencode(path) for path in found if _is_image(path))
        if not paths:
            endings = sorted({os.path.splitext(path)[1] or "no ending" for path in found})
            raise ValueError(
                f"{self.root} holds no images: expected files ending in {', '.join(FORMATS)}, "
                f"found {len(found)} others ({', '.join(endings[:5]) or 'the folder is empty'})"
            )
        self._paths = np.array(paths)

    def __len__(self) -> int:
        return len(self._paths)

    def path(self, index: int) -> str:
        """Return the full path of image `index`."""
        return os.path.join(self.root, os.fsdecode(bytes(self._paths[index])))

    def read(self, index: int) -> Tensor:
        """Read image `index`, [3, H, W] uint8; ValueError if it cannot be read."""
        return read_image(self.path(index))

    def labels(self, class_names: tuple[str, ...]) -> np.ndarray:
        """Return the class of every image as an index into `class_names`, [len] int64.

        Raises:
            ValueError: if an image lies in no class folder, or in one that is not among the names.
        """
        number = {os.fsencode(name): index for index, name in enumerate(class_names)}
        heads = [bytes(path).rpartition(b"/")[0].partition(b"/")[0] for path in self._paths]
        lost = sorted({os.fsdecode(head) for head in heads if head not in number})
        if lost:
            names = ", ".join(name or "images outside any sub-folder" for name in lost[:5])
            raise ValueError(
                f"{self.root} has images of no known class: {names}. With labels every image lies "
                f"in a sub-folder named after its class, one of the {len(class_names)} training "
                "classes (ImageNet's validation images come unsorted, see data/README.md)"
            )
        return np.array([number[head] for head in heads], dtype=np.int64)


def class_names(folder: str | Path) -> tuple[str, ...]:
    """Return the names of the class sub-folders of `folder`, sorted."""
    with os.scandir(folder) as entries:
        return tuple(sorted(e.name for e in entries if e.is_dir() and not _is_hidden(e.name)))


def walk_files(root: str, below: str = "", above: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the files under `root` as relative paths; links are followed, but not in circles."""
    here = os.path.join(root, below)
    above = (*above, os.path.realpath(here))
    with os.scandir(here) as entries:
        for entry in entries:
            if _is_hidden(entry.name):
                continue
            path = f"{below}/{entry.name}" if below else entry.name
            if not entry.is_dir():
                yield path
            elif not entry.is_symlink() or os.path.realpath(entry.path) not in above:
                yield from walk_files(root, path, above)


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


def _is_image(path: str) -> bool:
    return path.lower().endswith(FORMATS)
