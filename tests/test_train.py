"""The training loop in one process; several processes and signals are tested through the command line."""

import json
import math
import shutil
from dataclasses import dataclass, field, replace

import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from robustdml.adversary import Adversary, Linf, Pgd
from robustdml.data.batches import ClassBatches, Spc2, TripletBatches
from robustdml.data.digits import Digits
from robustdml.data.errors import DataError
from robustdml.data.folder import Folder
from robustdml.data.splits import hold_out
from robustdml.defenses import (
    AdaptedAntiCollapse,
    AlternatingCollapse,
    AnchoredMinMax,
    AnchoredShiftTraining,
    AntiCollapse,
    ClasswiseBarlow,
    CollapseAware,
    FreeTraining,
    Gradual,
    Growing,
    HardnessManipulation,
    MinMax,
    Mixture,
    Penalised,
    Plain,
    Replay,
    RoleAscent,
    ShiftSuppression,
    StoppedMinMax,
    TeacherMatching,
    TripletCollapse,
)
from robustdml.distance import Cosine, Spherical
from robustdml.losses import Contrastive, InfoNce, Margin, MultiSimilarity, Pml, Snr, Triplet
from robustdml.mining import PmlMiner, Random, RandomTriplet, SoftHard
from robustdml.models import Pixels, SmallConv, SmallResNet
from robustdml.monitors import warn_of_collapse
from robustdml.recipe import Adam, Sgd, Validation, recipe_to_json
from robustdml.recipes.digits import act_digits_small, plain_digits_small
from robustdml.runs import RunFolder, checkpoint, read_weights
from robustdml.train import prepare, restore, run, train
from robustdml.types import Batch, RunReference
from tests.processes import in_two_processes


def quick(recipe, **changes):
    adversary = Adversary(Linf(0.1), Pgd(2, 0.05))
    defense = AntiCollapse(adversary) if isinstance(recipe.defense, AntiCollapse) else recipe.defense
    return replace(recipe, **{"model": SmallConv(dim=8, width=4), "defense": defense, "epochs": 1, **changes})


def weights(folder):
    return read_weights(checkpoint(folder).folder / "model.safetensors")


def log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("recipe", [plain_digits_small(), act_digits_small()], ids=lambda r: r.name)
def test_equal_seeds_give_equal_bits_and_other_seeds_do_not(tmp_path, recipe):
    runs = [train(quick(recipe, seed=s), tmp_path / str(i), device="cpu") for i, s in enumerate((0, 0, 1))]
    first, again, other = map(weights, runs)
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not all(torch.equal(first[k], other[k]) for k in first)


def test_training_leaves_the_global_generator_alone(tmp_path):
    before = torch.random.get_rng_state()
    train(quick(plain_digits_small()), tmp_path / "run", device="cpu")
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_short_run_lowers_the_loss_and_logs_its_monitors(tmp_path):
    folder = train(replace(plain_digits_small(), epochs=3), tmp_path / "run", device="cpu")
    entries = log(folder)
    assert entries[-1]["loss"] < entries[0]["loss"]
    for name in ("epoch", "step", "lr", "mean_distance", "effective_rank", "active_triplets", "seconds"):
        assert name in entries[0]


def test_bf16_trains_float32_weights_to_about_the_same_place(tmp_path):
    full = weights(train(quick(plain_digits_small()), tmp_path / "fp32", device="cpu"))
    half = weights(train(quick(plain_digits_small(), precision="bf16"), tmp_path / "bf16", device="cpu"))
    assert all(t.dtype == torch.float32 for t in half.values())
    assert not all(torch.equal(full[k], half[k]) for k in full)
    assert max(float((full[k] - half[k]).abs().max()) for k in full) < 0.1


def test_accumulated_parts_weigh_as_much_as_their_pairs(tmp_path):
    """With the negatives given, the gradient of a batch cut in two is that of the batch."""

    class First(Random):
        """Always the first row of another class: no draw differs between a batch and its parts."""

        def __call__(self, z, labels, distance, *, draws, index):
            found = super().__call__(z, labels, distance, draws=draws, index=index)
            return replace(found, negative=found.positive)

    recipe = quick(plain_digits_small(), batches=Spc2(10), loss=Triplet(miner=First(), margin=0.2))
    data = Digits().load()
    gradients = []
    for parts in (1, 2, 3):
        trainer = prepare(replace(recipe, accumulate=parts), data, Accelerator(cpu=True))
        trainer.step(next(trainer.loaded(trainer.batches())))
        gradients.append([p.grad.clone() for p in trainer.embedder.parameters()])
    for other in gradients[1:]:
        for a, b in zip(gradients[0], other, strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def test_held_out_images_are_not_trained_on():
    data = Digits().load()
    rest, held = hold_out(data, 0.2, 0)
    assert not set(rest.split.train.tolist()) & set(held.split.query.tolist())
    assert len(rest.split.train) + len(held.split.query) == len(data.split.train)
    assert torch.equal(held.split.query, held.split.gallery)
    assert not set(held.split.query.tolist()) & set(data.split.query.tolist())
    assert hold_out(data, 0.0, 0) == (data, None)


def test_whole_classes_are_held_out_of_a_zero_shot_set():
    data = Digits().load()
    low, high = (data.labels < 5).nonzero()[:, 0], (data.labels >= 5).nonzero()[:, 0]
    rest, held = hold_out(replace(data, split=replace(data.split, train=low, query=high, gallery=high)), 0.4, 0)
    seen, unseen = set(data.labels[rest.split.train].tolist()), set(data.labels[held.split.query].tolist())
    assert not seen & unseen
    assert len(unseen) == 2


def test_validation_chooses_a_checkpoint_and_says_why(tmp_path):
    recipe = quick(plain_digits_small(), validation=Validation(share=0.1, choose=True))
    folder = train(recipe, tmp_path / "run", device="cpu")
    chosen = json.loads((folder / "checkpoints" / "best" / "chosen.json").read_text())
    assert chosen["figure"] == "validation recall@1"
    assert checkpoint(folder).folder.name == "best"
    assert any("validation" in entry for entry in log(folder))


def test_a_run_can_start_from_the_weights_of_another(tmp_path):
    first = train(quick(plain_digits_small()), tmp_path / "a", device="cpu")
    recipe = quick(plain_digits_small(), start=RunReference(str(first)), optimiser=Adam(lr=0.0))
    second = train(recipe, tmp_path / "b", device="cpu")
    assert all(torch.equal(weights(first)[k], weights(second)[k]) for k in weights(first))


def test_a_run_resumes_without_the_weights_it_began_with(tmp_path):
    first = train(quick(plain_digits_small()), tmp_path / "a", device="cpu")
    recipe = quick(plain_digits_small(), start=RunReference(str(first)))
    second = train(recipe, tmp_path / "b", device="cpu")
    shutil.rmtree(first)
    train(recipe, second, device="cpu", resume=True)
    with pytest.raises(DataError, match="no such folder"):
        train(recipe, tmp_path / "c", device="cpu")


def test_what_is_missing_of_a_checkpoint_is_named(tmp_path):
    run = train(quick(plain_digits_small()), tmp_path / "a", device="cpu")
    state = run / "checkpoints" / "last" / "state.pt"
    kept = state.read_bytes()
    state.write_bytes(b"no state")
    with pytest.raises(DataError, match=r"damaged .*--out") as caught:
        train(quick(plain_digits_small()), run, device="cpu", resume=True)
    assert "weights_only" not in str(caught.value)
    state.unlink()
    with pytest.raises(DataError, match=r"state\.pt is missing"):
        train(quick(plain_digits_small()), run, device="cpu", resume=True)
    state.write_bytes(kept)
    shutil.rmtree((run / "checkpoints" / "last").resolve())
    with pytest.raises(DataError, match="which is gone"):
        train(quick(plain_digits_small()), run, device="cpu", resume=True)
    (run / "checkpoints" / "last").unlink()
    said = []
    train(quick(plain_digits_small()), run, device="cpu", resume=True, report=said.append)
    assert "no checkpoint to resume: beginning at epoch 0" in said[0]


def test_an_average_longer_than_the_training_is_warned_of(tmp_path):
    with pytest.warns(UserWarning, match="remembers about 1,000 steps"):
        train(quick(plain_digits_small(), averaging=0.999), tmp_path / "a", device="cpu")


def test_a_diverging_loss_stops_the_run_with_advice(tmp_path):
    recipe = replace(quick(plain_digits_small(), optimiser=Adam(lr=1e30)), epochs=60)
    with pytest.raises(FloatingPointError, match=r"--optimiser\.lr"):
        train(recipe, tmp_path / "run", device="cpu")


def test_collapse_is_said_in_words(tmp_path):
    recipe = replace(quick(plain_digits_small(), optimiser=Adam(lr=0.0)), epochs=1)
    data = Digits().load()
    trainer = prepare(recipe, data, Accelerator(cpu=True))
    for p in trainer.embedder.parameters():
        p.data.zero_()
    with pytest.warns(UserWarning, match="collapsing"):
        assert warn_of_collapse({"step": 1.0, **trainer.monitors(next(trainer.loaded(trainer.batches())))}, rows=128)


def test_two_rows_are_too_few_to_speak_of_collapse():
    trainer = prepare(quick(plain_digits_small()), Digits().load(), Accelerator(cpu=True))
    batch = next(trainer.loaded(trainer.batches()))
    few = Batch(batch.images[:2], batch.labels[:2], batch.index[:2])
    found = trainer.monitors(few)
    assert found["effective_rank"] == pytest.approx(1)
    assert not warn_of_collapse({"step": 1.0, **found}, rows=2)


@pytest.mark.parametrize("of", ["model", "loss"])
def test_weights_that_are_no_numbers_do_not_replace_a_checkpoint(tmp_path, of):
    """A finite loss may have a gradient that is not: the weights are seen before they are kept."""

    def broken(done, total, what):
        if done == total:  # the last step of the second epoch
            module = trainer.embedder if of == "model" else trainer.loss
            next(module.parameters()).data.view(-1)[0] = math.nan

    recipe = replace(quick(plain_digits_small(), loss=Margin()), epochs=2)
    trainer = prepare(recipe, Digits().load(), Accelerator(cpu=True))
    folder = RunFolder(tmp_path / "run")
    folder.begin(recipe, {})
    with pytest.raises(FloatingPointError, match=r"holds NaN or infinite numbers after step 46 .*--clip 1\.0"):
        run(trainer, folder, None, lambda: False, lambda line: None, broken)
    assert folder.last.resolve().name == "epoch-1-step-0"
    assert all(bool(torch.isfinite(t).all()) for t in weights(folder.path).values())


def test_a_model_without_weights_is_not_trained(tmp_path):
    with pytest.raises(ValueError, match="no weights to train"):
        train(replace(plain_digits_small(), model=Pixels()), tmp_path / "run", device="cpu")


def test_an_unknown_parameter_group_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no parameter group 'head'.*trunk"):
        train(quick(plain_digits_small(), groups={"head": Adam()}), tmp_path / "run", device="cpu")


def test_a_folder_with_a_run_is_not_overwritten(tmp_path):
    train(quick(plain_digits_small()), tmp_path / "run", device="cpu")
    with pytest.raises(FileExistsError, match="--resume"):
        train(quick(plain_digits_small()), tmp_path / "run", device="cpu")


SEARCH = Adversary(Linf(0.1), Pgd(2, 0.05))
REMEMBERING = {
    "stopped": StoppedMinMax(SEARCH),
    "gradual": HardnessManipulation(SEARCH, SoftHard(), Gradual(), structure=0.5),
    "free": FreeTraining(Linf(0.1), 0.05, repeats=2),
    "decoupled": CollapseAware(SEARCH),
    "replay": Replay(StoppedMinMax(SEARCH), repeats=2),
    "growing": Growing(HardnessManipulation(SEARCH, SoftHard(), Gradual())),
    "mixture": Mixture(FreeTraining(Linf(0.1), 0.05, repeats=2), StoppedMinMax(SEARCH, structure=0.5)),
}
OTHERS = {
    "suppression": ShiftSuppression(SEARCH),
    "anchored shift": AnchoredShiftTraining(SEARCH),
    "min-max": MinMax(SEARCH),
    "anchored min-max": AnchoredMinMax(SEARCH),
    "triplet collapse": TripletCollapse(SEARCH),
    "alternating": AlternatingCollapse(SEARCH),
    "adapted": AdaptedAntiCollapse(SEARCH),
    "one role": RoleAscent(SEARCH),
    "barlow": Penalised(AntiCollapse(SEARCH), ClasswiseBarlow()),
}


@pytest.mark.parametrize("defense", [*REMEMBERING.values(), *OTHERS.values()], ids=[*REMEMBERING, *OTHERS])
def test_every_defense_trains_and_is_watched_for_collapse(tmp_path, defense):
    folder = train(quick(plain_digits_small(), batches=Spc2(96), defense=defense), tmp_path / "run", device="cpu")
    for entry in log(folder):
        assert {"loss", "mean_distance", "spread", "effective_rank"} <= entry.keys()
        assert all(math.isfinite(v) for v in entry.values())
    assert all(bool(torch.isfinite(t).all()) for t in weights(folder).values())


@pytest.mark.parametrize("name", REMEMBERING)
def test_a_defense_with_memory_resumes_to_the_same_bits(tmp_path, name):
    recipe = replace(quick(plain_digits_small(), batches=Spc2(96)), epochs=2, defense=REMEMBERING[name])
    whole = train(recipe, tmp_path / "whole", device="cpu")

    def killed(done, total, what):
        if done == total - 3:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        train(recipe, tmp_path / "parts", device="cpu", progress=killed)
    parts = train(recipe, tmp_path / "parts", device="cpu", resume=True)
    assert all(torch.equal(weights(whole)[k], weights(parts)[k]) for k in weights(whole))


def test_a_robust_student_stays_with_the_weights_it_began_with(tmp_path):
    """Also in parts, over a network with batch statistics."""
    model = SmallResNet(8)
    start = train(quick(plain_digits_small(), model=model), tmp_path / "start", device="cpu")
    changes = {"model": model, "start": RunReference(str(start)), "defense": TeacherMatching(SEARCH), "accumulate": 2}
    recipe = quick(plain_digits_small(), batches=Spc2(96), **changes)
    trainer = prepare(recipe, Digits().load(), Accelerator(cpu=True))
    first = {name: tensor.clone() for name, tensor in trainer.memory.items()}
    for _, part in zip(range(2), trainer.loaded(trainer.batches()), strict=False):
        trainer.step(part)
    assert all(torch.equal(first[name], trainer.memory[name]) for name in first)
    with pytest.raises(ValueError, match="stays near the weights it begins with, and these are random"):
        replace(recipe, start=None)


def test_a_process_that_the_run_did_not_have_remembers_what_the_first_one_did(tmp_path):
    folder = train(quick(plain_digits_small(), defense=REMEMBERING["decoupled"]), tmp_path / "run", device="cpu")
    kept, more = (RunFolder(folder).state(rank)[2]["memory"] for rank in (0, 3))
    assert kept.keys() == more.keys() == {"odd"}
    assert torch.equal(kept["odd"], more["odd"])


def test_repeats_are_optimiser_steps_of_their_own():
    recipe = quick(plain_digits_small(), defense=REMEMBERING["free"])
    trainer = prepare(recipe, Digits().load(), Accelerator(cpu=True))
    trainer.step(next(trainer.loaded(trainer.batches())))
    assert trainer.position.total == 2
    assert set(trainer.memory) == {"perturbation"}


WORKER = """
import json, sys
from pathlib import Path
from robustdml.recipe import recipe_from_json
from robustdml.train import train
from robustdml.trainer import Trainer
recipe = recipe_from_json(json.loads(Path("recipe.json").read_text()))
coins, whole = [], Trainer.step
def step(self, batch):
    logs = whole(self, batch)
    coins.append((len(batch.index), logs.get("first")))
    return logs
Trainer.step = step
train(recipe, Path("run"), device="cpu")
import os
Path(f"coins-{os.environ['RANK']}.json").write_text(json.dumps(coins))
"""


def test_two_processes_toss_the_same_coins_and_repeat_together(tmp_path):
    """The last batch has one pair, so that one process has none: it must go along with what the other asks for."""
    pairs, images = 359, len(Digits().load().split.train)
    assert images % (2 * pairs) == 1
    recipe = quick(plain_digits_small(), batches=Spc2(pairs), epochs=4, defense=REMEMBERING["mixture"])
    (tmp_path / "recipe.json").write_text(json.dumps(recipe_to_json(recipe)))
    in_two_processes(tmp_path, WORKER)
    seen = [json.loads((tmp_path / f"coins-{rank}.json").read_text()) for rank in "01"]
    coins = [[coin for rows, coin in own if rows > 2] for own in seen]
    assert coins[0] == coins[1]
    assert set(coins[0]) == {0.0, 1.0}
    assert sorted(own[-1][0] for own in seen) == [0, 2]


RESUMING = """
import torch
from dataclasses import replace
from pathlib import Path
from accelerate import Accelerator
from robustdml.adversary import Adversary, Linf, Pgd
from robustdml.data.batches import Spc2
from robustdml.defenses import ShiftTraining
from robustdml.losses import Pml
from robustdml.mining import PmlMiner
from robustdml.models import SmallResNet
from robustdml.recipes.digits import plain_digits_small
from robustdml.runs import RunFolder
from robustdml.train import prepare, restore, save

def steps(trainer, count):
    for _ in range(count):
        trainer.step(next(trainer.loaded(trainer.batches()[trainer.position.step:])))
        trainer.position.step += 1

est = ShiftTraining(Adversary(Linf(0.3), Pgd(2, 0.1)))
base, data = plain_digits_small(), plain_digits_small().data.load()
statistics = Pml("DynamicSoftMarginLoss", miner=PmlMiner("BatchHardMiner"))
for name, changes in (("model", {"model": SmallResNet(16), "defense": est}), ("loss", {"loss": statistics})):
    recipe, accelerator = replace(base, batches=Spc2(8), **changes), Accelerator(cpu=True)
    whole, first = (prepare(recipe, data, accelerator) for _ in range(2))
    steps(whole, 5)
    steps(first, 2)
    save(first, RunFolder(Path(name)))
    second = prepare(recipe, data, accelerator)
    restore(second, RunFolder(Path(name)))
    steps(second, 3)
    states = [t.embedder.state_dict() | (dict(t.loss.state_dict()) if name == "loss" else {}) for t in (whole, second)]
    differing = [n for n, t in states[0].items() if not torch.equal(t, states[1][n])]
    assert not differing, (name, accelerator.process_index, differing[:5])
"""


def test_two_processes_resume_with_the_running_statistics_of_each(tmp_path):
    """Batch normalisation and losses that keep statistics see the shard of their process alone."""
    in_two_processes(tmp_path, RESUMING)


SKIPPING = """
import torch
from dataclasses import replace
from accelerate import Accelerator
from robustdml.adversary import Adversary, Linf, Pgd
from robustdml.defenses import StoppedMinMax
from robustdml.models import SmallConv
from robustdml.recipes.digits import plain_digits_small
from robustdml.train import prepare
from robustdml.types import Batch

stopped = StoppedMinMax(Adversary(Linf(0.1), Pgd(2, 0.05)))
data = plain_digits_small().data.load()
for accumulate in (1, 3):
    recipe = replace(plain_digits_small(), model=SmallConv(8, 4), defense=stopped, accumulate=accumulate)
    trainer = prepare(recipe, data, Accelerator(cpu=True))
    whole = next(trainer.loaded(trainer.batches()))
    rank = trainer.accelerator.process_index
    for kept, steps in (((0, 0), 0), ((8, 0), 1), ((0, 8), 2), ((16, 2), 3), ((16, 12), 4), ((2, 2), 5)):
        n = kept[rank]
        before = [p.detach().clone() for p in trainer.embedder.parameters()]
        logs = trainer.step(Batch(whole.images[:n], whole.labels[:n], whole.index[:n]))
        assert trainer.position.total == steps
        weights = torch.cat([p.detach().flatten() for p in trainer.embedder.parameters()])
        assert bool(torch.isfinite(weights).all())
        assert torch.equal(weights, torch.cat([p.flatten() for p in before])) == (steps == 0)
        everywhere = trainer.accelerator.gather(torch.cat([weights, torch.tensor([logs["loss"]])])[None])
        assert torch.equal(everywhere[0], everywhere[1]), kept
        if min(kept):
            one, other = trainer.accelerator.gather(trainer.memory["previous"][None])
            assert torch.equal(one, other), kept
"""


def test_processes_that_are_left_with_few_images_or_none_go_along(tmp_path):
    """As where damaged images are skipped: all ask for the same means, whoever has nothing to train on."""
    in_two_processes(tmp_path, SKIPPING)


def test_every_part_of_a_batch_is_steered_by_the_step_before():
    recipe = quick(plain_digits_small(), defense=StoppedMinMax(SEARCH), accumulate=4)
    trainer = prepare(recipe, Digits().load(), Accelerator(cpu=True))
    before = 2.0
    for batch, _ in zip(trainer.loaded(trainer.batches()), range(3), strict=False):
        logs = trainer.step(batch)
        assert logs["stop"] == pytest.approx(-StoppedMinMax.stop(before, 0.2))  # a mean over parts: all had this one
        before = float(trainer.memory["previous"])
        assert before == pytest.approx(logs["loss"], rel=1e-5)


def test_parts_that_remember_more_than_a_number_are_refused():
    @dataclass(frozen=True)
    class Remembering(Plain):
        def __call__(self, embedder, loss, batch, **rest):
            return replace(super().__call__(embedder, loss, batch, **rest), memory={"images": batch.images})

    recipe = quick(plain_digits_small(), defense=Remembering(), accumulate=2)
    trainer = prepare(recipe, Digits().load(), Accelerator(cpu=True))
    with pytest.raises(ValueError, match=r"remembers 'images' of shape .* --accumulate 1"):
        trainer.step(next(trainer.loaded(trainer.batches())))


@pytest.mark.parametrize("name", ["free", "mixture"])
def test_free_training_of_parts_is_refused_with_the_recipe(name):
    with pytest.raises(
        ValueError, match=r"FreeTraining and Replay repeat whole batches, and accumulate=2 .* --accumulate 1"
    ):
        quick(plain_digits_small(), defense=REMEMBERING[name], accumulate=2)


@dataclass(frozen=True)
class Proxies:
    """A loss that owns weights: one proxy per class."""

    distance: Spherical = field(default_factory=Spherical)

    def build(self, num_classes, dim):
        return BuiltProxies(num_classes, dim)

    def parameter_groups(self):
        return {}

    def __call__(self, z, labels, triplets=None, *, draws, index):
        raise AssertionError("build it first")


class BuiltProxies(torch.nn.Module):
    distance = Spherical()

    def __init__(self, num_classes, dim):
        super().__init__()
        self.proxies = torch.nn.Parameter(torch.randn(num_classes, dim))

    def build(self, num_classes, dim):
        return self

    def parameter_groups(self):
        return {"proxies": [self.proxies]}

    def forward(self, z, labels, triplets=None, *, draws, index):
        return self.distance.pairs(z, self.proxies[labels]).mean()


def test_a_loss_with_weights_is_seeded_clipped_and_restored():
    recipe = quick(plain_digits_small(), loss=Proxies(), clip=1e-3)
    first, second = (prepare(recipe, Digits().load(), Accelerator(cpu=True)) for _ in range(2))
    assert torch.equal(first.loss.proxies, second.loss.proxies)
    first.step(next(first.loaded(first.batches())))
    norms = [p.grad.norm() for p in [*first.embedder.parameters(), first.loss.proxies]]
    assert float(torch.stack(norms).norm()) <= 1.01e-3
    assert not torch.equal(first.loss.proxies, second.loss.proxies)


def test_weights_of_a_loss_come_back_from_a_checkpoint(tmp_path):
    recipe = quick(plain_digits_small(), loss=Proxies())
    trainer = prepare(recipe, Digits().load(), Accelerator(cpu=True))
    trainer.step(next(trainer.loaded(trainer.batches())))
    folder = RunFolder(tmp_path)
    folder.save(
        "epoch-0-step-1", trainer.embedder, trainer.loss, plain_digits_small(), trainer.state(), [{"memory": {}}]
    )
    again = prepare(recipe, Digits().load(), Accelerator(cpu=True))
    restore(again, folder)
    assert torch.equal(again.loss.proxies, trainer.loss.proxies)


def state(trainer):
    tensors = [*trainer.embedder.state_dict().values()]
    return tensors + (list(trainer.loss.state_dict().values()) if isinstance(trainer.loss, torch.nn.Module) else [])


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": Margin(), "groups": {"beta": Sgd(lr=0.1, momentum=0.9)}, "alternate": True, "milestones": (1,)},
        {"loss": Pml("ProxyAnchorLoss", {}, Cosine()), "groups": {"pml": Adam(lr=0.01)}},
        {"loss": Pml("DynamicSoftMarginLoss", miner=PmlMiner("BatchHardMiner"))},
        {"loss": MultiSimilarity(), "batches": ClassBatches(64)},
        {"loss": InfoNce()},
        {"batches": TripletBatches(40)},
    ],
    ids=["margin", "proxies", "running statistics", "classes", "infonce", "triplets"],
)
def test_a_run_that_stops_in_between_reaches_the_same_bits(tmp_path, changes):
    recipe, data = quick(plain_digits_small(), **changes), Digits().load()
    whole, first = (prepare(recipe, data, Accelerator(cpu=True)) for _ in range(2))

    def steps(trainer, count):
        for _ in range(count):
            trainer.step(next(trainer.loaded(trainer.batches()[trainer.position.step :])))
            trainer.position.step += 1

    steps(whole, 4)
    steps(first, 2)
    folder = RunFolder(tmp_path)
    folder.save("epoch-0-step-2", first.embedder, first.loss, recipe, first.state(), [{"memory": {}}])
    second = prepare(recipe, data, Accelerator(cpu=True))
    restore(second, folder)
    steps(second, 2)
    assert all(torch.equal(a, b) for a, b in zip(state(whole), state(second), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(state(first), state(second), strict=True))


def test_the_boundary_of_a_margin_loss_has_its_own_optimiser():
    recipe = quick(plain_digits_small(), loss=Margin(), groups={"beta": Sgd(lr=0.5)}, optimiser=Adam(lr=0.0))
    trainer = prepare(recipe, Digits().load(), Accelerator(cpu=True))
    before = [t.clone() for t in trainer.embedder.state_dict().values()]
    trainer.step(next(trainer.loaded(trainer.batches())))
    assert float(trainer.loss.beta.detach()) == pytest.approx(0.6 - 0.5 * float(trainer.loss.beta.grad))
    assert float(trainer.loss.beta.grad) != 0
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.embedder.state_dict().values(), strict=True))
    assert trainer.rates() == {"lr": 0.0, "lr/beta": 0.5}  # what the log says


def test_groups_that_alternate_step_in_turn_on_the_same_batch():
    """With the boundary this low its gradient is -1: positives alone are active, whatever is drawn."""
    recipe = quick(plain_digits_small(), loss=Margin(beta=-0.5), groups={"beta": Sgd(lr=0.25)})
    together, in_turn = (
        prepare(replace(recipe, alternate=alternate), Digits().load(), Accelerator(cpu=True))
        for alternate in (False, True)
    )
    for trainer in (together, in_turn):
        trainer.step(next(trainer.loaded(trainer.batches())))
        assert float(trainer.loss.beta.detach()) == pytest.approx(-0.25)
    assert (together.position.total, in_turn.position.total) == (1, 2)
    weights = (trainer.embedder.parameters() for trainer in (together, in_turn))
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))  # each steps once, the network first
    gradients = [next(trainer.embedder.parameters()).grad for trainer in (together, in_turn)]
    assert not torch.equal(*gradients)  # the second pass saw the weights after their step


def test_learning_rates_fall_along_a_cosine():
    recipe = replace(quick(plain_digits_small(), batches=Spc2(96)), epochs=2, decay="cosine")
    trainer = prepare(recipe, Digits().load(), Accelerator(cpu=True))
    rates = []
    for epoch, step in ((0, 0), (0, 4), (1, 0), (1, 4)):
        trainer.position.epoch, trainer.position.step = epoch, step
        rates.append(trainer.rates()["lr"])
    share = 4 / trainer.steps_per_epoch / 2
    assert rates == pytest.approx([1e-3 * (1 + math.cos(math.pi * t)) for t in (0, share, 0.5, 0.5 + share)])
    with pytest.raises(ValueError, match="decay is cosine, so milestones"):
        replace(recipe, milestones=(1,))


def test_averaged_weights_are_the_moving_average_and_what_is_saved(tmp_path):
    recipe = replace(quick(plain_digits_small(), batches=Spc2(96)), averaging=0.9)
    trainer = prepare(recipe, Digits().load(), Accelerator(cpu=True))
    expected = None
    for batch in list(trainer.loaded(trainer.batches()))[:3]:
        trainer.step(batch)
        now = [p.detach().clone() for p in trainer.embedder.parameters()]
        expected = now if expected is None else [0.9 * e + 0.1 * n for e, n in zip(expected, now, strict=True)]
    for p, e in zip(trainer.result.parameters(), expected, strict=True):
        torch.testing.assert_close(p.detach(), e)
    folder = train(recipe, tmp_path / "run", device="cpu")
    plain = train(replace(recipe, averaging=0.0), tmp_path / "plain", device="cpu")
    assert any(not torch.equal(weights(folder)[k], weights(plain)[k]) for k in weights(plain))
    raw = torch.load(folder / "checkpoints/last/state.pt", weights_only=True)["weights"]
    assert all(torch.equal(raw[k], weights(plain)[k]) for k in raw)  # training goes on from the weights themselves
    with pytest.raises(ValueError, match="averaging must be in"):
        replace(recipe, averaging=1.0)


def test_averaged_weights_resume_to_the_same_bits(tmp_path):
    recipe = replace(quick(plain_digits_small(), batches=Spc2(96)), epochs=2, averaging=0.9, decay="cosine")
    whole = train(recipe, tmp_path / "whole", device="cpu")

    def killed(done, total, what):
        if done == total - 3:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        train(recipe, tmp_path / "parts", device="cpu", progress=killed)
    parts = train(recipe, tmp_path / "parts", device="cpu", resume=True)
    assert all(torch.equal(weights(whole)[k], weights(parts)[k]) for k in weights(whole))


def test_learning_rates_fall_at_the_milestones_of_every_group():
    recipe = replace(
        quick(plain_digits_small(), loss=Margin(), groups={"beta": Sgd(lr=0.5)}), epochs=4, milestones=(1, 3)
    )
    trainer = prepare(recipe, Digits().load(), Accelerator(cpu=True))
    rates = []
    for epoch in range(4):
        trainer.position.epoch = epoch
        trainer.step(next(trainer.loaded(trainer.batches())))
        rates.append([o.param_groups[0]["lr"] for o in trainer.optimisers.values()])
    expected = [[2e-3 * f, 0.5 * f] for f in (1, 0.1, 0.1, 0.01)]
    assert rates == [pytest.approx(pair) for pair in expected]


@pytest.mark.parametrize("milestones", [(0,), (3, 2), (2, 2)])
def test_milestones_that_are_no_epochs_in_order_are_refused(milestones):
    with pytest.raises(ValueError, match="milestones are epochs from 1 on"):
        replace(plain_digits_small(), milestones=milestones)


@pytest.mark.parametrize("batches", [ClassBatches(24), TripletBatches(24)], ids=lambda b: type(b).__name__)
def test_other_batches_train_a_triplet_loss_and_are_monitored(tmp_path, batches):
    recipe = quick(plain_digits_small(), batches=batches, loss=Triplet(miner=RandomTriplet()))
    recipe = replace(recipe, accumulate=3)
    entries = log(train(recipe, tmp_path / "run", device="cpu"))
    assert entries[-1]["loss"] < entries[0]["loss"]
    assert 0 < entries[0]["active_triplets"] <= 1


@pytest.mark.parametrize("accumulate", [1, 300])
def test_batch_normalisation_gets_two_images_at_least(accumulate):
    data = Digits().load()
    assert len(data.split.train) % 359 == 1
    recipe = replace(plain_digits_small(), model=SmallResNet(8), loss=MultiSimilarity(), batches=ClassBatches(359))
    trainer = prepare(replace(recipe, accumulate=accumulate), data, Accelerator(cpu=True))
    batch = next(trainer.loaded([trainer.batches()[-1][:5]]))
    assert len(trainer.batches()[-1]) == 180
    trainer.step(batch)  # of five images in two parts at most


def test_ready_triplets_are_trained_as_they_come():
    class Refusing:
        def __call__(self, z, labels, distance, *, draws, index):
            raise AssertionError("mined although the batch holds triplets")

    adversary = Adversary(Linf(0.1), Pgd(2, 0.05))
    for defense in (plain_digits_small().defense, AntiCollapse(adversary)):
        recipe = quick(plain_digits_small(), batches=TripletBatches(8), loss=Triplet(miner=Refusing()))
        trainer = prepare(replace(recipe, defense=defense), Digits().load(), Accelerator(cpu=True))
        batch = next(trainer.loaded(trainer.batches()))
        trainer.step(batch)
        assert "active_triplets" in trainer.monitors(batch)
        labels = batch.labels.reshape(-1, 3)
        assert bool((labels[:, 0] == labels[:, 1]).all())
        assert bool((labels[:, 0] != labels[:, 2]).all())


@pytest.mark.parametrize("loss", [Triplet(), Contrastive(), Margin(), Snr()], ids=lambda loss: type(loss).__name__)
def test_triplets_whose_negative_gets_no_gradient_are_not_active(loss):
    z = torch.randn(40, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (gradient,) = torch.autograd.grad(loss.on_triplets(z), z)
    assert torch.equal(loss.active(z), (gradient[:, 2] != 0).any(dim=1))


def test_a_device_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match="was asked for"):
        train(quick(plain_digits_small()), tmp_path / "run", device="xla")


@pytest.mark.parametrize("length", [640, 0x4B50], ids=["like a pickle", "like a zip"])
def test_weights_whose_header_length_looks_like_a_pickle_are_read(tmp_path, length):
    text = '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    header = text.encode().ljust(length)
    (tmp_path / "w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    assert read_weights(tmp_path / "w.safetensors")["a"].tolist() == [0.0]


@pytest.fixture
def pictures(tmp_path):
    """A folder of eight classes of three noisy pictures, 12x12, whose training views are random parts."""
    noise = torch.rand(24, 12, 12, 3, generator=torch.Generator().manual_seed(0)).mul(255).byte().numpy()
    for i, values in enumerate(noise):
        file = tmp_path / "pictures" / f"class{i // 3}" / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(file)
    return Folder(str(tmp_path / "pictures"), augment=True)


def test_workers_and_cache_do_not_change_a_bit(tmp_path, pictures):
    recipe = quick(plain_digits_small(), data=pictures, batches=Spc2(4))
    runs = [
        weights(train(recipe, tmp_path / str(i), data_root=tmp_path, device="cpu", **how))
        for i, how in enumerate(({}, {"workers": 1}, {"cache": True}))
    ]
    assert all(torch.equal(runs[0][k], other[k]) for other in runs[1:] for k in runs[0])
    plain = weights(train(replace(recipe, data=replace(pictures, augment=False)), tmp_path / "plain", device="cpu"))
    assert not all(torch.equal(runs[0][k], plain[k]) for k in plain)


def test_views_are_the_same_when_a_run_goes_on_in_the_middle_of_an_epoch(pictures):
    trainer = prepare(
        quick(plain_digits_small(), data=pictures, batches=Spc2(4)), pictures.load(), Accelerator(cpu=True)
    )
    steps = trainer.batches()
    whole = list(trainer.loaded(steps))
    for one, other in zip(trainer.loaded(steps[1:]), whole[1:], strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.index, other.index)


def test_a_damaged_image_stops_the_training_unless_it_may_be_skipped(tmp_path, pictures):
    data = pictures.load()
    name = data.images.names[int(data.split.train[0])]
    (tmp_path / "pictures" / name).write_bytes(b"no image")
    recipe = quick(plain_digits_small(), data=replace(pictures, image_size=12), batches=Spc2(4))
    with pytest.raises(DataError, match=rf"{name} cannot be read as an image"):
        train(recipe, tmp_path / "run", device="cpu")
    with pytest.warns(UserWarning, match=rf"rows of a batch were skipped: .*{name}"):
        folder = train(replace(recipe, damaged="skip"), tmp_path / "other", device="cpu")
    assert checkpoint(folder).folder.exists()
