"""The embedded data set: procedural rooms, ray-cast in torch, with exact ground truth.

Ready-made sets, deterministic by seed and kept on disk: `views`, `pairs`, `stereo`, `clips`.
Piece by piece: `sample_scenes` furnishes rooms, `Cameras` look at them, `trace` finds what each
pixel sees, `shade` colours it, `VIEW_TRUTH` names the kinds of ground truth.
"""

from mimlib.world.atlas import default_atlas
from mimlib.world.cameras import Cameras, look
from mimlib.world.levels import CLASSES, LEVELS, OBJECT_CLASSES
from mimlib.world.render import shade, trace
from mimlib.world.rooms import sample_scenes
from mimlib.world.sets import clips, pairs, stereo, views
from mimlib.world.truth import VIEW_TRUTH

__all__ = [
    "CLASSES",
    "LEVELS",
    "OBJECT_CLASSES",
    "VIEW_TRUTH",
    "Cameras",
    "clips",
    "default_atlas",
    "look",
    "sample_scenes",
    "shade",
    "trace",
    "pairs",
    "stereo",
    "views",
]
