import numpy as np
import pytest
import torch

from mimlib.data.images import photos
from mimlib.data.images.photos import photographs, stereo_motorcycle, whole_photographs
from mimlib.world.rooms.textures import PHOTOGRAPHS as WORLD_PHOTOGRAPHS

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")


def test_photographs_are_square_color_pictures():
    pictures = photographs(48)
    assert set(pictures) == {"astronaut", "chelsea", "coffee", "rocket", "china", "flower"}
    for picture in pictures.values():
        assert picture.shape == (3, 48, 48)
        assert picture.dtype == torch.uint8
        assert picture.float().std() > 20
        assert not torch.equal(picture[0], picture[2])


def test_unseen_photographs_are_not_in_the_world():
    assert set(photos.UNSEEN) < set(photos.PHOTOGRAPHS)
    in_world = {name.split(".")[0] for name in WORLD_PHOTOGRAPHS}
    assert in_world
    assert not in_world & {*photos.UNSEEN, "motorcycle_left", "motorcycle_right"}


def test_photographs_are_center_crops():
    whole, square = whole_photographs()["coffee"], photographs(400)["coffee"]
    assert whole.shape == (3, 400, 600)
    assert torch.equal(square, whole[:, :, 100:500])


def warp_error(stereo):
    """Mean difference in [0, 255] between left pixels and the right pixels they map to."""
    row, column = np.nonzero(stereo.valid.numpy())
    found = column - stereo.disparity.numpy()[row, column]
    left = stereo.left.numpy()[:, row, column].astype(float)
    right = stereo.right.numpy()[:, row, np.rint(found).astype(int).clip(0)]
    unmoved = stereo.right.numpy()[:, row, column]
    return np.abs(left - right).mean(), np.abs(left - unmoved).mean()


@pytest.mark.parametrize("size", [None, 500, 128])
def test_disparity_maps_left_pixels_to_right_ones(size):
    stereo = stereo_motorcycle(size)
    warped, unmoved = warp_error(stereo)
    assert warped < 12
    assert warped < unmoved / 3
    assert 0.8 < stereo.valid.float().mean() < 0.95
    assert torch.isfinite(stereo.disparity).all()
    assert (stereo.disparity[stereo.valid] > 0).all()


def test_depth_is_metric_and_does_not_change_with_the_size():
    whole, small = stereo_motorcycle(), stereo_motorcycle(100)
    depth = whole.depth()[whole.valid]
    assert 1.5 < depth.min() < depth.max() < 6
    center = whole.depth()[:, 120:620]
    assert torch.allclose(small.depth(), center[2::5, 2::5], atol=1e-4)
    assert small.focal_length == pytest.approx(whole.focal_length / 5)
    assert small.baseline == whole.baseline


def test_photographs_come_without_a_network_or_scikit_images_fetcher(monkeypatch):
    import socket

    def refuse(*_):
        raise AssertionError("a photograph was asked for over the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert photographs(8)


def test_missing_photograph_says_what_to_do(monkeypatch):
    monkeypatch.setitem(photos.PHOTOGRAPHS, "moved", ("skimage", "data/moved.png"))
    with pytest.raises(ValueError, match="installed scikit-image has no file data/moved.png.*pip"):
        photographs(8)


def test_the_motorcycle_as_a_batch():
    stereo = stereo_motorcycle(64)
    batch = stereo.batch()
    assert batch.image_1.shape == batch.image_2.shape == (1, 3, 64, 64)
    assert torch.equal(batch.target[0, ..., 0], stereo.disparity)
    assert torch.equal(batch.valid[0], stereo.valid) and (batch.target[batch.valid] > 0).all()
