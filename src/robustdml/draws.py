"""Counter-based randomness: a number depends only on (seed, purpose, index of the row), never on the batch around it.

The generator is the SplitMix64 finaliser applied to a counter (Steele, Lea and Flood, OOPSLA 2014). It runs in int64
arithmetic, which wraps modulo 2**64 in torch, on whatever device `index` lives.
"""

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MIX_1 = _signed(0xBF58476D1CE4E5B9)
_MIX_2 = _signed(0x94D049BB133111EB)


def _shift_right(z: Tensor, bits: int) -> Tensor:
    return (z >> bits) & ((1 << (64 - bits)) - 1)  # torch shifts arithmetically; the mask makes it logical


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shift_right(z, 30)) * _MIX_1
    z = (z ^ _shift_right(z, 27)) * _MIX_2
    return z ^ _shift_right(z, 31)


@dataclass(frozen=True)
class Draws:
    """Every random choice of the library. Tests pass a subclass that hands out recorded draws.

    Args:
        seed: any integer; equal seeds give equal numbers on every device.
        path: names the stream; use `under` to derive one.
    """

    seed: int
    path: str = ""

    def under(self, *parts: str | int) -> "Draws":
        """An independent stream, e.g. `draws.under(epoch, step)`."""
        return Draws(self.seed, "/".join([self.path, *map(str, parts)]))

    def bits(self, purpose: str, index: Int[Tensor, "b"], shape: tuple[int, ...] = ()) -> Int[Tensor, "b *shape"]:
        """64 random bits per entry, as int64."""
        name = f"{self.seed}|{self.path}|{purpose}".encode()
        key = int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little", signed=True)
        row = _mix(_mix(index.long() * _GOLDEN + key) + key)
        counter = torch.arange(1, math.prod(shape) + 1, device=index.device)
        return _mix(row[:, None] + counter * _GOLDEN).reshape(len(index), *shape)

    def number(self, purpose: str) -> int:
        """One non-negative number of 63 bits, e.g. to seed a generator that is not ours."""
        return int(self.bits(purpose, torch.zeros(1, dtype=torch.long, device="cpu"))[0]) & (2**63 - 1)

    def uniform(
        self, purpose: str, index: Int[Tensor, "b"], shape: tuple[int, ...] = (), dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "b *shape"]:
        """Uniform in [0, 1)."""
        digits = 53 if dtype == torch.float64 else 24
        return _shift_right(self.bits(purpose, index, shape), 64 - digits).to(dtype) * 2.0**-digits

    def normal(
        self, purpose: str, index: Int[Tensor, "b"], shape: tuple[int, ...] = (), dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "b *shape"]:
        """Standard normal (Box-Muller)."""
        u = self.uniform(purpose, index, (2, *shape), torch.float64)
        return ((-2 * torch.log1p(-u[:, 0])).sqrt() * torch.cos(2 * math.pi * u[:, 1])).to(dtype)

    def integers(
        self, purpose: str, index: Int[Tensor, "b"], high: int | Int[Tensor, "b"], shape: tuple[int, ...] = ()
    ) -> Int[Tensor, "b *shape"]:
        """Uniform in {0, …, high - 1}; `high` may differ from row to row."""
        u = self.uniform(purpose, index, shape, torch.float64)
        top = high if isinstance(high, int) else high.reshape(-1, *[1] * len(shape))
        return (u * top).long()

    def permutation(self, purpose: str, index: Int[Tensor, "b"], n: int) -> Int[Tensor, "b n"]:
        """One random permutation of 0 … n - 1 per row."""
        return self.bits(purpose, index, (n,)).argsort(dim=1)

    def one_of(self, purpose: str, index: Int[Tensor, "b"], mask: Bool[Tensor, "b n"]) -> Int[Tensor, "b"]:
        """A uniformly drawn true entry of each row of `mask`; every row needs one."""
        wanted = self.integers(purpose, index, mask.sum(dim=1)) + 1
        return (mask.cumsum(dim=1) == wanted[:, None]).int().argmax(dim=1)


@contextmanager
def own_generators(seed: int) -> Iterator[None]:
    """torch's global generators, seeded for what draws by itself (initialisation, dropout) and put back afterwards."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
