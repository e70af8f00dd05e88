"""J and F of an encoder on videos: what counts, what it is compared with, and in a training."""

from dataclasses import dataclass, field

import pytest
import torch
from test_tasks_propagation import SMALL, moving

from mimlib.data.images.configs import WorldImagesConfig
from mimlib.data.videos.masks import Video
from mimlib.data.videos.world import WorldVideosConfig
from mimlib.encoders.vit import ViTConfig
from mimlib.evaluation.label_propagation import LabelPropagationConfig
from mimlib.evaluation.propagation import PropagationConfig
from mimlib.methods.mae import MAEConfig
from mimlib.protocol import Encoder, Features
from mimlib.training.config import TrainConfig
from mimlib.training.trainer import Trainer

CPU = torch.device("cpu")
NAMES = {"j_and_f", "j_mean", "j_recall", "f_mean", "f_recall"}


@dataclass(frozen=True)
class Given:
    """Videos made by a test, in the place of a config of files."""

    videos: list = field(default_factory=list)

    def build(self):
        return self.videos


class Model(torch.nn.Module):
    """Something with an encoder."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder


class Mean(Encoder):
    """Describes a patch of 4 x 4 by its mean colour, with a module that must be put in order."""

    stride, width, num_layers = 4, 3, 1

    def __init__(self):
        super().__init__()
        self.drop = torch.nn.Dropout(0.9)

    def forward(self, images, mask=None, levels=()):
        assert levels == (-1,)
        means = self.drop(torch.nn.functional.avg_pool2d(images, 4))
        return Features(means.flatten(2).mT, None, means.shape[-2:], (means,))

    def layer_of(self, name):
        return 0


def measure(*videos, encoder=None, **options):
    config = LabelPropagationConfig(source=Given(list(videos)), propagation=SMALL, **options)
    return config.build().run(Model(encoder or Mean()), CPU)


def test_things_are_found_and_pixels_stand_beside():
    frames, masks = moving(5)
    model = Model(Mean()).train()
    evaluation = LabelPropagationConfig(
        source=Given([Video("a", frames, masks)]), propagation=SMALL
    ).build()
    found = evaluation.run(model, CPU)
    assert set(found) == NAMES | {f"pixels_{name}" for name in NAMES}
    assert found["pixels_j_mean"] > 0.7 and found["pixels_j_recall"] == 1
    assert found["j_and_f"] == pytest.approx((found["j_mean"] + found["f_mean"]) / 2)
    assert model.encoder.drop.training
    assert evaluation.run(model, CPU) == found, "the same numbers every time"


def test_neither_the_first_nor_the_last_frame_counts():
    """Nor one without a mask. The answers there are made wrong: the number stays the same."""
    frames, masks = moving(5)
    found = measure(Video("a", frames, masks))
    assert measure(Video("a", frames, [*masks[:-1], 3 - masks[-1]])) == found
    spoiled = [masks[0], masks[1], torch.zeros_like(masks[2]), *masks[3:]]
    assert measure(Video("a", frames, spoiled)) != found
    sparse = [masks[0], masks[1], None, masks[3], None]
    assert measure(Video("a", frames, sparse))["j_mean"] > 0.5


def test_objects_that_appear_later_are_background():
    """Object 7 is not in the first mask: only object 3 is followed and measured."""
    frames, masks = moving(5)
    later = [torch.where(masks[0] == 3, 3, 0).to(torch.uint8), *masks[1:]]
    alone = [torch.where(mask == 3, 3, 0).to(torch.uint8) for mask in masks]
    assert measure(Video("a", frames, later)) == measure(Video("a", frames, alone))


def test_the_first_videos_only():
    videos = [Video(str(step), *moving(4, step=step)) for step in (0, 4)]
    first = measure(videos[0])
    assert measure(*videos, num_videos=1) == first != measure(*videos)
    with pytest.raises(ValueError, match="num_videos is -1; expected 0 <="):
        LabelPropagationConfig(source=WorldVideosConfig(count=1), num_videos=-1)


def test_a_video_with_nothing_to_compare_is_refused():
    frames, masks = moving(4)
    for kept in (masks[:1], masks[:2], [masks[0], None, None, masks[3]]):
        with pytest.raises(ValueError, match="walk has no mask between its first and its last"):
            measure(Video("walk", frames, kept))


def test_a_training_measures_it(tmp_path):
    encoder = ViTConfig(width=16, depth=1, heads=2, patch_size=8, image_size=32)
    method = MAEConfig(
        encoder=encoder, decoder_width=16, decoder_depth=1, decoder_heads=2, mask_ratio=0.5
    ).build()
    evaluation = LabelPropagationConfig(
        source=WorldVideosConfig(count=2, frames=4, size=32),
        propagation=PropagationConfig(short_side=32, multiple=8, radius=2),
        name="clips",
    ).build()
    train = TrainConfig(steps=2, batch_size=4, device="cpu", threads=1)
    data = WorldImagesConfig(count=8, size=32).build()
    summary = Trainer(method, data, train, [evaluation], tmp_path, progress=False).fit()
    assert 0 < summary.history[-1]["clips/j_and_f"] < 1
    assert 0 < summary.history[-1]["clips/pixels_j_and_f"] < 1
