"""What wraps a network: freezing, bfloat16, chains of layers."""

import pytest
import torch
from torch import nn

from robustdml.models import Pixels
from robustdml.models.embedder import Bfloat16, Embedder, Layers, frozen
from robustdml.models.normalise import Normalise, imagenet, inception_bn
from tests.toys import SHAPE, blobs, generator, linear, network, unchanged


def mixed():
    """A network in training mode with one submodule in evaluation mode and one weight that does not train."""
    embedder = network()
    embedder.layers[1].eval()
    embedder.layers[0].bias.requires_grad_(False)
    return embedder


def test_freezing_means_evaluation_mode_and_no_gradient_to_weights():
    embedder = mixed()
    with frozen(embedder):
        assert not any(m.training for m in embedder.modules())
        assert not any(p.requires_grad for p in embedder.parameters())


def test_freezing_restores_every_submodule_and_weight():
    embedder = mixed()
    check = unchanged(embedder)
    with frozen(embedder), frozen(embedder):
        embedder(blobs()[0])
    check()
    assert not embedder.layers[1].training
    assert embedder.layers[4].training


def test_freezing_is_undone_after_an_error():
    embedder = mixed()
    check = unchanged(embedder)
    with pytest.raises(RuntimeError, match="inside"), frozen(embedder):
        raise RuntimeError("inside")
    check()


def test_gradients_reach_the_images_of_a_frozen_network():
    embedder = mixed()
    images = blobs()[0].requires_grad_()
    with frozen(embedder):
        embedder(images).sum().backward()
    assert float(images.grad.abs().sum()) > 0
    assert all(p.grad is None for p in embedder.parameters())


def test_gradients_of_weights_survive_a_freeze():
    embedder = network()
    embedder(blobs()[0]).sum().backward()
    check = unchanged(embedder)
    with frozen(embedder):
        embedder(blobs()[0])
    check()


def test_parameter_groups_hold_what_trains():
    groups = mixed().parameter_groups()
    assert list(groups) == ["trunk"]
    assert len(groups["trunk"]) == len(list(mixed().parameters())) - 1


def test_an_embedder_without_a_forward_pass_says_so():
    with pytest.raises(NotImplementedError):
        Embedder()(blobs()[0])


def single(embedder):
    return embedder.float()


def test_bfloat16_returns_float32_close_to_the_full_precision():
    plain, images = single(linear()), blobs()[0].float()
    found = Bfloat16(plain)(images).detach()
    assert found.dtype == torch.float32
    exact = plain(images).detach()
    assert 0 < float((found - exact).abs().max()) < 0.02 * float(exact.abs().max())


def test_bfloat16_trains_the_weights_of_the_wrapped_network():
    inner = single(network())
    wrapped = Bfloat16(inner)
    assert wrapped.dim == inner.dim
    assert wrapped.lipschitz is None
    assert [id(p) for p in wrapped.parameter_groups()["trunk"]] == [id(p) for p in inner.parameters()]
    before = [p.detach().clone() for p in inner.parameters()]
    optimiser = torch.optim.SGD(wrapped.parameters(), lr=0.1)
    wrapped(blobs()[0].float()).square().sum().backward()
    optimiser.step()
    assert all(p.dtype == torch.float32 and p.grad.dtype == torch.float32 for p in inner.parameters())
    assert all(not torch.equal(old, new) for old, new in zip(before, inner.parameters()))


def test_pixels_are_the_identity_and_preserve_distances():
    embedder, images = Pixels().build(SHAPE), blobs()[0]
    assert torch.equal(embedder(images), images.flatten(1))
    assert (embedder.dim, embedder.lipschitz) == (16, 1.0)
    z = embedder(images)
    torch.testing.assert_close(torch.cdist(z, z), torch.cdist(images.flatten(1), images.flatten(1)))


def test_layers_declare_what_they_are_told():
    embedder = Layers(3, nn.Flatten(), nn.Linear(16, 3), lipschitz=2.0)
    assert (embedder.dim, embedder.lipschitz) == (3, 2.0)
    assert embedder(blobs()[0].float()).shape == (60, 3)


@pytest.mark.parametrize("bgr", [False, True])
def test_normalisation_is_undone_by_its_inverse(bgr):
    layer = Normalise((0.1, 0.2, 0.3), (0.5, 0.6, 0.7), bgr)
    images = torch.rand(2, 3, 4, 4, generator=generator(), dtype=torch.float64)
    torch.testing.assert_close(layer.inverse(layer(images)), images)
    literal = torch.stack([(images[:, c] - m) / s for c, m, s in ((0, 0.1, 0.5), (1, 0.2, 0.6), (2, 0.3, 0.7))], dim=1)
    torch.testing.assert_close(layer(images), literal.flip(1) if bgr else literal, atol=1e-6, rtol=1e-6)


def test_published_normalisations_have_their_published_constants():
    white = torch.ones(1, 3, 1, 1)
    expected = [(1 - m) / s for m, s in ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))]
    torch.testing.assert_close(imagenet()(white).flatten(), torch.tensor(expected))
    blue, _, red = inception_bn()(white).flatten()
    assert float(red) == pytest.approx((1 - 0.502) / 0.0039, rel=1e-5)
    assert float(blue) == pytest.approx((1 - 0.4078) / 0.0039, rel=1e-5)
    assert not list(imagenet().state_dict())  # constants are not weights
