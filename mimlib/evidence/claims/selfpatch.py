"""Claims of SelfPatch. Most numbers of the paper's ablations were not at hand."""

from functools import partial

from mimlib.evidence.claims.study import Study, equal, higher, vary
from mimlib.evidence.claims.terms import FLOORS, OBJECTS, PROBE

ABLATION = "selfpatch_ablation.ipynb"
JF = "label propagation J&F"
DIVERSITY = "attention diversity"  # 0: all patches of an image look at the same
SAME = 0.02  # of J&F, from 0 to 1, that is no difference
DINO = {"METHOD": "dino"}
METHODS = {"DINO": DINO, "SelfPatch": {}} | FLOORS
MOBY = {"METHOD": "selfpatch_moby"}
MOBY_FLOORS = {label: MOBY | floor for label, floor in FLOORS.items()}
PADDED = {"method.wrap": False}  # small crops have no room for wide windows on a torus

_selfpatch = partial(Study, method="selfpatch", notebook=ABLATION, seeds=3)

SELFPATCH = (
    _selfpatch(
        "selfpatch.1",
        "A loss for patches improves on DINO in dense tasks",
        "fine-tuned, SelfPatch over DINO: COCO box AP 42.1 over 40.8, mask AP 38.5 over 37.3, "
        "ADE20K mIoU 41.2 over 38.3 (Semantic FPN) and 43.2 over 42.3 (UperNet)",
        METHODS,
        higher((JF, PROBE), "SelfPatch", "DINO"),
        size="small",
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
        }
        | FLOORS,
        higher(JF, "3 x 3", ("own token", "5 x 5", "whole crop")),
    ),
    _selfpatch(
        "selfpatch.3",
        "How many positives hardly matters",
        "a direction, DAVIS J&F; numbers not at hand",
        vary("method.k", {"k = 1": 1, "k = 2": 2, "k = 4": None, "k = 8": 8}) | FLOORS,
        equal(JF, "k = 4", ("k = 1", "k = 2", "k = 8"), margin=SAME),
    ),
    _selfpatch(
        "selfpatch.4",
        "Any loss for patches beats none, with and without the aggregator",
        "a direction, DAVIS J&F; numbers not at hand; released with a weight of 0.1",
        {"DINO": DINO}
        | {f"lambda {w:g}": {"method.patch_weight": w} for w in (0.0, 0.1, 1.0, 5.0)}
        | FLOORS,
        higher(JF, "lambda 0.1", ("DINO", "lambda 0"))
        + higher(JF, "lambda 1", "lambda 0")
        + higher(JF, "lambda 5", "lambda 0"),
        size="small",
    ),
    _selfpatch(
        "selfpatch.5",
        "On MoBY, negatives are not needed",
        "DAVIS J&F, ViT: 58.9 with, 58.4 without negatives",
        {"with negatives": MOBY, "without": MOBY | {"method.patches.negatives": False}}
        | MOBY_FLOORS,
        equal(JF, "without", "with negatives", margin=SAME),
        method="selfpatch_moby",
    ),
    # Both padded: crops have too few large patches to reach around.
    _selfpatch(
        "selfpatch.6",
        "Smaller patches are better",
        "a direction, DAVIS J&F; numbers not at hand",
        {f"{p} x {p} pixels": {"method.encoder.patch_size": p} | PADDED for p in (4, 8)}
        | {"untrained, 8 x 8": {"method.encoder.patch_size": 8} | FLOORS["untrained"] | PADDED}
        | FLOORS,
        higher(JF, "4 x 4 pixels", "8 x 8 pixels"),
    ),
    _selfpatch(
        "selfpatch.7",
        "Different patches attend to more different regions than in DINO",
        "a picture of attention maps",
        METHODS,
        higher(DIVERSITY, "SelfPatch", "DINO"),
        size="small",
    ),
    _selfpatch(
        "selfpatch.8",
        "Images are classified slightly better, too",
        "a direction, ImageNet; numbers not at hand",
        METHODS,
        higher(OBJECTS, "SelfPatch", "DINO"),
        size="small",
    ),
    # Not a claim of the paper: why the lessons' patches are centred otherwise than its own.
    _selfpatch(
        "selfpatch.9",
        "Objects are followed better with patches centred by the crop than by the run",
        "not in the paper, whose patches are centred by the run",
        vary("method.patches.center", {"by the run": "run", "by the crop": "crop"}) | FLOORS,
        higher(JF, "by the crop", "by the run"),
    ),
)
