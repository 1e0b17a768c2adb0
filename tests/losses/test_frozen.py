"""Cross-entropy over frozen prototypes."""

import math

import pytest
import torch
from safetensors.torch import save_file

from robustdml.draws import Draws
from robustdml.losses import FrozenPrototypes


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "prototypes.safetensors"
    save_file({"prototypes": torch.tensor([[3.0, 0.0], [0.0, 2.0], [-1.0, 0.0]])}, path)
    return str(path)


def value(loss, z, labels):
    return float(loss(z, labels, draws=Draws(0), index=torch.arange(len(z))))


def test_it_is_the_cross_entropy_of_scaled_cosines(file):
    loss = FrozenPrototypes(file, temperature=0.5)
    z, labels = torch.tensor([[2.0, 0.0], [3.0, 3.0]]), torch.tensor([0, 2])
    cosines = [[1.0, 0.0, -1.0], [2**-0.5, 2**-0.5, -(2**-0.5)]]
    expected = [
        math.log(sum(math.exp(c / 0.5) for c in row)) - row[y] / 0.5 for row, y in zip(cosines, labels.tolist())
    ]
    assert value(loss.build(3, 2), z, labels) == pytest.approx(sum(expected) / 2, rel=1e-6)
    assert value(loss, z, labels) == pytest.approx(sum(expected) / 2, rel=1e-6)


def test_prototypes_are_saved_and_never_trained(file):
    built = FrozenPrototypes(file).build(3, 2)
    assert built.parameter_groups() == {}
    assert not list(built.parameters())
    assert set(built.state_dict()) == {"prototypes"}
    torch.testing.assert_close(built.prototypes.norm(dim=1), torch.ones(3))


def test_without_a_file_the_prototypes_are_fixed_random_directions():
    first, again = (FrozenPrototypes().build(200, 64).prototypes for _ in range(2))
    assert torch.equal(first, again)
    cosines = (first @ first.T).fill_diagonal_(0)
    assert float(cosines.abs().max()) < 0.65


def test_what_is_no_table_of_prototypes_is_named(file, tmp_path):
    with pytest.raises(ValueError, match=r"expected one tensor of 5 or more rows, one per class, and 2"):
        FrozenPrototypes(file).build(5, 2)
    with pytest.raises(ValueError, match=r"holds prototypes \(3, 2\); expected one tensor of 3 .* and 4 columns"):
        FrozenPrototypes(file).build(3, 4)
    for path in (tmp_path / "none", tmp_path / "text"):
        (tmp_path / "text").write_text("no tensors")
        with pytest.raises(OSError, match="no readable safetensors file"):
            FrozenPrototypes(str(path)).build(3, 2)
    with pytest.raises(ValueError, match="temperature > 0"):
        FrozenPrototypes(file, temperature=0.0)
