"""What encoders have in common whose last blocks attend to a grid of tokens.

Letters: B images, N patches, K tokens of an image, D width, A heads, L blocks, h and w the grid.
"""

from abc import abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

from mimlib.checks import check_range
from mimlib.layers.attention import Sight
from mimlib.layers.patches import grid_of, patchify
from mimlib.layers.positions import fit_table
from mimlib.layers.windows import Window, Windows
from mimlib.protocol import Encoder


class GridConfig:
    """What configurations of encoders say of their grid, and what only a ViT may have."""

    image_size: int  # pixels
    patch_size: int  # pixels, P
    class_token = rotary = False
    position_nudge = 0.0

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches at the configured image size."""
        return (self.image_size // self.patch_size,) * 2

    @property
    def num_patches(self) -> int:
        """N at the configured image size."""
        return self.grid[0] * self.grid[1]

    def check_grid(self) -> None:
        """Raise ValueError if images are not whole patches, or `drop_path` is no rate."""
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size {self.image_size} is not a multiple of the stride {self.patch_size} "
                "(patch_size); choose one that is"
            )
        check_range(self, "drop_path", least=0, below=1)


class GridEncoder(Encoder):
    """An encoder with a table of positions, whose last blocks see the grid, or windows of it."""

    blocks_name: str  # of the list of blocks that attend; layers are counted by them

    def __init__(self, config: GridConfig, num_layers: int, num_levels: int):
        super().__init__()
        self.config, self.stride, self.width = config, config.patch_size, config.width
        self.num_layers, self.num_levels = num_layers, num_levels
        self.windows: Windows | None = None  # see `attend_in_windows`

    def add_positions(self, table: Float[Tensor, "rows D"] | None) -> None:
        """Register the position table: as a parameter if it is learned, else as a buffer."""
        if self.config.learned_positions:
            self.pos_embed = nn.Parameter(table[None])
        else:
            self.register_buffer("pos_embed", None if table is None else table[None])

    @abstractmethod
    def enter(self, patches: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Sight]:
        """Return the tokens [B, K, D] with which the attending blocks begin, and their sight."""

    def attention_maps(
        self, images: Float[Tensor, "B 3 H W"], block: int = -1
    ) -> Float[Tensor, "B A K K"]:
        """Return the attention weights of one block, K = N + 1 with a class token (row 0)."""
        if self.windows:
            raise ValueError("the blocks attend in windows; ask before `attend_in_windows`")
        grid = grid_of(images, self.stride)
        tokens, sight = self.enter(patchify(images, self.stride), grid)
        blocks = getattr(self, self.blocks_name)[: block % self.num_layers + 1]
        for earlier in blocks[:-1]:
            tokens = earlier(tokens, sight=sight)
        return blocks[-1].weigh(tokens, sight)

    def attend_in_windows(self, side: int, global_blocks: tuple[int, ...]) -> None:
        """Let all but some blocks attend within windows of `side` patches, with a relative bias.

        Raises:
            ValueError: with a class token or rotary positions, or if the windows do not fit.
        """
        config = self.config
        if config.class_token or config.rotary:
            raise ValueError(
                "windows hold patches and have positions of their own; use an encoder without a "
                "class token and without rotary positions"
            )
        self.windows = Windows(config.grid, config.heads, self.num_layers, side, global_blocks)

    def windows_of(self, grid: tuple[int, int], whole: bool) -> list[Window | None]:
        """Return the window of each attending block; windows need grids that are `whole`."""
        if not self.windows:
            return [None] * self.num_layers
        if not whole:
            raise ValueError("windows need the whole grid; encode without a mask")
        return self.windows(grid)

    def fit_positions(self, table: Float[Tensor, "1 rows D"]) -> Float[Tensor, "1 new_rows D"]:
        """Resize the position table of another (square) image size to this one's grid."""
        config = self.config
        return fit_table(table, config.grid, config.class_token, config.position_nudge)

    def layer_of(self, name: str) -> int:
        """Depth of the parameter `name`: what comes before the attending blocks is layer 0."""
        part, _, rest = name.partition(".")
        if part == self.blocks_name:
            return int(rest.partition(".")[0]) + 1
        return self.num_layers + 1 if part in ("norm", "windows") else 0
