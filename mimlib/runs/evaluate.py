"""How well a trained encoder follows the objects of DAVIS, from their masks in the first frames.

Nothing is trained: labels go where frozen features are most alike, with the protocol of DINO and
SelfPatch (evaluation/propagation.py). What pixels alone achieve stands beside it.

    python -m mimlib follow selfpatch_vits16_in1k runs/selfpatch_vits16_in1k --root data/davis

The preset says the shape of the encoder, one whose stride divides 480 and 64; a run's folder, a
checkpoint or a published file has its weights.
"""

from collections.abc import Mapping

from mimlib.data.videos.davis import DavisConfig
from mimlib.evaluation.label_propagation import LabelPropagationConfig
from mimlib.evaluation.propagation import PropagationConfig
from mimlib.presets.run import Run
from mimlib.runs.build import weights_file
from mimlib.runs.mistakes import mistakes
from mimlib.training.config import pick_device
from mimlib.weights import load_pretrained

PROTOCOL = PropagationConfig()  # as official


def follow(
    run: Run, weights: str, videos: DavisConfig, device: str = "auto"
) -> Mapping[str, float]:
    """Return J and F of all videos, from 0 to 1, and those of pixels alone.

    The encoder is that of `run`; its weights come from a finished run's folder, a checkpoint or a
    published file. Mistake (a ValueError) if they do not fit or the videos are not complete.
    """
    with mistakes():
        where = pick_device(device)
        measure = LabelPropagationConfig(source=videos, propagation=PROTOCOL).build()
        method = run.method.build()
        load_pretrained(method, weights_file(weights))
    return measure.run(method.to(where), where)
