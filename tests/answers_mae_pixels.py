"""Answers to the exercises of lesson 01 about pixels, right and wrong."""

import numpy as np
import torch
import torch.nn.functional as F
from answers import right, wrong
from einops import reduce


@right("mae.3")
def by_var_mean(patches):
    var, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return (patches - mean) / torch.sqrt(var + 1e-6)


@right("mae.3")
def by_rsqrt_in_double(patches):
    patches = patches.double()
    mean = reduce(patches, "b k d -> b k 1", "mean")
    var = (patches - mean).square().sum(-1, keepdim=True) / (patches.shape[-1] - 1)
    return (patches - mean) * (var + 1e-6).rsqrt()


@right("mae.3")
def by_numpy(patches):
    patches = patches.numpy()
    var = patches.var(axis=-1, ddof=1, keepdims=True)
    return (patches - patches.mean(-1, keepdims=True)) / np.sqrt(var + 1e-6)


@right("mae.3")
def patch_by_patch(patches):
    return [[(p - p.mean()) / (p.var() + 1e-6) ** 0.5 for p in image] for image in patches]


@right("mae.3")
def in_place(patches):
    var = patches.var(-1, keepdim=True)
    patches -= patches.mean(-1, keepdim=True)
    patches /= (var + 1e-6).sqrt()
    return patches


@right("mae.3")
def with_a_graph(patches):
    return by_var_mean(patches.requires_grad_())


@wrong("mae.3", "unbiased, it divides by n - 1")
def by_layer_norm(patches):
    return F.layer_norm(patches, patches.shape[-1:], eps=1e-6)


@wrong("mae.3", "unbiased, it divides by n - 1")
def by_numpy_as_it_comes(patches):
    patches = patches.numpy()
    std = np.sqrt(patches.var(axis=-1, keepdims=True) + 1e-6)
    return (patches - patches.mean(-1, keepdims=True)) / std


@wrong("mae.3", "a flat patch has variance 0")
def by_std(patches):
    return (patches - patches.mean(-1, keepdim=True)) / patches.std(-1, keepdim=True)


@wrong("mae.3", "a flat patch has variance 0")
def by_std_in_nested_lists(patches):
    return by_std(patches).tolist()


@wrong("mae.3", "belongs inside the root")
def by_std_and_a_little(patches):
    return (patches - patches.mean(-1, keepdim=True)) / (patches.std(-1, keepdim=True) + 1e-6)


@wrong("mae.3", "mean and var over dim -1")
def at_least_a_little(patches):
    var = patches.var(-1, keepdim=True).clamp(min=1e-6)
    return (patches - patches.mean(-1, keepdim=True)) / var.sqrt()


@wrong("mae.3", "mean and var over dim -1")
def over_patches(patches):
    var, mean = torch.var_mean(patches, dim=1, keepdim=True)
    return (patches - mean) / (var + 1e-6).sqrt()


@right("mae.4")
def of_what_is_hidden(prediction, target, mask):
    return F.mse_loss(prediction[mask], target[mask])


@right("mae.4")
def by_weights(prediction, target, mask):
    error = ((prediction - target) ** 2).mean(dim=-1)
    return (error * mask).sum() / mask.sum()


@right("mae.4")
def as_a_number(prediction, target, mask):
    return by_weights(prediction, target, mask).item()


@right("mae.4")
def as_a_number_of_numpy(prediction, target, mask):
    return np.mean((prediction.numpy() - target.numpy())[mask.numpy()] ** 2)


@right("mae.4")
def with_slopes_in_double(prediction, target, mask):
    return by_weights(prediction.double().requires_grad_(), target.double(), mask)


@right("mae.4")
def by_loops(prediction, target, mask):
    total, count = 0.0, 0
    for b in range(mask.shape[0]):
        for n in range(mask.shape[1]):
            if mask[b, n]:
                total += float((prediction[b, n] - target[b, n]).pow(2).mean())
                count += 1
    return total / count


@right("mae.4")
def safe_for_no_mask_and_in_place(prediction, target, mask):
    prediction.sub_(target).square_().mul_(mask[..., None])
    return prediction.mean(-1).sum() / mask.sum().clamp(min=1)


@wrong("mae.4", "True means hidden")
def of_what_is_visible(prediction, target, mask):
    return F.mse_loss(prediction[~mask], target[~mask]).item()


@wrong("mae.4", "you score every patch")
def of_everything(prediction, target, mask):
    return float(F.mse_loss(prediction, target))


@wrong("mae.4", "divide by their number")
def over_all_patches(prediction, target, mask):
    return (((prediction - target) ** 2).mean(-1) * mask).mean()


@wrong("mae.4", "not a sum")
def summed_over_pixels(prediction, target, mask):
    return F.mse_loss(prediction[mask], target[mask], reduction="sum") / mask.sum()


@wrong("mae.4", "got shape [1, 2], expected float")
def not_averaged(prediction, target, mask):
    return ((prediction - target) ** 2).mean(-1) * mask


@wrong("mae.4", "first the mean squared error of every patch")
def absolute(prediction, target, mask):
    return F.l1_loss(prediction[mask], target[mask])


@wrong("mae.4", "got nan")
def not_a_number(prediction, target, mask):
    return float("nan")


@right("mae.5")
def by_var_and_mean(prediction, patches):
    var, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return prediction * (var + 1e-6).sqrt() + mean


@right("mae.5")
def by_addcmul_in_double(prediction, patches):
    patches = patches.double()
    std = (patches.var(-1, keepdim=True) + 1e-6) ** 0.5
    return torch.addcmul(patches.mean(-1, keepdim=True), prediction.double(), std)


@right("mae.5")
def in_the_arguments(prediction, patches):
    prediction *= (patches.var(-1, keepdim=True) + 1e-6).sqrt()
    prediction += patches.mean(-1, keepdim=True)
    patches.zero_()
    return prediction


@right("mae.5")
def by_arrays(prediction, patches):
    x, y = prediction.numpy(), patches.numpy()
    return x * np.sqrt(y.var(-1, ddof=1, keepdims=True) + 1e-6) + y.mean(-1, keepdims=True)


@wrong("mae.5", "multiply by what was divided by")
def by_the_deviation(prediction, patches):
    return prediction * patches.std(-1, keepdim=True) + patches.mean(-1, keepdim=True)


@wrong("mae.5", "multiply by what was divided by")
def by_the_deviation_in_double(prediction, patches):
    std, mean = torch.std_mean(patches.double(), dim=-1, keepdim=True)
    return prediction * std + mean


@wrong("mae.5", "the unbiased one")
def by_the_other_variance(prediction, patches):
    var = patches.var(-1, correction=0, keepdim=True)
    return prediction * (var + 1e-6).sqrt() + patches.mean(-1, keepdim=True)


@wrong("mae.5", "no contrast")
def brightness_alone(prediction, patches):
    return prediction + patches.mean(-1, keepdim=True)


@wrong("mae.5", "normalised * std + mean")
def by_the_variance(prediction, patches):
    var, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return prediction * (var + 1e-6) + mean


@wrong("mae.5", "normalised * std + mean")
def by_statistics_of_the_prediction(prediction, patches):
    return by_var_and_mean(prediction, prediction)
