"""Claims of MAE."""

from functools import partial

from mimlib.evidence.claims.study import Study, equal, higher, lower, vary
from mimlib.evidence.claims.terms import DEPTH, FLAT, FLOORS, PROBE, STEP

FLOPS = "GFLOP per image, ViT-L"
_mae = partial(Study, method="mae", notebook="mae_ablation.ipynb")

MAE = (
    _mae(
        "mae.1",
        "A high mask ratio, about 75 %, is best for features",
        "figure 5, ViT-L: linear probe 54.6 at 10 %, 73.5 at 75 %; fine-tuning flat 40-80 %",
        vary("method.mask_ratio", {"25 %": 0.25, "50 %": 0.5, "75 %": None, "90 %": 0.9}) | FLOORS,
        higher(PROBE, "75 %", ("25 %", "90 %")),
    ),
    _mae(
        "mae.2",
        "Mask tokens for the decoder alone make the encoder cheaper and better",
        "table 1c, ViT-L: fine-tuned 84.9, linear 73.5; with them 84.2, 59.6, 3.3 times the FLOPs",
        {"with": {"method.encode_masked": True}, "without": {}} | FLOORS,
        lower((STEP, FLOPS, DEPTH), "without", "with") + higher(PROBE, "without", "with"),
    ),
    _mae(
        "mae.3",
        "Per-patch normalised targets help",
        "table 1d, ViT-L fine-tuning: 84.9 with pixels, 85.4 with normalised pixels",
        {"raw pixels": {"method.normalize_target": False}, "normalised": {}} | FLOORS,
        higher(PROBE, "normalised", "raw pixels") + lower(DEPTH, "normalised", "raw pixels"),
    ),
    _mae(
        "mae.4",
        "A deeper decoder helps frozen features, hardly fine-tuning",
        "table 1a, ViT-L: one block 84.8 fine-tuned; deeper helps the linear probe by up to 8",
        vary("method.decoder_depth", {"1 block": 1, "2 blocks": 2, "8 blocks": 8}) | FLOORS,
        higher(PROBE, "8 blocks", "1 block") + equal(DEPTH, "8 blocks", "1 block", **FLAT),
    ),
    _mae(
        "mae.5",
        "A loss on masked patches alone is better than one on all",
        "about 0.5 lower with a loss on all (recalled, not verified)",
        {"all": {"method.predict_visible": True}, "masked": {}} | FLOORS,
        lower(DEPTH, "masked", "all"),
    ),
)
