"""What the shipped networks are worth to a task, label by label. Not a claim of the papers."""

from mimlib.evidence.claims.study import Study, higher, lower
from mimlib.evidence.claims.terms import FLOORS

DEPTHS = tuple(f"depth RMSE, fine-tuned on {labels} labels [m]" for labels in (16, 64, 256, 512))
SEGMENTATIONS = tuple(f"segmentation mIoU, fine-tuned on {labels} labels" for labels in (64, 512))
CLAIM = "Pre-training helps depth and segmentation, with few labels and with many"
PAPER = "not in the paper, which fine-tunes on all of ImageNet, COCO and ADE20K"
NETWORKS = {"pre-trained": {}} | FLOORS
RULES = lower(DEPTHS, "pre-trained", "untrained")
RULES += higher(SEGMENTATIONS, "pre-trained", "untrained")
SHARED = {"notebook": "labels.ipynb", "size": "small", "seeds": 3}

LABELS = tuple(
    Study(
        f"{method}.{number}",
        CLAIM,
        PAPER,
        {name: {"METHOD": method} | each for name, each in NETWORKS.items()},
        RULES,
        method=method,
        **SHARED,
    )
    for method, number in (("mae", 6), ("convmae", 8))
)
