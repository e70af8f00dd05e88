"""Files that hold a number per pixel: .flo, KITTI's PNGs, PFM, depth PNGs; arrays in arrays.py.

Every data set marks missing ground truth in its own way: huge numbers, infinity, zero, a third
channel, a mask beside the file. Readers turn all of them into `valid` [H, W] bool, and what is not
valid is 0. Flow is (dx, dy) in pixels from image 1 to image 2, disparity positive pixels, depth
metres.
"""

import math
import os
import re
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torchvision import io

from mimlib.data.files.pictures import read_picture, read_samples
from mimlib.data.files.reading import reading

FLO_MAGIC = 202021.25  # as 4 bytes of a little-endian float: "PIEH"
PFM_HEADER = re.compile(rb"(P[Ff])\s+(\d+)\s+(\d+)\s+([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)")
FLO_UNKNOWN = 1e9  # Middlebury: larger displacements mean unknown
KITTI_SCALE, KITTI_ZERO = 64.0, 2**15  # flow = (stored - 2^15) / 64
KITTI_DISPARITY_SCALE = 256.0
CRE_DISPARITY_SCALE = 32.0
VISIBLE = 255  # in Middlebury's and ETH3D's mask0nocc; 128: the other image does not show it
DEPTH_UNKNOWN = (0, 65535)  # 7-Scenes writes 65535, most others 0


class Dense(NamedTuple):
    """A number or vector per pixel, where it is known."""

    values: Tensor  # [H, W, C] float32: flow C = 2, disparity and depth C = 1; 0 where not valid
    valid: Tensor  # [H, W] bool


def read_flo(path: str | Path) -> Dense:
    """Read flow in Middlebury's .flo: Sintel, FlyingChairs. Unknown: above 1e9, inf or nan."""
    data = _bytes(path)
    if len(data) < 12 or struct.unpack("<f", data[:4])[0] != FLO_MAGIC:
        raise ValueError(f"{path} is no .flo file: it does not start with the number {FLO_MAGIC}")
    width, height = struct.unpack("<ii", data[4:12])
    return bounded(_numbers(path, data[12:], "<f4", (height, width, 2)))


def read_pfm(path: str | Path) -> Tensor:
    """Read a portable float map, [H, W] or [H, W, 3] float32, top row first, as it is stored."""
    data = _bytes(path)
    header = PFM_HEADER.match(data)
    if header is None:
        raise ValueError(f"{path} is no PFM file: it does not start with PF or Pf and its size")
    kind, width, height, scale = header.groups()
    shape = (int(height), int(width), *((3,) if kind == b"PF" else ()))
    order = "<f4" if float(scale) < 0 else ">f4"  # the sign tells which byte comes first
    rest = data[header.end() :]
    # One white space ends the header; on Windows it is written as two bytes, after blanks as more.
    end = re.match(rb"[ \t]*\r?\n" if len(rest) - 4 * math.prod(shape) > 1 else rb"\s", rest)
    values = _numbers(path, rest[end.end() if end else 0 :], order, shape)
    return torch.from_numpy(values[::-1].astype(np.float32))  # rows are stored bottom-up


def read_pfm_disparity(path: str | Path) -> Dense:
    """Read disparity as PFM: Middlebury, ETH3D (unknown: inf), SceneFlow (may be negative).

    ValueError if it has colors, or no positive value, as SceneFlow's for the right image.
    """
    disparity = read_pfm(path)
    if disparity.ndim == 3:
        raise ValueError(f"{path} holds three channels; a disparity map has one")
    return positive(disparity.numpy(), path)


def read_visible_disparity(path: str | Path, mask_path: str | Path) -> Dense:
    """Read disparity as PFM, known only where mask0nocc says that both images show the pixel."""
    dense, visible = read_pfm_disparity(path), read_picture(mask_path, "L") == VISIBLE
    return masked(dense, torch.from_numpy(visible), mask_path)


def read_pfm_flow(path: str | Path) -> Dense:
    """Read flow as SceneFlow's PFM: dx, dy and a third channel without meaning."""
    flow = read_pfm(path)
    if flow.ndim != 3:
        raise ValueError(f"{path} holds one channel; flow has three in this format, dx, dy and 0")
    return bounded(flow[..., :2].numpy())


def read_kitti_disparity(path: str | Path) -> Dense:
    """Read KITTI's 16-bit disparity PNG: stored value / 256 pixels, 0 = unknown."""
    return positive(_gray16(path) / KITTI_DISPARITY_SCALE, path)


def read_cre_disparity(path: str | Path) -> Dense:
    """Read CREStereo's 16-bit disparity PNG: stored value / 32 pixels, 0 = unknown."""
    return positive(_gray16(path) / CRE_DISPARITY_SCALE, path)


def read_gray_disparity(path: str | Path) -> Dense:
    """Read Middlebury's 8-bit disparity PNG of 2005 and 2006, full size: pixels, 0 = unknown."""
    mode, stored = read_samples(path)
    if mode != "L":
        raise ValueError(f"{path} holds pixels of the kind {mode}; expected one channel of 8 bits")
    return positive(stored.astype(np.float64), path)


def read_kitti_flow(path: str | Path) -> Dense:
    """Read KITTI's 16-bit flow PNG: (red, green) = 64 (dx, dy) + 2^15, blue 0 = unknown."""
    stored = _color16(path)
    return known((stored[..., :2] - KITTI_ZERO) / KITTI_SCALE, stored[..., 2] > 0)


def read_depth_png(path: str | Path, unit: float = 1e-3) -> Dense:
    """Read a 16-bit depth PNG of steps of `unit` metres; 0 and 65535 = unknown.

    7-Scenes and NYUv2 are in millimetres, KITTI's depth in 1/256 metre.
    """
    stored = _gray16(path)
    depth = np.where(np.isin(stored, DEPTH_UNKNOWN), 0.0, stored * unit)
    return positive(depth, path)


def read_mask(path: str | Path) -> Tensor:
    """Read a black and white picture, [H, W] bool: Sintel's `invalid` and `occlusions`."""
    return torch.from_numpy(read_picture(path, "L") > 127)


def read_sintel_flow(path: str | Path, invalid_path: str | Path) -> Dense:
    """Read Sintel's flow with its `invalid` mask; occluded pixels count, as in its benchmark."""
    return masked(read_flo(path), ~read_mask(invalid_path), invalid_path)


def masked(dense: Dense, counted: Tensor, path: str | Path) -> Dense:
    """Keep as known only what a mask (of the file `path`) counts; ValueError on another size."""
    if counted.shape != dense.valid.shape:
        raise ValueError(
            f"{path} has {tuple(counted.shape)} pixels, its ground truth {tuple(dense.valid.shape)}"
        )
    valid = dense.valid & counted
    return Dense(dense.values * valid[..., None], valid)


def bounded(flow: np.ndarray) -> Dense:
    """Keep vectors [H, W, 2] of finite numbers below 1e9 as what is known."""
    with np.errstate(invalid="ignore"):
        return known(flow, (np.abs(flow) < FLO_UNKNOWN).all(-1))


def positive(values: np.ndarray, path: str | Path) -> Dense:
    """Keep finite positive numbers [H, W] as known; ValueError if there are negative ones alone."""
    with np.errstate(invalid="ignore"):
        valid = np.isfinite(values) & (values > 0)
        if not valid.any() and (values < 0).any():
            raise ValueError(
                f"{path} holds negative values only; disparity and depth are positive here: if "
                "these are disparities of the right image, swap the images or change the sign"
            )
    return known(values[..., None], valid)


def known(values: np.ndarray, valid: np.ndarray) -> Dense:
    """Make numbers [H, W, C] and where they are known [H, W] into tensors, 0 elsewhere."""
    values = np.where(valid[..., None], values, 0).astype(np.float32)
    return Dense(torch.from_numpy(values), torch.from_numpy(valid))


def _bytes(path: str | Path) -> bytes:
    with reading(path):
        return Path(path).read_bytes()


def _numbers(path: str | Path, data: bytes, order: str, shape: tuple[int, ...]) -> np.ndarray:
    needed = 4 * math.prod(shape)
    if min(shape) < 1 or len(data) != needed:  # surplus ones would move every row, or be of another
        raise ValueError(
            f"{path} is truncated or broken: {len(data)} bytes of numbers, its header promises "
            f"{needed} for the shape {shape}"
        )
    return np.frombuffer(data, dtype=order).reshape(shape)


def _gray16(path: str | Path) -> np.ndarray:
    """Read a 16-bit gray PNG as [H, W] float64."""
    mode, stored = read_samples(path)
    if not mode.startswith("I"):
        raise ValueError(_too_coarse(path, mode, "one channel"))
    return stored.astype(np.float64)


def _color16(path: str | Path) -> np.ndarray:
    """Read a 16-bit RGB PNG as [H, W, 3] float64; Pillow would cut it to 8 bits."""
    with reading(path):
        stored = io.decode_png(io.read_file(os.fspath(path)), io.ImageReadMode.UNCHANGED)
    if stored.dtype != torch.uint16 or len(stored) != 3:
        raise ValueError(_too_coarse(path, f"{len(stored)} x {stored.dtype}", "three channels"))
    return rearrange(stored.numpy(), "c h w -> h w c").astype(np.float64)


def _too_coarse(path: str | Path, got: str, expected: str) -> str:
    return (
        f"{path} holds pixels of the kind {got}; expected {expected} of 16 bits: an 8-bit picture "
        "of the ground truth is not the ground truth"
    )
