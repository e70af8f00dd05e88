"""Real pairs, flow, disparity and depth, where there are any: MIMLIB_REALDATA names the folder."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from real_data import sample

from mimlib.data.dense.depth import DepthFilesConfig
from mimlib.data.files.numbers import (
    read_flo,
    read_mask,
    read_pfm_disparity,
    read_sintel_flow,
    read_visible_disparity,
)
from mimlib.data.files.pictures import read_image
from mimlib.data.matching.source import MatchingFilesConfig
from mimlib.data.pairs.covisibility import covisibility
from mimlib.data.pairs.files import PairFolderConfig
from mimlib.data.pairs.rgbd import RGBDPairsConfig, find_sequences
from mimlib.presets.tasks.matching import FLOW_CROP, STEREO_CROP

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")


def warp_error(image_1, image_2, flow, valid):
    """Mean absolute difference to image 2, warped by the flow and as it is, where that is known."""
    height, width = valid.shape
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([columns, rows], dim=-1) + 0.5 + flow
    size = torch.tensor([width, height])
    counted = valid & ((places > 0) & (places < size)).all(-1)
    grid = (2 * places / size - 1)[None]
    warped = F.grid_sample(image_2[None].float(), grid, align_corners=False)[0]
    errors = [(view - image_1.float()).abs().mean(0)[counted].mean() for view in (warped, image_2)]
    return float(errors[0]), float(errors[1])


def test_sintel():
    root = sample("sintel_flow")
    for rendering in ("clean", "final"):
        layout = f"sintel_{rendering}"
        source = MatchingFilesConfig(root=str(root), layout=layout, size=(320, 384)).build()
        batch = source.first(1)
        assert batch.image_1.shape == (1, 3, 436, 1024)
        pair = (batch.image_1[0], batch.image_2[0], batch.target[0], batch.valid[0])
        warped, unwarped = warp_error(*pair)
        assert warped < 0.4 * unwarped
        cropped = next(source.batches(0, 2, seed=0))
        assert cropped.target.shape == (2, 320, 384, 2)
    folder = root / "training"
    name = "alley_1/frame_0002"
    flow = read_sintel_flow(folder / f"flow/{name}.flo", folder / f"invalid/{name}.png")
    hidden = read_mask(folder / f"occlusions/{name}.png")
    assert 0.9 < flow.valid.float().mean() < 1
    assert 0 < hidden.float().mean() < 0.1


@pytest.mark.parametrize("layout", ["sintel_clean", "middlebury"])
def test_displacements_stay_true_when_pairs_are_changed(layout):
    """Scaled, stretched, mirrored: image 2 brought back by the displacements is still image 1."""
    stereo = layout == "middlebury"
    root = sample("stereo_samples") / "MIDDLEBURY_2014" if stereo else sample("sintel_flow")
    changes = STEREO_CROP | {"misaligned": 0.0, "size": (320, 448)} if stereo else FLOW_CROP
    changes = changes | {"jitter": 0.0, "hue": 0.0, "scale": (-0.2, 0.4)}
    source = MatchingFilesConfig(root=str(root), layout=layout, **changes).build()
    batch = next(source.batches(0, 8, seed=0))
    for pair in zip(*batch):
        image_1, image_2, flow, valid = pair
        if stereo:
            flow = torch.cat([-flow, torch.zeros_like(flow)], dim=-1)
        warped, unwarped = warp_error(image_1, image_2, flow, valid)
        assert warped < 0.5 * unwarped


def test_what_the_right_image_hides_is_masked():
    folder = sample("stereo_samples") / "MIDDLEBURY_2014/trainingQ/Motorcycle"
    whole = read_pfm_disparity(folder / "disp0GT.pfm")
    seen = read_visible_disparity(folder / "disp0GT.pfm", folder / "mask0nocc.png")
    assert (seen.valid <= whole.valid).all()
    assert 0.8 < seen.valid.sum() / whole.valid.sum() < 0.95
    source = MatchingFilesConfig(root=str(folder.parent), layout="eth3d_visible", size=(64, 64))
    assert torch.equal(source.build().first(1).valid[0], seen.valid)


def test_flying_chairs():
    folder = sample("flyingchairs_examples")
    images = [read_image(folder / f"0000000-img{i}.ppm") for i in (0, 1)]
    flow = read_flo(folder / "0000000-gt.flo")
    assert flow.values.shape == (384, 512, 2) and flow.valid.all()
    warped, unwarped = warp_error(*images, *flow)
    assert warped < 0.5 * unwarped


def test_middlebury():
    folder = sample("stereo_samples") / "MIDDLEBURY_2014"
    source = MatchingFilesConfig(root=str(folder), layout="middlebury", size=(352, 704)).build()
    batch = source.first(1)
    assert 0.9 < batch.valid.float().mean() < 1
    assert batch.target[batch.valid].min() > 5 and batch.target.max() < 70
    flow = torch.cat([-batch.target[0], torch.zeros_like(batch.target[0])], dim=-1)
    warped, unwarped = warp_error(batch.image_1[0], batch.image_2[0], flow, batch.valid[0])
    assert warped < 0.4 * unwarped
    known = read_pfm_disparity(folder / "trainingQ/Motorcycle/disp1GT.pfm")
    assert known.valid.float().mean() > 0.9


def test_seven_scenes_pairs_see_the_same():
    """For the first two pairs reprojecting the depth gives 0.89 and 0.33 of the pixels."""
    root = sample("sevenscenes_rgbd")
    config = RGBDPairsConfig(root=str(root), size=224, partners=4)
    (sequence,) = find_sequences(str(root))
    number = {Path(f.color).name[6:12]: i for i, f in enumerate(sequence.frames)}
    for one, two, low, high in (("000000", "000020", 0.7, 0.95), ("000000", "000100", 0.2, 0.5),
                                ("000380", "000480", 0.1, 0.35)):  # fmt: skip
        clouds, trees = zip(*(sequence.cloud(number[n]) for n in (one, two)))
        assert low < covisibility(*clouds, trees=trees) < high
    source = config.build()
    assert 5 < len(source) < 4 * len(sequence.frames)
    batch = next(source.batches(0, 4, seed=0))
    assert batch.image_1.shape == (4, 3, 224, 224)


def test_seven_scenes_depth():
    root = str(sample("sevenscenes_rgbd"))
    source = DepthFilesConfig(root=root, layout="seven_scenes", size=96).build()
    batch = next(source.batches(0, 4, seed=0))
    assert batch.images.shape == (4, 3, 96, 96)
    assert 0.5 < batch.valid.float().mean() < 1
    assert batch.target[batch.valid].min() > 0.1 and batch.target.max() < 4
    changed = DepthFilesConfig(
        root=root, layout="seven_scenes", size=96, square=True, jitter=(0.1, 0.4, 0.5), hue=0.2
    )
    batch = next(changed.build().batches(0, 4, seed=0))
    assert batch.images.shape == (4, 3, 96, 96) and batch.valid.float().mean() > 0.5


def test_photographs_of_one_place(tmp_path):
    folder = sample("croco_assets")
    for view in (1, 2):
        (tmp_path / f"chateau_{view}.png").symlink_to(folder / f"Chateau{view}.png")
    batch = PairFolderConfig(root=str(tmp_path), size=224).build().first(1)
    assert batch.image_1.shape == batch.image_2.shape == (1, 3, 224, 224)
    assert 40 < batch.image_1.float().mean() < 220
