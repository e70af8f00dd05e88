"""Thirteen families of square textures, every one drawn from a generator; all but pictures tile.

Letters: G textures drawn at once, S texture side in texels. Colors are RGB in [0, 1].
"""

import math
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image
from torch import Tensor

from mimlib.world.rooms.scenes import uniform

# Photographs bundled with scikit-image. The motorcycle pair is left out on purpose: it is the
# real stereo test of the course.
PHOTOGRAPHS = (
    "astronaut.png",
    "coffee.png",
    "chelsea.png",
    "rocket.jpg",
    "hubble_deep_field.jpg",
    "ihc.png",
    "retina.jpg",
    "gravel.png",
    "grass.png",
)
# Hue in turns of an anchor, its spread, its weight: warm hues are common indoors, magenta is not.
HUES = (
    (0.07, 0.035, 5.0),
    (0.12, 0.02, 2.0),
    (0.57, 0.06, 3.0),
    (0.33, 0.08, 2.0),
    (0.98, 0.03, 1.0),
)


def hsv_to_rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Convert colors [...] given by hue in turns, saturation and value to RGB [..., 3]."""
    channels = []
    for shift in (5.0, 3.0, 1.0):
        sector = (shift + hue * 6) % 6
        ramp = torch.minimum(sector, 4 - sector).clamp(0, 1)
        channels.append(value * (1 - saturation * ramp))
    return torch.stack(channels, -1)


class Brush(NamedTuple):
    """What G textures of a family are drawn with."""

    count: int  # G
    side: int  # S
    generator: torch.Generator

    def uniform(self, low: float, high: float) -> Tensor:
        """Draw one number per texture, shaped [G, 1, 1] to broadcast over texels."""
        return uniform(self.generator, low, high, self.count, 1, 1)

    def integer(self, low: int, high: int) -> Tensor:
        """Draw one whole number in [low, high] per texture, as float [G, 1, 1]."""
        shape = (self.count, 1, 1)
        return torch.randint(low, high + 1, shape, generator=self.generator).float()

    def colors(self, saturation: float = 0.5, darkest: float = 0.35) -> tuple[Tensor, Tensor]:
        """Draw a base color and one that goes with it, [G, 1, 1, 3] each.

        Saturation is skewed towards gray: evenly drawn colors make a room look psychedelic.
        """
        count, generator = self.count, self.generator
        center, spread, weight = torch.tensor(HUES).unbind(1)
        anchor = torch.multinomial(weight, count, replacement=True, generator=generator)
        hue = center[anchor] + spread[anchor] * torch.randn(count, generator=generator)
        roll = torch.rand(count, 5, generator=generator)
        chroma = saturation * (0.1 + 0.9 * roll[:, 0] ** 1.6)
        value = darkest + (0.97 - darkest) * roll[:, 1] ** 0.7
        base = hsv_to_rgb(hue, chroma, value)
        partner_hue = hue + torch.where(roll[:, 2] < 0.8, 0.06, 0.45) * (roll[:, 3] - 0.5)
        partner_value = torch.where(value > 0.6, value * (0.45 + 0.4 * roll[:, 4]), value + 0.3)
        partner = hsv_to_rgb(partner_hue, chroma * (0.5 + roll[:, 3]), partner_value)
        return rearrange(base, "g c -> g 1 1 c"), rearrange(partner, "g c -> g 1 1 c")

    def noise(self, exponent: float, stretch: float = 1.0, lowest: float = 0.0) -> Tensor:
        """Draw tiling noise [G, S, S] of unit deviation with spectrum 1 / frequency^exponent.

        `stretch` below 1 draws the noise out along the rows (wood grain). Waves of which fewer
        than `lowest` fit into the texture are left out.
        """
        side = self.side
        white = torch.randn(self.count, side, side, generator=self.generator)
        rows = torch.fft.fftfreq(side)[:, None] * stretch
        columns = torch.fft.rfftfreq(side)[None]
        frequency = (rows**2 + columns**2).sqrt()
        frequency[0, 0] = 1
        spectrum = torch.fft.rfft2(white) * frequency**-exponent
        spectrum[:, frequency * side < lowest] = 0
        spectrum[:, 0, 0] = 0
        noise = torch.fft.irfft2(spectrum, s=(side, side))
        return noise / noise.std((1, 2), keepdim=True)

    def grain(self, strength: float, exponent: float = 1.0) -> Tensor:
        """Draw noise to add to colors, [G, S, S, 1]."""
        return strength * self.noise(exponent)[..., None]

    def grid(self) -> tuple[Tensor, Tensor]:
        """Return x and y of texel centers in (0, 1), [S, S] each."""
        line = (torch.arange(self.side) + 0.5) / self.side
        y, x = torch.meshgrid(line, line, indexing="ij")
        return x, y


def mix(first: Tensor, second: Tensor, amount: Tensor) -> Tensor:
    """Blend two colors [G, 1, 1, 3] by `amount` [G, S, S] of the second."""
    return torch.lerp(first, second, amount[..., None])


def draw_noise(brush: Brush) -> Tensor:
    """Plaster, carpet: two near colors in clouds."""
    base, partner = brush.colors(saturation=0.4)
    partner = torch.lerp(base, partner, 0.6)
    clouds = brush.noise(1.3)
    return mix(base, partner, torch.sigmoid(clouds * brush.uniform(0.6, 1.6)))


def draw_plain(brush: Brush) -> Tensor:
    """Paint: one color with a little grain."""
    base, _ = brush.colors(saturation=0.45)
    return base + brush.grain(0.02, 0.9)


def draw_stripes(brush: Brush) -> Tensor:
    """Wallpaper and cloth: soft or sharp stripes, upright or level."""
    base, partner = brush.colors()
    x, y = brush.grid()
    upright = brush.uniform(0, 1) < 0.6
    number = brush.integer(2, 6)
    wobble = brush.uniform(-0.08, 0.06).clamp(min=0)
    phase = torch.where(upright, x, y) * number + wobble * brush.noise(1.8)
    wave = torch.sin(2 * math.pi * phase) - brush.uniform(-0.5, 0.5)
    return mix(base, partner, torch.sigmoid(wave * brush.uniform(3, 20)))


def draw_checker(brush: Brush) -> Tensor:
    """Tiles: squares of two colors with a thin joint."""
    base, partner = brush.colors(saturation=0.4)
    x, y = brush.grid()
    squares = 2 * brush.integer(1, 3)
    odd = (torch.floor(squares * x) + torch.floor(squares * y)) % 2
    joint = (((squares * x) % 1 < 0.05) | ((squares * y) % 1 < 0.05)).float()
    tiles = mix(base, partner, odd) + brush.grain(0.02)
    return tiles * (1 - 0.25 * joint[..., None])


def draw_bricks(brush: Brush) -> Tensor:
    """Bricks in running bond with light mortar."""
    hue = brush.uniform(0.0, 0.1)
    chroma = brush.uniform(0.05, 0.5)
    base = hsv_to_rgb(hue, chroma, brush.uniform(0.45, 0.85))
    mortar = hsv_to_rgb(hue, 0.15 * chroma, brush.uniform(0.55, 0.9))
    x, y = brush.grid()
    rows = 2 * brush.integer(2, 4)
    columns = brush.integer(1, 3)
    row = torch.floor(y * rows)
    along = x * columns + 0.5 * (row % 2)
    column = torch.floor(along) % columns
    shade = 0.1 * torch.sin(row * 12.99 + column * 78.2 + brush.uniform(0, 6))
    grain = 0.035 * brush.noise(1.0)
    joint = ((along % 1 < 0.05) | ((y * rows) % 1 < 0.1)).float()
    return mix(base + (shade + grain)[..., None], mortar, joint)


def draw_wood(brush: Brush) -> Tensor:
    """Planks with grain along them."""
    hue = brush.uniform(0.055, 0.1)
    base = hsv_to_rgb(hue, brush.uniform(0.25, 0.6), brush.uniform(0.45, 0.9))
    dark = base * brush.uniform(0.55, 0.8)[..., None]
    x, _ = brush.grid()
    planks = brush.integer(2, 5)
    grain = brush.noise(1.4, stretch=8.0)
    seam = ((x * planks) % 1 < 0.05).float()
    tone = 0.06 * torch.sin(torch.floor(x * planks) * 9.1 + 6 * hue)
    boards = mix(base, dark, torch.sigmoid(1.3 * grain)) + tone[..., None]
    return boards * (1 - 0.4 * seam[..., None])


def draw_dots(brush: Brush) -> Tensor:
    """Polka dots in shifted rows."""
    base, partner = brush.colors()
    x, y = brush.grid()
    rows = 2 * brush.integer(1, 3)
    dx = (x * rows + 0.5 * (torch.floor(y * rows) % 2)) % 1 - 0.5
    dy = (y * rows) % 1 - 0.5
    distance = (dx**2 + dy**2).sqrt()
    dots = torch.sigmoid((brush.uniform(0.15, 0.35) - distance) * 50)
    return mix(base, partner, dots)


def draw_voronoi(brush: Brush, cells: int = 14) -> Tensor:
    """Flagstones: cells of the nearest of a few random points, with dark joints."""
    x, y = brush.grid()
    points = torch.rand(brush.count, cells, 2, 1, 1, generator=brush.generator)
    dx, dy = (x - points[:, :, 0]).abs(), (y - points[:, :, 1]).abs()
    distance = torch.minimum(dx, 1 - dx) ** 2 + torch.minimum(dy, 1 - dy) ** 2
    nearest, cell = distance.topk(2, 1, largest=False)
    joint = (nearest[:, 1].sqrt() - nearest[:, 0].sqrt() < 0.025).float()
    base, partner = brush.colors(saturation=0.35)
    tone = torch.rand(brush.count, cells, generator=brush.generator)
    stone = tone.gather(1, cell[:, 0].flatten(1)).unflatten(1, nearest.shape[2:])
    grain = 0.03 * brush.noise(1.0)
    return mix(base, partner, stone + grain) * (1 - 0.45 * joint[..., None])


def draw_skin(brush: Brush) -> Tensor:
    """Skin, from pale to dark."""
    hue = brush.uniform(0.045, 0.075)
    value = brush.uniform(0.4, 0.97)
    chroma = brush.uniform(0.3, 0.45) + 0.15 * (1 - value)
    return hsv_to_rgb(hue, chroma, value) + brush.grain(0.02, 0.8)


def draw_leaf(brush: Brush) -> Tensor:
    """Leaves: dappled greens."""
    hue = brush.uniform(0.24, 0.38)
    green = hsv_to_rgb(hue, brush.uniform(0.4, 0.75), brush.uniform(0.4, 0.8))
    light = torch.sigmoid(2.2 * brush.noise(0.9))
    return mix(green * 0.4, green, light)


def draw_poster(brush: Brush, figures: int = 8) -> Tensor:
    """Abstract prints: a gradient under rectangles and ellipses."""
    x, y = brush.grid()
    base, partner = brush.colors(saturation=0.7, darkest=0.3)
    print_ = mix(base, partner, y.expand(brush.count, -1, -1))
    for _ in range(figures):
        center = torch.rand(brush.count, 2, 1, 1, generator=brush.generator)
        extent = 0.05 + 0.25 * torch.rand(brush.count, 2, 1, 1, generator=brush.generator)
        color, _ = brush.colors(saturation=0.85, darkest=0.15)
        angle = brush.uniform(0, math.pi)
        dx, dy = x - center[:, 0], y - center[:, 1]
        along = (dx * angle.cos() + dy * angle.sin()) / extent[:, 0]
        across = (dy * angle.cos() - dx * angle.sin()) / extent[:, 1]
        box = (along.abs() < 1) & (across.abs() < 1)
        ellipse = along**2 + across**2 < 1
        inside = torch.where(brush.uniform(0, 1) < 0.5, box, ellipse)
        print_ = torch.where(inside[..., None], color, print_)
    return print_


def photographs() -> list[Tensor]:
    """Load the bundled photographs, [1, 3, H, W] each.

    Raises:
        FileNotFoundError: if this scikit-image bundles none of them.
    """
    folder = Path(find_spec("skimage").submodule_search_locations[0]) / "data"
    paths = [folder / name for name in PHOTOGRAPHS if (folder / name).is_file()]
    if not paths:
        raise FileNotFoundError(
            f"scikit-image {version('scikit-image')} bundles none of {', '.join(PHOTOGRAPHS)} "
            f"in {folder}; install scikit-image >= 0.25 from a wheel"
        )
    pictures = []
    for path in paths:
        with Image.open(path) as picture:
            texels = torch.tensor(bytearray(picture.convert("RGB").tobytes()), dtype=torch.uint8)
            width, height = picture.size
        pictures.append(rearrange(texels, "(h w c) -> 1 c h w", h=height, w=width).float() / 255)
    return pictures


def draw_photo(brush: Brush) -> Tensor:
    """Square crops of real photographs."""
    sources = photographs()
    crops = []
    chosen = torch.randint(0, len(sources), (brush.count,), generator=brush.generator)
    for source in (sources[choice] for choice in chosen.tolist()):
        share, top, left = torch.rand(3, generator=brush.generator).tolist()
        height, width = source.shape[2:]
        extent = int(min(height, width) * (0.35 + 0.65 * share))
        row, column = int(top * (height - extent)), int(left * (width - extent))
        crop = source[:, :, row : row + extent, column : column + extent]
        crops.append(F.interpolate(crop, size=(brush.side, brush.side), mode="area"))
    return rearrange(torch.cat(crops), "g c h w -> g h w c")


def draw_camouflage(brush: Brush) -> Tensor:
    """Clouds of all colors, large and small: the color alone tells one place from another."""
    clouds = brush._replace(count=3 * brush.count).noise(1.1, lowest=2).unflatten(0, (-1, 3))
    warm = torch.tensor([0.58, 0.54, 0.5])[:, None, None]
    return rearrange(warm + 0.19 * clouds, "g c h w -> g h w c")
