"""Repeats are trained once, kept, and gone on with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from experiment_data import labelled, quiet, settings, tiny
from torch import Tensor, nn

from her2bridge.errors import ModelError, NotEnoughLabels, UsageError
from her2bridge.experiments.monte_carlo import NOT_STATED, PARTS, MonteCarlo, fused_of, spread
from her2bridge.experiments.networks import BLOCKS, OURS
from her2bridge.experiments.plan import Candidate, chosen, recipe_of
from her2bridge.experiments.published import Spread
from her2bridge.experiments.run import run_experiment
from her2bridge.experiments.streams import Stream, rng_of
from her2bridge.training.dataset import Dataset
from her2bridge.training.recipes import RECIPES


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return labelled(tmp_path_factory.mktemp("dataset"))


class Counting:
    """A candidate that counts how often it is built, and is stopped at the n-th time."""

    def __init__(self, stop_at: int = 0) -> None:
        self.built, self._stop_at = 0, stop_at
        self.candidates = tuple(replace(tiny(name), build=self) for name in ("a", "b"))

    def __call__(self) -> nn.Module:
        self.built += 1
        if self.built == self._stop_at:
            raise KeyboardInterrupt
        return tiny("a").build()


def kept(out: Path) -> set[str]:
    return {path.name for path in (out / PARTS).iterdir()}


def test_a_stopped_run_goes_on(dataset: Dataset, tmp_path: Path) -> None:
    stopped = Counting(stop_at=3)
    with pytest.raises(KeyboardInterrupt):
        MonteCarlo(dataset, settings(tmp_path), quiet).parts(stopped.candidates, "task")
    assert kept(tmp_path) == {"a-0.json", "b-0.json"}
    again = Counting()
    parts = MonteCarlo(dataset, settings(tmp_path), quiet).parts(again.candidates, "task")
    assert again.built == 2
    assert kept(tmp_path) == {"a-0.json", "b-0.json", "a-1.json", "b-1.json"}
    assert [len(of) for of in parts.values()] == [2, 2]
    assert np.array_equal(parts["a"][1].predicted, parts["b"][1].predicted)  # one network, one seed


def test_more_repeats_are_added(dataset: Dataset, tmp_path: Path) -> None:
    counting = Counting()
    for repeats in (1, 2):
        MonteCarlo(dataset, settings(tmp_path, repeats=repeats), quiet).parts(counting.candidates, "task")
    assert counting.built == 4


def test_what_is_held_out_was_not_learned_from(dataset: Dataset, tmp_path: Path) -> None:
    run = MonteCarlo(dataset, settings(tmp_path), quiet)
    (parts,) = run.parts([tiny("a")], "task").values()
    assert run.split == "patient"
    for number, (part, division) in enumerate(zip(parts, run.divisions, strict=True)):
        learned = {dataset.patients[row] for row in run.rows[division.train]}
        assert learned.isdisjoint({dataset.patients[row] for row in part.held_out})
        stored = json.loads((tmp_path / PARTS / f"a-{number}.json").read_text())
        assert stored["held_out_rows"] == part.held_out.tolist()
        assert np.array_equal(dataset.tiles.labels[part.held_out], part.truth)


def test_truth_belongs_to_the_tiles_held_out(dataset: Dataset, tmp_path: Path) -> None:
    run = MonteCarlo(dataset, settings(tmp_path, repeats=1, split="paper"), quiet)
    (part,) = run.parts([tiny("a")], "task")["a"]
    assert np.array_equal(dataset.tiles.labels[part.held_out], part.truth)
    assert any("mixed" in note for note in run.notes({}))


def test_other_settings_need_another_folder(dataset: Dataset, tmp_path: Path) -> None:
    MonteCarlo(dataset, settings(tmp_path, repeats=1), quiet).parts([tiny("a")], "task")
    with pytest.raises(UsageError, match=r"other settings: epochs 2 there, 3 here"):
        MonteCarlo(dataset, settings(tmp_path, repeats=1, epochs=3), quiet).parts([tiny("a")], "task")
    for change in ({"epochs": 3}, {"seed": 1}, {"split": "paper"}, {"tile_px": 16}):
        with pytest.raises(UsageError, match="other settings"):
            MonteCarlo(dataset, settings(tmp_path, repeats=1, **change), quiet).parts([tiny("a")], "task")


def test_a_damaged_part_is_said_and_not_used(dataset: Dataset, tmp_path: Path) -> None:
    run = MonteCarlo(dataset, settings(tmp_path, repeats=1), quiet)
    run.parts([tiny("a")], "task")
    path = tmp_path / PARTS / "a-0.json"
    whole = json.loads(path.read_text())
    for broken in ("{", json.dumps(whole | {"predicted": whole["predicted"][1:]}), "[]"):
        path.write_text(broken)
        with pytest.raises(UsageError, match="cannot be read") as caught:
            run.parts([tiny("a")], "task")
        assert caught.value.where == str(path)


def test_a_part_of_other_tiles_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    run = MonteCarlo(dataset, settings(tmp_path, repeats=1), quiet)
    run.parts([tiny("a")], "task")
    path = tmp_path / PARTS / "a-0.json"
    plain = json.loads(path.read_text())
    plain["held_out_rows"][0] += 1
    path.write_text(json.dumps(plain))
    with pytest.raises(UsageError, match="other tiles held out"):
        run.parts([tiny("a")], "task")


@pytest.mark.parametrize(("name", "other"), [("precision", "bf16"), ("device", "NVIDIA H100")])
def test_precision_and_device_belong_to_a_part(dataset: Dataset, tmp_path: Path, name: str, other: str) -> None:
    """auto is not compared, but what it stands for."""
    run = MonteCarlo(dataset, settings(tmp_path, repeats=1), quiet)
    run.parts([tiny("a")], "task")
    path = tmp_path / PARTS / "a-0.json"
    plain = json.loads(path.read_text())
    ours = plain["key"][name]
    plain["key"][name] = other
    path.write_text(json.dumps(plain))
    with pytest.raises(UsageError, match=f"{name} {other} there, {ours} here"):
        run.parts([tiny("a")], "task")


class Broken(nn.Module):
    """Gives what is no number."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(3, 6)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(x.mean(dim=(2, 3))) * float("nan")
        return found


def test_a_network_whose_output_is_no_number_has_no_figures(dataset: Dataset, tmp_path: Path) -> None:
    candidates = [Candidate("broken", Broken, 8), tiny("a")]
    table = run_experiment("table5", dataset, settings(tmp_path), quiet, candidates)
    assert any("broken did not learn (its output is not finite) in 2 of 2 repeats" in note for note in table.notes)
    assert not any("a did not learn" in note.removeprefix("broken") for note in table.notes)
    shown = {row["network"]: row["recall"] for row in table.rows if row["class"] == "0"}
    assert np.isnan(shown["broken"].mean)  # type: ignore[union-attr]
    assert np.isfinite(shown["a"].mean)  # type: ignore[union-attr]


def test_what_the_tiles_are_is_said_first(dataset: Dataset, tmp_path: Path) -> None:
    said = MonteCarlo(dataset, settings(tmp_path, about="tiles are  drawings; patients are seeds"), quiet)
    assert said.notes({})[0] == said.told()["about"] == "Tiles are drawings; patients are seeds."
    assert MonteCarlo(dataset, settings(tmp_path), quiet).notes({})[0] == NOT_STATED


def test_streams_are_kept_apart() -> None:
    first = {float(rng_of(stream, 7, 1, *more).random()) for stream in Stream for more in ((), (1, 0), (1, 1))}
    assert len(first) == 3 * len(Stream)


def test_reduced_tiles_keep_their_grey_and_their_place(dataset: Dataset, tmp_path: Path) -> None:
    run = MonteCarlo(dataset, settings(tmp_path, tile_px=8), quiet)
    samples = run._pixels()
    assert samples.pixels.shape == (90, 8, 8, 3)
    assert np.abs(samples.pixels.mean(axis=(1, 2, 3)) - (20 + 40 * samples.labels)).max() < 5
    assert any("from 32 to 8 px" in note for note in run.notes({}))


def test_tiles_too_small_for_a_network_are_refused_before_any_work(dataset: Dataset, tmp_path: Path) -> None:
    counting = Counting()
    large = Candidate("large", counting, smallest_px=75)
    with pytest.raises(UsageError, match="large takes no tiles of 32 px"):
        MonteCarlo(dataset, settings(tmp_path), quiet).parts([*counting.candidates, large], "task")
    assert not counting.built


def test_a_few_tiles_are_too_few(tmp_path: Path) -> None:
    with pytest.raises(NotEnoughLabels):
        MonteCarlo(labelled(tmp_path, split="test"), settings(tmp_path), quiet)


def test_fusing_may_only_round() -> None:
    logits = np.array([[3.0, 1.0], [0.5, 0.4]], dtype=np.float32)
    fused = fused_of(logits, logits + np.float32(1e-4), "a")
    assert fused.predicted.tolist() == [0, 0]
    assert fused.largest_difference == pytest.approx(1e-4, rel=0.01)
    for wrong in (logits + np.float32(0.1), logits * np.float32("nan")):
        with pytest.raises(ModelError, match="another one"):
            fused_of(logits, wrong, "a")


def test_a_table_shares_its_repeats_with_others() -> None:
    assert {one.name: one.kept_as for one in BLOCKS if one.kept_as != one.name} == {
        "ECM + GCT": OURS[0].kept_as,
        "ECM + SE": OURS[1].kept_as,
    }


def test_networks_are_chosen_by_name() -> None:
    assert [one.name for one in chosen(OURS, ["repvgg-se"])] == ["RepVGG-SE"]
    assert chosen(OURS, []) == OURS
    with pytest.raises(UsageError, match="ResNet"):
        chosen(OURS, ["ResNet-50"])


def test_epochs_and_batches_replace_the_recipes(tmp_path: Path) -> None:
    found = recipe_of(settings(tmp_path, epochs=4, batch_size=7))
    assert (found.epochs, found.batch_size, found.warmup_epochs) == (4, 7, 0)
    assert recipe_of(settings(tmp_path, epochs=None, batch_size=None)) == RECIPES["modern"]
    with pytest.raises(UsageError, match="secret"):
        recipe_of(settings(tmp_path, recipe="secret"))


def test_the_spread_is_the_samples() -> None:
    assert spread([1.0, 3.0]) == Spread(2.0, pytest.approx(2**0.5))
    assert spread([2.0, float("nan")]) == Spread(2.0, None)
    assert np.isnan(spread([]).mean)
