"""Every named run. The only place where data, methods, tasks and training meet.

A run comes in four sizes: `_tiny` trains in seconds and serves the tests, `_lesson` learns in a
minute on two CPU cores, `_gpu` is meant for some minutes on one GPU, and the paper's own size
wants its data set and many GPUs. Each function is a recipe card; each file holds those of one
method.
"""

import difflib
from collections.abc import Callable

from mimlib.presets.methods import convmae, croco, mae, selfpatch, selfpatch_paper
from mimlib.presets.run import Run
from mimlib.presets.scales import (
    HELD_OUT_SEED,
    cross_view,
    label_propagation,
    object_neighbours,
    object_probe,
    semantic_probe,
)
from mimlib.presets.tasks import depth_and_classes, detection, matching, segmentation

__all__ = [
    "HELD_OUT_SEED",
    "PRESETS",
    "cross_view",
    "label_propagation",
    "object_neighbours",
    "object_probe",
    "preset",
    "semantic_probe",
]

PRESETS: dict[str, Callable[[], Run]] = {
    function.__name__: function
    for function in (
        *(mae.mae_tiny, mae.mae_lesson, mae.mae_gpu),
        *(mae.mae_vitb16_in1k, mae.mae_vitl16_in1k, mae.mae_vith14_in1k),
        *(convmae.convmae_tiny, convmae.convmae_lesson, convmae.convmae_gpu),
        *(convmae.convmae_vitb16_in1k, convmae.fastconvmae_vitb16_in1k),
        *(croco.croco_tiny, croco.croco_lesson, croco.croco_small, croco.croco_gpu),
        *(croco.croco_homography_tiny, croco.croco_homography_lesson),
        croco.croco_homography_gpu,
        *(croco.croco_vitb16_habitat, croco.crocov2_vitl_base),
        *(selfpatch.dino_tiny, selfpatch.dino_lesson, selfpatch.dino_small, selfpatch.dino_gpu),
        *(selfpatch.moby_tiny, selfpatch.moby_lesson, selfpatch.moby_gpu),
        *(selfpatch.selfpatch_tiny, selfpatch.selfpatch_lesson),
        *(selfpatch.selfpatch_small, selfpatch.selfpatch_gpu),
        *(
            selfpatch.selfpatch_moby_tiny,
            selfpatch.selfpatch_moby_lesson,
            selfpatch.selfpatch_moby_gpu,
        ),
        *(
            selfpatch_paper.dino_vits16_in1k,
            selfpatch_paper.selfpatch_vits16_in1k,
            selfpatch_paper.selfpatch_vitti16_coco,
            selfpatch_paper.moby_swint_in1k,
            selfpatch_paper.selfpatch_moby_vits16_in1k,
        ),
        *(
            depth_and_classes.depth_tiny,
            depth_and_classes.depth_lesson,
            depth_and_classes.depth_small,
            depth_and_classes.depth_gpu,
        ),
        *(depth_and_classes.depth_convmae_tiny, depth_and_classes.depth_convmae_lesson),
        depth_and_classes.depth_convmae_gpu,
        *(
            depth_and_classes.classify_tiny,
            depth_and_classes.classify_lesson,
            depth_and_classes.classify_gpu,
        ),
        *(depth_and_classes.classify_convmae_tiny, depth_and_classes.classify_convmae_lesson),
        depth_and_classes.classify_convmae_gpu,
        *(detection.detection_tiny, detection.detection_lesson, detection.detection_gpu),
        *(
            detection.detection_convmae_tiny,
            detection.detection_convmae_lesson,
            detection.detection_convmae_gpu,
        ),
        *(detection.detection_convmaeb_coco, detection.detection_vitb16_coco),
        *(
            segmentation.segmentation_tiny,
            segmentation.segmentation_lesson,
            segmentation.segmentation_gpu,
            segmentation.segmentation_convmae_tiny,
            segmentation.segmentation_convmae_lesson,
            segmentation.segmentation_convmae_gpu,
            segmentation.segmentation_vitb16_ade20k,
            segmentation.segmentation_convmaeb_ade20k,
        ),
        *(matching.flow_tiny, matching.flow_lesson, matching.flow_small, matching.flow_gpu),
        *(matching.stereo_tiny, matching.stereo_lesson, matching.stereo_gpu),
        *(matching.crocoflow_vitl_base, matching.crocostereo_vitl_base),
        *(depth_and_classes.finetune_vitb16_in1k, depth_and_classes.finetune_convvitb16_in1k),
        depth_and_classes.depth_vitb16_nyu,
    )
}


def preset(name: str) -> Run:
    """Return the run of this name.

    Raises:
        ValueError: if there is none; the message names the nearest ones.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=3, cutoff=0.4) or sorted(PRESETS)
        raise ValueError(
            f"no preset is called {name!r}; did you mean {', '.join(near)}? "
            "'python -m mimlib list' shows all"
        )
    return PRESETS[name]()
