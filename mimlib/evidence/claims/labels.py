"""What the shipped networks are worth to a task, label by label. Not a claim of the papers."""

from mimlib.evidence.claims.study import Study, higher, lower
from mimlib.evidence.claims.terms import FLOORS

DEPTHS = tuple(f"depth RMSE, fine-tuned on {labels} labels [m]" for labels in (16, 64, 256, 512))
SEGMENTATIONS = tuple(f"segmentation mIoU, fine-tuned on {labels} labels" for labels in (64, 512))

LABELS = tuple(
    Study(
        name,
        "Pre-training helps depth and segmentation, with few labels and with many",
        "not in the paper, which fine-tunes on all of ImageNet, COCO and ADE20K",
        {
            label: {"METHOD": method} | floor
            for label, floor in ({"pre-trained": {}} | FLOORS).items()
        },
        lower(DEPTHS, "pre-trained", "untrained")
        + higher(SEGMENTATIONS, "pre-trained", "untrained"),
        notebook="labels.ipynb",
        method=method,
        size="small",
        seeds=3,
    )
    for name, method in (("mae.6", "mae"), ("convmae.8", "convmae"))
)
