"""Detection and instance segmentation: Mask R-CNN on the maps of a pre-trained encoder.

Letters: B images, R objects of one image, H and W pixels, G classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import clip_boxes_to_image

from mimlib.data.batches import DetectionBatch
from mimlib.data.objects.masks import unpack_masks
from mimlib.encoders import EncoderConfig
from mimlib.encoders.pyramid import Pyramid, build_encoder
from mimlib.layers.patches import grid_of, normalize
from mimlib.protocol import Output, Trainable
from mimlib.tasks.heads.instance_masks import paste_masks
from mimlib.tasks.heads.mask_rcnn import MaskRCNN, MaskRCNNConfig
from mimlib.tasks.task import check_labels

NO_OBJECT = -1  # label of rows that are not learned from


@dataclass(frozen=True, kw_only=True)
class DetectionTaskConfig(MaskRCNNConfig):
    """Fine-tuning for boxes and masks: Mask R-CNN on the pyramid of an encoder."""

    encoder: EncoderConfig
    blocks: tuple[int, ...] = (-1,)  # of a ViT: the last, or four, see Pyramid
    window: int = 0  # patches along the side of windowed attention; 0: all attend everywhere
    global_blocks: tuple[int, ...] = ()  # of the attention, that attend everywhere nevertheless

    def __post_init__(self) -> None:
        super().__post_init__()
        stride = self.encoder.patch_size
        if stride < 4 or stride & (stride - 1) or self.encoder.image_size % (2 * stride):
            raise ValueError(
                f"patch_size {stride} and image_size {self.encoder.image_size} make no pyramid; "
                "expected a power of 2 from 4 up, and a multiple of twice that"
            )
        if self.global_blocks and not self.window:
            raise ValueError(
                f"global_blocks is {self.global_blocks}, but without windows all blocks must be "
                "global; give `window` or leave it empty"
            )

    def build(self) -> "DetectionTask":
        """Make the task, freshly initialised."""
        return DetectionTask(self)


class DetectionViews(NamedTuple):
    """Normalised images, what is to be found in them, and what decides what is learned from."""

    images: Tensor  # [B, 3, H, W] float32, ImageNet-normalised
    boxes: Tensor  # [B, R, 4] float32 xyxy in pixels
    labels: Tensor  # [B, R] int64, NO_OBJECT where there is nothing to learn
    masks: Tensor  # [B, R, H, W / 8] uint8, packed: `unpack_masks`
    anchor_keys: Tensor  # [B, anchors] float32, uniform in [0, 1)
    proposal_keys: Tensor  # [B, proposals + R] float32, uniform in [0, 1)


class Detections(NamedTuple):
    """What is found in one image, the surest first."""

    boxes: Tensor  # [R, 4] xyxy in pixels
    labels: Tensor  # [R] int64 from 0
    scores: Tensor  # [R] in [0, 1]
    masks: Tensor  # [R, 28, 28] probabilities inside the box; postprocessed: [R, H, W] bool


class DetectionTask(Trainable):
    """Find the objects of an image: a box, a class and a mask for each."""

    runs_on_shapes = False  # what is computed depends on what is found

    def __init__(self, config: DetectionTaskConfig) -> None:
        super().__init__()
        self.num_classes, self.proposals = config.num_classes, config.proposals
        self.encoder = build_encoder(config.encoder)
        if config.window:
            self.encoder.attend_in_windows(config.window, config.global_blocks)
        self.pyramid = Pyramid(config.encoder, config.blocks)
        self.head = MaskRCNN(self.pyramid.widths, self.encoder.stride // 4, config)

    def sample_views(self, batch: DetectionBatch, generator: torch.Generator) -> DetectionViews:
        """Normalise the images and draw which anchors and proposals may be learned from.

        Crowds, and boxes without an area, are not learned; images without objects are.
        """
        check_objects(batch, self.num_classes)
        solid = (batch.boxes[..., 2:] > batch.boxes[..., :2]).all(dim=-1)
        labels = batch.labels.masked_fill(batch.crowd | ~solid, NO_OBJECT)
        count, most = labels.shape
        num_anchors = self.head.num_anchors(grid_of(batch.images, self.encoder.stride))
        shapes = (count, num_anchors), (count, self.proposals + most)
        draw = {"generator": generator, "device": batch.images.device}
        anchor_keys, proposal_keys = (torch.rand(shape, **draw) for shape in shapes)
        images = normalize(batch.images)
        return DetectionViews(images, batch.boxes, labels, batch.masks, anchor_keys, proposal_keys)

    def forward(self, views: DetectionViews) -> Output:
        """Return the sum of Mask R-CNN's five losses, in training and in evaluation."""
        targets, width = [], views.images.shape[-1]
        objects = zip(views.boxes, views.labels, views.masks)
        for (boxes, labels, packed), *keys in zip(objects, views.anchor_keys, views.proposal_keys):
            kept = labels != NO_OBJECT
            masks = unpack_masks(packed[kept], width)
            target = {"boxes": boxes[kept], "labels": labels[kept] + 1, "masks": masks}
            targets.append(target | dict(zip(("anchor_keys", "proposal_keys"), keys)))
        terms = self.head.losses(self.pyramid(self.encoder, views.images), views.images, targets)
        loss = torch.stack(list(terms.values())).sum()
        return Output(loss=loss, terms={name: term.detach() for name, term in terms.items()})

    @torch.no_grad()
    def detect(self, images: Tensor) -> list[Detections]:
        """Find the objects of images [B, 3, H, W], uint8 or in [0, 1]; in evaluation mode."""
        normalized = normalize(images)
        found = self.head.detect(self.pyramid(self.encoder, normalized), normalized)
        return [
            Detections(each["boxes"], each["labels"] - 1, each["scores"], each["masks"])
            for each in found
        ]


def postprocess(
    found: Detections, sides: Sequence[int], seen: Sequence[int] | None = None
) -> Detections:
    """Bring detections from the pixels of the square the network saw to those of the stored image.

    `sides` are height and width of the image, `seen` those it had in the square (None: the same;
    `Placement.sides`). What lies on the image is returned: boxes clipped to it, and masks
    [R, H, W] bool. A mask fills its whole box, also where that reaches beyond the image.
    """
    (height, width), seen = sides, seen or sides
    factor = found.boxes.new_tensor([width / seen[1], height / seen[0]]).repeat(2)
    whole = found.boxes * factor
    boxes = clip_boxes_to_image(whole, (height, width))
    placed = found._replace(boxes=boxes, masks=paste_masks(found.masks, whole, (height, width)))
    on_it = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    return Detections(*(field[on_it] for field in placed))


def check_objects(batch: DetectionBatch, num_classes: int) -> None:
    """Raise ValueError where objects do not fit their images, or a label is outside the range."""
    (count, _, height, width), most = batch.images.shape, batch.labels.shape[1]
    packed = (count, most, height, -(-width // 8))
    expected = {"boxes": (count, most, 4), "masks": packed, "crowd": (count, most)}
    for name, shape in expected.items():
        got = tuple(getattr(batch, name).shape)
        if got != shape:
            raise ValueError(
                f"{name} has shape {got}, but the images and labels ask for {shape}; masks must "
                "have the size of their image, eight pixels in a byte"
            )
    if batch.labels.is_cpu:  # elsewhere looking at values would make everything wait
        check_labels(batch.labels[batch.labels != NO_OBJECT], num_classes)
