"""Images with a class per pixel from files: ADE20K, Pascal VOC, COCO, any two folders."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from torch import Tensor

from mimlib.data.batches import DenseBatch
from mimlib.data.dense.label_maps import (
    ADE20K_IDS,
    COCO_IDS,
    UNLABELED,
    VOC_IDS,
    LabeledFiles,
    PanopticReader,
    class_table,
    find_beside,
    read_label_map,
)
from mimlib.data.dense.views import SegmentationAugmentation, augment
from mimlib.data.files.listing import Listing, read_names
from mimlib.data.files.pictures import read_image
from mimlib.data.files.source import FileSource, check_sizes, stack_alike
from mimlib.data.order import COLORS, Request

VOID = 255  # marks pixels without a class in most label maps
NUM_CLASSES = {"ade20k": 150, "voc": 21, "coco_semantic": 133, "coco_panoptic": 133}


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
    layout: Literal["ade20k", "voc", "coco_semantic", "coco_panoptic", "folders"]
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
        """List the files.

        Raises:
            ValueError: if there is no label map, or an image, label map or list is missing.
        """
        root = Path(os.path.expanduser(self.root))
        files, read = LAYOUTS[self.layout](root, self)
        if not files:
            raise ValueError(
                f"{root} holds nothing in the layout {self.layout!r}, split {self.split!r}; "
                "data/README.md says what goes where"
            )
        return SegmentationFiles(Listing(root, files), read, self)


class SegmentationFiles(FileSource):
    """Images with a class per pixel, decoded as they are needed."""

    def __init__(
        self, files: Listing, reader: Callable[[str], Tensor], config: SegmentationFilesConfig
    ):
        super().__init__(files, config, config.workers)
        self.reader = reader

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        """Read an image [3, H, W] and its class ids [H, W].

        Raises:
            ValueError: if a file cannot be read, or they differ in size.
        """
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


Listed = tuple[list[LabeledFiles], Callable[[str], Tensor]]


def list_ade20k(root: Path, config: SegmentationFilesConfig) -> Listed:
    """List ADE20K as SceneParse150 has it; 0 is everything that is not among its classes."""
    files = find_beside(root, f"images/{config.split}", f"annotations/{config.split}")
    return files, partial(read_label_map, table=class_table(ADE20K_IDS, (0, VOID)))


def list_voc(root: Path, config: SegmentationFilesConfig) -> Listed:
    """List Pascal VOC; only some of its images have label maps, so that a split is wanted."""
    names = read_names(root / "ImageSets" / "Segmentation" / f"{config.split}.txt")
    files = find_beside(root, "JPEGImages", "SegmentationClass", names)
    return files, partial(read_label_map, table=class_table(VOC_IDS, (VOID,)))


def list_coco_semantic(root: Path, config: SegmentationFilesConfig) -> Listed:
    """List COCO with label maps of category ids, 0 where there is none."""
    files = find_beside(root, f"images/{config.split}", f"semantic_masks/{config.split}")
    return files, partial(read_label_map, table=class_table(COCO_IDS, (0,)))


def list_coco_panoptic(root: Path, config: SegmentationFilesConfig) -> Listed:
    """List COCO with its panoptic annotations."""
    images = f"images/{config.split}" if (root / "images").is_dir() else config.split
    annotations = f"annotations/panoptic_{config.split}"
    reader = PanopticReader(root / f"{annotations}.json")
    names = [name.removesuffix(".png") for name in sorted(reader.segments)]
    return find_beside(root, images, annotations, names), reader


def list_folders(root: Path, config: SegmentationFilesConfig) -> Listed:
    """List two folders of files with equal names."""
    names = read_names(root / f"{config.split}.txt") if config.split else None
    table = class_table(range(config.num_classes), (VOID,))
    return find_beside(root, "images", "labels", names), partial(read_label_map, table=table)


LAYOUTS = {
    "ade20k": list_ade20k,
    "voc": list_voc,
    "coco_semantic": list_coco_semantic,
    "coco_panoptic": list_coco_panoptic,
    "folders": list_folders,
}
