"""Image files as uint8 RGB, pictures of numbers as they are stored."""

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor
from torchvision import io
from torchvision.transforms.v2.functional import pil_to_tensor

from mimlib.data.files.reading import reading

JPEG = (".jpg", ".jpeg")
STRETCHED = {"L;2": 85, "L;4": 17}  # what Pillow multiplies gray of 2 and 4 bits by
STORED_VALUES = 2**16  # of 8- and 16-bit files


def read_image(path: str | Path) -> Tensor:
    """Read any image as 8-bit RGB, upright.

    EXIF orientation is applied, gray becomes three equal channels, palettes and CMYK are converted,
    16-bit values are scaled to 8 bits, transparent pixels show white, and of an animation or a
    multi-page file the first picture is taken. Color profiles are ignored. Returns [3, H, W] uint8;
    ValueError if the file is missing, truncated, or no image.
    """
    path = os.fspath(path)
    if path.lower().endswith(JPEG):
        try:  # from file to crop a quarter faster than Pillow
            data = io.read_file(path)
            if _orientation_is_plain(data.numpy()):
                return io.decode_jpeg(data, "RGB", apply_exif_orientation=True)
        except (RuntimeError, AttributeError):
            pass  # Pillow judges: another format, or a torchvision without its (deprecated) decoder
    with reading(path), Image.open(path) as image:
        return pil_to_tensor(_to_rgb(ImageOps.exif_transpose(image)))


def _orientation_is_plain(data: np.ndarray) -> bool:
    """Whether a JPEG file says at most once how it lies, in the form that torchvision reads.

    torchvision looks at the first APP1 segment alone, for an Exif orientation of 16 bits. Pillow
    also finds one behind XMP, one within XMP, and one of 32 bits.
    """
    place, segments = 2, []
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != 0xDA:  # pixels
        length = int(data[place + 2]) << 8 | int(data[place + 3])
        if data[place + 1] == 0xE1:
            segments.append(data[place + 4 : place + 2 + length].tobytes())
        place += 2 + length
    if not segments:
        return True
    wide = any(tag in segments[0] for tag in (b"\x01\x12\x00\x04", b"\x12\x01\x04\x00"))
    return len(segments) == 1 and segments[0].startswith(b"Exif\0\0") and not wide


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert a picture of any mode to 8-bit RGB."""
    if image.mode == "F":
        raise ValueError("32-bit float pixels have no agreed range; save as 8- or 16-bit")
    if image.mode.startswith("I"):  # 16-bit gray; Pillow's own conversion would clip at 255
        values = np.asarray(image).astype(np.int64).clip(0, 65535)
        image = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def read_picture(path: str | Path, mode: str) -> np.ndarray:
    """Read a picture as Pillow converts it; ValueError if it cannot be read."""
    with reading(path), Image.open(path) as image:
        return np.array(image.convert(mode))


def read_segments(path: str | Path) -> np.ndarray:
    """Read a panoptic picture of COCO: segment numbers [H, W] int64, R + 256 G + 65536 B."""
    return read_picture(path, "RGB").astype(np.int64) @ np.array([1, 256, 65536])


def read_samples(path: str | Path) -> tuple[str, np.ndarray]:
    """Read a picture of one channel or a palette as the numbers that are stored, and its mode.

    Pillow stretches gray of 2 and 4 bits to 0 ... 255, and other ranges likewise: that is undone
    where it can be, else refused by a ValueError, like a file that cannot be read.
    """
    with reading(path), Image.open(path) as image:
        codec, _, _, given = image.tile[0] if image.tile else ("", None, None, "")
        mode, stored = image.mode, np.array(image)
    raw, *more = given if isinstance(given, tuple) else (given,)
    if codec.startswith("ppm") and more[:1] not in ([255], [65535]):
        raise ValueError(f"{path} has numbers up to {more}; save it as a PNG, which keeps them")
    if not isinstance(raw, str) or not raw.startswith(("1", "L")):
        return mode, stored
    if "I" in raw:
        raise ValueError(f"{path} is stored inverted, 0 is white; save it as a PNG")
    return mode, stored // STRETCHED.get(raw[:3], 1)


def read_indices(path: str | Path) -> np.ndarray:
    """Read one channel, or a palette's indices, as [H, W] int64; ValueError if it holds colors."""
    mode, stored = read_samples(path)
    if mode not in ("L", "P", "1") and not mode.startswith("I"):
        raise ValueError(
            f"{path} holds colors (mode {mode}); expected a picture of class numbers: one "
            "channel, or the indices of a palette. Colored label maps are for looking at: take "
            "the data set's index maps, or turn the colors back into numbers"
        )
    return stored.astype(np.int64).clip(0, STORED_VALUES - 1)
