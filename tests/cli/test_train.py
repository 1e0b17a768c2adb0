"""robustdml train: fields, resuming, interruption at any moment, several processes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.cli.conftest import COMMAND, ENVIRONMENT, finish, run, start, wait_for

SMALL = ("train", "plain-digits-small", "--device", "cpu")


def weights(folder):
    return load_file(folder / "checkpoints" / "last" / "model.safetensors")


def equal(a, b, tolerance=0.0):
    a, b = weights(a), weights(b)
    return a.keys() == b.keys() and all(float((a[k] - b[k]).abs().max()) <= tolerance for k in a)


def test_a_run_folder_explains_itself(here):
    code, out, err = run(
        *SMALL, "--epochs", 1, "--loss.margin", "1/4", "--loss.miner", "SoftHard", "--test", "--json", cwd=here
    )
    assert code == 0, err
    told = json.loads(out)
    folder = here / "runs" / "plain-digits-small"
    assert told["run"] == "runs/plain-digits-small"
    assert told["evaluation"]["clean"]["recall@1"] > 0.5
    recipe = json.loads((folder / "recipe.json").read_text())
    assert (recipe["epochs"], recipe["loss"]["margin"], recipe["loss"]["miner"]["type"]) == (1, 0.25, "SoftHard")
    command = "train plain-digits-small --device cpu --epochs 1 --loss.margin 1/4 --loss.miner SoftHard --test --json"
    assert json.loads((folder / "provenance.json").read_text())["command"] == f"robustdml {command}"
    assert json.loads((folder / "evaluation.json").read_text()) == told["evaluation"]


def test_a_killed_run_resumes_to_the_same_bits(here, call):
    """Killed before its first checkpoint, and after it in the middle of an epoch."""
    words = (*SMALL, "--epochs", 3, "--defense", "Plain", "--quiet")
    assert call(*words, "--out", "whole")[0] == 0
    for name, moment in (("early", "recipe.json"), ("late", "checkpoints/last")):
        process = start(*words, "--out", name, cwd=here)
        wait_for((here / name / moment).exists, process)
        process.kill()
        process.communicate()
    for name in ("early", "late"):
        code, _, err = call(*words, "--out", name, "--resume")
        assert code == 0, err
        assert equal(here / "whole", here / name)
        assert [p.name for p in (here / name / "checkpoints").iterdir() if p.name != "last"] == ["epoch-3-step-0"]
        steps = [json.loads(line)["step"] for line in (here / name / "log.jsonl").read_text().splitlines()]
        assert steps == [1, 49]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_inside_the_epoch_and_says_how_to_go_on(here, call, number):
    words = ("train", "act-digits-small", "--device", "cpu", "--epochs", 1)
    if number == signal.SIGINT:
        assert call(*words, "--out", "whole", "--quiet")[0] == 0
    process = start(*words, "--out", "run", cwd=here)
    wait_for((here / "run" / "log.jsonl").exists, process)
    process.send_signal(number)
    code, out, err = finish(process)
    assert (code, out) == (130, "")
    assert "robustdml train act-digits-small --out run --resume --device cpu" in err
    assert not weights(here / "run")["layers.0.weight"].isnan().any()
    assert "step-0" not in (here / "run" / "checkpoints" / "last").resolve().name
    if number == signal.SIGINT:
        code, _, err = call("train", "act-digits-small", "--out", "run", "--resume", "--device", "cpu")
        assert code == 0, err
        assert equal(here / "whole", here / "run")


def test_ctrl_c_for_the_whole_group_stops_training_and_workers(here):
    """As a terminal sends it: workers leave the signal to the training process, and end with it."""
    words = (*SMALL, "--workers", "1", "--epochs", "500", "--batches.pairs", "16", "--out", "run")
    process = subprocess.Popen(
        [*COMMAND, *map(str, words)], cwd=here, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    wait_for((here / "run" / "log.jsonl").exists, process)
    os.killpg(process.pid, signal.SIGINT)
    code, _, err = finish(process)
    assert code == 130
    assert "Traceback" not in err
    assert "--out run --resume --device cpu --workers 1" in err
    limit = time.monotonic() + 30
    while time.monotonic() < limit:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("a worker outlived the training")


def test_ctrl_c_before_the_first_step(here):
    process = start(*SMALL, cwd=here)
    wait_for(lambda: "libtorch" in Path(f"/proc/{process.pid}/maps").read_text(), process)
    process.send_signal(signal.SIGINT)
    code, _, err = finish(process)
    assert code == 130
    assert "Traceback" not in err
    assert "robustdml train plain-digits-small" in err


def test_two_processes_train_what_one_trains_in_two_parts(here, call):
    shared = ("--epochs", 1, "--validation.share", 0.2, "--quiet")
    assert call(*SMALL, *shared, "--batches.pairs", 64, "--accumulate", 2, "--out", "one")[0] == 0
    code, _, err = run(*SMALL, *shared, "--batches.pairs", 32, "--processes", 2, "--out", "two", cwd=here)
    assert code == 0, err
    assert equal(here / "one", here / "two", 1e-6)
    assert json.loads((here / "two" / "provenance.json").read_text())["processes"] == 2


def test_two_machines_train_what_one_trains_in_two_parts(here, call):
    """Two torchrun agents that meet over TCP, as on two machines; launched as in examples/slurm.sbatch."""
    shared = ("--epochs", 1, "--quiet")
    assert call(*SMALL, *shared, "--batches.pairs", 64, "--accumulate", 2, "--out", "one")[0] == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    agents = []
    for node in range(2):
        words = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--node-rank", str(node)]
        words += ["--nproc-per-node", "1", "--master-addr", "127.0.0.1", "--master-port", str(port)]
        words += ["-m", "robustdml.cli.main", *map(str, (*SMALL, *shared, "--batches.pairs", 32, "--out", "two"))]
        agents.append(
            subprocess.Popen(
                words, cwd=here, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        )
    for agent in agents:
        code, _, err = finish(agent)
        assert code == 0, err
    assert equal(here / "one", here / "two", 1e-6)
    assert json.loads((here / "two" / "provenance.json").read_text())["processes"] == 2


def test_two_processes_are_interrupted_together(here):
    words = ("train", "act-digits-small", "--device", "cpu", "--epochs", 5, "--processes", 2, "--out", "run")
    process = start(*words, cwd=here)
    wait_for((here / "run" / "log.jsonl").exists, process)
    process.send_signal(signal.SIGINT)
    code, _, err = finish(process)
    assert code == 130
    assert "robustdml train act-digits-small --out run --resume --device cpu --processes 2" in err
    assert "Traceback" not in err
    assert (here / "run" / "checkpoints" / "last" / "state-1.pt").exists()


def test_several_processes_tell_one_failure_with_its_code(here):
    code, out, err = run(
        "train", "plain-mnist-c2f2", "--processes", 2, "--device", "cpu", cwd=here, HOME=str(here), ROBUSTDML_DATA=""
    )
    assert (code, out) == (4, "")
    assert err.count("mnist was not found") == 1
    assert not (here / "runs").exists()


def test_a_folder_that_holds_a_run_is_left_alone(trained, call):
    before = {p: p.stat().st_mtime_ns for p in trained.rglob("*")}
    code, _, err = call(*SMALL, "--out", trained)
    assert code == 2
    assert "--resume" in err
    assert {p: p.stat().st_mtime_ns for p in trained.rglob("*")} == before


def test_a_finished_run_resumes_to_itself(trained, call):
    before = weights(trained)
    assert call(*SMALL, "--out", trained, "--resume", "--quiet")[0] == 0
    assert all((before[k] == v).all() for k, v in weights(trained).items())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--epochs", 5), "--epochs 5 differs from the recipe"),
        (("--seed", 1), "--seed 1 differs"),
    ],
)
def test_resuming_with_other_settings_is_refused(trained, call, words, said):
    code, _, err = call(*SMALL, "--out", trained, "--resume", *words)
    assert code == 2
    assert said in err


def test_resuming_another_recipe_is_refused(trained, call):
    code, _, err = call("train", "act-digits-small", "--out", trained, "--resume")
    assert code == 2
    assert "robustdml train plain-digits-small" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("act-fashion",), "Did you mean act-fashion-c2f2"),
        (("plain-digits-small", "--epoch", 3), "Did you mean epochs?"),
        (("plain-digits-small", "--epochs", 0), "epochs >= 1"),
        (("plain-digits-small", "--epochs"), "--epochs needs a value"),
        (("plain-digits-small", "--epochs", "many"), "expected int, got 'many'"),
        (("plain-digits-small", "stray"), "cannot read 'stray'"),
        (("plain-digits-small", "--loss.miner", "SemiHrd"), "Did you mean SemiHard"),
        (("plain-digits-small", "--defense", "AntiCollapse"), "it needs adversary, which Plain has not"),
        (("plain-digits-small", "--loss", "Triplett"), "Did you mean Triplet or Quadruplet? Known: Contrastive"),
        (("plain-digits-small", "--model.dim", 0), "SmallConv needs dim >= 1, got 0"),
        (("act-digits-small", "--defense.adversary.ball.eps", "-1/255"), "eps must be"),
        (("act-digits-small", "--defense.adversary.search.steps", 0), "steps >= 1"),
        (("plain-digits-small", "--data", "digit"), "Did you mean digits?"),
        (("plain-digits-small", "--device", "tpu9"), "--device must be"),
        (("plain-digits-small", "--processes", 0), "--processes must be at least 1"),
        (("plain-digits-small", "--model", "Pixels"), "no weights to train"),
        (("fashion:rc2f2q:ptripletN",), "is not available"),
    ],
)
def test_misuse_is_answered_in_words(here, call, words, said):
    code, out, err = call("train", *words)
    assert (code, out) == (2, "")
    assert said in err
    assert not (here / "runs").exists()


def test_a_dry_run_needs_no_data_and_counts(here, call):
    code, out, _ = call("train", "act-mnist-c2f2", "--dry-run", "--json", "--data-root", here)
    plan = json.loads(out)
    assert code == 0
    # clean mining, 32 steps on the pairs, and the final triplets: 256 + 32 * 256 + 384 rows for 256 images
    assert (plan["forward_per_image"], plan["backward_per_image"]) == (34.5, 33.5)
    assert plan["steps"] == 8 * 469
    assert plan["recipe"]["defense"]["type"] == "AntiCollapse"
    assert not list(here.iterdir())
    assert "eps 77/255 = 0.302" in call("train", "act-mnist-c2f2", "--dry-run")[1]


def test_a_dry_run_of_a_mixture_weighs_both_branches_whatever_the_coin_shows(here, call):
    """ACT or nothing; the passes are those of both, by share, and the memory is the larger one."""

    def planned(*words):
        return json.loads(call("train", *words, "--dry-run", "--json", "--data-root", here)[1])

    act, plain = planned("mnist:rc2f2p:ptripletN"), planned("mnist:rc2f2:ptripletN")
    for seed in range(3):
        mixed = planned("mnist:rc2f2px:ptripletN", "--defense.share", "0.25", "--seed", str(seed))
        for key in ("forward_per_image", "backward_per_image", "forward"):
            assert mixed[key] == pytest.approx(0.25 * act[key] + 0.75 * plain[key])
        assert mixed["memory_mib"] == max(act["memory_mib"], plain["memory_mib"])
    penalised = planned("mnist:rc2f2px:ptripletBTN")
    assert penalised["forward_per_image"] == pytest.approx((act["forward_per_image"] + plain["forward_per_image"]) / 2)


@pytest.mark.parametrize(
    ("name", "forward", "backward"),
    [
        ("hm-lga-ics-mnist-c2f2", 1 + 32 * 1.5 + 1 + 1.5, 32 * 1.5 + 1 + 1.5),
        ("amdsemi-fashion-c2f2", 1 + 32 * 1.5 + 1.5, 32 * 1.5 + 1.5),
        ("catride-fashion-c2f2", 1 + 16 * (1 + 0.5) / 2 + 1.5, 16 * (1 + 0.5) / 2 + 1.5),
    ],
)
def test_a_dry_run_counts_all_steps_that_a_defense_may_take(here, call, name, forward, backward):
    """Although triplets of the random network that stands in are solved at once, and ramps begin with no step."""
    plan = json.loads(call("train", name, "--dry-run", "--json", "--data-root", here)[1])
    assert (plan["forward_per_image"], plan["backward_per_image"]) == pytest.approx((forward, backward))


def test_prototypes_that_are_not_there_are_a_missing_file(here, call):
    words = ("--loss", "FrozenPrototypes", "--loss.file", str(here / "none.safetensors"))
    code, _, err = call("train", "plain-digits-small", *words)
    assert code == 4
    assert "no readable safetensors file" in err


def test_impossible_recipes_in_a_file(here, call):
    recipe = here / "recipe.json"
    assert call("train", recipe)[0] == 4
    recipe.write_text("{")
    assert call("train", recipe)[0] == 4
    call("train", "act-digits-small", "--dry-run", "--json")
    recipe.write_text(json.dumps({"type": "Recipe", "name": "x", "nets": 1}))
    code, _, err = call("train", recipe)
    assert code == 2
    assert "has no field 'nets'" in err


@pytest.mark.parametrize("out", ["/proc/run", "file/run"])
def test_an_output_folder_that_cannot_be_written(here, call, out):
    (here / "file").touch()
    code, _, err = call(*SMALL, "--out", out)
    assert code == 1
    assert "cannot write" in err
    assert "--out" in err


def test_a_full_disk_leaves_the_last_checkpoint_alone(here, call):
    line = "ulimit -f 200; exec "
    words = f"{sys.executable} -m robustdml.cli.main train plain-digits-small --epochs 1 --out run --device cpu"
    done = subprocess.run(
        ["bash", "-c", line + words], cwd=here, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "cannot write" in done.stderr
    assert list((here / "run" / "checkpoints").iterdir()) == []
    assert not list((here / "run").rglob("*.part"))
    assert call(*SMALL, "--out", "run", "--resume")[0] == 0


def test_a_test_afterwards_shows_its_scores_and_a_plan_shows_the_recipe(here, call):
    code, out, _ = call("train", "plain-digits-small", "--epochs", 1, "--test", "--out", "run", "--resume")
    assert code == 0
    assert "NMI" in out
    assert "written: run/evaluation.json" in out
    code, out, _ = call("train", "fashion:rc2f2p:pstripletN", "--dry-run")
    assert code == 0
    for line in ("loss: Triplet (margin 0.2", "miner: SoftHard", "ball: Linf (eps 77/255 = 0.302)", "Adam (lr 0.001"):
        assert line in out


def test_there_being_nothing_to_resume_is_said(here, call):
    _, _, err = call("train", "plain-digits-small", "--epochs", 1, "--out", "run", "--resume")
    assert "nothing to resume in run: beginning" in err


def test_a_tracker_gets_the_numbers_of_the_log(here, call):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    words = ("--epochs", 1, "--validation.share", 0.2, "--out", "run", "--track", "tensorboard", "--quiet")
    code, _, err = call(*SMALL, *words)
    assert code == 0, err
    events = EventAccumulator(str(here / "run" / "tensorboard")).Reload()
    log = [json.loads(line) for line in (here / "run" / "log.jsonl").read_text().splitlines()]
    losses = {e["step"]: e["loss"] for e in log if "loss" in e}
    assert {e.step: pytest.approx(e.value) for e in events.Scalars("loss")} == losses
    assert events.Scalars("validation/recall@1")[-1].value == pytest.approx(log[-1]["validation"]["recall@1"])


def test_a_tracker_that_is_not_there_is_named(here, call, monkeypatch):
    monkeypatch.setattr("robustdml.train.find_spec", lambda name: None)
    code, _, err = call(*SMALL, "--epochs", 1, "--out", "run", "--track", "wandb")
    assert code == 1
    assert "--track wandb needs the package wandb. Install it with: pip install wandb" in err
    assert not (here / "run").exists()
