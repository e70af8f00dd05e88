"""Rays in bundles: what is left out of the tests is nothing that a ray meets."""

import pytest
import torch
from world_oracle import bare_room

from mimlib.world import Cameras, look
from mimlib.world.rendering import cast
from mimlib.world.rendering.cameras import pixel_rays
from mimlib.world.rendering.cast import bundle, first_hit, reaches, separate
from mimlib.world.rooms.scenes import place_shapes, take
from mimlib.world.sets.views import ViewsRecipe


@pytest.fixture
def exhaustive(monkeypatch):
    """Return what a function gives when every bundle is tested against every shape."""

    def all_of_them(function, *arguments):
        with monkeypatch.context() as patch:
            patch.setattr(cast, "may_meet", everything)
            return function(*arguments)

    def everything(rays, solids, longest):
        return torch.ones(*rays.shape[:2], len(solids.slot), dtype=torch.bool)

    return all_of_them


@pytest.fixture(scope="module")
def drawn():
    recipes = [ViewsRecipe(seed=5, size=16, level=level) for level in ("paper", "hard")]
    views = [take(recipe.draw(0), slice(0, 16)) for recipe in recipes]
    return [(view.scenes, place_shapes(view.scenes), view.cameras) for view in views]


@pytest.mark.parametrize("size", [1, 8, 13, 64])
def test_no_shape_that_a_ray_meets_is_left_out(drawn, exhaustive, size):
    for scenes, placed, cameras in drawn:
        rays = pixel_rays(cameras, size)
        found = first_hit(scenes, placed, cameras.position, rays)
        expected = exhaustive(first_hit, scenes, placed, cameras.position, rays)
        assert all(torch.equal(*pair) for pair in zip(found, expected))
        assert size < 8 or (found.slot >= 0).float().mean() > 0.1
        points = cameras.position[..., None] + found.t[:, None] * rays
        to_points = points - scenes.room.light[..., None]
        lit = reaches(scenes, placed, scenes.room.light, 0.99 * to_points)
        assert torch.equal(
            lit, exhaustive(reaches, scenes, placed, scenes.room.light, 0.99 * to_points)
        )
        assert size < 8 or 0.3 < lit.float().mean() < 0.99


@pytest.mark.parametrize("count", [1, 63, 130])
def test_rays_to_anywhere_are_no_exception(drawn, exhaustive, count):
    """Bundles that look into all directions, from the middle of a shape."""
    generator = torch.Generator().manual_seed(count)
    for scenes, placed, _ in drawn:
        origin = placed.center[torch.arange(16), torch.randint(0, 20, (16,), generator=generator)]
        rays = 4 * torch.randn(16, 3, count, generator=generator)
        for function in (first_hit, reaches):
            found = function(scenes, placed, origin, rays)
            expected = exhaustive(function, scenes, placed, origin, rays)
            pairs = zip(found, expected) if function is first_hit else [(found, expected)]
            assert all(torch.equal(*pair) for pair in pairs)


def test_an_origin_on_the_plane_of_a_face(exhaustive):
    """Differences that are exactly zero, where a bound could be infinite or not a number."""
    half = 0.5 - cast.SLACK[0]
    scenes = bare_room([(0, (4.0, 2.5, 1.5), (0.5, half, half)), (0, (3.0, 2.0, 1.0), (0.4,) * 3)])
    placed = place_shapes(scenes)
    position = torch.tensor([[2.0, 3.0, 1.0]])
    turn = look(torch.zeros(1), torch.zeros(1))
    rays = pixel_rays(Cameras(position, turn, torch.tensor([0.5])), 31)
    found = first_hit(scenes, placed, position, rays)
    expected = exhaustive(first_hit, scenes, placed, position, rays)
    assert all(torch.equal(*pair) for pair in zip(found, expected))
    assert {-1, 0, 1} == set(found.slot.flatten().tolist())


def test_few_tests_are_made(drawn):
    """Of the pairs of a ray and a shape; half of the time of a view was spent on the others."""
    for scenes, placed, cameras in drawn:
        rays = pixel_rays(cameras, 64)
        met = cast.meet(scenes, placed, cameras.position, rays, float("inf"))
        pairs = scenes.shapes.counts.sum(1).float().mean() * 16 * 64
        assert 0.005 < len(met.t) / pairs < 0.1


@pytest.mark.parametrize("count", [1, 64, 144, 169, 130, 4096])
def test_bundles_come_apart_again(count):
    values = torch.arange(2 * 3 * count).reshape(2, 3, count).float()
    bundles = bundle(values)
    for axis in range(3):
        back = separate(bundles[:, :, axis].flatten(0, 1), values.shape)
        assert torch.equal(back, values[:, axis])


def test_bundles_of_an_image_are_squares_of_it():
    row, column = torch.meshgrid(torch.arange(20.0), torch.arange(20.0), indexing="ij")
    places = torch.stack((row.flatten(), column.flatten(), row.flatten()))[None]
    bundles = bundle(places)
    assert bundles.shape == (1, 9, 3, 64)
    for number, square in enumerate(bundles[0]):
        top, left = number // 3 * 8, number % 3 * 8
        assert square[0].min() == top and square[0].max() == min(top + 7, 19)
        assert square[1].min() == left and square[1].max() == min(left + 7, 19)
