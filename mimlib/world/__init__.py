"""The embedded data set: procedural rooms, ray-cast in torch, with exact ground truth.

Ready-made sets, deterministic by seed and kept on disk: `views`, `pairs`, `stereo`, `clips`.
Piece by piece: `sample_scenes` furnishes rooms, `Cameras` look at them, `trace` finds what each
pixel sees, `shade` colors it, `VIEW_TRUTH` names the kinds of ground truth.
"""

from mimlib.world.rendering.cameras import Cameras, look
from mimlib.world.rendering.render import shade, trace
from mimlib.world.rendering.truth import VIEW_TRUTH
from mimlib.world.rooms.atlas import default_atlas
from mimlib.world.rooms.levels import CLASSES, LEVELS, OBJECT_CLASSES
from mimlib.world.rooms.sampling import sample_scenes
from mimlib.world.sets.cache import maker
from mimlib.world.sets.provide import clips, pairs, stereo, views

__all__ = [
    "CLASSES",
    "LEVELS",
    "OBJECT_CLASSES",
    "VIEW_TRUTH",
    "Cameras",
    "clips",
    "default_atlas",
    "look",
    "maker",
    "sample_scenes",
    "shade",
    "trace",
    "pairs",
    "stereo",
    "views",
]
