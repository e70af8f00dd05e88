"""Cells: nested order, places on maps, convolutions whose kernel is their stride."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mimlib.layers.cells import (
    as_map,
    as_tokens,
    find_places,
    join_tiles,
    nest_pixels,
    pick_cells,
    side_of,
)
from mimlib.layers.masking import as_bool, gather_tokens, random_mask
from mimlib.layers.patches import patchify

GRID = (3, 4)
LAYOUTS = [(2, 2), (2, 1), (1, 3), (3, 2), (1, 1)]


def maps_of(layout, channels=5, batch=2):
    h, w = (side * side_of(layout) for side in GRID)
    return torch.randn(batch, channels, h, w)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_maps_become_tokens_and_come_back(layout):
    maps = maps_of(layout)
    tokens = as_tokens(maps, layout)
    assert tokens.shape == (2, 12 * side_of(layout) ** 2, 5)
    assert torch.equal(as_map(tokens, GRID, layout), maps)


def test_squares_that_become_one_position_follow_each_other():
    """By hand: a cell of 4 x 4 positions, nested as 2 x 2 squares of 2 x 2."""
    raster = torch.arange(16.0).view(1, 1, 4, 4)
    order = as_tokens(raster, (2, 2)).flatten().long().tolist()
    assert order == [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_places_are_the_mask_up_sampled_to_the_nearest(layout):
    mask = random_mask(2, 12, 8, torch.Generator().manual_seed(0))
    places = find_places(mask.visible, GRID, layout)
    found = torch.zeros(2 * places.size[0] * places.size[1])
    found[places.rows] = 1
    keep = (~as_bool(mask)).float().view(2, 1, *GRID)
    assert torch.equal(found.view(2, 1, *places.size), F.interpolate(keep, size=places.size))
    maps = maps_of(layout)
    tokens = pick_cells(as_tokens(maps, layout), mask.visible, layout)
    rows = maps.movedim(1, -1).flatten(0, 2)[places.rows]
    assert torch.equal(tokens.flatten(0, 1), rows)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_convolution_of_tiles_is_the_convolution(layout):
    side = side_of(layout)
    conv = nn.Conv2d(5, 7, side, stride=side)
    maps = maps_of(layout)
    expected = as_tokens(conv(maps), (1, 1))
    ours = join_tiles(as_tokens(maps, layout), conv, layout)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout,side", [((2, 2), 4), ((2, 2), 2), ((1, 3), 2)])
def test_pixels_are_nested_like_the_map_they_become(layout, side):
    pixels = side_of(layout) * side
    images = torch.randn(2, 3, GRID[0] * pixels, GRID[1] * pixels)
    tokens = nest_pixels(patchify(images, pixels), layout, side)
    conv = nn.Conv2d(3, 7, side, stride=side)
    ours = as_map(join_tiles(tokens, conv, (1, side)), GRID, layout)
    torch.testing.assert_close(ours, conv(images), rtol=1e-5, atol=1e-5)


def test_pixels_of_some_cells_are_those_of_all_picked():
    images = torch.randn(2, 3, 24, 32)
    cells = random_mask(2, 12, 7, torch.Generator()).visible
    patches = patchify(images, 8)
    some = nest_pixels(gather_tokens(patches, cells), (2, 2), 2)
    every = nest_pixels(patches, (2, 2), 2)
    assert torch.equal(some, pick_cells(every, cells, (2, 4)))
