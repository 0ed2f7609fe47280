"""Features, leave-one-out ridge votes, and the stack that joins opinions."""

import math

import pytest
import torch
from torch.nn.functional import one_hot

from commentaries.cleaning import ridge
from commentaries.cleaning.features import Patches, fit_encoder
from commentaries.cleaning.stacking import Stack, at_training, at_trusted


def photographs(n=60, size=20, channels=3, seed=0):
    """A striped square somewhere, its stripes upright in one class and level in the other."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 2
    x = 0.5 + 0.02 * torch.rand(n, channels, size, size, generator=generator)
    stripes = (torch.arange(12) % 4 < 2).float().expand(12, 12)
    for image, label in zip(x, y, strict=True):
        top, left = torch.randint(size - 11, (2,), generator=generator)
        image[:, top : top + 12, left : left + 12] = stripes if label else stripes.mT
    return x, y


def test_images_that_are_alike_are_near_in_patch_features():
    x, y = photographs()
    found = fit_encoder(x)(x)
    closest = torch.cdist(found, found).fill_diagonal_(math.inf).argmin(1)
    assert (y[closest] == y).float().mean() > 0.95


@pytest.mark.parametrize("shape", [(40, 3, 20, 20), (40, 1, 64, 64), (40, 30)])
def test_descriptions_have_length_one_and_do_not_depend_on_company(shape):
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    encode = fit_encoder(x)
    found = encode(x)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(40))
    torch.testing.assert_close(encode(x[7:8]), found[7:8], rtol=1e-3, atol=1e-4)
    assert torch.equal(fit_encoder(x)(x), found)


def test_tiny_images_are_their_pixels():
    x = torch.rand(10, 1, 8, 8)
    found = fit_encoder(x)(x)
    ratio = found / x.flatten(1)
    torch.testing.assert_close(ratio, ratio[:1, :1].expand_as(ratio))


def test_patches_are_filters_of_contrast_normalised_whitened_patches():
    """One position of one image by hand: the convolution folds normalisation and whitening in."""
    x = torch.rand(12, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    patches = Patches.fit(x, filters=5, most=500)
    one = x[3].flatten()
    one = (one - one.mean()) / (one.var() + patches.CONTRAST).sqrt()
    answer = patches.kernels.flatten(1) @ one - patches.offset
    both = torch.cat([answer, -answer]) - patches.THRESHOLD
    expected = both.clamp_min(0).repeat_interleave(patches.REGIONS**2)
    torch.testing.assert_close(patches(x)[3], expected, rtol=1e-3, atol=1e-3)


def test_ridge_votes_are_those_of_a_regression_without_the_example():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(25, 4, generator=generator)
    weight = torch.rand(25, generator=generator)
    label = one_hot(torch.randint(3, (25,), generator=generator), 3).float()
    found = ridge.votes_of_others(x, weight[:, None] * label, penalty=0.01)
    X = torch.cat([x, torch.ones(25, 1)], dim=1).double()
    for i in range(25):
        kept = torch.arange(25) != i
        W = weight[kept].double()[:, None]
        A = X[kept].mT @ (W * X[kept]) + 0.01 * weight.double().sum() * torch.eye(5).double()
        own = X[i] @ torch.linalg.solve(A, X[kept].mT @ (W * label[kept].double()))
        torch.testing.assert_close(
            found[i], torch.softmax(ridge.SHARPNESS * own, 0).float(), rtol=1e-3, atol=1e-4
        )


def test_ridge_votes_with_examples_of_no_weight():
    mass = torch.zeros(12, 3)
    mass[:6, 0], mass[6:8, 1] = 1, 1
    assert torch.isfinite(ridge.votes_of_others(torch.randn(12, 4), mass)).all()


def opinions(t, seed=0):
    """One good opinion, one that always names the next class, and one of pure noise."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(t) % 4
    noise = torch.randn(3, t, 4, generator=generator)
    good = (2.0 * one_hot(y, 4) + 1.5 * noise[0]).softmax(1)
    shifted = (4.0 * one_hot((y + 1) % 4, 4) + noise[1]).softmax(1)
    return torch.stack([good, shifted, noise[2].softmax(1)]), y


def test_a_stack_learns_whom_to_believe_and_what_is_mixed_up():
    found, y = opinions(400)
    label = y[200:]
    joined = torch.cat([at_training(found, label), at_trusted(found, label)])
    torch.testing.assert_close(joined.sum(1), torch.ones(400))
    right = {"good": found[0], "joined": joined}
    right = {name: float((v.argmax(1) == y).float().mean()) for name, v in right.items()}
    assert right["joined"] > 0.95 > right["good"] + 0.1


def test_with_few_examples_a_stack_is_the_first_opinion():
    found, y = opinions(4)
    noise = [found[2], found[2].roll(1, 0)]
    stack = Stack.fit(torch.stack([found[0], *noise]), y)
    assert stack.scale[0] > 0.5 > stack.scale[1:].abs().max()


def test_no_trusted_example_is_joined_by_a_stack_that_saw_its_label():
    found, y = opinions(60)
    label = y[40:].clone()
    before, training = at_trusted(found, label), at_training(found, label)
    label[7] = (label[7] + 2) % 4
    torch.testing.assert_close(at_trusted(found, label)[7], before[7])
    assert not torch.allclose(at_training(found, label), training)
