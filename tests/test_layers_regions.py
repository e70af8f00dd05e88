"""Regions: where boxes lie, and what is looked up in them."""

import pytest
import torch

from mimlib.layers.regions import (
    RandomBoxConfig,
    align_regions,
    key_frame,
    make_boxes,
    pool_regions,
)


def draw(num_boxes=5000, **changes):
    config = RandomBoxConfig(num_boxes=num_boxes, **changes)
    return config.draw(2, torch.Generator().manual_seed(0))


def test_a_ramp_is_looked_up_in_cells():
    """Values 0 to 48 on 7 x 7 cells: the means of four boxes, by hand."""
    ramp = torch.arange(49.0).reshape(1, 1, 7, 7)
    cells = torch.tensor([(0, 0, 7, 7), (1, 1, 3, 3), (2, 0.5, 6.5, 4), (6.5, 6.5, 6.99, 6.99)])
    found = pool_regions(ramp, cells[None] / 7).flatten()
    torch.testing.assert_close(found, torch.tensor([27.75, 16.0, 20.0, 48.0]))
    whole = align_regions(ramp, torch.tensor([[[0.0, 0.0, 1.0, 1.0]]]), bins=7)
    inner = whole[0, 0, 0, :6, :6]  # the middle of each cell, half way to the next
    torch.testing.assert_close(inner, ramp[0, 0, :6, :6] + 4)


def test_every_clip_has_boxes_of_its_own():
    maps, boxes = torch.randn(3, 4, 5, 6), draw(num_boxes=2)[:1].repeat(3, 1, 1)
    boxes[1] = boxes[1].flip(0)
    together = pool_regions(maps, boxes)
    for i in range(3):
        torch.testing.assert_close(together[i], pool_regions(maps[i : i + 1], boxes[i : i + 1])[0])


@pytest.mark.parametrize("frames,expected", [(1, 0), (2, 1), (3, 1), (8, 4)])
def test_the_key_frame_is_in_the_middle(frames, expected):
    maps = torch.arange(frames).float().reshape(1, 1, frames, 1, 1)
    assert key_frame(maps) == expected


def test_boxes_follow_their_law():
    left, top, right, bottom = boxes = draw().unbind(dim=-1)
    width, height = right - left, bottom - top
    assert torch.stack(boxes).min() >= 0 and torch.stack([right, bottom]).max() <= 0.9990001
    whole = (right < 0.998) & (bottom < 0.998)
    assert (width[whole] >= 0.0999).all() and width.max() <= 0.5001
    aspect = (height / width)[whole]
    assert aspect.min() >= 0.499 and aspect.max() <= 2.001
    assert whole.float().mean().item() == pytest.approx(0.452, abs=0.02)  # of the official draws
    pairs = torch.corrcoef(torch.stack([left.flatten(), top.flatten()]))
    assert pairs[0, 1].abs() < 0.03


def test_locked_boxes_are_one_family():
    left, top, right, bottom = draw(locked=True).unbind(dim=-1)
    assert torch.equal(left, top)
    torch.testing.assert_close(right, (left + 0.1 + 0.4 * left).clamp(max=0.999))
    height = (0.1 + 0.4 * left) * (0.5 + 1.5 * left)
    torch.testing.assert_close(bottom, (top + height).clamp(max=0.999))


def test_draws_are_those_of_the_generator():
    assert torch.equal(draw(), draw())
    whole = RandomBoxConfig(num_boxes=1, width=(1.0, 1.0), aspect=(1.0, 1.0))
    assert torch.equal(
        make_boxes(torch.zeros(1, 1, 4), whole), torch.tensor([[[0, 0, 0.999, 0.999]]])
    )


def test_gradients_reach_maps_and_not_boxes():
    maps = torch.randn(1, 2, 4, 4, requires_grad=True)
    pool_regions(maps, torch.tensor([[[0.1, 0.1, 0.4, 0.4]]])).sum().backward()
    assert maps.grad[..., :3, :3].abs().sum() > 0 and not maps.grad[..., 3, :].any()


@pytest.mark.parametrize("changes,message", [
    ({"num_boxes": 0}, "num_boxes is 0; expected 1 <= num_boxes"),
    ({"width": (0.5, 0.1)}, r"width is \(0.5, 0.1\); expected 0 < low <= high <= 1"),
    ({"aspect": (0.0, 1.0)}, r"aspect is \(0.0, 1.0\); expected 0 < low <= high"),
])  # fmt: skip
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        RandomBoxConfig(**changes)
