"""Ground truth as arrays: what is unknown, far away or broken."""

import h5py
import numpy as np
import pytest

from mimlib.data.files import arrays

MASK = np.zeros((2, 3), dtype=np.uint8)


def saved(path, values):
    np.save(path, values)
    return path


@pytest.mark.parametrize("mark", [1, 10, 100])
def test_what_tartanairs_mask_marks_is_unknown(tmp_path, mark):
    flow = saved(tmp_path / "flow.npy", np.ones((2, 3, 2), dtype=np.float32))
    mask = MASK.copy()
    mask[1, 2] = mark
    values, valid = arrays.read_tartan_flow(flow, saved(tmp_path / "mask.npy", mask))
    assert valid.sum() == 5 and not valid[1, 2]
    assert values[1, 2].tolist() == [0, 0] and values[0, 0].tolist() == [1, 1]


def test_the_sky_of_tartanair_has_a_small_disparity(tmp_path):
    depth = saved(tmp_path / "depth.npy", np.array([[10000, 8, 0, np.nan, np.inf]], np.float16))
    values, valid = arrays.read_tartan_disparity(depth)
    assert valid.tolist() == [[True, True, False, False, False]]
    assert values[0, :2, 0].tolist() == pytest.approx([0.008, 10])


def test_booster_marks_the_unknown_with_zero(tmp_path):
    path = saved(tmp_path / "disp_00.npy", np.array([[0, 3.5, np.inf]], dtype=np.float32))
    values, valid = arrays.read_booster_disparity(path)
    assert valid.tolist() == [[False, True, False]]
    assert values[..., 0].tolist() == [[0, 3.5, 0]]


def test_in_spring_zero_is_known_and_nan_is_not(tmp_path):
    stored = np.full((2, 6), 9.0, dtype=np.float32)
    stored[0, ::2] = 0.0, np.nan, 3.0
    with h5py.File(tmp_path / "a.dsp5", "w") as file:
        file.create_dataset("disparity", data=stored, compression="gzip")
    values, valid = arrays.read_spring_disparity(tmp_path / "a.dsp5")
    assert valid.tolist() == [[True, False, True]]
    assert values[..., 0].tolist() == [[0, 0, 3]]
    with pytest.raises(ValueError, match="cannot read 'flow' from .*a.dsp5"):
        arrays.read_spring_flow(tmp_path / "a.dsp5")
    (tmp_path / "a.flo5").write_bytes(b"broken")
    with pytest.raises(ValueError, match="cannot read 'flow' from .*a.flo5"):
        arrays.read_spring_flow(tmp_path / "a.flo5")


@pytest.mark.parametrize("shape", [(2, 3, 3), (2, 3), (0, 3, 2)])
def test_other_shapes_are_refused(tmp_path, shape):
    path = saved(tmp_path / "flow.npy", np.ones(shape))
    with pytest.raises(ValueError, match=r"flow.npy.*expected \(height, width, 2\)"):
        arrays.read_tartan_flow(path, saved(tmp_path / "mask.npy", MASK))


def test_masks_of_another_size_are_refused(tmp_path):
    path = saved(tmp_path / "flow.npy", np.ones((4, 3, 2)))
    with pytest.raises(ValueError, match=r"mask.npy has \(2, 3\) pixels, its ground truth \(4, 3"):
        arrays.read_tartan_flow(path, saved(tmp_path / "mask.npy", MASK))


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"something else"])
def test_broken_and_missing_files_are_named(tmp_path, content):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(ValueError, match="cannot read .*a.npy"):
        arrays.read_booster_disparity(tmp_path / "a.npy")
    with pytest.raises(ValueError, match="cannot read .*b.npy"):
        arrays.read_tartan_disparity(tmp_path / "b.npy")
