"""What a set consists of: the description by which it is drawn, rendered, named and shipped."""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from operator import index
from typing import ClassVar

from torch import Tensor

from mimlib.world.rendering.truth import VIEW_KINDS
from mimlib.world.rooms.atlas import Atlas
from mimlib.world.rooms.levels import LEVELS, PAIR_LEVELS, find_level
from mimlib.world.sets.clips import CLIP_KINDS, CLIPS_PER_GROUP, draw_clips, render_clips
from mimlib.world.sets.pairs import PAIR_KINDS, PAIRS_PER_GROUP, draw_pairs, render_pairs
from mimlib.world.sets.stereo import draw_stereo
from mimlib.world.sets.views import AIMS, VIEWS_PER_GROUP, draw_views, render_views

SIZES = (8, 1024)  # px, smallest and largest image side
MAX_FRAMES = 256
Rendered = dict[str, dict[str, Tensor]]  # {kind: {field: [B, ...]}}


@dataclass(frozen=True, kw_only=True)
class Recipe(ABC):
    """A set, apart from how many items of it and which ground truth."""

    seed: int
    size: int  # px, image side
    level: str

    kinds: ClassVar[tuple[str, ...]]  # of ground truth that can be asked for
    group_size: ClassVar[int]  # items drawn together
    levels: ClassVar[tuple[str, ...]] = tuple(LEVELS)

    def __post_init__(self):
        """Check what can be checked without rendering; numpy's integers count as integers."""
        for name in ("seed", "size"):
            object.__setattr__(self, name, index(getattr(self, name)))
        find_level(self.level, self.levels)
        low, high = SIZES
        if not low <= self.size <= high:
            raise ValueError(f"image size {self.size} px is out of range; choose {low} to {high}")

    def key(self, truth: str) -> dict[str, object]:
        """Return what one kind of ground truth of this set is cached under."""
        return asdict(self) | {"recipe": type(self).__name__, "truth": truth}

    def extras(self) -> tuple[str, ...]:
        """Return the kinds that come with every set of this recipe."""
        return ()

    @abstractmethod
    def draw(self, group: int) -> tuple:
        """Draw the items of a group on the CPU."""

    @abstractmethod
    def render(self, items: tuple, kinds: tuple[str, ...], atlas: Atlas) -> Rendered:
        """Render items where they are."""


@dataclass(frozen=True, kw_only=True)
class ViewsRecipe(Recipe):
    """Single views."""

    aim: str

    kinds = VIEW_KINDS
    group_size = VIEWS_PER_GROUP

    def __post_init__(self):
        """Check the aim, too."""
        super().__post_init__()
        if self.aim not in AIMS:
            raise ValueError(f"unknown aim {self.aim!r}; choose one of {', '.join(AIMS)}")

    def extras(self) -> tuple[str, ...]:
        """Add the class of the object aimed at."""
        return ("label",) if self.aim == "object" else ()

    def draw(self, group: int) -> tuple:
        """Draw views."""
        return draw_views(self.seed, self.level, self.aim, group)

    def render(self, items: tuple, kinds: tuple[str, ...], atlas: Atlas) -> Rendered:
        """Render views."""
        return render_views(items, self.size, kinds, atlas)


@dataclass(frozen=True, kw_only=True)
class PairsRecipe(Recipe):
    """Pairs of views."""

    kinds = PAIR_KINDS
    group_size = PAIRS_PER_GROUP
    levels = PAIR_LEVELS

    def extras(self) -> tuple[str, ...]:
        """Add the co-visibility measured when the pair was chosen."""
        return ("covisibility",)

    def draw(self, group: int) -> tuple:
        """Draw pairs."""
        return draw_pairs(self.seed, self.level, group)

    def render(self, items: tuple, kinds: tuple[str, ...], atlas: Atlas) -> Rendered:
        """Render pairs."""
        return render_pairs(items, self.size, kinds, atlas)


@dataclass(frozen=True, kw_only=True)
class StereoRecipe(PairsRecipe):
    """Rectified pairs."""

    def draw(self, group: int) -> tuple:
        """Draw rigs of two parallel cameras."""
        return draw_stereo(self.seed, self.level, group)


@dataclass(frozen=True, kw_only=True)
class ClipsRecipe(Recipe):
    """Clips."""

    level: str = "clip"
    frames: int

    kinds = CLIP_KINDS
    group_size = CLIPS_PER_GROUP

    def __post_init__(self):
        """Check the length, too."""
        super().__post_init__()
        if not 2 <= self.frames <= MAX_FRAMES:
            raise ValueError(f"a clip of {self.frames} frames; choose 2 to {MAX_FRAMES}")

    def draw(self, group: int) -> tuple:
        """Draw clips."""
        return draw_clips(self.seed, group)

    def render(self, items: tuple, kinds: tuple[str, ...], atlas: Atlas) -> Rendered:
        """Render clips."""
        return render_clips(items, self.frames, self.size, kinds, atlas)


RECIPES = {r.__name__: r for r in (ViewsRecipe, PairsRecipe, StereoRecipe, ClipsRecipe)}
