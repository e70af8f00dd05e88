"""Clips: ids, tracks and flow follow the same point of the same thing in every frame."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from world_oracle import back_project, cast, project_points, rays_through

from mimlib.world import CLASSES, clips
from mimlib.world.rendering.truth import carry
from mimlib.world.rooms.people import JOINTS, PARTS
from mimlib.world.sets.clips import ClipsRecipe, clip_frame

COUNT, FRAMES, SIZE = 8, 9, 48
TRUTH = ("image", "depth", "instances", "classes", "camera", "flow", "tracks", "keypoints")
MOVERS = [CLASSES.index(name) for name in ("person", "ball", "crate", "chair")]


@pytest.fixture(scope="module")
def found():
    return clips(COUNT, FRAMES, SIZE, seed=1, truth=TRUTH, cache=False)


@pytest.fixture(scope="module")
def drawn():
    return ClipsRecipe(seed=1, size=SIZE, frames=2).draw(0)


def sample(images, pixels):
    """Read images [B, C, H, W] at pixels [B, ..., 2] as [B, C, ...]."""
    grid = (2 * pixels / images.shape[-1] - 1).flatten(1, -2)[:, None]
    values = F.grid_sample(images.float(), grid, align_corners=False, padding_mode="border")
    return values.squeeze(2).unflatten(2, pixels.shape[1:-1])


def read_nearest(maps, pixels):
    """Read maps [B, H, W] at pixels [B, Q, 2]."""
    column, line = pixels.long().clamp(0, SIZE - 1).unbind(-1)
    return maps[torch.arange(len(maps))[:, None], line, column]


def test_shapes_of_the_fields(found):
    assert found["image"].shape == (COUNT, FRAMES, 3, SIZE, SIZE)
    assert found["flow"].shape == (COUNT, FRAMES - 1, SIZE, SIZE, 2)
    assert found["visible"].shape == found["flow_valid"].shape == (COUNT, FRAMES - 1, SIZE, SIZE)
    assert found["tracks"].shape == (COUNT, FRAMES, 128, 2)
    assert found["tracks_visible"].shape == (COUNT, FRAMES, 128)
    assert found["tracks_instance"].shape == (COUNT, 128)
    assert found["tracks_instance"].dtype == torch.int64


def test_ids_are_constant(found):
    """An id keeps its class, and things do not change their ids from one frame to the next."""
    for row in range(COUNT):
        ids, classes = found["instances"][row].flatten(), found["classes"][row].flatten()
        both = torch.stack((ids, classes), 1).unique(dim=0)
        assert len(both) == len(ids.unique())
    line = torch.arange(SIZE) + 0.5
    base = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1).flatten(0, 1)
    for time in range(FRAMES - 1):
        target = base + found["flow"][:, time].flatten(1, 2)
        now = found["instances"][:, time].flatten(1)
        same = read_nearest(found["instances"][:, time + 1], target) == now
        assert same[found["visible"][:, time].flatten(1)].float().mean() > 0.97


def test_warping_the_next_frame_by_the_flow(found):
    line = torch.arange(SIZE) + 0.5
    base = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1)
    moving = torch.isin(found["classes"][:, :-1], torch.tensor(MOVERS))
    errors = {"all": [], "unwarped": [], "movers": [], "movers unwarped": []}
    for time in range(FRAMES - 1):
        now, after = (found["image"][:, time + i].float() / 255 for i in (0, 1))
        warped = sample(after, base + found["flow"][:, time])
        error, unwarped = (now - warped).abs().mean(1), (now - after).abs().mean(1)
        shown = found["visible"][:, time]
        errors["all"].append(error[shown])
        errors["unwarped"].append(unwarped[shown])
        errors["movers"].append(error[shown & moving[:, time]])
        errors["movers unwarped"].append(unwarped[shown & moving[:, time]])
    mean = {name: torch.cat(parts).mean() for name, parts in errors.items()}
    assert mean["all"] < 0.03 and mean["unwarped"] > 1.4 * mean["all"]
    # Light does not move with what turns in it: movers match less well, but well.
    assert mean["movers"] < 0.05 and mean["movers unwarped"] > 1.5 * mean["movers"]


def test_tracks_begin_in_the_first_frame(found):
    first = found["tracks"][:, 0]
    assert ((first % 1) - 0.5).abs().max() < 1e-2  # pixel centers
    assert found["tracks_visible"][:, 0].float().mean() > 0.99
    assert torch.equal(read_nearest(found["instances"][:, 0], first), found["tracks_instance"])
    classes = read_nearest(found["classes"][:, 0], first)
    on_movers = torch.isin(classes[:, 64:], torch.tensor(MOVERS))
    assert on_movers.all()  # the second half of the points


def test_tracks_are_visible_where_the_oracle_sees_their_thing(found, drawn):
    wrong, hidden = 0, 0
    for time in (0, 4, FRAMES - 1):
        scenes = clip_frame(drawn, time, 8).scenes
        for row in range(COUNT):
            pixels = found["tracks"][row, time].double().numpy()
            matrix, pose = (found[name][row, time] for name in ("intrinsics", "world_from_camera"))
            rays, place = rays_through(pixels, matrix, pose)
            seen = cast(scenes, row, place, rays).instance
            visible = found["tracks_visible"][row, time].numpy()
            inside = ((pixels > 0) & (pixels < SIZE)).all(1)
            assert not (visible & ~inside).any()
            wrong += (seen != found["tracks_instance"][row].numpy())[visible].sum()
            hidden += (inside & ~visible).sum()
    assert wrong <= 8 and hidden >= 20  # of 3072 points; some lie on the very edge of a thing


def test_tracks_begin_like_the_flow(found):
    """From frame 0 to 1 tracks and flow are the same displacement."""
    column, line = found["tracks"][:, 0].long().unbind(-1)
    flow = found["flow"][:, 0][torch.arange(COUNT)[:, None], line, column]
    step = found["tracks"][:, 1] - found["tracks"][:, 0]
    both = found["tracks_valid"][:, 1] & found["tracks_valid"][:, 0]
    assert (step - flow)[both].abs().max() < 2e-2


def test_tracks_of_what_stands_still_are_reprojections(found, drawn):
    still = ~drawn.motion.moving.gather(1, found["tracks_instance"])
    checked = 0
    for row in range(COUNT):
        points = back_project(
            found["depth"][row, 0],
            found["intrinsics"][row, 0],
            found["world_from_camera"][row, 0],
        )
        column, line = found["tracks"][row, 0].long().numpy().T
        points = points[line * SIZE + column]
        for time in range(FRAMES):
            pixels, depth = project_points(
                points, found["intrinsics"][row, time], found["world_from_camera"][row, time]
            )
            use = still[row].numpy() & (depth > 0.3)
            assert np.abs(pixels - found["tracks"][row, time].double().numpy())[use].max() < 2e-2
            checked += use.sum()
    assert checked > COUNT * FRAMES * 30


def test_things_move_rigidly(drawn):
    """Points carried along keep their distances, on what is rigid, and stay on its surface."""
    first = clip_frame(drawn, 0, SIZE)
    ids, moved = first.surfaces.instance, 0
    for time in (3, 8, 30):
        later = clip_frame(drawn, time, SIZE)
        points = carry(first.surfaces, later.placed)
        for row, slot in drawn.motion.moving.nonzero().tolist():
            name = CLASSES[int(drawn.scenes.objects.class_id[row, slot])]
            here = (ids[row] == slot).nonzero().squeeze(1)
            if len(here) < 10 or name == "person":
                continue
            before, after = (p[row, :, here].double() for p in (first.surfaces.point, points))
            stretch = torch.cdist(before.T, before.T) - torch.cdist(after.T, after.T)
            assert stretch.abs().max() < 1e-4
            assert (after - before).abs().max() > 1e-3
            assert (after[2] - before[2]).abs().max() < 1e-4  # on its floor
            moved += 1
    assert moved >= 3


def test_points_of_people_stay_on_their_limbs(drawn):
    first = clip_frame(drawn, 0, SIZE)
    on_people = first.scenes.objects.class_id.gather(1, first.surfaces.instance) == MOVERS[0]
    assert on_people.any()
    for time in (1, 8):
        later = clip_frame(drawn, time, SIZE)
        points = carry(first.surfaces, later.placed)
        rows = torch.arange(COUNT)[:, None]
        slot = first.surfaces.slot.clamp(min=0)
        offset = points.transpose(1, 2) - later.placed.center[rows, slot]
        rotation = later.placed.rotation[rows, slot]
        local = torch.einsum("bkji,bkj->bki", rotation, offset) / later.placed.half_size[rows, slot]
        assert (local.norm(dim=-1) - 1).abs()[on_people].max() < 1e-3


def test_motion_is_visible_and_gentle(found, drawn):
    assert drawn.motion.moving.any(1).all()
    place = found["world_from_camera"][:, :, :3, 3]
    step = (place[:, 1:] - place[:, :-1]).norm(dim=-1)
    assert step.max() < 0.1 and (step.amax(1) > 1e-3).all()
    changed = (found["image"][:, 1:].int() - found["image"][:, :-1].int()).abs().float().mean()
    assert 1 < changed < 40


def test_people_walk(found):
    """Their joints move against each other, not only with the body."""
    both = found["keypoints_valid"].all(1)  # [B, Q, J]
    shape = found["keypoints"] - found["keypoints"][..., 1:2, :]  # seen from the neck
    swing = (shape - shape[:, :1]).norm(dim=-1).amax(1)
    whole = both.all(-1)
    assert whole.any()
    assert swing[whole].amax() > 1.5  # px
    assert (found["keypoints_person"] == found["keypoints_person"][:, :1]).all()


def test_limbs_follow_the_joints(drawn):
    """What is rendered walks with the skeleton: every joint stays inside a limb around it."""
    around = torch.tensor([[name in names for _, names in PARTS] for name in JOINTS])
    checked = 0
    for time in (0, 5, 17):
        scenes = clip_frame(drawn, time, 8).scenes
        for row, person in (scenes.people.slot >= 0).nonzero().tolist():
            first = int(scenes.people.first_limb[row, person])
            limbs = slice(first, first + len(PARTS))
            offset = scenes.people.joints[row, person][:, None] - scenes.shapes.center[row, limbs]
            local = torch.einsum("lji,klj->kli", scenes.shapes.rotation[row, limbs], offset)
            inside = (local / scenes.shapes.half_size[row, limbs]).norm(dim=-1) < 1
            assert (inside & around).any(1).all()
            checked += 1
    assert checked > 20


def test_longer_clips_begin_like_shorter_ones(found):
    shorter = clips(2, 4, SIZE, seed=1, truth=("image", "tracks", "flow"), cache=False)
    assert torch.equal(shorter["image"], found["image"][:2, :4])
    assert torch.equal(shorter["tracks"], found["tracks"][:2, :4])
    assert torch.equal(shorter["flow"], found["flow"][:2, :3])
