"""Real videos, where there are any: MIMLIB_REALDATA names the folder of data set samples."""

from itertools import islice

import pytest
import torch
from real_data import sample

from mimlib.data.videos.davis import DavisConfig
from mimlib.data.videos.frames import Frames
from mimlib.data.videos.masks import open_video
from mimlib.encoders.vit import ViTConfig
from mimlib.evaluation.propagation import PropagationConfig, encoder_maps, pixel_maps, propagate
from mimlib.metrics.videos import VideoScores, boundary_accuracy, region_similarity

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")
NUM_FRAMES = 8
SMALL = PropagationConfig(short_side=160, multiple=8, radius=6)
LENGTHS = {"blackswan": 50, "car-shadow": 40}


def davis():
    return DavisConfig(root=str(sample("davis2016_480p")), split="").build()


def test_davis_sequences_are_black_and_white():
    videos = davis()
    assert {video.name: len(video.masks) for video in videos} == LENGTHS
    for video in videos:
        frames = list(islice(video.frames, 2))
        assert [frame.shape for frame in frames] == [(3, 480, 854)] * 2
        for mask in (video.masks[0], video.masks[len(video.masks) - 1]):
            assert mask.shape == (480, 854) and mask.unique().tolist() == [0, 1]
            assert 0.01 < mask.float().mean() < 0.3


def test_a_real_mask_agrees_with_itself_only():
    for video in davis():
        here, later = video.masks[0].numpy() > 0, video.masks[20].numpy() > 0
        assert boundary_accuracy(here, here) == region_similarity(here, here) == 1
        assert boundary_accuracy(later, here) == pytest.approx(boundary_accuracy(here, later))
        assert 0 < boundary_accuracy(later, here) < 0.9
        assert 0 < region_similarity(later, here) < 0.9


def test_objects_are_followed_by_pixels_and_better_by_tokens_that_know_their_places():
    """The first frames; the encoder has learnt nothing. Blackswan: better than standing still."""
    torch.manual_seed(0)
    encoder = ViTConfig(width=64, depth=2, heads=2, patch_size=8, image_size=120).build().eval()
    ways = {"pixels": pixel_maps(8), "encoder": encoder_maps(encoder)}
    for video in davis():
        first, true = video.masks[0], [video.masks[i] for i in range(1, NUM_FRAMES)]
        found = {"still": [first] * len(true)}
        for name, describe in ways.items():
            frames = islice(video.frames, NUM_FRAMES)
            with torch.no_grad():
                found[name] = list(propagate(frames, first, describe, 8, SMALL))
        scores = {}
        for name, masks in found.items():
            counted = VideoScores()
            counted.update(masks, true, [1])
            scores[name] = counted.compute()
        assert scores["encoder"]["j_mean"] > scores["pixels"]["j_mean"] > 0.45, video.name
        if video.name == "blackswan":
            assert scores["encoder"]["j_and_f"] > scores["still"]["j_and_f"] + 0.02


def test_a_davis_sequence_with_one_mask(tmp_path):
    root = sample("davis2016_480p")
    frames = root / "JPEGImages/480p/car-shadow"
    video = open_video(frames, root / "Annotations/480p/car-shadow/00000.png")
    assert len(video.masks) == 1 and sum(1 for _ in Frames(frames)) == LENGTHS["car-shadow"]


def test_folders_with_other_pictures_beside_the_frames_are_refused():
    folder = sample("video_clips") / "mmaction2" / "imgs"
    with pytest.raises(ValueError, match="'img_', 'x_', 'y_'"):
        Frames(folder)


@pytest.mark.parametrize(
    ("name", "count", "sides"),
    [
        ("mmaction2/demo_arm_wrestling.mp4", 280, (256, 340)),
        ("mmaction2/test.avi", 164, (240, 320)),
        ("pysot/bag.avi", 196, (360, 480)),
    ],
)
def test_video_files(name, count, sides):
    found = [frame.shape for frame in Frames(sample("video_clips") / name)]
    assert found == [(3, *sides)] * count
