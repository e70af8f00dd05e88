"""The published dense head of CroCo's stereo and flow models, and ours."""

import re
from collections.abc import Mapping

from torch import Tensor

from mimlib.tasks.heads.dpt import DPTHead

OFFICIAL_NAMES = (  # ours, theirs; theirs counts fusion blocks from 1
    (r"reassemble\.(\d)", lambda i: f"act_postprocess.{i}"),
    (r"project\.(\d)", lambda i: f"scratch.layer_rn.{i}"),
    (r"fuse\.(\d)\.unit_", lambda i: f"scratch.refinenet{i + 1}.resConfUnit"),
    (r"fuse\.(\d)\.out", lambda i: f"scratch.refinenet{i + 1}.out_conv"),
    (r"predict\.(\d)", lambda i: f"head.{2 * i}"),
)


def official_name(name: str) -> str:
    """Return what CroCo's code calls a parameter of the head (without its prefix `head.dpt.`)."""
    for pattern, replacement in OFFICIAL_NAMES:
        if match := re.match(pattern, name):
            return replacement(int(match[1])) + name[match.end() :]
    raise ValueError(f"{name!r} is no parameter of a DPT head")


def load_official_head(head: DPTHead, state: Mapping[str, Tensor]) -> None:
    """Load the head of a released stereo or flow model; ValueError if a parameter is missing.

    Aliases and the unused unit are passed by.
    """
    wanted = {name: official_name(name) for name in head.state_dict()}
    missing = sorted(theirs for theirs in wanted.values() if theirs not in state)
    if missing:
        raise ValueError(f"the checkpoint lacks {', '.join(missing[:5])}; is it a DPT head?")
    head.load_state_dict({ours: state[theirs] for ours, theirs in wanted.items()})
