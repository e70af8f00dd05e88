"""Ground truth on disk: what is written is read, what is unknown told, what is broken refused."""

import struct

import number_files
import numpy as np
import pytest
import torch
from PIL import Image

from mimlib.data.files import numbers
from mimlib.data.files.numbers import Dense

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")


@pytest.fixture
def flow():
    draw = torch.Generator().manual_seed(0)
    valid = torch.rand(5, 7, generator=draw) < 0.7
    values = torch.randn(5, 7, 2, generator=draw) * 40
    return Dense(values * valid[..., None], valid)


@pytest.fixture
def positive():
    draw = torch.Generator().manual_seed(1)
    valid = torch.rand(5, 7, generator=draw) < 0.7
    values = torch.rand(5, 7, 1, generator=draw) * 9 + 0.5
    return Dense(values * valid[..., None], valid)


CASES = {  # writer, reader, file name, which fixture, largest error by rounding
    "flo": (number_files.write_flo, numbers.read_flo, "a.flo", "flow", 0.0),
    "kitti flow": (
        number_files.write_kitti_flow,
        numbers.read_kitti_flow,
        "a.png",
        "flow",
        0.5 / 64,
    ),
    "kitti disparity": (
        *(number_files.write_kitti_disparity, numbers.read_kitti_disparity),
        *("a.png", "positive", 0.5 / 256),
    ),
    "depth": (number_files.write_depth_png, numbers.read_depth_png, "a.png", "positive", 0.5e-3),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_is_written_is_read(case, request, tmp_path):
    write, read, name, kind, tolerance = case
    dense = request.getfixturevalue(kind)
    write(tmp_path / name, dense)
    found = read(tmp_path / name)
    assert torch.equal(found.valid, dense.valid)
    assert found.values.dtype == torch.float32
    assert (found.values - dense.values).abs().max() <= tolerance + 1e-6
    assert (found.values[~found.valid] == 0).all()


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_float_maps_come_back_the_right_way_up(tmp_path, shape):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    number_files.write_pfm(tmp_path / "a.pfm", values)
    assert torch.equal(numbers.read_pfm(tmp_path / "a.pfm"), values)


def test_float_maps_are_stored_bottom_up_and_in_either_byte_order(tmp_path):
    rows = [[1.0, 2.0], [3.0, 4.0]]
    for sign, order in ((-1.0, "<"), (1.0, ">")):
        data = b"".join(struct.pack(f"{order}2f", *row) for row in reversed(rows))
        (tmp_path / "a.pfm").write_bytes(f"Pf\n2 2\n{sign}\n".encode() + data)
        assert numbers.read_pfm(tmp_path / "a.pfm").tolist() == rows


def test_a_flo_file_is_what_its_definition_says(tmp_path):
    stored = [1.0, -2.0, 3.5, 0.0]
    (tmp_path / "a.flo").write_bytes(b"PIEH" + struct.pack("<ii4f", 2, 1, *stored))
    values, valid = numbers.read_flo(tmp_path / "a.flo")
    assert values.tolist() == [[[1.0, -2.0], [3.5, 0.0]]]
    assert valid.all()


def test_a_kitti_flow_file_is_what_its_definition_says(tmp_path, flow):
    """The picture holds 64 times the flow plus 2^15, and Pillow agrees that it is a picture."""
    number_files.write_kitti_flow(tmp_path / "a.png", flow)
    with Image.open(tmp_path / "a.png") as image:
        image.load()
        assert image.size == (7, 5)
        high = np.asarray(image)  # Pillow keeps the upper 8 bits of each color
    stored = (flow.values.double() * 64 + 2**15).round().numpy()
    upper = (stored // 256) * flow.valid.numpy()[..., None]
    assert (np.abs(high[..., :2] - upper) <= 1).all()


UNKNOWN_FLOW = {"huge": 1.7e9, "infinite": np.inf, "negative": -np.inf, "nan": np.nan}


@pytest.mark.parametrize("unknown", UNKNOWN_FLOW.values(), ids=UNKNOWN_FLOW)
def test_every_way_to_say_unknown_flow_is_heard(tmp_path, unknown):
    data = struct.pack("<fii4f", 202021.25, 2, 1, 1.0, unknown, 5.0, 6.0)
    (tmp_path / "a.flo").write_bytes(data)
    values, valid = numbers.read_flo(tmp_path / "a.flo")
    assert valid.tolist() == [[False, True]]
    assert values.tolist() == [[[0.0, 0.0], [5.0, 6.0]]]


@pytest.mark.parametrize("unknown", [np.inf, np.nan, 0.0, -1.0])
def test_every_way_to_say_unknown_disparity_is_heard(tmp_path, unknown):
    number_files.write_pfm(tmp_path / "a.pfm", torch.tensor([[3.0, unknown]]))
    values, valid = numbers.read_pfm_disparity(tmp_path / "a.pfm")
    assert valid.tolist() == [[True, False]]
    assert values[..., 0].tolist() == [[3.0, 0.0]]


def test_disparities_of_the_other_image_are_refused(tmp_path):
    number_files.write_pfm(tmp_path / "a.pfm", torch.tensor([[-3.0, -1.0]]))
    with pytest.raises(ValueError, match="negative values only.*swap the images"):
        numbers.read_pfm_disparity(tmp_path / "a.pfm")


def test_depth_knows_both_marks_of_nothing_and_its_unit(tmp_path):
    stored = np.array([[0, 1500, 65535, 3975]], dtype=np.uint16)
    Image.fromarray(stored).save(tmp_path / "a.png")
    values, valid = numbers.read_depth_png(tmp_path / "a.png")
    assert valid.tolist() == [[False, True, False, True]]
    assert values[0, :, 0].tolist() == pytest.approx([0, 1.5, 0, 3.975])
    values, _ = numbers.read_depth_png(tmp_path / "a.png", unit=1 / 256)
    assert float(values[0, 1, 0]) == pytest.approx(1500 / 256)


@pytest.mark.parametrize("unknown", [np.nan, np.inf, 2e9])
def test_flow_as_a_float_map_has_a_third_channel_to_forget(tmp_path, unknown):
    stored = torch.tensor([[[1.0, -2.0, 0.0], [3.0, unknown, 0.0]]])
    number_files.write_pfm(tmp_path / "a.pfm", stored)
    values, valid = numbers.read_pfm_flow(tmp_path / "a.pfm")
    assert values.tolist() == [[[1.0, -2.0], [0.0, 0.0]]]
    assert valid.tolist() == [[True, False]]
    number_files.write_pfm(tmp_path / "a.pfm", torch.ones(2, 2))
    with pytest.raises(ValueError, match="one channel; flow has three"):
        numbers.read_pfm_flow(tmp_path / "a.pfm")


def test_disparities_in_steps_of_other_sizes(tmp_path):
    Image.fromarray(np.array([[0, 80]], dtype=np.uint16)).save(tmp_path / "a.png")
    values, valid = numbers.read_cre_disparity(tmp_path / "a.png")
    assert values[..., 0].tolist() == [[0, 2.5]] and valid.tolist() == [[False, True]]
    Image.fromarray(np.array([[0, 80]], dtype=np.uint8)).save(tmp_path / "a.png")
    values, valid = numbers.read_gray_disparity(tmp_path / "a.png")
    assert values[..., 0].tolist() == [[0, 80]] and valid.tolist() == [[False, True]]
    with pytest.raises(ValueError, match="expected one channel of 16 bits"):
        numbers.read_cre_disparity(tmp_path / "a.png")


def test_only_what_both_images_show_is_visible(tmp_path):
    number_files.write_pfm(tmp_path / "a.pfm", torch.tensor([[1.0, 2.0, 3.0, torch.inf]]))
    Image.fromarray(np.array([[255, 128, 0, 255]], dtype=np.uint8)).save(tmp_path / "nocc.png")
    values, valid = numbers.read_visible_disparity(tmp_path / "a.pfm", tmp_path / "nocc.png")
    assert valid.tolist() == [[True, False, False, False]]
    assert values[..., 0].tolist() == [[1, 0, 0, 0]]


def test_sintels_mask_is_taken_off(tmp_path, flow):
    full = Dense(flow.values, torch.ones_like(flow.valid))
    number_files.write_flo(tmp_path / "a.flo", full)
    Image.fromarray((~flow.valid.numpy() * 255).astype(np.uint8)).save(tmp_path / "invalid.png")
    found = numbers.read_sintel_flow(tmp_path / "a.flo", tmp_path / "invalid.png")
    assert torch.equal(found.valid, flow.valid)
    Image.new("L", (3, 3)).save(tmp_path / "small.png")
    with pytest.raises(ValueError, match=r"\(3, 3\) pixels, its ground truth \(5, 7\)"):
        numbers.read_sintel_flow(tmp_path / "a.flo", tmp_path / "small.png")


READERS = {
    "flo": numbers.read_flo,
    "pfm": numbers.read_pfm_disparity,
    "kitti flow": numbers.read_kitti_flow,
    "kitti disparity": numbers.read_kitti_disparity,
    "crestereo disparity": numbers.read_cre_disparity,
    "gray disparity": numbers.read_gray_disparity,
    "pfm flow": numbers.read_pfm_flow,
    "depth": numbers.read_depth_png,
    "mask": numbers.read_mask,
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("content", [b"", b"PIEH", b"Pf\n9 9\n-1\n1234", b"\x89PNG\r\n\x1a\n1234"])
def test_broken_files_are_named(tmp_path, read, content):
    (tmp_path / "broken").write_bytes(content)
    with pytest.raises(ValueError, match="broken"):
        read(tmp_path / "broken")


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_missing_files_are_named(tmp_path, read):
    with pytest.raises(ValueError, match="nothing_here"):
        read(tmp_path / "nothing_here")


def test_a_truncated_flow_says_how_much_is_there(tmp_path, flow):
    number_files.write_flo(tmp_path / "a.flo", flow)
    whole = (tmp_path / "a.flo").read_bytes()
    (tmp_path / "a.flo").write_bytes(whole[:-4])
    with pytest.raises(ValueError, match=r"276 bytes of numbers.*280 for the shape \(5, 7, 2\)"):
        numbers.read_flo(tmp_path / "a.flo")


def test_pictures_of_the_ground_truth_are_refused(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "flow.png")
    with pytest.raises(ValueError, match="3 x torch.uint8; expected three channels of 16"):
        numbers.read_kitti_flow(tmp_path / "flow.png")
    with pytest.raises(ValueError, match="of the kind RGB; expected one channel of 16 bits"):
        numbers.read_depth_png(tmp_path / "flow.png")
    number_files.write_pfm(tmp_path / "a.pfm", torch.zeros(2, 2, 3))
    with pytest.raises(ValueError, match="three channels"):
        numbers.read_pfm_disparity(tmp_path / "a.pfm")
