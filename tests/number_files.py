"""Writers of the files of numbers that `mimlib.data.files.numbers` reads, as their authors do."""

import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mimlib.data.files.numbers import (
    FLO_MAGIC,
    KITTI_DISPARITY_SCALE,
    KITTI_SCALE,
    KITTI_ZERO,
    Dense,
)


def write_flo(path: str | Path, dense: Dense) -> None:
    """Write flow as .flo; what is not valid becomes 1.6666e9, as in Middlebury's files."""
    flow = torch.where(dense.valid[..., None], dense.values, 1.666666752e9)
    height, width = dense.valid.shape
    header = struct.pack("<fii", FLO_MAGIC, width, height)
    Path(path).write_bytes(header + flow.numpy().astype("<f4").tobytes())


def write_pfm(path: str | Path, values: Tensor) -> None:
    """Write [H, W] or [H, W, 3] as a little-endian portable float map."""
    kind = "PF" if values.ndim == 3 else "Pf"
    header = f"{kind}\n{values.shape[1]} {values.shape[0]}\n-1.0\n"
    rows = values.numpy()[::-1].astype("<f4")
    Path(path).write_bytes(header.encode() + rows.tobytes())


def write_kitti_disparity(path: str | Path, dense: Dense) -> None:
    """Write disparity as KITTI's PNG; valid values below 1/256 pixel become 1/256."""
    stored = (dense.values[..., 0].double().numpy() * KITTI_DISPARITY_SCALE).round()
    stored = np.where(dense.valid.numpy(), stored.clip(1, 65535), 0).astype(np.uint16)
    Image.fromarray(stored).save(path, format="PNG")


def write_kitti_flow(path: str | Path, dense: Dense) -> None:
    """Write flow as KITTI's PNG, the form in which its server takes results."""
    stored = (dense.values.double().numpy() * KITTI_SCALE + KITTI_ZERO).round().clip(0, 65535)
    valid = dense.valid.numpy()[..., None]
    pixels = np.concatenate([stored * valid, valid], axis=-1).astype(">u2")
    lines = b"".join(b"\0" + row.tobytes() for row in pixels)  # each line: filter 0, then pixels
    height, width = dense.valid.shape
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)  # 16 bit, RGB, not interlaced
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    Path(path).write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks))


def write_depth_png(path: str | Path, dense: Dense, unit: float = 1e-3) -> None:
    """Write depth [H, W, 1] metres as a 16-bit PNG, 0 where it is not valid."""
    stored = (dense.values[..., 0].double().numpy() / unit).round().clip(0, 65534)
    stored = np.where(dense.valid.numpy(), stored, 0).astype(np.uint16)
    Image.fromarray(stored).save(path, format="PNG")


def _chunk(name: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + check
