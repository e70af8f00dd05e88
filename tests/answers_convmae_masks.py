"""Answers to the exercises of lesson 02 about masks, right and wrong."""

import numpy as np
import torch
import torch.nn.functional as F
from answers import right, wrong
from einops import repeat

from mimlib.layers.patches import patchify, unpatchify


@right("convmae.1")
def by_repeat_interleave(hidden, side):
    return hidden.repeat_interleave(side, dim=1).repeat_interleave(side, dim=2)


@right("convmae.1")
def by_einops(hidden, side):
    return repeat(hidden, "b h w -> b (h s) (w t)", s=side, t=side)


@right("convmae.1")
def by_nearest(hidden, side):
    return F.interpolate(hidden[:, None].float(), scale_factor=side, mode="nearest")[:, 0].bool()


@right("convmae.1")
def by_kron(hidden, side):
    return np.kron(hidden.numpy(), np.ones((1, side, side), dtype=bool))


@right("convmae.1")
def by_division(hidden, side):
    _, h, w = hidden.shape
    return hidden[:, torch.arange(h * side) // side][:, :, torch.arange(w * side) // side]


@right("convmae.1")
def by_comprehension(hidden, side):
    return [
        [[cell for cell in row for _ in range(side)] for row in image for _ in range(side)]
        for image in hidden.tolist()
    ]


@wrong("convmae.1", "got float32, expected bool")
def left_as_floats(hidden, side):
    return F.interpolate(hidden[:, None].float(), scale_factor=side)[:, 0]


@wrong("convmae.1", "got int64, expected bool")
def left_as_integers(hidden, side):
    return by_repeat_interleave(hidden.long(), side)


@wrong("convmae.1", "repeat lays copies")
def by_tile(hidden, side):
    return np.tile(hidden.numpy(), (1, side, side))


@wrong("convmae.1", "True has to go on meaning hidden")
def turned_round(hidden, side):
    return ~by_einops(hidden, side)


@wrong("convmae.1", "got shape [1, 2, 2], expected [1, 2, 4]")
def one_direction(hidden, side):
    return hidden.repeat_interleave(side, dim=1)


@right("convmae.2")
def going_backwards(entries, depths, kernel):
    one = 1 + depths[0] * (kernel - 1)
    two = (1 + depths[1] * (kernel - 1)) * entries[1] + depths[0] * (kernel - 1)
    return one * entries[0], two * entries[0]


@right("convmae.2")
def going_forwards_in_a_list(entries, depths, kernel):
    seen, step, found = 1, 1, []
    for entry, depth in zip(entries[:2], depths):
        seen, step = seen + (entry - 1) * step, step * entry
        seen += depth * (kernel - 1) * step
        found.append(seen)
    return found


@right("convmae.2")
def as_a_tensor(entries, depths, kernel):
    return torch.tensor(going_backwards(entries, depths, kernel))


@right("convmae.2")
def as_an_array(entries, depths, kernel):
    return np.array(going_backwards(entries, depths, kernel), dtype=np.int32)


@right("convmae.2")
def by_measuring_one_dimension(entries, depths, kernel):
    """Follow a slope through strided and plain convolutions of ones, as the check itself does."""
    length = 40 * entries[0] * entries[1]
    line = x = torch.ones(1, 1, length, dtype=torch.float64, requires_grad=True)
    found = []
    for entry, depth in zip(entries[:2], depths):
        x = F.conv1d(x, x.new_ones(1, 1, entry), stride=entry)
        for _ in range(depth):
            x = F.conv1d(x, x.new_ones(1, 1, kernel), padding=kernel // 2)
        (slope,) = torch.autograd.grad(x[0, 0, x.shape[2] // 2], line, retain_graph=True)
        found.append(slope.count_nonzero())
    return tuple(found)


@wrong("convmae.2", "between stages 1 and 2 lies entries[1]")
def third_entry(entries, depths, kernel):
    return going_backwards((entries[0], entries[2]), depths, kernel)


@wrong("convmae.2", "go backwards")
def two_for_an_entry(entries, depths, kernel):
    return going_backwards((entries[0], 2), depths, kernel)


@wrong("convmae.2", "go backwards")
def as_deep_as_the_first(entries, depths, kernel):
    return going_backwards(entries, (depths[0], depths[0]), kernel)


@wrong("convmae.2", "has looked around itself before")
def second_stage_alone(entries, depths, kernel):
    one, _ = going_backwards(entries, depths, kernel)
    return [one, (1 + depths[1] * (kernel - 1)) * entries[0] * entries[1]]


@wrong("convmae.2", "got shape [3], expected [2]")
def three_stages(entries, depths, kernel):
    return (*going_backwards(entries, depths, kernel), 0)


@wrong("convmae.2", "expected a tensor, got int")
def one_number(entries, depths, kernel):
    return torch.tensor(going_backwards(entries, depths, kernel)[0])


def with_pixels(images, hidden, patch_size, filling):
    """The images with `filling` in their hidden patches."""
    grid = images.shape[2] // patch_size, images.shape[3] // patch_size
    patches = patchify(images, patch_size)
    patches[hidden] = filling
    return unpatchify(patches, patch_size, grid)


def to_pixels(hidden, images, patch_size):
    """Which pixels lie in hidden patches: [B, 1, H, W] bool."""
    small = hidden.view(len(images), 1, images.shape[2] // patch_size, -1)
    return small.repeat_interleave(patch_size, 2).repeat_interleave(patch_size, 3)


@right("convmae.3")
def by_large_pixels(encode, images, hidden, patch_size):
    return not torch.equal(encode(images), encode(with_pixels(images, hidden, patch_size, 1e3)))


@right("convmae.3")
def by_black_pixels(encode, images, hidden, patch_size):
    torn = images.masked_fill(to_pixels(hidden, images, patch_size), 0.0)
    return (encode(torn) != encode(images)).any()


@right("convmae.3")
def by_pixels_of_another_image(encode, images, hidden, patch_size):
    torn = torch.where(to_pixels(hidden, images, patch_size), images.roll(1, dims=0), images)
    return bool((encode(torn) - encode(images)).abs().max() > 0)


@right("convmae.3")
def by_noise_and_numpy(encode, images, hidden, patch_size):
    torn = torch.where(to_pixels(hidden, images, patch_size), torch.rand_like(images), images)
    return not np.array_equal(encode(torn).numpy(), encode(images).numpy())


@right("convmae.3")
def by_nan(encode, images, hidden, patch_size):
    return encode(with_pixels(images, hidden, patch_size, torch.nan)).isnan().any()


@right("convmae.3")
def by_slopes(encode, images, hidden, patch_size):
    images.requires_grad_()
    (slope,) = torch.autograd.grad(encode(images).square().sum(), images)
    return (slope * to_pixels(hidden, images, patch_size)).any()


@right("convmae.3")
def by_slopes_of_a_first_token(encode, images, hidden, patch_size):
    pixels = images.clone().requires_grad_()
    with torch.enable_grad():
        encode(pixels)[:, 0, 0].sum().backward()
    return bool(patchify(pixels.grad, patch_size)[hidden].abs().sum() > 0)


@right("convmae.3")
def without_slopes(encode, images, hidden, patch_size):
    with torch.inference_mode():
        return int(by_large_pixels(encode, images.clone(), hidden, patch_size))


@right("convmae.3")
def in_the_arguments(encode, images, hidden, patch_size):
    before = encode(images)
    images[to_pixels(hidden, images, patch_size).expand_as(images)] = -7.0
    return not before.equal(encode(images))


@wrong("convmae.3", "a small leak is a leak")
def nearly_equal(encode, images, hidden, patch_size):
    torn = with_pixels(images, hidden, patch_size, 1.0)
    return not torch.allclose(encode(images), encode(torn))


@wrong("convmae.3", "a small leak is a leak")
def slopes_above_a_bound(encode, images, hidden, patch_size):
    images.requires_grad_()
    (slope,) = torch.autograd.grad(encode(images)[:, 0, 0].sum(), images)
    return (slope * to_pixels(hidden, images, patch_size)).abs().max() > 1e-6


@wrong("convmae.3", "leave all others as they are")
def other_images(encode, images, hidden, patch_size):
    return not torch.equal(encode(images), encode(torch.rand_like(images)))


@wrong("convmae.3", "True is asked for when something does")
def whether_all_is_well(encode, images, hidden, patch_size):
    return torch.equal(encode(images), encode(with_pixels(images, hidden, patch_size, 1e3)))


@wrong("convmae.3", "encode twice")
def never(encode, images, hidden, patch_size):
    return False


@wrong("convmae.3", "got shape [2, 4, 16], expected bool")
def of_every_value(encode, images, hidden, patch_size):
    return encode(images) != encode(with_pixels(images, hidden, patch_size, 1e3))
