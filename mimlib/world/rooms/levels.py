"""What the world contains, what it wears, how hard its pairs are: classes, textures, levels."""

from dataclasses import dataclass, replace

ROOM_CLASSES = ("floor", "wall", "ceiling")  # not objects
FURNITURE = ("picture", "rug", "table", "chair", "sofa", "cabinet", "shelf", "lamp")
OBJECT_CLASSES = (*FURNITURE, "plant", "ball", "crate", "person")
CLASSES = ROOM_CLASSES + OBJECT_CLASSES
NUM_ROOM_CLASSES = len(ROOM_CLASSES)

# Which texture families each part of a room may wear, by the kind of patterns of a level. They
# follow classes (wood for tables, leaves for plants), so that what a thing is can be learned from
# how it looks. A family named twice is twice as likely.
VARIED: dict[str, tuple[str, ...]] = {
    "wall": ("plain", "plain", "noise", "noise", "stripes", "stripes", "bricks", "dots"),
    "wainscot": ("wood", "wood", "plain", "bricks", "checker"),
    "floor": ("wood", "wood", "wood", "checker", "voronoi", "noise"),
    "ceiling": ("plain", "noise"),
    "wooden": ("wood", "wood", "wood", "plain"),
    "cloth": ("plain", "noise", "stripes", "dots"),
    "seat": ("wood", "plain", "stripes"),
    "books": ("stripes", "stripes", "plain", "noise"),
    "pot": ("bricks", "plain", "noise"),
    "leaf": ("leaf",),
    "shade": ("plain", "stripes"),
    "ball": ("checker", "dots", "stripes", "poster"),
    "crate": ("wood", "bricks", "noise", "poster"),
    "rug": ("stripes", "checker", "dots", "voronoi", "poster"),
    "picture": ("photo", "photo", "photo", "poster"),
    "frame": ("wood", "plain"),
    "skin": ("skin",),
    "hair": ("noise", "wood"),
    "shirt": ("plain", "stripes", "checker", "dots", "noise"),
    "trousers": ("plain", "noise"),
}
SMOOTH = VARIED | {
    "wall": ("noise", "noise", "voronoi", "stripes", "bricks"),
    "wainscot": ("noise", "voronoi"),
    "floor": ("wood", "voronoi", "noise", "checker"),
    "ceiling": ("noise",),
    "cloth": ("noise", "stripes", "voronoi"),
}
REPETITIVE = VARIED | {
    "wall": ("checker", "dots", "stripes", "bricks"),
    "wainscot": ("checker", "stripes"),
    "floor": ("checker", "dots", "bricks"),
    "ceiling": ("checker", "dots"),
    "cloth": ("checker", "dots", "stripes"),
    "wooden": ("wood", "stripes"),
}
UNIQUE = dict.fromkeys(VARIED, ("camouflage",)) | {
    "picture": VARIED["picture"],
    "skin": VARIED["skin"],
    "frame": VARIED["frame"],
}
MATERIALS = {"varied": VARIED, "smooth": SMOOTH, "repetitive": REPETITIVE, "unique": UNIQUE}


@dataclass(frozen=True, kw_only=True)
class Level:
    """How rooms look and how far apart the two cameras of a pair are."""

    patterns: str = "varied"  # row of MATERIALS
    texture_zoom: float = 1.0  # larger textures above 1
    clutter: float = 1.0  # factor on the chance of each free-standing object
    people: tuple[float, float] = (0.5, 0.2)  # chance of a first and of a second person
    baseline: tuple[float, float] = (0.15, 1.0)  # meters between the two cameras
    yaw_noise: float = 0.45  # radians, on top of turning towards what the first camera sees
    max_turn: float = 1.2  # radians, the whole change of yaw
    pitch_noise: float = 0.15  # radians
    covisibility: tuple[float, float] = (0.5, 0.97)  # share seen by the other camera, both ways
    max_flow: float = float("inf")  # image sides; 8 px at 64 px is 0.125


# Correspondence, flow, where the attention looks: small displacements on large patterns.
EASY = Level(
    patterns="smooth",
    texture_zoom=1.8,
    baseline=(0.05, 0.3),
    yaw_noise=0.05,
    max_turn=0.12,
    pitch_noise=0.03,
    covisibility=(0.5, 1.0),
    max_flow=0.125,
)
LEVELS = {
    "easy": EASY,
    # Learning to match: hardly a place looks like another, so that a match is worth finding.
    "textured": replace(EASY, patterns="unique", texture_zoom=2.5),
    # CroCo's recipe: co-visibility of at least a half in both directions.
    "paper": Level(),
    # Failure gallery: patterns that repeat, a wide baseline, much occlusion.
    "hard": Level(
        patterns="repetitive",
        texture_zoom=0.7,
        clutter=1.4,
        baseline=(0.6, 1.2),
        covisibility=(0.2, 0.6),
    ),
    # Video: more people, and things that move; the baseline is the way of the camera in a clip.
    "clip": Level(people=(0.95, 0.5), baseline=(0.05, 0.5), yaw_noise=0.1, max_turn=0.4),
}
PAIR_LEVELS = ("easy", "textured", "paper", "hard")
