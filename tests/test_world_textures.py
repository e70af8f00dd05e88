"""Textures, the atlas that holds them, and light."""

from importlib.util import find_spec

import pytest
import torch
from world_oracle import bare_room, cast

from mimlib.world import Cameras, default_atlas, look, trace
from mimlib.world.rendering.render import shade
from mimlib.world.rooms import textures
from mimlib.world.rooms.atlas import FAMILIES, Atlas, draw_atlas
from mimlib.world.rooms.levels import LEVELS, MATERIALS

SIDE, EACH = 16, 4
TILING = [name for name in FAMILIES if name not in ("poster", "photo")]


@pytest.fixture(scope="module")
def small():
    return draw_atlas(SIDE, EACH)


def finest(atlas):
    """The finest level of every texture, [G, S, S, 3]."""
    texels = atlas.texels.unflatten(0, (-1, atlas.stride))[:, : atlas.side**2]
    return texels.unflatten(1, (atlas.side, atlas.side)).float()


def test_the_atlas_is_the_same_every_time(small):
    again = draw_atlas(SIDE, EACH)
    assert torch.equal(small.texels, again.texels) and torch.equal(small.offsets, again.offsets)


def test_the_default_atlas_is_full():
    atlas = default_atlas()
    images = finest(atlas)
    assert images.shape == (48 * len(FAMILIES), 128, 128, 3)
    assert len(images.flatten(1).unique(dim=0)) == len(images)
    family = images.unflatten(0, (-1, 48))
    contrast = family.std((2, 3)).mean((1, 2))
    assert (contrast > 2).all()
    assert contrast[list(FAMILIES).index("plain")] < contrast.median()


def test_mip_levels_are_means_of_the_finest(small):
    assert small.offsets.tolist() == [0, 256, 320, 336, 340]
    assert small.stride == 341
    texels = small.texels.unflatten(0, (-1, small.stride)).float()
    mean = finest(small).mean((1, 2))
    assert (texels[:, -1] - mean).abs().max() < 2
    quarter = texels[:, 256:320].mean(1)
    assert (quarter - mean).abs().max() < 2


def test_sampling_reads_texels_at_their_centers_and_blends_between(small):
    line = (torch.arange(SIDE) + 0.5) / SIDE
    v, u = torch.meshgrid(line, line, indexing="ij")
    u, v = u.flatten()[None], v.flatten()[None]
    texture, fine = torch.full(u.shape, 7), torch.ones(u.shape)
    image = finest(small)[7].flatten(0, 1) / 255
    assert (small.sample(texture, u, v, fine)[0] - image).abs().max() < 1e-5
    shifted = small.sample(texture, u - 3, v + 2, fine)[0]
    assert (shifted - image).abs().max() < 1e-4  # textures repeat
    between = small.sample(texture, u + 0.5 / SIDE, v, fine)[0].unflatten(0, (SIDE, SIDE))
    rows = image.unflatten(0, (SIDE, SIDE))
    assert (between - (rows + rows.roll(-1, 1)) / 2).abs().max() < 1e-5
    far = small.sample(texture, u, v, torch.full(u.shape, 1e6))[0]
    assert (far - image.mean(0)).abs().max() < 0.01


def test_picking_keeps_to_families_and_to_the_calm_half(small):
    names = list(FAMILIES)
    generator = torch.Generator().manual_seed(0)
    for calm, limit in ((False, EACH), (True, EACH // 2)):
        picked = small.pick(("wood", "dots"), 200, generator, calm)
        family, number = picked // EACH, picked % EACH
        assert set(family.tolist()) == {names.index("wood"), names.index("dots")}
        assert set(number.tolist()) == set(range(limit))


@pytest.mark.parametrize("name", TILING)
def test_textures_tile(name):
    """The seam between two copies is no sharper than the texture inside."""
    brush = textures.Brush(8, 64, torch.Generator().manual_seed(2))
    images = FAMILIES[name](brush).expand(8, 64, 64, 3)
    for axis in (1, 2):
        step = (images - images.roll(1, axis)).abs().mean((0, 3 - axis, 3))
        assert step[0] < 2.5 * step[1:].quantile(0.95) + 0.02


def test_pictures_are_photographs_but_not_the_stereo_pair():
    assert not any("motorcycle" in name for name in textures.PHOTOGRAPHS)
    pictures = textures.photographs()
    assert len(pictures) >= 3
    for picture in pictures:
        assert picture.shape[:2] == (1, 3) and min(picture.shape[2:]) >= 128
        assert picture.min() >= 0 and 0.5 < picture.max() <= 1


def test_a_scikit_image_without_photographs_is_named(monkeypatch, tmp_path):
    spec = find_spec("skimage")
    monkeypatch.setattr(spec, "submodule_search_locations", [str(tmp_path)])
    monkeypatch.setattr(textures, "find_spec", lambda name: spec)
    with pytest.raises(FileNotFoundError, match="bundles none of.*install scikit-image >= 0.25"):
        textures.photographs()


def test_materials_name_families_for_the_same_parts():
    parts = set(MATERIALS["varied"])
    for level in LEVELS.values():
        materials = MATERIALS[level.patterns]
        assert set(materials) == parts
        assert all(set(families) <= set(FAMILIES) and families for families in materials.values())


def even_atlas(value):
    """Every texture is of one gray."""
    return Atlas(
        torch.full((21, 3), value, dtype=torch.uint8), torch.tensor([0, 16, 20]), 21, 4, 48
    )


def look_down(height=2.9):
    turn = look(torch.zeros(1), torch.tensor([-torch.pi / 2]))
    return Cameras(torch.tensor([[3.0, 2.5, height]]), turn, torch.tensor([0.6]))


def test_shadows_fall_where_the_oracle_sees_no_light():
    size, light = 48, (2.0, 2.5, 2.7)
    table = (0, (3.0, 2.5, 1.0), (0.4, 0.5, 0.05))
    ball = (1, (4.0, 3.3, 0.3), (0.3, 0.3, 0.3))
    full, empty = (bare_room(things, light=light) for things in ((table, ball), ()))
    frame = trace(full, look_down(), size)
    lit = shade(frame, even_atlas(120))[0, 0].float()
    bare = shade(trace(empty, look_down(), size), even_atlas(120))[0, 0].float()
    floor = (frame.surfaces.instance[0] == 0).unflatten(0, (size, size))
    points = frame.surfaces.point[0].T.double().numpy()
    source = torch.tensor(light).double().numpy()
    blocked = torch.from_numpy(cast(full, 0, source, points - source).t < 0.99)
    blocked = blocked.unflatten(0, (size, size))
    darker = bare - lit > 4
    assert (floor & blocked).sum() > 50
    assert (darker != blocked)[floor].sum() <= 0.01 * floor.sum()
    assert (lit == bare)[floor & ~blocked].float().mean() > 0.97


def test_light_falls_with_distance_and_angle_and_is_never_gone():
    image = shade(trace(bare_room(), look_down(), 48), even_atlas(120))[0].float()
    assert (image[0] == image[1]).all() and (image[0] == image[2]).all()  # white light on gray
    middle, edge = image[0, 20:28, 20:28].mean(), image[0, :, :4].mean()
    assert 255 > middle > edge + 20 and edge > 30
    dark = bare_room()
    dark = dark._replace(room=dark.room._replace(light_color=torch.zeros(1, 3)))
    unlit = shade(trace(dark, look_down(), 48), even_atlas(120))[0, 0].float()
    assert (unlit < image[0]).all() and unlit.min() > 10


def test_light_is_colored_by_the_lamp_and_the_surface():
    scenes = bare_room()
    red = torch.tensor([[1.0, 0.5, 0.25]])
    scenes = scenes._replace(room=scenes.room._replace(light_color=red))
    image = shade(trace(scenes, look_down(), 16), even_atlas(120))[0].float()
    assert (image[0] > image[1]).all() and (image[1] > image[2]).all()
    atlas = even_atlas(120)
    texels = atlas.texels.clone()
    texels[:, 2] = 0
    image = shade(trace(bare_room(), look_down(), 16), atlas._replace(texels=texels))[0]
    assert (image[2] == 0).all() and (image[0] == image[1]).all() and image[0].min() > 0
