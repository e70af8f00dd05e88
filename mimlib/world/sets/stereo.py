"""Rectified stereo pairs: two parallel cameras side by side, as on a stereo rig. Letters: B pairs.

A point at depth z is focal length * baseline / z pixels further left in view 2, in the same row.
"""

from torch import Tensor

from mimlib.world.rooms.levels import find_level
from mimlib.world.rooms.scenes import take
from mimlib.world.sets.groups import fill_group, seeded
from mimlib.world.sets.pairs import FINE, PAIRS_PER_GROUP, Pairs, measure
from mimlib.world.sets.viewpoints import MARGIN, NEAR, find_stuck, sample_candidates, uniform

BASELINE = (0.06, 0.2)  # m between the cameras; eyes are 0.065 apart


def draw_stereo(seed: int, level: str, group: int) -> Pairs:
    """Draw the rigs of one group, PAIRS_PER_GROUP of them; camera 1 is the left one."""
    generator, rules = seeded("stereo", seed, level, group), find_level(level)

    def attempt(count: int) -> tuple[Pairs, Tensor]:
        scenes, left, placed, _, good = sample_candidates(count, generator, rules)
        right = left.cameras().rotation[:, :, 0]
        baseline = uniform(generator, *BASELINE, count)
        second = left._replace(position=left.position + baseline[:, None] * right)
        limit = scenes.room.size - MARGIN
        outside = ((second.position < MARGIN) | (second.position > limit)).any(1)
        keep = good & ~(find_stuck(placed, second.position) | outside)
        scenes, left, second = (take(part, keep) for part in (scenes, left, second))
        overlap = measure(scenes, left.cameras(), second.cameras(), FINE)
        pairs = Pairs(scenes, left.cameras(), second.cameras(), overlap.covisibility)
        return pairs, overlap.near > NEAR

    return fill_group(PAIRS_PER_GROUP, attempt, f"stereo pairs at level {level!r}")
