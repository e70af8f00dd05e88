"""Images with a class per pixel from files: ADE20K, Pascal VOC, COCO, any two folders."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from torch import Tensor

from mimlib.data.batches import DenseBatch
from mimlib.data.dense.label_maps import (
    ADE20K_IDS,
    COCO_IDS,
    UNLABELED,
    VOC_IDS,
    PanopticReader,
    class_table,
    read_label_map,
)
from mimlib.data.dense.views import SegmentationAugmentation, augment
from mimlib.data.files.listing import Listing, find_beside, read_names
from mimlib.data.files.pictures import read_image
from mimlib.data.files.source import FileSource, check_sizes, stack_alike
from mimlib.data.order import COLORS, Request

VOID = 255  # marks pixels without a class in most label maps


class Layout(NamedTuple):
    """Where a data set keeps images and label maps: * for their names, {split} for the split."""

    images: str
    labels: str
    names: str = ""  # list of the images of a split; without one every label map is taken
    ids: Sequence[int] = ()  # stored numbers of the classes; none: 0 to num_classes - 1
    ignored: tuple[int, ...] = (VOID,)  # stored numbers of pixels without a class


LAYOUTS = {
    "ade20k": Layout(
        "images/{split}/*", "annotations/{split}/*.png", ids=ADE20K_IDS, ignored=(0, VOID)
    ),
    "voc": Layout(
        "JPEGImages/*", "SegmentationClass/*.png", "ImageSets/Segmentation/{split}.txt", ids=VOC_IDS
    ),
    "coco_semantic": Layout(
        "images/{split}/*", "semantic_masks/{split}/*.png", ids=COCO_IDS, ignored=(0,)
    ),
    "coco_panoptic": Layout("{split}/*", "annotations/panoptic_{split}/*.png", ids=COCO_IDS),
    "folders": Layout("images/*", "labels/*.png", "{split}.txt"),
}
NUM_CLASSES = {name: len(layout.ids) for name, layout in LAYOUTS.items() if layout.ids}


@dataclass(frozen=True, kw_only=True)
class SegmentationFilesConfig(SegmentationAugmentation):
    """Images with label maps in the layout of their data set. SPLIT is `split`.

    ade20k: images/SPLIT/NAME.jpg, annotations/SPLIT/NAME.png (SceneParse150): 150 classes.
    voc: JPEGImages/NAME.jpg, SegmentationClass/NAME.png, NAME in ImageSets/Segmentation/SPLIT.txt:
        21 classes, the first one is the background.
    coco_semantic: images/SPLIT/NAME.jpg, semantic_masks/SPLIT/NAME.png with COCO's category ids:
        the 133 classes of COCO panoptic, in the order of their ids.
    coco_panoptic: the same classes from annotations/panoptic_SPLIT.json and its folder of PNGs;
        images in SPLIT or in images/SPLIT.
    folders: images/NAME, labels/NAME.png with ids 0 to num_classes - 1, and 255 for pixels without
        one; NAME in SPLIT.txt, or every label map.

    Augmented: crops of `size`. Un-augmented (`first`, `once`): whole images; where they differ in
    size, only one at a time.
    """

    root: str  # path of the data set
    layout: Literal[tuple(LAYOUTS)]
    split: str = ""  # ade20k: training, validation; voc: train, val; COCO: train2017, val2017
    num_classes: int = 0  # G, of the layout `folders`; the others know theirs
    workers: int = 0  # decoding processes; 12 keep up with one GPU

    def __post_init__(self):
        super().__post_init__()
        known = NUM_CLASSES.get(self.layout, 0)
        if bool(known) == bool(self.num_classes) or not 0 <= self.num_classes <= VOID:
            raise ValueError(
                f"num_classes is {self.num_classes} for the layout {self.layout!r}; expected 1 to "
                f"{VOID} for 'folders' and nothing for the others, which know theirs"
            )

    def build(self) -> "SegmentationFiles":
        """List the files; ValueError if there is none, or one or its list is missing."""
        root, layout = Path(os.path.expanduser(self.root)), LAYOUTS[self.layout]
        images, labels, listed = (each.format(split=self.split) for each in layout[:3])
        names = read_names(root / listed) if listed and self.split else None
        if self.layout == "coco_panoptic":
            images = f"images/{images}" if (root / "images").is_dir() else images
            reader = PanopticReader(root / labels.replace("/*.png", ".json"))
            names = [name.removesuffix(".png") for name in sorted(reader.segments)]
        else:
            table = class_table(layout.ids or range(self.num_classes), layout.ignored)
            reader = partial(read_label_map, table=table)
        kind = f"in the layout {self.layout!r}, split {self.split!r}"
        files = Listing(root, find_beside(root, images, labels, names), kind)
        return SegmentationFiles(files.check("both have the same name"), self, reader)


class SegmentationFiles(FileSource):
    """Images with a class per pixel, decoded as they are needed."""

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        """Read an image [3, H, W] and its class ids [H, W]."""
        files = self.files.paths(index)
        image, labels = read_image(files[0]), self.reader(files[1])
        check_sizes(files, image.shape[1:], labels.shape)
        return image, labels

    def batch(self, items: list[tuple[Tensor, Tensor]], request: Request) -> DenseBatch:
        """Augment images with their labels, unless they are to be looked at."""
        if request.seed is not None:
            rows = zip(items, request.draws(), request.draws(COLORS))
            items = [augment(*item, row, color, self.augmentation) for item, row, color in rows]
        images, labels = stack_alike(items)
        return DenseBatch(images, labels, labels != UNLABELED)
