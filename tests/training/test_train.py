"""From a dataset to a bundle that says what it learned from, and whose figures are its own."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import contents
from made_evaluations import LABELS, coloured
from made_trainings import QUICK, tiny_bundle, tiny_dataset
from PIL import Image

from her2bridge.errors import NotEnoughLabels, UsageError
from her2bridge.events import BundleWritten, EpochFinished, Event, TrainingStarted, Warned
from her2bridge.inference.runtime.base import softmax
from her2bridge.model.bundle import Bundle, load_bundle
from her2bridge.training.dataset import Dataset
from her2bridge.training.fit import logits_of
from her2bridge.training.folds import load_folds
from her2bridge.training.metrics import confusion
from her2bridge.training.recipes import PAPER
from her2bridge.training.reliability import reliability_of
from her2bridge.training.samples import samples_of
from her2bridge.training.temperature import fit_temperature
from her2bridge.training.train import TrainSettings, folds_of, train_bundle, work_of


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("start") / "tiny")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Five patients: two train, two val, one test."""
    return tiny_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def quick(start: Bundle) -> TrainSettings:
    return TrainSettings(start, recipe=QUICK, seed=3, device="cpu", labels_by="two pathologists")


@pytest.fixture(scope="module")
def trained(
    dataset: Dataset, quick: TrainSettings, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Bundle, list[Event]]:
    """A bundle that nobody writes to, and what was told while it was made."""
    told: list[Event] = []
    return train_bundle(dataset, tmp_path_factory.mktemp("out") / "mine", quick, told.append), told


def warnings_of(told: list[Event]) -> list[str]:
    return [event.message for event in told if isinstance(event, Warned)]


def silent(event: Event) -> None:
    pass


def stop_at(epoch: int, title: str = "") -> Callable[[Event], None]:
    """Ctrl-C, as it were, when an epoch has ended."""

    def hear(event: Event) -> None:
        if isinstance(event, EpochFinished) and (event.title, event.epoch) == (title, epoch):
            raise KeyboardInterrupt

    return hear


def test_what_it_leaves(trained: tuple[Bundle, list[Event]]) -> None:
    bundle, told = trained
    assert sorted(contents(bundle.path)) == ["card.json", "curves.png", "metrics.jsonl", "weights.safetensors"]
    assert [path.name for path in bundle.path.parent.iterdir()] == ["mine"]
    epochs = [json.loads(line) for line in (bundle.path / "metrics.jsonl").read_text().splitlines()]
    assert [one["epoch"] for one in epochs] == [1, 2]
    assert epochs[1]["loss"] == [event.loss for event in told if isinstance(event, EpochFinished)][1]
    with Image.open(bundle.path / "curves.png") as picture:
        assert picture.format == "PNG"
    assert told[-1] == BundleWritten(str(bundle.path), "mine 1.0.0", bundle.sha256)
    assert not warnings_of(told)


def test_the_card_says_what_it_learned_from(
    trained: tuple[Bundle, list[Event]], dataset: Dataset, start: Bundle
) -> None:
    card = trained[0].card
    training = card["training"]
    assert training["slides"] == sorted(slide.fingerprint for slide in dataset.slides[:4])
    assert training["dataset"] == dataset.sha256
    assert training["tiles"] == {"train": dict.fromkeys(LABELS, 6), "val": dict.fromkeys(LABELS, 6)}
    assert training["labels_by"] == {"annotators": 1, "stated": "two pathologists"}
    assert training["data"] == "72 labelled tiles of 4 slides of 4 patients"
    assert (training["recipe"]["name"], training["recipe"]["epochs"], training["seed"]) == ("modern", 2, 3)
    assert training["start"] == {"bundle": "tiny", "sha256": start.sha256}
    assert (card["patch_size_px"], card["spacing_um_px"]) == (16, 1.0)
    assert card["transform"]["mean"] == [0.4] * 3
    assert "Research use only." in card["limits"]
    assert any("two pathologists" in limit and "72 labelled tiles" in limit for limit in card["limits"])
    assert not any("Tiles of one slide" in limit for limit in card["limits"])


def test_its_figures_are_those_of_the_weights_that_are_kept(
    trained: tuple[Bundle, list[Event]], dataset: Dataset
) -> None:
    bundle = trained[0]
    validation = samples_of(dataset, dataset.tiles.rows_of("val"), None, silent)
    logits = logits_of(bundle.network(), validation, device="cpu", transform=((0.4,) * 3, (0.5,) * 3))
    metrics = bundle.card["metrics"]
    table = confusion(validation.labels, logits.argmax(axis=1))
    assert metrics["confusion"] == {"order": list(LABELS), "rows_truth_columns_predicted": table.tolist()}
    assert metrics["accuracy"] == pytest.approx(table.trace() / 36, abs=1e-4)
    assert metrics["recall"]["1+"] == pytest.approx(table[1, 1] / 6, abs=1e-4)
    assert bundle.temperature == pytest.approx(fit_temperature(logits, validation.labels), rel=1e-9)
    assert bundle.temperature != 1.0
    errors = metrics["expected_calibration_error"]
    for key, temperature in (("before_temperature", 1.0), ("with_it", bundle.temperature)):
        wanted = float(reliability_of(validation.labels, softmax(logits, temperature)).error)
        assert errors[key] == pytest.approx(wanted, abs=1e-3)


def test_it_learns(dataset: Dataset, start: Bundle, tmp_path: Path) -> None:
    settings = TrainSettings(start, recipe=replace(QUICK, epochs=12), device="cpu", name="learned", version="2.1")
    bundle = train_bundle(dataset, tmp_path / "mine", settings, silent)
    assert bundle.card["metrics"]["accuracy"] > 0.9
    assert (bundle.name, bundle.version) == ("learned", "2.1")


def test_test_tiles_are_not_touched(quick: TrainSettings, tmp_path: Path) -> None:
    dataset = tiny_dataset(tmp_path)
    dataset.slides[4].source.path.unlink()
    assert load_bundle(train_bundle(dataset, tmp_path / "mine", quick, silent).path)


def test_folds_have_not_seen_whom_they_hold_out(dataset: Dataset, quick: TrainSettings, tmp_path: Path) -> None:
    told: list[Event] = []
    bundle = train_bundle(dataset, tmp_path / "mine", replace(quick, folds=2, name="m"), told.append)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "mine-folds"]
    folds = load_folds(folds_of(bundle.path))
    assert folds.dataset == dataset.sha256
    assert sorted(patient for fold in folds.folds for patient in fold.patients) == ["p0", "p1", "p2", "p3"]
    assert not warnings_of(told)
    trained_on = {slide.fingerprint for slide in dataset.slides[:4]}
    for number, fold in enumerate(folds.folds):
        one = load_bundle(folds.folder / fold.bundle)
        assert one.name == f"m-fold-{number}"
        assert set(one.card["training"]["slides"]) == trained_on - set(fold.slides)
        assert one.card["training"]["tiles"]["train"] == dict.fromkeys(LABELS, 3 * (4 - len(fold.patients)))
        assert (one.temperature, one.card["metrics"]["tiles"]) == (bundle.temperature, 0)
        assert (one.path / "metrics.jsonl").is_file()
    assert folds.bundle_for(dataset.slides[4].fingerprint) is None
    assert {event.title for event in told if isinstance(event, TrainingStarted)} == {
        "",
        "fold 1 of 2",
        "fold 2 of 2",
    }
    assert [event for event in told if isinstance(event, BundleWritten)] == told[-1:]


def test_one_file_under_two_patients_is_held_out_with_either(quick: TrainSettings, tmp_path: Path) -> None:
    dataset = tiny_dataset(tmp_path, ["train", "train", "val"])
    one, _, other = dataset.slides
    same = replace(dataset.slides[1], source=one.source, fingerprint=one.fingerprint)  # one file, two patients
    bundle = train_bundle(
        replace(dataset, slides=(one, same, other)), tmp_path / "mine", replace(quick, folds=3), silent
    )
    for fold in load_folds(folds_of(bundle.path)).folds:
        learned = load_bundle(folds_of(bundle.path) / fold.bundle).card["training"]["slides"]
        assert sorted([*learned, *fold.slides]) == sorted([one.fingerprint, other.fingerprint])


def test_stopped_it_goes_on_to_the_same_weights(
    trained: tuple[Bundle, list[Event]], dataset: Dataset, quick: TrainSettings, tmp_path: Path
) -> None:
    out = tmp_path / "mine"
    with pytest.raises(KeyboardInterrupt):
        train_bundle(dataset, out, quick, stop_at(2))
    assert not out.exists()
    assert (work_of(out) / "checkpoint.safetensors").is_file()
    told: list[Event] = []
    bundle = train_bundle(dataset, out, quick, told.append)
    assert [event.epoch for event in told if isinstance(event, TrainingStarted)] == [1]
    assert bundle.card["hashes"] == trained[0].card["hashes"]
    assert not work_of(out).exists()


def test_stopped_in_a_fold_it_goes_on_there(dataset: Dataset, quick: TrainSettings, tmp_path: Path) -> None:
    out, settings = tmp_path / "mine", replace(quick, folds=2)
    with pytest.raises(KeyboardInterrupt):
        train_bundle(dataset, out, settings, stop_at(2, "fold 1 of 2"))
    before = load_bundle(out).card["hashes"]
    assert not (folds_of(out) / "folds.json").exists()
    with pytest.raises(UsageError, match="a trained model already"):
        train_bundle(dataset, out, replace(settings, restart=True), silent)
    told: list[Event] = []
    assert train_bundle(dataset, out, settings, told.append).card["hashes"] == before
    assert [event.epoch for event in told if isinstance(event, TrainingStarted)] == [2, 1, 0]
    assert len(load_folds(folds_of(out)).folds) == 2


def test_another_training_does_not_go_on_there(dataset: Dataset, quick: TrainSettings, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_bundle(dataset, tmp_path / "mine", quick, stop_at(2))
    other = replace(quick, seed=4)
    with pytest.raises(UsageError, match="another recipe, seed"):
        train_bundle(dataset, tmp_path / "mine", other, silent)
    told: list[Event] = []
    bundle = train_bundle(dataset, tmp_path / "mine", replace(other, restart=True), told.append)
    assert [event.epoch for event in told if isinstance(event, TrainingStarted)] == [0]
    assert bundle.card["training"]["seed"] == 4


def test_a_model_that_is_there_is_replaced_only_by_force(
    dataset: Dataset, quick: TrainSettings, start: Bundle, tmp_path: Path
) -> None:
    out = tiny_bundle(tmp_path / "mine").path
    before = contents(tmp_path)
    for settings in (quick, replace(quick, restart=True), replace(quick, folds=2)):
        with pytest.raises(UsageError, match="a trained model already"):
            train_bundle(dataset, out, settings, silent)
    assert contents(tmp_path) == before
    assert train_bundle(dataset, out, replace(quick, force=True), silent).card["training"]["seed"] == 3
    (folds_of(tmp_path / "other")).mkdir()
    (folds_of(tmp_path / "other") / "folds.json").write_text("{}")
    with pytest.raises(UsageError, match="a trained model already"):
        train_bundle(dataset, tmp_path / "other", replace(quick, folds=2), silent)
    with pytest.raises(UsageError, match="would be overwritten"):
        train_bundle(dataset, start.path, replace(quick, force=True), silent)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="A file is in"):
        train_bundle(dataset, tmp_path / "file", quick, silent)


def test_a_class_that_is_not_there_is_told(quick: TrainSettings, tmp_path: Path) -> None:
    told: list[Event] = []
    dataset = tiny_dataset(tmp_path, ["train", "val"], ("0", "1+", "2+", "normal"))
    card = train_bundle(dataset, tmp_path / "mine", quick, told.append).card
    assert warnings_of(told) == ["train has no tiles of 3+, noise: the model cannot find what it never saw"]
    assert any("no tile of 3+, noise" in limit for limit in card["limits"])
    assert card["metrics"]["recall"]["3+"] is None
    assert card["training"]["tiles"]["train"]["3+"] == 0


def test_without_validation_tiles(quick: TrainSettings, tmp_path: Path) -> None:
    told: list[Event] = []
    bundle = train_bundle(tiny_dataset(tmp_path, ["train", "train"]), tmp_path / "mine", quick, told.append)
    assert warnings_of(told) == ["val has no tiles: nothing is measured, and the temperature stays 1"]
    assert (bundle.temperature, bundle.card["metrics"]["tiles"]) == (1.0, 0)
    assert any("not measured" in limit for limit in bundle.card["limits"])


@pytest.mark.parametrize(
    ("splits", "labels", "told"),
    [(["val", "test"], LABELS, "no tiles to train on"), (["train", "val"], ("3+",), "tiles of one class only")],
)
def test_too_few_labels(quick: TrainSettings, tmp_path: Path, splits: list[str], labels: Any, told: str) -> None:
    with pytest.raises(NotEnoughLabels, match=told):
        train_bundle(tiny_dataset(tmp_path, splits, labels), tmp_path / "mine", quick, silent)
    assert not work_of(tmp_path / "mine").exists()


def test_a_fold_without_enough_is_told_before_anything_is_trained(quick: TrainSettings, tmp_path: Path) -> None:
    slides = [[("0", "0")] * 4, [("3+", "3+")] * 4]
    dataset = coloured(tmp_path, slides, splits=["train", "train"])
    with pytest.raises(NotEnoughLabels, match="one class only") as caught:
        train_bundle(dataset, tmp_path / "mine", replace(quick, folds=2), silent)
    assert "fold 1 of 2" in caught.value.where
    assert not work_of(tmp_path / "mine").exists()


def test_mixed_tiles_are_told(quick: TrainSettings, tmp_path: Path) -> None:
    dataset = tiny_dataset(tmp_path, ["train", "val"])
    dataset = replace(dataset, card={**dataset.card, "settings": {"split": "paper"}})
    card = train_bundle(dataset, tmp_path / "mine", quick, silent).card
    assert any("Tiles of one slide" in limit for limit in card["limits"])


def test_a_beginning_that_has_seen_the_slides(dataset: Dataset, quick: TrainSettings, tmp_path: Path) -> None:
    seen = [dataset.slides[0].fingerprint, dataset.slides[4].fingerprint, "another"]
    begin = tiny_bundle(tmp_path / "begin", slides=seen, size=32)
    told: list[Event] = []
    bundle = train_bundle(dataset, tmp_path / "mine", replace(quick, start=begin), told.append)
    assert warnings_of(told) == [
        "begin learned from tiles of 32 px at 1 µm/px; these are of 16 px at 1 µm/px, and so is the new model",
        "begin has learned from 1 slides of val or test: figures on them are too good",
    ]
    assert bundle.card["training"]["slides"] == sorted({*seen, *(one.fingerprint for one in dataset.slides[:4])})
    with pytest.raises(UsageError, match="no fold could be without them"):
        train_bundle(dataset, tmp_path / "folded", replace(quick, start=begin, folds=2), silent)


@pytest.mark.filterwarnings("ignore:(invalid value|overflow) encountered")
def test_a_training_that_comes_apart(dataset: Dataset, quick: TrainSettings, tmp_path: Path) -> None:
    wild = replace(PAPER, epochs=4, batch_size=8, learning_rate=99.0, weight_decay=0.5)
    with pytest.raises(UsageError, match="come apart") as caught:
        train_bundle(dataset, tmp_path / "mine", replace(quick, recipe=wild), silent)
    assert "--lr" in caught.value.next_step
    assert not (tmp_path / "mine").exists()


def test_settings_that_cannot_be(start: Bundle) -> None:
    for wrong in (
        {"attention": "cbam"},
        {"attention": "se", "start": start},
        {"folds": 1},
        {"folds": -2},
        {"name": " "},
        {"version": ""},
        {"labels_by": ""},
    ):
        with pytest.raises(UsageError):
            TrainSettings(**wrong)  # type: ignore[arg-type]
    assert TrainSettings(start, attention="gct").attention == "gct"


def test_without_a_beginning_it_is_the_papers_network() -> None:
    state = torch.get_rng_state()
    settings = TrainSettings(attention="se", seed=5)
    network = settings.network()
    assert (network.spec.attention, network.spec.stages[-1].channels) == ("se", 1280)
    assert torch.equal(torch.get_rng_state(), state)
    again = settings.network().state_dict()
    assert all(torch.equal(value, again[name]) for name, value in network.state_dict().items())
    other = TrainSettings(attention="se", seed=6).network().state_dict()
    assert not torch.equal(other["head.weight"], again["head.weight"])
    assert TrainSettings().transform == ((0.72, 0.68, 0.75), (0.20, 0.22, 0.18))
    assert math.isclose(float(np.sum(settings.transform[1])), 0.6)
