"""Tensors in, pictures out. One style; every axis has a name and a unit.

A function that draws a whole picture returns a `Picture`, which a notebook shows when it is the
last value of a cell. The functions of `truth` draw into one axis of `truth.panels`.
"""

from mimlib.figures import truth
from mimlib.figures.charts import bars, curves, scatter, study
from mimlib.figures.found import Shown, class_maps, detections, followed, objects
from mimlib.figures.grids import attention_rows, hide, images, patch_grid, positions, rows
from mimlib.figures.pairs import colored, flow_colors, flow_wheel, looks, matches
from mimlib.figures.style import COLORS, GRAY, Picture

__all__ = [
    "COLORS",
    "GRAY",
    "Picture",
    "Shown",
    "attention_rows",
    "bars",
    "class_maps",
    "colored",
    "curves",
    "detections",
    "flow_colors",
    "flow_wheel",
    "followed",
    "hide",
    "images",
    "looks",
    "matches",
    "objects",
    "patch_grid",
    "positions",
    "rows",
    "scatter",
    "study",
    "truth",
]
