"""Mask R-CNN on maps of four scales: torchvision's proposals, boxes and masks, made pure.

He et al. 2017 (arXiv 1703.06870) with a feature pyramid (Lin et al. 2017, arXiv 1612.03144) and
heads of four convolutions.

# differs from official: MIMDet normalises the pyramid and the heads over synchronised batches; here
# each place of a map is normalised alone, as in ViTDet (arXiv 2203.16527): an image's result does
# not depend on the others, whatever the number of processes.

Letters: B images, R boxes of one image, K anchors or proposals of one image, G classes, C channels
of the fused maps.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only
from torchvision.models.convnext import LayerNorm2d
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from mimlib.checks import check_positive
from mimlib.tasks.heads.instance_masks import MaskHead, crop_masks, mask_loss

SHAPES = (0.5, 1.0, 2.0)  # height over width of the anchors
BOX_CELLS, MASK_CELLS = 7, 14  # sides of what is cut out of the maps for each box
RPN_CONVS = 2
ANCHOR_RULES = {  # overlap of positives and negatives, share of positives, overlap of two results
    "fg_iou_thresh": 0.7,
    "bg_iou_thresh": 0.3,
    "positive_fraction": 0.5,
    "nms_thresh": 0.7,
}
BOX_RULES = {  # the same of boxes; least score and largest number of what is returned of an image
    "fg_iou_thresh": 0.5,
    "bg_iou_thresh": 0.5,
    "positive_fraction": 0.25,
    "bbox_reg_weights": None,
    "score_thresh": 0.05,
    "nms_thresh": 0.5,
    "detections_per_img": 100,
}


@dataclass(frozen=True, kw_only=True)
class MaskRCNNConfig:
    """The detector on top of a pyramid. Defaults: COCO at 1024 pixels, as MIMDet and ViTDet."""

    num_classes: int  # G, without a background
    anchor_sizes: tuple[int, int, int, int, int] = (32, 64, 128, 256, 512)  # pixels, finest first
    width: int = 256  # channels of the feature pyramid and of the heads, C
    box_convs: int = 4  # convolutions of the head of boxes
    box_width: int = 1024  # of the vector that describes a box
    sampled_anchors: int = 256  # of an image, that proposals are learned from
    sampled_boxes: int = 512  # of an image, that boxes, classes and masks are learned from
    candidates: int = 2000  # best anchors of each map, half as many in evaluation
    proposals: int = 1000  # of an image, kept of those where they overlap

    def __post_init__(self) -> None:
        counts = ("num_classes", "width", "box_width", "sampled_anchors", "sampled_boxes")
        check_positive(self, *counts, "candidates", "proposals")
        if list(self.anchor_sizes) != sorted(self.anchor_sizes) or self.anchor_sizes[0] < 1:
            raise ValueError(f"anchor_sizes {self.anchor_sizes} must be pixels, ascending")


class MaskRCNN(nn.Module):
    """From the maps of a pyramid, a fifth and coarsest one added, to boxes, classes and masks."""

    def __init__(self, widths: Sequence[int], finest_stride: int, config: MaskRCNNConfig) -> None:
        """Build the network on four maps, the first one of `finest_stride`, a power of 2."""
        super().__init__()
        norm = partial(LayerNorm2d, eps=1e-6)
        width, sizes = config.width, config.anchor_sizes
        self.fpn = FeaturePyramidNetwork(list(widths), width, LastLevelMaxPool(), norm)
        anchors = AnchorGenerator([(size,) for size in sizes], [SHAPES] * len(sizes))
        self.rpn = ProposalNetwork(
            anchors,
            RPNHead(width, len(SHAPES), RPN_CONVS),
            **ANCHOR_RULES,
            batch_size_per_image=config.sampled_anchors,
            pre_nms_top_n={"training": config.candidates, "testing": -(-config.candidates // 2)},
            post_nms_top_n={"training": config.proposals, "testing": config.proposals},
        )
        # As official: boxes of 224 = 7 * 32 pixels are cut out of the map of stride 16 = 4 * 4.
        shape = (width, BOX_CELLS, BOX_CELLS)
        roi_pool = partial(
            MultiScaleRoIAlign,
            [str(i) for i in range(len(widths))],
            sampling_ratio=2,
            canonical_scale=7 * sizes[0],
            canonical_level=finest_stride.bit_length() + 1,
        )
        self.roi_heads = BoxHeads(
            roi_pool(BOX_CELLS),
            FastRCNNConvFCHead(shape, [width] * config.box_convs, [config.box_width], norm),
            FastRCNNPredictor(config.box_width, config.num_classes + 1),
            **BOX_RULES,
            batch_size_per_image=config.sampled_boxes,
        )
        for part in (self.rpn.head, self.roi_heads.box_predictor):
            part.register_forward_hook(_as_float32)
        self.mask_head = MaskHead(roi_pool(MASK_CELLS), width, config.num_classes)

    def losses(
        self, maps: Sequence[Tensor], images: Tensor, targets: list[dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Return the five losses of Mask R-CNN, whose sum is what is minimised.

        Args:
            maps: of the pyramid.
            images: [B, 3, H, W].
            targets: of each image: boxes [R, 4], labels [R] from 1 and masks [R, H, W], and what
                decides what is learned from: anchor_keys [anchors], proposal_keys [proposals + R].
        """
        fused, proposals, of_anchors = self._propose(maps, images, targets)
        losses = {"objectness": of_anchors["loss_objectness"]}
        losses["proposal"] = of_anchors["loss_rpn_box_reg"]
        heads, sides = self.roi_heads, _sides(images)
        boxes, matches, labels, deltas = heads.select_training_samples(proposals, targets)
        found = heads.box_predictor(heads.box_head(heads.box_roi_pool(fused, boxes, sides)))
        losses["class"], losses["box"] = fastrcnn_loss(*found, labels, deltas)
        positive = [label > 0 for label in labels]
        boxes, matches, labels = (
            [field[p] for field, p in zip(fields, positive)] for fields in (boxes, matches, labels)
        )
        logits = self.mask_head(fused, boxes, sides)
        cells = logits.shape[-1]
        truths = [
            crop_masks(target["masks"], box, match, cells)
            for target, box, match in zip(targets, boxes, matches)
        ]
        losses["mask"] = mask_loss(logits, torch.cat(labels) - 1, torch.cat(truths))
        return losses

    def detect(self, maps: Sequence[Tensor], images: Tensor) -> list[dict[str, Tensor]]:
        """Return boxes [R, 4], labels [R] from 1, scores [R] and masks [R, M, M] of each image."""
        fused, proposals, _ = self._propose(maps, images, None)
        results, _ = self.roi_heads(fused, proposals, _sides(images))
        logits = self.mask_head(fused, [each["boxes"] for each in results], _sides(images))
        for each, masks in zip(results, logits.split([len(each["labels"]) for each in results])):
            rows = torch.arange(len(masks), device=masks.device)
            each["masks"] = masks[rows, each["labels"] - 1].sigmoid()
        return results

    def num_anchors(self, grid: tuple[int, int]) -> int:
        """Count the anchors of an image whose third map has this grid."""
        h, w = grid
        sides = [(4 * h, 4 * w), (2 * h, 2 * w), (h, w), (h // 2, w // 2)]
        sides.append(((sides[-1][0] + 1) // 2, (sides[-1][1] + 1) // 2))
        return len(SHAPES) * sum(rows * columns for rows, columns in sides)

    def _propose(
        self, maps: Sequence[Tensor], images: Tensor, targets: list[dict[str, Tensor]] | None
    ) -> tuple[OrderedDict[str, Tensor], list[Tensor], dict[str, Tensor]]:
        """Return the fused maps, the proposals on them and, with targets, the losses of those."""
        # Training mode of these two means no more than losses in place of results.
        self.rpn.training = self.roi_heads.training = targets is not None
        fused = self.fpn(OrderedDict((str(i), level) for i, level in enumerate(maps)))
        # Coordinates are computed in the type of the maps, and bfloat16 has no room for them.
        fused = OrderedDict((name, level.float()) for name, level in fused.items())
        return fused, *self.rpn(ImageList(images, _sides(images)), fused, targets)


class ProposalNetwork(RegionProposalNetwork):
    """torchvision's, which draws nothing: it learns from the anchors with the smallest keys."""

    def __init__(self, *parts: nn.Module, batch_size_per_image: int, **rules: object) -> None:
        super().__init__(*parts, batch_size_per_image=batch_size_per_image, **rules)
        self.count = batch_size_per_image
        self.fg_bg_sampler = _labeled  # those that are not to be learned from have no label

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: list[dict[str, Tensor]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Label the anchors to learn from, others -1; match each with its object's box."""
        labels, boxes = super().assign_targets_to_anchors(anchors, targets)
        for label, target in zip(labels, targets):
            share = ANCHOR_RULES["positive_fraction"]
            label[~choose(label, target["anchor_keys"], self.count, share)] = -1
        return labels, boxes


class BoxHeads(RoIHeads):
    """torchvision's, without masks; it learns from the proposals with the smallest keys."""

    def select_training_samples(
        self, proposals: list[Tensor], targets: list[dict[str, Tensor]]
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
        """Choose the proposals to learn from; return them, their objects, labels and deltas."""
        truths = [target["boxes"] for target in targets]
        boxes = self.add_gt_proposals(proposals, truths)
        classes = [target["labels"] for target in targets]
        matches, labels = self.assign_targets_to_proposals(boxes, truths, classes)
        count, share = self.fg_bg_sampler.batch_size_per_image, BOX_RULES["positive_fraction"]
        keys = [target["proposal_keys"] for target in targets]
        chosen = [choose(*each, count, share) for each in zip(labels, keys)]
        boxes, matches, labels = (
            [field[c] for field, c in zip(fields, chosen)] for fields in (boxes, matches, labels)
        )
        # An image without objects has background alone, whose match is of no account.
        truths = [truth if len(truth) else truth.new_zeros(1, 4) for truth in truths]
        matched = [truth[match] for truth, match in zip(truths, matches)]
        return boxes, matches, labels, self.box_coder.encode(matched, boxes)


def _as_float32(_module: nn.Module, _inputs: tuple, outputs: Any) -> Any:
    """Let a part of torchvision's answer in float32, whatever it computes in."""
    return tree_map_only(Tensor, Tensor.float, outputs)


def _labeled(labels: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Return masks of all positives and of all negatives, as torchvision's sampler does of some."""
    return [label >= 1 for label in labels], [label == 0 for label in labels]


def _sides(images: Tensor) -> list[tuple[int, int]]:
    return [(images.shape[2], images.shape[3])] * len(images)


def choose(labels: Tensor, keys: Tensor, count: int, share: float) -> Tensor:
    """Choose which boxes are learned from: those with the smallest keys.

    torchvision draws them from the global generator, in the middle of its forward pass; with keys
    drawn beforehand, uniform in [0, 1), the same views give the same loss.

    Of labels [K], above 0: positive, 0: negative, below: neither, `count` are chosen if there are
    as many, `share` of them positive at the most. Keys: [K] or more. Returns a mask [K].
    """
    keys = keys[: len(labels)]
    positive = _smallest(keys, labels >= 1, int(count * share))
    return positive | _smallest(keys, labels == 0, count, count - positive.sum())


def _smallest(keys: Tensor, allowed: Tensor, most: int, wanted: Tensor | None = None) -> Tensor:
    """Return a mask of the `wanted` (or `most`) smallest keys among the allowed ones."""
    values, index = keys.masked_fill(~allowed, torch.inf).topk(min(most, len(keys)), largest=False)
    chosen = values.isfinite()
    if wanted is not None:
        chosen &= torch.arange(len(values), device=keys.device) < wanted
    return torch.zeros_like(allowed).scatter(0, index, chosen)
