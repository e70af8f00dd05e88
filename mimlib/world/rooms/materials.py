"""Which texture families each part of a room may wear, by the kind of patterns of a level.

Textures follow classes (wood for tables, leaves for plants), so that what a thing is can be learned
from how it looks. A family named twice is twice as likely.
"""

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
