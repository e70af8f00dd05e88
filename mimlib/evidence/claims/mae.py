"""Claims of MAE."""

from functools import partial

from mimlib.evidence.claims.study import DEPTH, PROBE, Rule, Study, lower

_mae = partial(Study, method="mae", notebook="mae_ablation.ipynb")

MAE = (
    _mae(
        "mae.1",
        "A high mask ratio, about 75 %, is best for features",
        "figure 5, ViT-L: linear probe 54.6 at 10 %, 73.5 at 75 %; fine-tuning flat 40-80 %",
        {
            "25 %": {"method.mask_ratio": 0.25},
            "50 %": {"method.mask_ratio": 0.5},
            "75 %": {},
            "90 %": {"method.mask_ratio": 0.9},
        },
        (
            Rule(metric=PROBE, better="75 %", worse="25 %"),
            Rule(metric=PROBE, better="75 %", worse="90 %"),
        ),
    ),
    _mae(
        "mae.3",
        "Per-patch normalised targets help",
        "table 1d, ViT-L fine-tuning: 84.9 with pixels, 85.4 with normalised pixels",
        {"raw pixels": {"method.normalize_target": False}, "normalised": {}},
        (
            Rule(metric=PROBE, better="normalised", worse="raw pixels"),
            lower(DEPTH, "normalised", "raw pixels"),
        ),
    ),
    _mae(
        "mae.4",
        "A deeper decoder helps frozen features, hardly fine-tuning",
        "table 1a, ViT-L: one block 84.8 fine-tuned; deeper helps the linear probe by up to 8",
        {
            "1 block": {"method.decoder_depth": 1},
            "2 blocks": {"method.decoder_depth": 2},
            "4 blocks": {"method.decoder_depth": 4},
            "8 blocks": {"method.decoder_depth": 8},
        },
        (
            Rule(metric=PROBE, better="8 blocks", worse="1 block"),
            Rule(metric=DEPTH, better="8 blocks", worse="1 block", margin=0.02),
        ),
    ),
)
