"""Checks on an evaluation and its attacks: each says in words what it means when it fails."""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from robustdml.adversary import Adversary, Ball, Universal
from robustdml.adversary.adversary import embed_tuples
from robustdml.adversary.pgd import Pgd, input_gradient
from robustdml.attacks import Attack, Outcome, Scene, Surrogate
from robustdml.attacks.attack import embedding_shift
from robustdml.attacks.goals import Agnostic
from robustdml.deep_metric import DeepMetric
from robustdml.draws import Draws
from robustdml.models.embedder import Embedder, frozen, in_float32
from robustdml.types import arange_like


@dataclass(frozen=True)
class Check:
    """Outcome of one check.

    Attributes:
        value: the measured quantity.
        message: what was found; if `ok` is false, what it means and what to do.
    """

    name: str
    ok: bool
    value: float
    message: str

    def worse(self, other: "Check") -> "Check":
        """The one to report if the same check was made twice: a failed one, else the larger value."""
        return max(self, other, key=lambda c: (not c.ok, c.value))

    def as_flag(self) -> dict[str, str]:
        """How a scorecard lists a failed check."""
        return {"name": self.name, "message": self.message}

    def as_json(self) -> dict[str, object]:
        """All of it."""
        return asdict(self)


def weights_digest(embedder: Embedder) -> str:
    """SHA-256 of weights and buffers, the same in whichever precision the network runs."""
    digest = hashlib.sha256()
    for name, tensor in in_float32(embedder).state_dict().items():
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def weights_kept(before: str, after: str) -> Check:
    """An evaluation must not change the model."""
    ok = before == after
    message = (
        "weights and buffers are the same after the benchmark"
        if ok
        else "weights or buffers changed while the model was measured: its forward pass trains itself (for example "
        "BatchNorm that ignores eval()). Scores depend on the order of images; make eval() stop all updates."
    )
    return Check("weights_kept", ok, float(not ok), message)


def evaluation_mode(embedder: Embedder) -> Check:
    """Every part of the model obeys eval()."""
    with frozen(embedder):
        stuck = [name or "the model" for name, m in embedder.named_modules() if m.training]
    message = (
        "all parts of the model run in evaluation mode"
        if not stuck
        else f"{stuck[0]} stays in training mode after eval() ({len(stuck)} parts do): dropout or batch statistics "
        "blur both the score and the attack's gradient. Do not override train()."
    )
    return Check("eval_mode", not stuck, float(len(stuck)), message)


def deterministic(metric: DeepMetric, images: Float[Tensor, "b c h w"]) -> Check:
    """Five passes over the same images, unit embeddings within 1e-4 of each other."""
    passes = torch.stack([_unit(metric, metric.embed(images)) for _ in range(5)])
    apart = float((passes - passes[0]).norm(dim=2).max())
    ok = apart <= 1e-4
    message = f"five passes over the same images differ by {apart:.2g} (unit embeddings)" + (
        ""
        if ok
        else ": the model is random at test time. Every number here is one draw, and gradients of one draw mislead "
        "an attack; measure with the mean over many passes."
    )
    return Check("nondeterministic", ok, apart, message)


def _unit(metric: DeepMetric, z: Float[Tensor, "b d"]) -> Float[Tensor, "b w"]:
    return torch.nn.functional.normalize(metric.distance.place(z), dim=1)


def alone_or_together(metric: DeepMetric, images: Float[Tensor, "b c h w"], clean: Float[Tensor, "b d"]) -> Check:
    """An embedding must not depend on the other images of the batch."""
    half = len(images) // 2
    parts = [metric.embed(part) for part in (images[:half], images[half:]) if len(part)]
    unit = [_unit(metric, z) for z in (torch.cat(parts), clean)]
    apart = float((unit[0] - unit[1]).norm(dim=1).max())
    ok = apart <= 1e-3
    message = f"embeddings computed in other batches differ by {apart:.2g} (unit embeddings)" + (
        "" if ok else ": images of one batch influence each other, so that ranks depend on who else is asked."
    )
    return Check("batch_independent", ok, apart, message)


def collapse(statistics: dict[str, float], recall: float, chance: float) -> Check:
    """A collapsed embedding looks robust since nothing can be moved."""
    distance, rank = statistics["mean_distance"], statistics["effective_rank"]
    ok = not (statistics["spread"] < 0.01 or rank < 1.5 or recall < 2 * chance)
    message = (
        f"mean distance {distance:.3g}, effective rank {rank:.3g}, recall@1 {100 * recall:.1f} % (chance "
        f"{100 * chance:.1f} %)"
    )
    if not ok:
        message += (
            ": the embedding has collapsed or ranks at chance. Attacks on it move nothing and its score says nothing "
            "about robustness."
        )
    return Check("collapse", ok, distance, message)


def saturation(metric: DeepMetric, z: Float[Tensor, "n d"]) -> Check:
    """Share of pairwise distances within 1 % of the smallest possible, or of the largest one found."""
    some = z[torch.linspace(0, len(z) - 1, min(500, len(z)), device=z.device).long()]
    d = metric.distance.matrix(some, some)
    d = d[~torch.eye(len(d), dtype=torch.bool, device=d.device)]
    low = d.min().clamp_max(0)
    near = 0.01 * (d.max() - low)
    share = float(((d <= low + near) | (d >= d.max() - near)).float().mean())
    ok = share < 0.5
    message = f"{100 * share:.1f} % of distances lie within 1 % of zero or of the largest" + (
        "" if ok else ": distances are saturated, gradients vanish there and attacks fail silently."
    )
    return Check("saturation", ok, share, message)


def first_gradients(
    name: str,
    attack: Attack,
    metric: DeepMetric,
    scene: Scene,
    images: Tensor,
    draws: Draws,
    index: Int[Tensor, "b"],
    surrogate: Surrogate | None = None,
) -> Check:
    """Share of images whose first gradient is zero, NaN or infinite.

    Images whose goal is reached already have nothing to gain: they count only if the embedding has no gradient either.
    """
    embedder, stand_in = attack.works_on(metric, scene, surrogate)
    aims, every = attack.goal.choose(scene, draws=draws, index=index), arange_like(images)
    energy, achieved = attack.goal.energy(stand_in, aims), attack.goal.achieved(stand_in, aims)(stand_in.clean, every)

    def lost(of: Callable[[Tensor, int], Tensor]) -> Tensor:
        with frozen(embedder), torch.enable_grad():
            gradient = input_gradient(
                lambda x, unit, step: of(embed_tuples(embedder, x), step), images, every, 0
            ).flatten(1)
        return ~torch.isfinite(gradient).all(dim=1) | (gradient == 0).all(dim=1)

    nowhere = lost(lambda z, step: energy(z, every, step))
    if bool((nowhere & achieved).any()):
        nowhere &= ~achieved | lost(lambda z, step: z @ torch.cos(arange_like(z[0]).to(z.dtype)))
    useless = float(nowhere.float().mean())
    ok = useless <= 0.05
    message = f"{name}: first gradient zero, NaN or infinite for {100 * useless:.1f} % of {len(images)} images" + (
        ""
        if ok
        else ". The attack cannot start there: the score overstates robustness. Look for saturation, quantisation or "
        "a normalisation of a zero vector, and add random starts or a search without gradients."
    )
    return Check("zero_gradient", ok, useless, message)


def budget_kept(name: str, ball: Ball, images: Tensor, found: Tensor) -> Check:
    """Perturbations stay in the ball and pixels in [0, 1], also after storing as 8 bit."""
    size = float(ball.norm((found - images).double()).max())
    low, high = float(found.min()), float(found.max())
    ok = size <= ball.eps * (1 + 1e-6) + 1e-7 and low >= 0 and high <= 1
    message = f"{name}: largest perturbation {size:.6f} of {ball.eps:.6f}, pixels {low:.3f} … {high:.3f}" + (
        "" if ok else ". The attack left its budget; this is a fault of the attack or its plug-in, not of the model."
    )
    return Check("budget", ok, size, message)


def finite_embeddings(name: str, outcome: Outcome) -> Check:
    """The model must give every adversarial image an embedding."""
    lost = float((~torch.isfinite(outcome.after["shift"])).float().mean())
    ok = lost == 0
    message = f"{name}: {100 * lost:.1f} % of adversarial images have a NaN or infinite embedding" + (
        ""
        if ok
        else ". Scores of such images mean nothing; find the layer that overflows (a division by a norm or a "
        "variance of zero) and give it a floor."
    )
    return Check("finite_embeddings", ok, lost, message)


def zero_budget(
    name: str, attack: Attack, metric: DeepMetric, scene: Scene, images: Tensor, draws: Draws, index: Int[Tensor, "b"]
) -> Check:
    """With eps = 0 the attack changes neither images nor scores."""
    ball = replace(attack.adversary.ball, eps=0.0)  # type: ignore[type-var]  # every ball is a dataclass with eps
    nowhere = Universal(1, 0.0) if isinstance(attack.goal, Agnostic) else Pgd(1, 0.0)
    none = replace(attack, adversary=Adversary(ball, nowhere), surrogate=None)
    outcome = none(metric, scene, images, draws=draws, index=index)
    apart = max(
        float((outcome.after[k] - outcome.before[k]).abs().nan_to_num().mean()) for k in outcome.before if k != "shift"
    )
    same = torch.equal(outcome.images, images)
    ok = same and apart <= 1e-3
    message = f"{name}: scores change by {apart:.2g} with eps = 0" + (
        ""
        if ok
        else ". The scores before and after an attack are not measured alike, so their difference means nothing."
    )
    return Check("eps_zero", ok, apart, message)


def rescored(name: str, goal_score: dict[str, Tensor], again: dict[str, Tensor]) -> Check:
    """Scores of the adversarial images, from a fresh forward pass in another order."""
    apart = max(
        float((goal_score[k].nan_to_num().double().mean() - again[k].nan_to_num().double().mean()).abs()) for k in again
    )
    ok = apart <= 1e-3
    message = f"{name}: re-scoring the adversarial images changes the result by {apart:.2g}" + (
        "" if ok else ". The model gives the same image different embeddings; no score of it can be trusted."
    )
    return Check("rescore", ok, apart, message)


def score_again(
    attack: Attack, metric: DeepMetric, scene: Scene, outcome: Outcome, images: Float[Tensor, "b c h w"]
) -> dict[str, Tensor]:
    """Scores of some images that stand for the outcome's: embedded afresh, in reversed order."""
    z = metric.embed(images.flip(0)).flip(0)
    return attack.goal.score(scene, outcome.aims)(z) | {"shift": embedding_shift(scene.distance, z, scene.clean)}


def in_8_bit(images: Float[Tensor, "b c h w"], ball: Ball, centre: Float[Tensor, "b c h w"]) -> Tensor:
    """Images as an 8-bit file stores them, rounded towards the clean image so that the budget is kept."""
    steps = images * 255
    towards = torch.where(images > centre, steps.floor(), steps.ceil())
    exact = (steps - steps.round()).abs() < 1e-3  # already a multiple of 1/255, up to float32 rounding
    return torch.where(exact, steps.round(), towards).clamp(0, 255) / 255
