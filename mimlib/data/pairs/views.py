"""What CroCo does to a pair before masking: crops and color jitter, each view on its own.

The released code, not the v1 paper's first text, is the model: images are stored at 256 pixels,
each view is cropped to 224 somewhere else, and its colors are changed differently. No flips.

Letters: B pairs, U random numbers per pair (order.py).
"""

from dataclasses import dataclass

from mimlib.checks import check_positive, check_range

# Which of the random numbers of a pair decides what, for view 1 and view 2.
CROP = (slice(0, 2), slice(2, 4))  # row, column
COLOR = (slice(4, 8), slice(8, 12))  # brightness, contrast, saturation, their order
TILT = (slice(12, 15), slice(15, 18))  # direction, skew, rotation; homography.py


@dataclass(frozen=True, kw_only=True)
class PairAugmentation:
    """Independent crops and color jitter of the two views."""

    size: int  # pixels, side of the images handed out
    jitter: float = 0.4  # brightness, contrast and saturation are multiplied by 1 - this ... 1 + it
    margin: float = 1 / 7  # share by which stored images are larger than crops: 256 for 224

    def __post_init__(self):
        check_positive(self, "size", hint="use 64 or 224, for instance")
        check_range(self, "jitter", least=0, most=1, hint="0 leaves colors alone")
        check_range(self, "margin", least=0, hint="0 stores images as large as crops")

    @property
    def stored_size(self) -> int:
        """Side of the images that crops are cut from: 256 for 224, 73 for 64."""
        return round(self.size * (1 + self.margin))
