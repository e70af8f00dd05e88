"""People: a skeleton of 14 joints that walks, and the ellipsoids around its bones.

The frame of a person has its origin between the feet, +y to the front and z up; left is -x.
Lengths in meters, angles in radians. Letters: Q people, L limbs.
"""

import itertools
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mimlib.world.rooms.builder import Builder, Thing
from mimlib.world.rooms.furniture import stand_on_floor
from mimlib.world.rooms.scenes import CAPACITY, ELLIPSOID, FIRST_SLOT, NUM_TRAITS, rotation_to

# Radius of the upper and the lower half, what it wears.
ARM = (0.055, "shirt"), (0.043, "skin")
LEG = (0.085, "trousers"), (0.06, "trousers")
# From the body outwards: both arms, then both legs.
CHAINS = tuple(
    tuple(f"{side}_{joint}" for joint in joints)
    for joints in (("shoulder", "elbow", "wrist"), ("hip", "knee", "ankle"))
    for side in ("left", "right")
)
JOINTS = ("head", "neck", *itertools.chain(*CHAINS))
BONES = (("head", "neck"), *(b for chain in CHAINS for b in itertools.pairwise(("neck", *chain))))
# Two joints, the radius of the limb between them, what it wears.
LIMBS = tuple(
    (*bone, *limb)
    for chain, limbs in zip(CHAINS, 2 * [ARM] + 2 * [LEG])
    for bone, limb in zip(itertools.pairwise(chain), limbs)
)
# What each ellipsoid of limb_shapes wears, and the joints it surrounds.
PARTS = (
    ("skin", ("head", "neck")),
    ("hair", ("head",)),
    ("shirt", ("neck", "left_shoulder", "right_shoulder", "left_hip", "right_hip")),
    *((wear, (first, second)) for first, second, _, wear in LIMBS),
    ("hair", ("left_ankle",)),
    ("hair", ("right_ankle",)),
)
NUM_LIMBS = len(PARTS)


class Traits(NamedTuple):
    """What makes a person and a step, each [Q], drawn evenly from [0, 1]."""

    height: Tensor
    phase: Tensor  # of the walk, in turns
    stride: Tensor
    raised_left: Tensor  # above 0.7 the arm is raised sideways
    raised_right: Tensor
    bent_left: Tensor
    bent_right: Tensor
    girth: Tensor


def point(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Stack coordinates [Q] to points [Q, 3]."""
    return torch.stack((x, y, z), -1)


def pose_joints(values: Tensor) -> Tensor:
    """Place the joints of people with traits [Q, 8]; returns meters, [Q, 14, 3]."""
    traits = Traits(*values.unbind(-1))
    tall = 0.85 + 0.25 * traits.height  # 1 is a person of 1.76 m
    zero = torch.zeros_like(tall)
    joints = {"head": point(zero, zero + 0.03, 1.64 * tall), "neck": point(zero, zero, 1.47 * tall)}
    for side, sign, turn in (("left", -1.0, 0.0), ("right", 1.0, math.pi)):
        phase = 2 * math.pi * traits.phase + turn
        swing = (0.2 + 0.5 * traits.stride) * torch.sin(phase)
        hip = point(sign * 0.1 * tall, zero, 0.92 * tall)
        bend = 0.5 * (0.2 + 0.5 * traits.stride) * (1 + torch.cos(phase))
        knee = hip + 0.44 * tall[:, None] * point(zero, swing.sin(), -swing.cos())
        shin = swing - bend
        joints[f"{side}_hip"], joints[f"{side}_knee"] = hip, knee
        joints[f"{side}_ankle"] = knee + 0.44 * tall[:, None] * point(zero, shin.sin(), -shin.cos())
        shoulder = point(sign * 0.2 * tall, zero, 1.42 * tall)
        raised, bent = getattr(traits, f"raised_{side}"), getattr(traits, f"bent_{side}")
        elbow, wrist = pose_arm(shoulder, sign, -swing, raised, bent, tall)
        joints[f"{side}_shoulder"] = shoulder
        joints[f"{side}_elbow"], joints[f"{side}_wrist"] = elbow, wrist
    return torch.stack([joints[name] for name in JOINTS], 1)


def pose_arm(
    shoulder: Tensor, sign: float, swing: Tensor, raised: Tensor, bent: Tensor, tall: Tensor
) -> tuple[Tensor, Tensor]:
    """Return elbow and wrist [Q, 3] of an arm that swings, and is raised now and then."""
    lift = 8 * (raised - 0.7).clamp(min=0)  # rad
    fold = swing + 0.3 + 1.2 * bent
    upper = point(
        sign * torch.sin(0.15 + lift),
        swing.sin() * lift.cos(),
        -torch.cos(0.15 + lift) * swing.cos(),
    )
    lower = point(
        sign * torch.sin(0.1 + 1.1 * lift),
        fold.sin() * lift.cos(),
        -fold.cos() * torch.cos(1.1 * lift),
    )
    elbow = shoulder + 0.3 * tall[:, None] * F.normalize(upper, dim=-1)
    return elbow, elbow + 0.27 * tall[:, None] * F.normalize(lower, dim=-1)


def limb_shapes(joints: Tensor, girth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Wrap joints [Q, 14, 3] in ellipsoids.

    Returns:
        Centers [Q, L, 3] m, rotations [Q, L, 3, 3] and radii [Q, L, 3] m, in the order of PARTS.
    """
    at = dict(zip(JOINTS, joints.unbind(1)))
    thick = 0.85 + 0.3 * girth  # [Q]
    head, upright = at["head"], point(0 * thick, 0 * thick, 0 * thick + 1)
    hair = head + head.new_tensor((0.0, -0.025, 0.035))
    hips = (at["left_hip"] + at["right_hip"]) / 2
    spine = at["neck"] - hips
    torso_length = 0.57 * spine.square().sum(-1).sqrt()
    size = torch.ones_like(thick)
    parts = [
        (head, upright, point(0.09 * size, 0.105 * size, 0.13 * size)),
        (hair, upright, point(0.097 * size, 0.1 * size, 0.115 * size)),
        (hips + 0.52 * spine, spine, point(0.19 * thick, 0.115 * thick, torso_length)),
    ]
    for first, second, radius, _ in LIMBS:
        bone = at[second] - at[first]
        half = 0.57 * bone.square().sum(-1).sqrt()
        middle = (at[first] + at[second]) / 2
        parts.append((middle, bone, point(radius * thick, radius * thick, half)))
    for side in ("left", "right"):
        shin = F.normalize(at[f"{side}_ankle"] - at[f"{side}_knee"], dim=-1)
        toes = torch.stack((shin[:, 0], -shin[:, 2], shin[:, 1]), -1)  # a right angle to the shin
        foot = at[f"{side}_ankle"] + 0.05 * toes + 0.02 * shin
        parts.append((foot, toes, point(0.045 * size, 0.04 * size, 0.12 * size)))
    centers, axes, radii = (torch.stack(column, 1) for column in zip(*parts))
    return centers, rotation_to(axes), radii


def add_people(build: Builder) -> None:
    """Let people stand or walk on the free floor."""
    for index, probability in enumerate(build.level.people):
        person = stand_on_floor(build, "person", probability, build.full(0.28), 1.75)
        build.people.slot[person.where, index] = person.slot
        traits = build.uniform(0, 1, NUM_TRAITS)
        joints = pose_joints(traits)
        build.people.traits[:, index], build.people.joints[:, index] = traits, joints
        used = sum(piece.where.long() for piece in build.pieces if piece.kind == ELLIPSOID)
        first_limb = FIRST_SLOT[ELLIPSOID] + used.clamp(max=CAPACITY[ELLIPSOID])
        build.people.first_limb[:, index] = first_limb
        dress(build, person, limb_shapes(joints, traits[:, Traits._fields.index("girth")]))


def dress(build: Builder, person: Thing, limbs: tuple[Tensor, Tensor, Tensor]) -> None:
    """Add the limbs of limb_shapes with their textures."""
    textures = {part: build.material(part) for part in ("skin", "hair", "shirt", "trousers")}
    for (wear, _), center, rotation, radii in zip(PARTS, *(part.unbind(1) for part in limbs)):
        numbers = (*center.unbind(1), *radii.unbind(1))
        person.ellipsoid(*numbers, texture=textures[wear], rotation=rotation, repeat=2.0)
