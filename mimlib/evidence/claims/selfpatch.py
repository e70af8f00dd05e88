"""Claims of SelfPatch. Most numbers of the paper's ablations were not at hand."""

from collections.abc import Mapping
from functools import partial

from mimlib.evidence.claims.study import PROBE, Rule, Study

ABLATION = "selfpatch_ablation.ipynb"
JF = "label propagation J&F"
DIVERSITY = "attention diversity"  # 0: all patches of an image look at the same
OBJECTS = "object accuracy, frozen"
SAME = 0.02  # of J&F, from 0 to 1, that is no difference
METHODS: Mapping[str, Mapping[str, object]] = {"DINO": {}, "SelfPatch": {}}
ON_DINO = {"DINO": {"METHOD": "dino"}}
PADDED = {"method.wrap": False}  # small crops have no room for wide windows on a torus

_selfpatch = partial(Study, method="selfpatch", notebook=ABLATION)

SELFPATCH = (
    _selfpatch(
        "selfpatch.1",
        "A loss for patches adds to DINO where every place counts",
        "fine-tuned, SelfPatch over DINO: COCO box AP 42.1 over 40.8, mask AP 38.5 over 37.3, "
        "ADE20K mIoU 41.2 over 38.3 (Semantic FPN) and 43.2 over 42.3 (UperNet)",
        METHODS,
        (
            Rule(metric=JF, better="SelfPatch", worse="DINO"),
            Rule(metric=PROBE, better="SelfPatch", worse="DINO"),
        ),
        parameters=ON_DINO,
    ),
    _selfpatch(
        "selfpatch.2",
        "The size of the neighbourhood and the aggregation matter most",
        "a direction, DAVIS J&F; numbers not at hand",
        {
            "own token": {"method.aggregate": False},
            "3 x 3": {},
            "5 x 5": {"method.window": 5} | PADDED,
            "whole crop": {"method.window": 0},
        },
        (
            Rule(metric=JF, better="3 x 3", worse="own token"),
            Rule(metric=JF, better="3 x 3", worse="5 x 5"),
            Rule(metric=JF, better="3 x 3", worse="whole crop"),
        ),
    ),
    _selfpatch(
        "selfpatch.3",
        "How many positives hardly matters",
        "a direction, DAVIS J&F; numbers not at hand",
        {f"k = {k}": {"method.k": k} if k != 4 else {} for k in (1, 2, 4, 8)},
        tuple(Rule(metric=JF, better="k = 4", worse=f"k = {k}", margin=SAME) for k in (1, 2, 8)),
    ),
    _selfpatch(
        "selfpatch.4",
        "Any loss for patches beats none, with and without the aggregator",
        "a direction, DAVIS J&F; numbers not at hand; released with a weight of 0.1",
        {
            "DINO": {},
            "lambda 0": {"method.patch_weight": 0.0},
            "lambda 0.1": {"method.patch_weight": 0.1},
            "lambda 1": {"method.patch_weight": 1.0},
            "lambda 5": {"method.patch_weight": 5.0},
        },
        (
            Rule(metric=JF, better="lambda 0.1", worse="DINO"),
            Rule(metric=JF, better="lambda 0.1", worse="lambda 0"),
            Rule(metric=JF, better="lambda 1", worse="lambda 0"),
            Rule(metric=JF, better="lambda 5", worse="lambda 0"),
        ),
        parameters=ON_DINO,
    ),
    _selfpatch(
        "selfpatch.5",
        "On MoBY, negatives are not needed",
        "DAVIS J&F, ViT: 58.9 with, 58.4 without negatives",
        {"with negatives": {}, "without": {"method.patches.negatives": False}},
        (Rule(metric=JF, better="without", worse="with negatives", margin=SAME),),
        method="selfpatch_moby",
        parameters=dict.fromkeys(("with negatives", "without"), {"METHOD": "selfpatch_moby"}),
    ),
    # Both padded: crops have too few large patches to reach around.
    _selfpatch(
        "selfpatch.6",
        "Smaller patches are better",
        "a direction, DAVIS J&F; numbers not at hand",
        {f"{p} x {p} pixels": {"method.encoder.patch_size": p} | PADDED for p in (4, 8)},
        (Rule(metric=JF, better="4 x 4 pixels", worse="8 x 8 pixels"),),
    ),
    _selfpatch(
        "selfpatch.7",
        "Patches look at more different things than DINO's do",
        "a picture of attention maps",
        METHODS,
        (Rule(metric=DIVERSITY, better="SelfPatch", worse="DINO"),),
        parameters=ON_DINO,
    ),
    _selfpatch(
        "selfpatch.8",
        "Images are classified slightly better, too",
        "a direction, ImageNet; numbers not at hand",
        METHODS,
        (Rule(metric=OBJECTS, better="SelfPatch", worse="DINO"),),
        parameters=ON_DINO,
    ),
    # Not a claim of the paper: why the lessons' patches are centred otherwise than its own.
    _selfpatch(
        "selfpatch.9",
        "Small encoders need patches centred by their crop",
        "not in the paper, whose patches are centred by the run",
        {
            "by the run": {"method.patches.centre": "run"},
            "by the crop": {"method.patches.centre": "crop"},
        },
        (Rule(metric=JF, better="by the crop", worse="by the run"),),
    ),
)
