"""What is in the pictures: levels as documented, rooms full of things, light that is enough."""

import pytest
import torch

from mimlib import world
from mimlib.world import CLASSES, LEVELS
from mimlib.world.rooms.levels import PAIR_LEVELS
from mimlib.world.sets.clips import ClipsRecipe, clip_frame
from mimlib.world.sets.pairs import PairsRecipe
from mimlib.world.sets.views import ViewsRecipe

COUNT, SIZE = 64, 32
TRUTH = ("image", "depth", "normals", "instances", "classes", "keypoints", "boxes", "camera")


@pytest.fixture(scope="module")
def seen():
    return {
        level: world.views(COUNT, SIZE, level, seed=6, truth=TRUTH, cache=False) for level in LEVELS
    }


@pytest.fixture(scope="module")
def drawn_pairs():
    return {level: recipe_of(level).draw(0) for level in PAIR_LEVELS}


def recipe_of(level, size=SIZE):
    return PairsRecipe(seed=6, size=size, level=level)


def share_with(found, name):
    """In how many views a class is seen, as a share."""
    here = found["classes"] == CLASSES.index(name)
    return float((here.flatten(1).sum(1) >= 4).float().mean())


@pytest.mark.parametrize("level", LEVELS)
def test_every_number_is_a_number(seen, level):
    for name, field in seen[level].items():
        assert torch.isfinite(field.float()).all(), name
    depth = seen[level]["depth"]
    assert (depth > 0.05).all() and (depth < 11).all()  # the diagonal of the largest room


@pytest.mark.parametrize("level", LEVELS)
def test_pictures_are_neither_dark_nor_burnt(seen, level):
    image = seen[level]["image"].float()
    mean = image.mean((1, 2, 3))
    assert 100 < mean.mean() < 180
    assert mean.min() > 40 and mean.max() < 230
    burnt = (image >= 255).all(1).float().mean((1, 2))
    assert burnt.mean() < 0.02 and burnt.max() < 0.3
    assert (image <= 2).all(1).float().mean() < 0.01


@pytest.mark.parametrize("level", LEVELS)
def test_pictures_have_something_to_see(seen, level):
    found = seen[level]
    things = torch.tensor([len(row.unique()) for row in found["instances"]])
    assert (things >= 4).all() and things.float().mean() > 6
    shell = (found["instances"] < 3).float().mean((1, 2))
    assert shell.mean() < 0.85 and (shell > 0.97).float().mean() < 0.1
    contrast = found["image"].float().std((2, 3)).mean(1)
    assert contrast.min() > 10 and contrast.mean() > 30
    assert (found["depth"].flatten(1).quantile(0.1, dim=1) > 0.4).all()  # nothing fills the view


@pytest.mark.parametrize("level", [name for name in LEVELS if name != "textured"])
def test_colors_are_those_of_rooms(seen, level):
    image = seen[level]["image"].float() / 255
    saturation = (image.amax(1) - image.amin(1)) / image.amax(1).clamp(min=1 / 255)
    assert 0.08 < saturation.mean() < 0.5
    red, _, blue = image.mean((0, 2, 3))
    assert red > blue  # warm light


def test_every_class_is_seen(seen):
    for name in CLASSES:
        assert max(share_with(found, name) for found in seen.values()) > 0.05, name
    assert share_with(seen["paper"], "floor") > 0.8
    assert 0.05 < share_with(seen["paper"], "person") < 0.6


def test_levels_differ_as_documented(seen):
    assert share_with(seen["clip"], "person") > share_with(seen["paper"], "person") + 0.1
    scenes = {level: ViewsRecipe(seed=6, size=SIZE, level=level).draw(0).scenes for level in LEVELS}
    people = {level: (s.people.slot >= 0).float().sum(1).mean() for level, s in scenes.items()}
    assert people["clip"] > people["paper"] + 0.3
    floor = {level: s.room.frequency[:, 4].mean() for level, s in scenes.items()}
    assert floor["easy"] < 0.7 * floor["paper"] < 0.7 * floor["hard"]  # textures per meter
    things = {level: (s.objects.class_id >= 3).float().sum(1).mean() for level, s in scenes.items()}
    assert things["hard"] > things["paper"]
    images = [found["image"] for found in seen.values()]
    for first, second in zip(images, images[1:]):
        assert not (first == second).flatten(1).all(1).any()


def test_rooms_have_the_size_of_rooms():
    room = ViewsRecipe(seed=6, size=SIZE, level="paper").draw(0).scenes.room
    width, height = room.size[:, :2], room.size[:, 2]
    assert (width >= 3.4).all() and (width <= 7).all()
    assert (height >= 2.4).all() and (height <= 3.1).all()
    assert (room.light > 0).all() and (room.light < room.size).all()


@pytest.mark.parametrize("level", PAIR_LEVELS)
def test_the_cameras_of_a_pair_keep_to_the_level(drawn_pairs, level):
    rules, drawn = LEVELS[level], drawn_pairs[level]
    first, second = drawn.cameras_1, drawn.cameras_2
    baseline = (first.position - second.position).norm(dim=1)
    low, high = rules.baseline
    assert (baseline > low - 1e-4).all() and (baseline < high + 1e-4).all()
    heading = [torch.atan2(c.rotation[:, 1, 2], c.rotation[:, 0, 2]) for c in (first, second)]
    turn = torch.remainder(heading[1] - heading[0] + torch.pi, 2 * torch.pi) - torch.pi
    assert (turn.abs() <= rules.max_turn + 1e-4).all()
    assert torch.equal(first.focal, second.focal)
    low, high = rules.covisibility
    assert (drawn.covisibility >= low).all() and (drawn.covisibility <= high).all()


def test_pairs_get_harder_from_level_to_level(drawn_pairs):
    lengths, overlap = [], []
    for level in ("easy", "paper", "hard"):
        drawn = drawn_pairs[level]
        found = recipe_of(level).render(drawn, ("flow",), None)["flow"]
        length = found["flow"].square().sum(-1).sqrt()
        lengths.append(length[found["visible"]].mean())
        overlap.append(drawn.covisibility.mean())
    assert lengths[0] < lengths[1] < lengths[2]
    assert overlap[0] > overlap[1] > overlap[2]


def test_easy_pairs_stay_within_eight_pixels_at_64(drawn_pairs):
    found = recipe_of("easy", 64).render(drawn_pairs["easy"], ("flow",), None)["flow"]
    length = found["flow"].square().sum(-1).sqrt()
    assert length[found["visible"]].max() <= 8 + 1e-3
    assert length[found["visible"]].mean() > 1


def test_something_that_moves_is_seen_in_every_clip():
    for group in range(4):
        drawn = ClipsRecipe(seed=6, size=SIZE, frames=9).draw(group)
        for time in (0, 8):
            seen = clip_frame(drawn, time, SIZE).surfaces.instance
            assert (drawn.motion.moving.gather(1, seen).float().mean(1) > 0.01).all()
