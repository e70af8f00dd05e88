"""The arithmetic of the objectives against loops and exact cases."""

import pytest
import torch

from mimlib.methods.objectives.masked import masked_mse, normalize_patches


def loss_by_loops(prediction, target, mask):
    """MAE's loss from the paper: squared error per pixel, averaged over masked patches."""
    total, count = 0.0, 0
    for b in range(prediction.shape[0]):
        for n in range(prediction.shape[1]):
            if mask[b, n]:
                errors = [
                    (float(p) - float(t)) ** 2 for p, t in zip(prediction[b, n], target[b, n])
                ]
                total += sum(errors) / len(errors)
                count += 1
    return total / count


def test_the_loss_is_the_papers_loop():
    prediction, target = torch.randn(2, 6, 12), torch.randn(2, 6, 12)
    mask = torch.tensor([[1, 0, 1, 1, 0, 1], [0, 0, 0, 1, 0, 0]], dtype=torch.bool)
    loss = masked_mse(prediction, target, mask)
    assert float(loss) == pytest.approx(loss_by_loops(prediction, target, mask), rel=1e-6)
    per_image = [masked_mse(prediction[i : i + 1], target[i : i + 1], mask[i : i + 1])
                 for i in range(2)]  # fmt: skip
    assert abs(float(loss) - float(sum(per_image) / 2)) > 1e-3, "averages images, not patches"


def test_without_a_mask_all_given_patches_count():
    prediction, target = torch.randn(2, 6, 12), torch.randn(2, 6, 12)
    everything = torch.ones(2, 6, dtype=torch.bool)
    torch.testing.assert_close(
        masked_mse(prediction, target), masked_mse(prediction, target, everything)
    )


def test_visible_patches_get_no_gradient_at_all():
    prediction = torch.randn(2, 6, 12, requires_grad=True)
    mask = torch.rand(2, 6) < 0.5
    masked_mse(prediction, torch.randn(2, 6, 12), mask).backward()
    assert torch.equal(prediction.grad.abs().amax(dim=2) > 0, mask)


def test_a_perfect_prediction_costs_nothing():
    target = torch.randn(1, 4, 12)
    assert masked_mse(target, target) == 0


def test_the_loss_is_computed_in_float32():
    prediction = torch.randn(1, 4, 12).bfloat16()
    assert masked_mse(prediction, torch.randn(1, 4, 12)).dtype == torch.float32


def test_patches_are_standardised_with_the_unbiased_variance():
    patches = torch.randn(2, 5, 48) * 3 + 1
    normalized, mean, std = normalize_patches(patches)
    for b in range(2):
        for n in range(5):
            values = patches[b, n].double()
            variance = ((values - values.mean()) ** 2).sum() / 47
            expected = (values - values.mean()) / (variance + 1e-6) ** 0.5
            torch.testing.assert_close(normalized[b, n].double(), expected, rtol=0, atol=1e-5)
            biased = (values - values.mean()) / (variance * 47 / 48 + 1e-6) ** 0.5
            assert (normalized[b, n] - biased).abs().max() > 1e-3
    torch.testing.assert_close(normalized * std + mean, patches)


def test_the_epsilon_is_inside_the_root():
    flat = torch.full((1, 1, 48), 0.25)
    assert normalize_patches(flat)[0].abs().max() == 0
    nearly = flat.clone()
    nearly[0, 0, 0] += 1e-3
    std = float(normalize_patches(nearly)[2])
    variance = float(nearly.double().var())
    assert std == pytest.approx((variance + 1e-6) ** 0.5, rel=1e-4)
    assert std != pytest.approx(variance**0.5 + 1e-6, rel=1e-2)
