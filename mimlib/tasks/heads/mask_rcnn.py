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
from functools import partial

import torch
from torch import Tensor, nn
from torchvision.models.convnext import LayerNorm2d
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from mimlib.tasks.heads.instance_masks import MaskHead, cut_masks, mask_loss

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
TERMS = {  # torchvision's names -> ours
    "loss_objectness": "objectness",
    "loss_rpn_box_reg": "proposal",
    "loss_classifier": "class",
    "loss_box_reg": "box",
}


class KeySampler:
    """Chooses which boxes are learned from: those with the smallest keys.

    torchvision draws them from the global generator, in the middle of its forward pass; with keys
    drawn beforehand, uniform in [0, 1), the same views give the same loss.
    """

    keys: Tensor  # [B, at least K]; set before each pass

    def __init__(self, count: int, share_positive: float) -> None:
        self.count, self.most_positive = count, int(count * share_positive)

    def __call__(self, labels: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Choose positives (labels above 0) and negatives (0) of each image, as masks [K]."""
        positives, negatives = [], []
        for label, keys in zip(labels, self.keys):
            keys = keys[: len(label)]
            positive = _smallest(keys, label >= 1, self.most_positive)
            wanted = self.count - positive.sum()
            positives.append(positive)
            negatives.append(_smallest(keys, label == 0, self.count, wanted))
        return positives, negatives


class MaskRCNN(nn.Module):
    """From the maps of a pyramid to boxes, classes and masks."""

    def __init__(
        self,
        widths: Sequence[int],
        finest_stride: int,
        num_classes: int,
        anchor_sizes: Sequence[int],
        width: int,
        box_convs: int,
        box_width: int,
        sampled_anchors: int,
        sampled_boxes: int,
        candidates: int,
        proposals: int,
    ) -> None:
        """Build the network.

        Args:
            widths: of the four maps.
            finest_stride: pixels per cell of the first map, a power of 2.
            num_classes: G, without the background.
            anchor_sizes: five, in pixels: one for each map and one for a still coarser one.
            width: channels of the fused maps, C.
            box_convs: convolutions of the head of the boxes.
            box_width: of the vector that describes a box.
            sampled_anchors: anchors of an image that proposals are learned from.
            sampled_boxes: proposals of an image that boxes, classes and masks are learned from.
            candidates: best anchors of each map that become proposals, half as many in evaluation.
            proposals: kept of an image where they overlap.
        """
        super().__init__()
        norm = partial(LayerNorm2d, eps=1e-6)
        self.fpn = FeaturePyramidNetwork(list(widths), width, LastLevelMaxPool(), norm)
        anchors = AnchorGenerator([(size,) for size in anchor_sizes], [SHAPES] * len(anchor_sizes))
        self.rpn = RegionProposalNetwork(
            anchors,
            ProposalHead(width, len(SHAPES), RPN_CONVS),
            **ANCHOR_RULES,
            batch_size_per_image=sampled_anchors,
            pre_nms_top_n={"training": candidates, "testing": -(-candidates // 2)},
            post_nms_top_n={"training": proposals, "testing": proposals},
        )
        # As official: boxes of 224 = 7 * 32 pixels are cut out of the map of stride 16 = 4 * 4.
        shape = (width, BOX_CELLS, BOX_CELLS)
        cut = partial(
            MultiScaleRoIAlign,
            [str(i) for i in range(len(widths))],
            sampling_ratio=2,
            canonical_scale=7 * anchor_sizes[0],
            canonical_level=finest_stride.bit_length() + 1,
        )
        self.roi_heads = BoxHeads(
            cut(BOX_CELLS),
            FastRCNNConvFCHead(shape, [width] * box_convs, [box_width], norm),
            BoxPredictor(box_width, num_classes + 1),
            **BOX_RULES,
            batch_size_per_image=sampled_boxes,
        )
        self.mask_head = MaskHead(cut(MASK_CELLS), width, num_classes)
        self.rpn.fg_bg_sampler = KeySampler(sampled_anchors, 0.5)
        self.roi_heads.fg_bg_sampler = KeySampler(sampled_boxes, 0.25)

    def losses(
        self,
        maps: Sequence[Tensor],
        images: Tensor,
        targets: list[dict[str, Tensor]],
        anchor_keys: Tensor,
        proposal_keys: Tensor,
    ) -> dict[str, Tensor]:
        """Return the five losses of Mask R-CNN, whose sum is what is minimised.

        Args:
            maps: of the pyramid.
            images: [B, 3, H, W].
            targets: of each image: boxes [R, 4], labels [R] from 1 and masks [R, H, W].
            anchor_keys: [B, num_anchors], which anchors are learned from.
            proposal_keys: [B, proposals + R], which proposals are.
        """
        self.rpn.fg_bg_sampler.keys = anchor_keys
        self.roi_heads.fg_bg_sampler.keys = proposal_keys
        _, fused, losses = self._find_boxes(maps, images, targets)
        boxes, matches, labels, _ = self.roi_heads.samples
        positive = [label > 0 for label in labels]
        boxes, matches, labels = (
            [field[p] for field, p in zip(fields, positive)] for fields in (boxes, matches, labels)
        )
        logits = self.mask_head(fused, boxes, _sides(images))
        cells = logits.shape[-1]
        truths = [
            cut_masks(target["masks"], box, match, cells)
            for target, box, match in zip(targets, boxes, matches)
        ]
        losses["mask"] = mask_loss(logits, torch.cat(labels) - 1, torch.cat(truths))
        return losses

    def detect(self, maps: Sequence[Tensor], images: Tensor) -> list[dict[str, Tensor]]:
        """Return boxes [R, 4], labels [R] from 1, scores [R] and masks [R, M, M] of each image."""
        results, fused, _ = self._find_boxes(maps, images, None)
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

    def _find_boxes(
        self, maps: Sequence[Tensor], images: Tensor, targets: list[dict[str, Tensor]] | None
    ) -> tuple[list[dict[str, Tensor]], OrderedDict[str, Tensor], dict[str, Tensor]]:
        """Return what is found, or with targets the losses of that, and the fused maps."""
        # Training mode of these two means no more than losses in place of results.
        self.rpn.training = self.roi_heads.training = targets is not None
        fused = self.fpn(OrderedDict((str(i), level) for i, level in enumerate(maps)))
        # Coordinates are computed in the type of the maps, and bfloat16 has no room for them.
        fused = OrderedDict((name, level.float()) for name, level in fused.items())
        sides = _sides(images)
        proposals, losses = self.rpn(ImageList(images, sides), fused, targets)
        results, more = self.roi_heads(fused, proposals, sides, targets)
        return results, fused, {TERMS[name]: loss for name, loss in {**losses, **more}.items()}


class BoxHeads(RoIHeads):
    """torchvision's, without masks; remembers which proposals were learned from."""

    samples: tuple  # of the last pass: proposals, matched objects, labels, regression targets

    def select_training_samples(
        self, proposals: list[Tensor], targets: list[dict[str, Tensor]] | None
    ) -> tuple:
        """Choose the proposals to learn from, each with its object."""
        self.samples = super().select_training_samples(proposals, targets)
        return self.samples


class ProposalHead(RPNHead):
    """torchvision's, with results in float32, whatever it computes in."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return scores and boxes of the anchors on each map."""
        logits, deltas = super().forward(x)
        return [each.float() for each in logits], [each.float() for each in deltas]


class BoxPredictor(FastRCNNPredictor):
    """torchvision's, with results in float32."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores of the classes and a box for each class."""
        scores, deltas = super().forward(x)
        return scores.float(), deltas.float()


def _sides(images: Tensor) -> list[tuple[int, int]]:
    return [(images.shape[2], images.shape[3])] * len(images)


def _smallest(keys: Tensor, allowed: Tensor, most: int, wanted: Tensor | None = None) -> Tensor:
    """Return a mask of the `wanted` (or `most`) smallest keys among the allowed ones."""
    values, index = keys.masked_fill(~allowed, torch.inf).topk(min(most, len(keys)), largest=False)
    chosen = values.isfinite()
    if wanted is not None:
        chosen &= torch.arange(len(values), device=keys.device) < wanted
    return torch.zeros_like(allowed).scatter(0, index, chosen)
