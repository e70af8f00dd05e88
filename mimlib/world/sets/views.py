"""Single views: of a whole room, or aimed at one object of a given class. Letters: B views."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mimlib.checks import check_choice
from mimlib.world.rendering.cameras import Cameras
from mimlib.world.rendering.render import Frame, trace
from mimlib.world.rendering.truth import VIEW_KINDS, view_fields
from mimlib.world.rooms.atlas import Atlas
from mimlib.world.rooms.levels import CLASSES, LEVELS, NUM_ROOM_CLASSES
from mimlib.world.rooms.sampling import sample_scenes
from mimlib.world.rooms.scenes import Scenes, concatenate, take
from mimlib.world.sets.recipes import MAX_ROUNDS, Recipe, fill_group, seeded
from mimlib.world.sets.viewpoints import sample_aimed_view, sample_candidates

AIMS = ("room", "object")


class Views(NamedTuple):
    """Rooms with one camera each."""

    scenes: Scenes
    cameras: Cameras
    label: Tensor  # [B] int64 class of the object aimed at, -1 for views of the room


@dataclass(frozen=True, kw_only=True)
class ViewsRecipe(Recipe):
    """Single views."""

    aim: str = "room"

    kinds = VIEW_KINDS
    group_size = 64

    def __post_init__(self):
        """Check the aim, too."""
        super().__post_init__()
        check_choice(self, "aim", AIMS)

    @property
    def extras(self) -> tuple[str, ...]:
        """Add the class of the object aimed at."""
        return ("label",) if self.aim == "object" else ()

    def draw(self, group: int) -> Views:
        """Draw views."""
        generator = seeded("views", self.seed, self.level, self.aim, group)
        if self.aim == "object":
            return draw_aimed_views(self.group_size, self.level, generator)

        def attempt(count: int) -> tuple[Views, Tensor]:
            drawn = sample_candidates(count, generator, LEVELS[self.level])
            return Views(drawn.scenes, drawn.rig.cameras(), torch.full((count,), -1)), drawn.good

        return fill_group(self.group_size, attempt, f"views of rooms at level {self.level!r}")

    def trace(self, items: Views) -> list[Frame]:
        """Trace the one image of each view."""
        return [trace(items.scenes, items.cameras, self.size)]

    def truth(
        self, kind: str, items: Views, frames: list[Frame], atlas: Atlas | None
    ) -> dict[str, Tensor]:
        """Return the fields of one kind of VIEW_KINDS."""
        return view_fields(kind, frames[0], atlas)


def draw_aimed_views(count: int, level: str, generator: torch.Generator) -> Views:
    """Draw views aimed at one object each; all classes are equally likely."""
    wanted = torch.randint(NUM_ROOM_CLASSES, len(CLASSES), (count,), generator=generator)
    missing, kept, rows = torch.arange(count), [], []
    for _ in range(MAX_ROUNDS):
        scenes = sample_scenes(len(missing), generator, LEVELS[level], wanted[missing])
        aimed = sample_aimed_view(scenes, wanted[missing], generator)
        views = Views(scenes, aimed.rig.cameras(), wanted[missing])
        kept.append(take(views, aimed.good))
        rows.append(missing[aimed.good])
        missing = missing[~aimed.good]
        if not len(missing):
            return take(concatenate(kept), torch.cat(rows).argsort())
    raise RuntimeError(f"no good view of a {CLASSES[int(wanted[missing[0]])]} at level {level!r}")
