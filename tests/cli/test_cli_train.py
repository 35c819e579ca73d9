"""``her2bridge train``: it makes a model, and neither Ctrl-C nor a kill costs what was reached."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from cli_calls import call, events_of, is_three_parts, spawn, types_of
from conftest import contents

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from made_trainings import QUICK, tiny_bundle, tiny_dataset

from her2bridge.model.bundle import Bundle, load_bundle
from her2bridge.training.dataset import Dataset
from her2bridge.training.folds import load_folds
from her2bridge.training.train import TrainSettings, train_bundle

EPOCHS = 40
"""Enough for a process to be stopped in between; each takes some milliseconds."""


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("start") / "tiny")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def unstopped(dataset: Dataset, start: Bundle, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The weights of a training of so many epochs that nothing disturbed, as ``long`` starts it."""
    recipe = replace(QUICK, name="paper", **PAPERS)
    out = tmp_path_factory.mktemp("unstopped") / "mine"
    made = train_bundle(dataset, out, TrainSettings(start, recipe=recipe, device="cpu"), lambda event: None)
    return (made.path / "weights.safetensors").read_bytes()


PAPERS = {"epochs": EPOCHS, "learning_rate": 0.1, "nesterov": False, "weight_decay": 1e-3, "decay_all": True}
PAPERS |= {"label_smoothing": 0.0, "balance": "none"}


def long(dataset: Dataset, start: Bundle, out: Path) -> tuple[str | Path, ...]:
    """The command of a training of so many epochs by the paper's recipe."""
    options = ("--from", start.path, "--recipe", "paper", "--epochs", str(EPOCHS), "--batch-size", "8")
    return ("train", dataset.folder, "--out", out, *options, "--device", "cpu", "--json")


def test_it_makes_a_model_and_says_how_good_it_is(dataset: Dataset, start: Bundle, tmp_path: Path) -> None:
    options = ("--from", start.path, "--epochs", "2", "--batch-size", "8", "--device", "cpu")
    told = call("train", dataset.folder, "--out", tmp_path / "mine", *options)
    assert told.exit_code == 0, told.stderr
    card = load_bundle(tmp_path / "mine").card
    metrics = card["metrics"]
    assert f"Measured on {metrics['measured_on']}: 36 tiles" in told.stdout
    lines = {line.split()[0]: line.split()[1:] for line in told.stdout.splitlines() if line.strip()}
    for name in ("precision", "recall"):
        assert lines[name] == [f"{100 * value:.1f}" for value in metrics[name].values()]
    assert f"Accuracy {metrics['accuracy']:.3f}, macro-F1 {metrics['macro_f1']:.3f}" in told.stdout
    assert f"temperature {card['temperature']:.3g}" in told.stdout
    assert "It began as tiny" in told.stdout
    assert "Research use only" in told.stdout
    assert "epoch 2/2" in told.stderr


def test_as_json_with_every_option(dataset: Dataset, start: Bundle, tmp_path: Path) -> None:
    options = ("--from", start.path, "--attention", "gct", "--recipe", "paper", "--epochs", "1", "--batch-size", "9")
    more = (
        "--lr",
        "0.02",
        "--seed",
        "7",
        "--device",
        "cpu",
        "--precision",
        "fp32",
        "--balance",
        "loss",
        "--folds",
        "2",
    )
    last = ("--labels-by", "me", "--name", "a b", "--model-version", "3", "--restart", "--force", "--json")
    told = call("train", dataset.folder, "--out", tmp_path / "mine", *options, *more, *last)
    assert told.exit_code == 0, told.stderr
    found = events_of(told.stdout)
    assert types_of([one for one in found if one["type"] != "task_progress"]) == [
        *(["training_started", "epoch_finished"] * 3),
        "bundle_written",
    ]
    bundle = load_bundle(tmp_path / "mine")
    assert (found[-1]["model"], found[-1]["sha256"]) == ("a b 3", bundle.sha256)
    training = bundle.card["training"]
    recipe = training["recipe"]
    assert (recipe["name"], recipe["epochs"], recipe["batch_size"], recipe["learning_rate"]) == ("paper", 1, 9, 0.02)
    assert (recipe["balance"], training["seed"], training["labels_by"]["stated"]) == ("loss", 7, "me")
    assert len(load_folds(tmp_path / "mine-folds").folds) == 2


def test_slides_that_have_moved(start: Bundle, tmp_path: Path) -> None:
    dataset = tiny_dataset(tmp_path / "here", ["train", "val"])
    (tmp_path / "here" / "slides").rename(tmp_path / "there")
    options = ("--from", start.path, "--epochs", "1", "--device", "cpu", "--out", tmp_path / "mine")
    told = call("train", dataset.folder, *options)
    assert told.exit_code == 1
    assert is_three_parts(told.stderr)
    moved = f"{tmp_path / 'here' / 'slides'}={tmp_path / 'there'}"
    assert call("train", dataset.folder, *options, "--relocate", moved).exit_code == 0


def test_a_killed_training_goes_on_to_the_same_weights(
    dataset: Dataset, start: Bundle, unstopped: bytes, tmp_path: Path
) -> None:
    command = long(dataset, start, tmp_path / "mine")
    with spawn(*command) as process:
        _hear(process, epochs=3)
        process.kill()
        process.wait(60)
    assert not (tmp_path / "mine").exists()
    told = call(*command)
    assert told.exit_code == 0, told.stderr
    found = events_of(told.stdout)
    began = next(event["epoch"] for event in found if event["type"] == "training_started")
    assert 2 <= began < EPOCHS  # an epoch is told before it is kept
    assert (tmp_path / "mine" / "weights.safetensors").read_bytes() == unstopped
    epochs = [json.loads(line)["epoch"] for line in (tmp_path / "mine" / "metrics.jsonl").read_text().splitlines()]
    assert epochs == list(range(1, EPOCHS + 1))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]


def test_ctrl_c(dataset: Dataset, start: Bundle, unstopped: bytes, tmp_path: Path) -> None:
    command = long(dataset, start, tmp_path / "mine")
    with spawn(*command) as process:
        _hear(process, epochs=2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Stopped by Ctrl-C" in err
    assert b"Give the same command again" in err
    last = json.loads(out.splitlines()[-1])
    assert (last["type"], last["error"], last["exit_code"]) == ("failed", "Interrupted", 130)
    assert not (tmp_path / "mine").exists()
    assert call(*command).exit_code == 0
    assert (tmp_path / "mine" / "weights.safetensors").read_bytes() == unstopped


def _hear(process: subprocess.Popen[bytes], epochs: int) -> None:
    """Wait until a process has told that so many epochs are done."""
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["type"] == "epoch_finished":
            epochs -= 1
            if not epochs:
                return
    raise AssertionError("it ended before it could be stopped")


@pytest.mark.slow
def test_two_processes_train_together(dataset: Dataset, start: Bundle, tmp_path: Path) -> None:
    """Each of them reads, one writes and tells."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "her2bridge"]
    options = ["--from", str(start.path), "--epochs", "6", "--batch-size", "8", "--device", "cpu", "--json"]
    out = ["train", str(dataset.folder), "--out", str(tmp_path / "mine"), "--folds", "2"]
    done = subprocess.run([*command, *out, *options], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    found = events_of(done.stdout)
    assert types_of(found).count("bundle_written") == 1
    assert types_of(found).count("epoch_finished") == 18
    assert load_bundle(tmp_path / "mine").card["metrics"]["tiles"] == 36
    assert len(load_folds(tmp_path / "mine-folds").folds) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        ("--recipe", "new"),
        ("--attention", "cbam"),
        ("--attention", "se"),
        ("--epochs", "0"),
        ("--batch-size", "1"),
        ("--lr", "0"),
        ("--balance", "x"),
        ("--device", "x"),
        ("--precision", "fp16"),
        ("--folds", "1"),
        ("--folds", "-1"),
        ("--seed", "-1"),
        ("--name", ""),
        ("--relocate", "x"),
        ("--from", "nowhere"),
    ],
)
def test_wrong_usage(dataset: Dataset, start: Bundle, tmp_path: Path, wrong: tuple[str, str]) -> None:
    begin = () if wrong[0] == "--from" else ("--from", start.path)
    told = call("train", dataset.folder, "--out", tmp_path / "mine", *begin, *wrong)
    assert told.exit_code == 2
    assert wrong[1] == "-1" or is_three_parts(told.stderr)
    assert not (tmp_path / "mine").exists()


def test_no_dataset(tmp_path: Path) -> None:
    told = call("train", tmp_path, "--out", tmp_path / "mine")
    assert told.exit_code == 2
    assert "her2bridge labels" in told.stderr


def test_a_model_that_is_there(dataset: Dataset, tmp_path: Path) -> None:
    tiny_bundle(tmp_path / "mine")
    before = contents(tmp_path)
    told = call("train", dataset.folder, "--out", tmp_path / "mine")
    assert told.exit_code == 2
    assert "--force" in told.stderr
    assert contents(tmp_path) == before
