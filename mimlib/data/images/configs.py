"""Configs of the sources: the embedded world, bundled photographs, any folder of images.

Every source hands out augmented batches without end (`batches`, see `Source` in protocol.py), and
un-augmented images for looking and measuring (`first`, `once`).
"""

import os
from dataclasses import dataclass
from typing import Literal

from mimlib import world
from mimlib.checks import check_positive, check_range
from mimlib.data.images.folder import FolderSource, ImageFolder, class_names
from mimlib.data.images.photos import whole_photographs
from mimlib.data.source import MemorySource
from mimlib.data.transforms.crops import Augmentation

CLASS_SPLIT = "train"  # the split whose sub-folders number the classes of all splits


@dataclass(frozen=True, kw_only=True)
class WorldImagesConfig(Augmentation):
    """Views of the embedded world, rendered when built and cached on disk by the world."""

    count: int  # images in the set
    level: Literal["easy", "textured", "paper", "hard", "clip"] = "paper"  # of the world
    seed: int = 0  # of the scenes; sets of other seeds share no scene
    aim: Literal["room", "object"] = "room"  # what the camera looks at
    target: Literal["none", "label", "depth", "classes"] = "none"  # what comes with each image
    workers: int = 0  # processes that cut crops ahead of time; worth it from about 128 pixels

    def __post_init__(self):
        super().__post_init__()
        check_range(self, "workers", least=0, hint="0 loads in the training process")
        check_positive(self, "count", hint="ask for at least one image")
        if self.target == "label" and self.aim != "object":
            raise ValueError("target='label' needs aim='object': a whole room has no one class")

    def build(self) -> MemorySource:
        """Render the views, or read them from the cache."""
        truth = ("image",) if self.target in ("none", "label") else ("image", self.target)
        views = world.views(self.count, self.size, self.level, self.seed, truth, self.aim)
        return MemorySource(
            views["image"],
            self,
            labels=views["label"] if self.target == "label" else None,
            targets=views.get(self.target),
            workers=self.workers,
            made_by=world.maker(),
        )


@dataclass(frozen=True, kw_only=True)
class PhotosConfig(Augmentation):
    """Crops of the few real photographs that installed packages carry (photos.py)."""

    def build(self) -> MemorySource:
        """Read the photographs."""
        return MemorySource(list(whole_photographs().values()), self)


@dataclass(frozen=True, kw_only=True)
class ImageFolderConfig(Augmentation):
    """A folder of images, sub-folders included; with `labels` the sub-folders are the classes.

    ImageNet-1k: root "data/imagenet", split "train" or "val", one sub-folder per class in each.
    """

    root: str  # path of the folder
    split: str = ""  # sub-folder of root to read, "train" or "val"; empty: root itself
    labels: bool = False  # hand out the class of each image
    evaluation_share: float = 224 / 256  # un-augmented: part of the short side that is kept
    workers: int = 0  # decoding processes; ImageNet wants nearly as many as there are cores

    def __post_init__(self):
        super().__post_init__()
        check_range(self, "workers", least=0, hint="0 loads in the training process")
        check_range(self, "evaluation_share", above=0, most=1)

    def build(self) -> FolderSource:
        """List the folder; ValueError if it holds nothing, or an image of no known class."""
        root = os.path.expanduser(self.root)
        folder = ImageFolder(os.path.join(root, self.split))
        labels = None
        if self.labels:
            numbering = os.path.join(root, CLASS_SPLIT) if self.split else root
            known = class_names(numbering if os.path.isdir(numbering) else folder.root)
            labels = folder.labels(known)
        return FolderSource(folder, self, labels)
