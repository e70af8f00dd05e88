"""Ground truth stored as arrays: the .npy files of TartanAir and Booster, Spring's HDF5.

As in numbers.py, readers turn every way to say "unknown" into `valid`.
"""

from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from mimlib.data.files.numbers import Dense, bounded, known, masked, positive
from mimlib.data.files.reading import import_optional, reading

TARTAN_FOCAL_BASELINE = 80.0  # pixels times metres: 320 pixels, 0.25 m
TARTAN_COUNTED = 0  # in the mask; 1, 10 and 100 mark what moves, is hidden or leaves the image


def read_tartan_flow(path: str | Path, mask_path: str | Path) -> Dense:
    """Read TartanAir's flow with its mask.

    The flow is computed from depth and the motion of the camera, so that it is not true of what
    moves by itself; the mask marks that, and what image 2 does not show.
    """
    mask = torch.from_numpy(_array(mask_path, 2) == TARTAN_COUNTED)
    return masked(bounded(_array(path, 3)), mask, mask_path)


def read_tartan_disparity(path: str | Path) -> Dense:
    """Read TartanAir's depth as disparity: 80 / metres; the sky is far away, not unknown."""
    with np.errstate(divide="ignore"):
        return positive(TARTAN_FOCAL_BASELINE / _array(path, 2).astype(np.float64), path)


def read_booster_disparity(path: str | Path) -> Dense:
    """Read Booster's disparity, 0 = unknown."""
    return positive(_array(path, 2), path)


def read_spring_flow(path: str | Path) -> Dense:
    """Read Spring's .flo5, nan = unknown. It has twice the sides of the images.

    # as official: every second number of every second row is taken; all are in pixels of the image.
    """
    return bounded(_hdf5(path, "flow", 3)[::2, ::2])


def read_spring_disparity(path: str | Path) -> Dense:
    """Read Spring's .dsp5, nan = unknown, 0 = infinitely far; of twice the sides, as its flow."""
    disparity = _hdf5(path, "disparity", 2)[::2, ::2]
    return known(disparity[..., None], np.isfinite(disparity) & (disparity >= 0))


def _array(path: str | Path, num_axes: int) -> np.ndarray:
    """Read an .npy file of so many axes."""
    with reading(path), open(path, "rb") as file:
        values = np.load(file, allow_pickle=False)
        if isinstance(values, np.ndarray) and file.read(1):
            raise ValueError("it goes on after its array")
    return _checked(values, path, num_axes)


def import_h5py() -> ModuleType:
    """Import h5py, which nothing but Spring needs."""
    return import_optional("h5py", "the HDF5 of Spring's ground truth (.flo5, .dsp5)")


def _hdf5(path: str | Path, name: str, num_axes: int) -> np.ndarray:
    """Read one array of an HDF5 file."""
    h5py = import_h5py()
    with reading(f"{name!r} from {path}"), h5py.File(path, "r") as file:
        values = file[name][()]
    return _checked(values, path, num_axes)


def _checked(values: object, path: str | Path, num_axes: int) -> np.ndarray:
    """Refuse arrays of another shape than [H, W] or [H, W, 2]."""
    shape = np.shape(values)
    if len(shape) != num_axes or shape[2:] not in ((), (2,)) or not np.size(values):
        raise ValueError(
            f"{path} holds an array of the shape {shape}; expected "
            f"{'(height, width)' if num_axes == 2 else '(height, width, 2)'}"
        )
    return values
