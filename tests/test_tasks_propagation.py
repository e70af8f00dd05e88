"""Labels travel as official, in blocks that stay small, and bad input is named."""

import pytest
import torch
from parity_propagation import neighbourhood
from torch import is_tensor
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mimlib.encoders.convvit import ConvViTConfig
from mimlib.encoders.vit import ViTConfig
from mimlib.evaluation.propagation import (
    PropagationConfig,
    encoder_maps,
    frame_features,
    pixel_maps,
    propagate,
    propagate_soft,
    propagate_step,
    read_out,
    resized_sides,
)

SMALL = PropagationConfig(short_side=32, multiple=8, radius=3)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def unit(*shape, seed=0):
    return normalize(draw(*shape, seed=seed), dim=-1)


def moving(num_frames=5, step=4, sides=(32, 48)):
    """Frames and masks: two textured squares that move to the right over a textured ground."""
    ground = torch.randint(0, 90, (3, *sides), generator=torch.Generator().manual_seed(1))
    things = torch.randint(120, 256, (2, 3, 8, 8), generator=torch.Generator().manual_seed(2))
    frames, masks = [], []
    for index in range(num_frames):
        frame, mask = ground.clone(), torch.zeros(sides, dtype=torch.uint8)
        for number, (top, thing) in enumerate(zip((0, 16), things)):
            place = slice(top, top + 8), slice(step * index, step * index + 8)
            frame[:, place[0], place[1]], mask[place] = thing, (3, 7)[number]
        frames.append(frame.to(torch.uint8))
        masks.append(mask)
    return frames, masks


@pytest.mark.parametrize("tile", [1, 3, 8])
def test_blocks_change_nothing(tile):
    """Against the rule of the paper, token by token."""
    h, w, config = 7, 9, PropagationConfig(radius=2, neighbors=4, tile=tile)
    target, sources, labels = unit(h, w, 6), unit(3, h, w, 6, seed=1), draw(3, h, w, 2).softmax(-1)
    found = propagate_step(target, sources, labels, config)
    for row in range(h):
        for column in range(w):
            near = [
                (float((target[row, column] @ sources[k, y, x] / 0.1).exp()), labels[k, y, x])
                for k in range(3)
                for y in range(max(0, row - 2), min(h, row + 3))
                for x in range(max(0, column - 2), min(w, column + 3))
            ]
            best = sorted(near, key=lambda pair: -pair[0])[:4]
            expected = sum(a * label for a, label in best) / sum(a for a, _ in best)
            torch.testing.assert_close(found[row, column], expected)


def test_sources_lie_within_a_square_cut_at_the_border():
    near = neighbourhood(30, 52, PropagationConfig()).sum(1).reshape(30, 52)
    assert near[12, 12] == near[17, 39] == 625 and near[0, 0] == near[29, 51] == 169
    assert near.max() == 625 and near[0, 26] == 13 * 25


def test_an_identical_frame_gives_the_first_mask_back():
    """Tokens that are unlike each other find themselves (specified check)."""
    h, w = 5, 6
    maps = torch.eye(h * w).reshape(h, w, h * w)
    ids = torch.arange(h * w).reshape(h, w) % 3
    labels = torch.nn.functional.one_hot(ids, 3).float()
    soft = list(propagate_soft([maps] * 4, labels, PropagationConfig()))
    assert len(soft) == 3
    for each in soft:
        torch.testing.assert_close(each.sum(-1), torch.ones(h, w))
        assert torch.equal(each.argmax(-1), ids)
        assert torch.equal(read_out(each, 1, (h, w)), ids)


def test_the_first_frame_and_the_last_seven_are_looked_back_at(monkeypatch):
    seen = []
    module = "mimlib.evaluation.propagation"

    def watch(target, sources, labels, config):
        seen.append([float(source[0, 0, 0]) for source in sources])
        return labels[0]

    monkeypatch.setattr(f"{module}.propagate_step", watch)
    maps = [torch.full((1, 1, 1), float(t)) for t in range(11)]
    list(propagate_soft(maps, torch.ones(1, 1, 1), PropagationConfig()))
    assert seen[:3] == [[0], [0, 1], [0, 1, 2]]
    assert seen[7:] == [[0, 1, 2, 3, 4, 5, 6, 7], [0, *range(2, 9)], [0, *range(3, 10)]]
    seen.clear()
    list(propagate_soft(maps, torch.ones(1, 1, 1), PropagationConfig(context=0)))
    assert seen == [[0]] * 10


class Largest(TorchDispatchMode):
    """The number of elements of the largest new tensor."""

    elements = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        given, made = (
            {
                each.untyped_storage().data_ptr(): each
                for each in tree_leaves(tree)
                if is_tensor(each)
            }
            for tree in ((arguments, keywords), result)
        )
        for storage in made.keys() - given.keys():  # the others are views
            self.elements = max(self.elements, made[storage].numel())
        return result


@pytest.mark.parametrize("grid", [(24, 24), (48, 72)])
def test_memory_is_that_of_a_block_however_large_the_frame(grid):
    config, frames, width = PropagationConfig(radius=5, tile=4), 3, 8
    around = frames * (4 + 2 * 5) ** 2
    target, sources = unit(*grid, width), unit(frames, *grid, width)
    labels = torch.ones(frames, *grid, 2)
    with Largest() as largest:
        propagate_step(target, sources, labels, config)
    stated = max(around * 4**2, grid[0] * grid[1] * 2)  # a table of affinities; the answer
    assert around * 4**2 <= largest.elements <= stated
    defaults = PropagationConfig()
    side = defaults.tile + 2 * defaults.radius
    assert 4 * defaults.tile**2 * (1 + defaults.context) * side**2 == 2 * 2**20  # as it says


@pytest.mark.parametrize("step", [0, 4])
def test_pixels_follow_textured_things(step):
    """They move by whole patches, so that even pixels find them exactly; ids stay what they are."""
    frames, masks = moving(step=step)
    answers = list(propagate(frames, masks[0], pixel_maps(4), 4, SMALL))
    assert len(answers) == len(frames) - 1
    for answer, mask in zip(answers, masks[1:]):
        assert answer.dtype == torch.uint8 and set(answer.unique().tolist()) == {0, 3, 7}
        for number in (3, 7):
            found, true = answer == number, mask == number
            assert (found & true).sum() / (found | true).sum() > 0.7


@pytest.mark.parametrize("sides", [(32, 48), (48, 32), (35, 50), (64, 64)])
@pytest.mark.parametrize(
    "encoder",
    [
        ViTConfig(width=32, depth=1, heads=2, patch_size=8, image_size=32),
        ViTConfig(width=32, depth=1, heads=2, patch_size=8, image_size=64, class_token=False),
        ConvViTConfig(
            widths=(8, 16, 32), depths=(1, 1, 1), heads=2, entries=(2, 2, 2), image_size=32
        ),
    ],
    ids=["vit", "no class token", "convvit"],
)
def test_every_encoder_and_any_size_of_frame(encoder, sides):
    encoder = encoder.build().eval()
    frames, masks = moving(3, sides=sides)
    with torch.no_grad():
        answers = list(propagate(frames, masks[0], encoder_maps(encoder), encoder.stride, SMALL))
    assert [answer.shape for answer in answers] == [sides] * 2
    assert all(set(answer.unique().tolist()) <= {0, 3, 7} for answer in answers)


def test_frames_are_described_before_the_norm_some_at_once():
    encoder = ViTConfig(width=32, depth=2, heads=2, patch_size=8, image_size=32).build().eval()
    for parameter in encoder.norm.parameters():
        torch.nn.init.constant_(parameter, torch.nan)
    frames = moving(7, sides=(32, 32))[0]
    sizes = []

    def describe(images):
        sizes.append(len(images))
        return encoder_maps(encoder)(images)

    size, cpu = (32, 32), torch.device("cpu")
    one_by_one = [next(frame_features([f], size, size, describe, cpu)) for f in frames]
    together = list(frame_features(frames, size, size, describe, cpu))
    assert sizes == [1] * 7 + [7]
    torch.testing.assert_close(torch.stack(together), torch.stack(one_by_one))
    torch.testing.assert_close(together[0].norm(dim=-1), torch.ones(4, 4))


def test_sizes_of_davis_and_others():
    config = PropagationConfig()
    assert resized_sides(480, 854, 16, config) == (480, 832)  # 30 x 52 tokens
    assert resized_sides(1080, 1920, 8, config) == (480, 832)
    assert resized_sides(854, 480, 16, config) == (832, 480)
    assert resized_sides(480, 910, 16, config) == (480, 896)
    for sides, stride, changes, message in (
        ((480, 854), 14, {}, "stride of 14 pixels; set short_side=476 and multiple=70"),
        ((40, 40), 8, {"short_side": 40}, "multiple of 64 that it is rounded to; set multiple=8"),
    ):
        with pytest.raises(ValueError, match=message):
            resized_sides(*sides, stride, PropagationConfig(**changes))
    patches_of_14 = PropagationConfig(short_side=476, multiple=70)
    assert resized_sides(480, 854, 14, patches_of_14) == (476, 840)


def test_a_thing_that_fills_the_frame_or_is_smaller_than_a_token():
    frames = moving(3, sides=(32, 32))[0]
    whole = torch.ones(32, 32, dtype=torch.uint8)
    assert all((a == 1).all() for a in propagate(frames, whole, pixel_maps(8), 8, SMALL))
    speck = torch.zeros(32, 32, dtype=torch.uint8)
    speck[0, 0] = 1
    assert not any(a.any() for a in propagate(frames, speck, pixel_maps(8), 8, SMALL))


def test_faint_labels_still_count():
    """Every label is stretched to its own range before the strongest one wins."""
    soft = torch.tensor([[[0.8, 0.2], [0.92, 0.08]], [[0.95, 0.05], [1.0, 0.0]]])  # [h, w, M]
    assert torch.equal(read_out(soft, 1, (2, 2)), torch.tensor([[1, 0], [0, 0]]))


def test_bad_videos_are_named():
    frames, masks = moving(4)
    follow_all = lambda f, m: list(propagate(f, m, pixel_maps(8), 8, SMALL))  # noqa: E731
    frames[2] = frames[2][:, :-1]
    with pytest.raises(ValueError, match=r"frame 2 \(from 0\) has \(31, 48\) pixels.*\(32, 48\)"):
        follow_all(frames, masks[0])
    with pytest.raises(ValueError, match=r"frame 0 \(from 0\) has \(32, 48\) pixels"):
        follow_all(frames, masks[0][:-1])
    with pytest.raises(ValueError, match="the first mask shows no object"):
        follow_all(frames, torch.zeros_like(masks[0]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"context": -1}, "context is -1; expected 0 <= context"),
        ({"neighbors": 0}, "neighbors is 0; expected 0 < neighbors"),
        ({"temperature": 0.0}, "temperature is 0.0; expected 0 < temperature"),
    ],
)
def test_numbers_outside_their_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        PropagationConfig(**changes)
