"""The training loop: it learns, balances, keeps, and goes on exactly where it was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_samples import made_samples, tiny_network
from torch import nn

from her2bridge.errors import DeviceUnavailable, NotEnoughLabels, UsageError
from her2bridge.events import EpochFinished, Event, TaskProgress, TrainingStarted
from her2bridge.model.repvgg import NetworkSpec, Stage, build
from her2bridge.training import fit as module
from her2bridge.training.checkpoint import CHECKPOINT_FILE, Place, load_checkpoint, save_checkpoint
from her2bridge.training.fit import METRICS_FILE, FitSettings, Fitted, fit, logits_of
from her2bridge.training.optimiser import class_weights, groups, precision_of
from her2bridge.training.recipes import MODERN, PAPER, Recipe
from her2bridge.training.samples import Samples

QUICK = replace(MODERN, epochs=3, batch_size=16, warmup_epochs=1, mixed_precision=False)
NOTHING = made_samples(0)
HERE = str(Path(__file__).parent)


PLAIN = replace(QUICK, augment=False, ema=None, learning_rate=0.005)


def plain_network() -> nn.Module:
    """Without batch norm, whose statistics are each process's own."""
    torch.manual_seed(0)
    return build(NetworkSpec((Stage(8, 1, 2), Stage(16, 1, 2)), "none", 6, "plain"))


def weights(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(a: nn.Module, b: nn.Module) -> bool:
    one, other = weights(a), weights(b)
    return all(torch.equal(one[name], other[name]) for name in one)


def fitted(recipe: Recipe = QUICK, folder: Path | None = None, **settings: Any) -> Fitted:
    return fit(
        tiny_network(),
        made_samples(80),
        made_samples(24, 1),
        recipe,
        settings=FitSettings("cpu", folder=folder, **settings),
    )


@pytest.mark.parametrize(
    "recipe", [replace(QUICK, epochs=6), replace(PAPER, epochs=6, batch_size=16, learning_rate=0.05)]
)
def test_learns(recipe: Recipe) -> None:
    heard: list[Event] = []
    network, train, unseen = tiny_network(), made_samples(200), made_samples(60, 1)
    before = weights(network)
    found = fit(network, train, unseen, recipe, settings=FitSettings("cpu"), emit=heard.append, title="try")
    assert (logits_of(found.network, unseen, device="cpu").argmax(1) == unseen.labels).mean() > 0.95
    assert found.history[-1]["validation_macro_f1"] == pytest.approx(1, abs=0.06)
    assert found.history[-1]["loss"] < found.history[0]["loss"]  # type: ignore[operator]
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert isinstance(heard[0], TrainingStarted)
    assert heard[0].tiles == 200
    assert [one.epoch for one in heard if isinstance(one, EpochFinished)] == [1, 2, 3, 4, 5, 6]
    assert any(isinstance(one, TaskProgress) and one.task == "try, epoch 1" for one in heard)
    assert not found.network.training


def test_equal_seeds_give_equal_weights_and_others_not() -> None:
    assert same(fitted().network, fitted().network)
    assert not same(fitted().network, fitted(seed=1).network)


def test_the_mean_over_the_steps_is_kept_where_there_is_one() -> None:
    long = replace(QUICK, epochs=6)
    plain, mean = fitted(replace(long, ema=None)), fitted(replace(long, ema=0.9))
    assert not same(plain.network, mean.network)
    assert same(plain.network, fitted(replace(long, ema=0.0)).network)  # a mean without memory is the last one
    assert same(mean.network, fitted(replace(long, ema=0.999)).network)  # in 30 steps it reaches back over three


def test_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fitted(folder=tmp_path / "whole")
    folder = tmp_path / "parts"
    steps = 0

    def stop(event: Event) -> None:
        nonlocal steps
        steps += isinstance(event, TaskProgress)
        if steps == 7:
            os.kill(os.getpid(), signal.SIGINT)

    arguments: Any = (tiny_network(), made_samples(80), made_samples(24, 1), QUICK)
    monkeypatch.setattr("her2bridge.pace._SECONDS_BETWEEN", 0.0)
    with pytest.raises(KeyboardInterrupt):
        fit(*arguments, settings=FitSettings("cpu", folder=folder), emit=stop)
    kept = load_checkpoint(folder, module._Training(*arguments, FitSettings("cpu"), stop, "")._digest())
    assert kept is not None
    assert (kept[0].epoch, kept[0].step) == (1, 2)
    gone_on = fit(*arguments, settings=FitSettings("cpu", folder=folder))
    assert same(gone_on.network, whole.network)
    timeless = [
        [{k: v for k, v in one.items() if "seconds" not in k} for one in found.history] for found in (gone_on, whole)
    ]
    assert timeless[0] == timeless[1]
    lines = (folder / METRICS_FILE).read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3]


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
from made_samples import made_samples, tiny_network
from her2bridge.training import fit as module
from test_fit import QUICK
module._SECONDS_BETWEEN_CHECKPOINTS = 0.0
settings = module.FitSettings("cpu", folder=Path(sys.argv[1]))
module.fit(tiny_network(), made_samples(80), made_samples(24, 1), QUICK, settings=settings,
           emit=lambda event: sys.stdout.write(event.name + "\\n") and sys.stdout.flush())
"""


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """A real process, killed without warning after its first epoch."""
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(KILLED.format(here=HERE)))
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "kept")], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == "epoch_finished":
            break
    time.sleep(0.05)
    process.kill()
    process.wait()
    process.stdout.close()
    kept = tmp_path / "kept" / CHECKPOINT_FILE
    assert kept.is_file()
    assert same(fitted(folder=tmp_path / "kept").network, fitted().network)


def test_what_is_finished_is_given_back_without_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fitted(folder=tmp_path)
    monkeypatch.setattr(module._Training, "_step", None)
    again = fitted(folder=tmp_path)
    assert same(first.network, again.network)
    assert again.history == first.history


@pytest.mark.parametrize(
    ("recipe", "settings"), [(replace(QUICK, learning_rate=0.01), {}), (QUICK, {"seed": 5})], ids=["recipe", "seed"]
)
def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path, recipe: Recipe, settings: dict[str, int]) -> None:
    fitted(folder=tmp_path)
    with pytest.raises(UsageError, match="checkpoint") as error:
        fitted(recipe, folder=tmp_path, **settings)
    assert "--restart" in error.value.next_step
    anew = fitted(recipe, folder=tmp_path, restart=True, **settings)
    assert same(anew.network, fitted(recipe, **settings).network)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, Place("a"), {"x": torch.zeros(3)})
    path = tmp_path / CHECKPOINT_FILE
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(UsageError, match="cannot be read"):
        load_checkpoint(tmp_path, "a")


def test_rare_classes_are_drawn_as_often() -> None:
    labels = np.array([0] * 300 + [3] * 20, dtype=np.int64)
    samples = made_samples(320, labels=labels)
    for balance, share in (("sampler", 0.5), ("none", 20 / 320)):
        training = module._Training(
            tiny_network(),
            samples,
            NOTHING,
            replace(QUICK, balance=balance),
            FitSettings("cpu"),
            lambda event: None,
            "",
        )
        assert (labels[training._order()] == 3).mean() == pytest.approx(share, abs=0.08)
    assert sorted(training._order().tolist()) == list(range(320))


def test_every_epoch_has_an_order_and_every_step_a_change_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the same tiles would always be seen together, and always alike."""
    fetched, seeds = [], []
    batches, changed = module._Training._batches, module.augment

    def watched(self: Any, ahead: Any) -> Any:
        for rows, pixels in batches(self, ahead):
            fetched.append(tuple(rows.tolist()))
            yield rows, pixels

    def heard(rgb: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        seeds.append(generator.initial_seed())
        return changed(rgb, generator)

    monkeypatch.setattr(module._Training, "_batches", watched)
    monkeypatch.setattr(module, "augment", heard)
    fitted(replace(QUICK, balance="none"))
    assert len(fetched) == len(set(fetched)) == len(seeds) == len(set(seeds)) == 15
    for epoch in range(3):
        assert sorted(row for rows in fetched[5 * epoch : 5 * epoch + 5] for row in rows) == list(range(80))
    fitted(replace(QUICK, augment=False))
    assert len(seeds) == 15


def test_weights_of_classes_in_the_loss() -> None:
    found = class_weights(np.array([0] * 30 + [1] * 10, dtype=np.int64))
    assert found[:2].tolist() == pytest.approx([40 / 60, 2.0])
    assert class_weights(np.array([0] * 999 + [1], dtype=np.int64))[1] == 10


def test_decay_leaves_norms_alone_unless_the_recipe_says_all() -> None:
    network = tiny_network()
    pulled, left = groups(network, MODERN)
    assert all(one.ndim >= 2 for one in pulled["params"])
    assert left["weight_decay"] == 0
    (every,) = groups(network, PAPER)
    assert len(every["params"]) == len(list(network.parameters()))


def test_without_validation_there_are_no_figures_of_it() -> None:
    found = fit(tiny_network(), made_samples(40), NOTHING, replace(QUICK, epochs=1), settings=FitSettings("cpu"))
    assert found.history[0]["validation_loss"] is None
    assert found.history[0]["validation_macro_f1"] is None


def test_too_few_tiles_and_devices_that_are_not_here() -> None:
    with pytest.raises(NotEnoughLabels, match="1 tiles"):
        fit(tiny_network(), made_samples(1), NOTHING, QUICK)
    with pytest.raises(DeviceUnavailable):
        fit(tiny_network(), made_samples(9), NOTHING, QUICK, settings=FitSettings("cuda:77"))
    with pytest.raises(UsageError, match="fp16"):
        fit(tiny_network(), made_samples(9), NOTHING, QUICK, settings=FitSettings("cpu", "fp16"))


def test_bf16_only_where_recipe_and_device_say_so() -> None:
    class Made:
        def __init__(self, has_bf16: bool) -> None:
            self.has_bf16 = has_bf16

        def cpu_has_bf16(self) -> bool:
            return self.has_bf16

        def cuda_has_bf16(self, index: int) -> bool:
            return self.has_bf16

    place = torch.device("cpu")
    found = [
        precision_of(replace(MODERN, mixed_precision=mixed), "auto", place, Made(has))  # type: ignore[arg-type]
        for mixed, has in ((True, True), (True, False), (False, True))
    ]
    assert found == [torch.bfloat16, torch.float32, torch.float32]
    gpu = torch.device("cuda", 0)  # where scoring takes fp16
    found = [precision_of(MODERN, wanted, gpu, Made(True)) for wanted in ("auto", "bf16", "fp32")]  # type: ignore[arg-type]
    assert found == [torch.bfloat16, torch.bfloat16, torch.float32]


def test_logits_leave_the_network_as_it_was() -> None:
    network = tiny_network().train()
    before = weights(network)
    samples = made_samples(10)
    found = logits_of(network, samples, device="cpu", batch_size=4)
    assert found.shape == (10, 6)
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    rgb = torch.from_numpy(samples.pixels).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (module.MEAN, module.STD))
    with torch.inference_mode():
        assert np.allclose(found, network.eval()((rgb - mean) / std).numpy(), atol=1e-5)


TOGETHER = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
import torch
from made_samples import made_samples
from her2bridge.training import distributed
from her2bridge.training.fit import FitSettings, fit
from safetensors.torch import save_file
from test_fit import PLAIN, plain_network
folder = Path(sys.argv[1])
heard = []
with distributed.joined("cpu"):
    assert distributed.size() == 2
    settings = FitSettings("cpu", folder=folder)
    found = fit(plain_network(), made_samples(80), made_samples(24, 1), PLAIN, settings=settings,
                emit=lambda event: heard.append(event.name))
    save_file(found.network.state_dict(), folder / f"rank{{distributed.rank()}}.safetensors")
    assert bool(heard) == distributed.is_first()
"""


@pytest.mark.timeout(120)
def test_two_processes_learn_one_network(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    script = tmp_path / "together.py"
    script.write_text(textwrap.dedent(TOGETHER.format(here=HERE)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    (tmp_path / "kept").mkdir()
    subprocess.run([*command, str(tmp_path / "kept")], check=True, env=environment, capture_output=True)
    first, second = (load_file(tmp_path / "kept" / f"rank{rank}.safetensors") for rank in (0, 1))
    settings = FitSettings("cpu")
    alone = fit(plain_network(), made_samples(80), NOTHING, PLAIN, settings=settings).network.state_dict()
    start = plain_network().state_dict()
    for name, value in first.items():
        assert torch.equal(value, second[name])
        assert (value - alone[name]).norm() < 1e-3 * (value - start[name]).norm() + 1e-6, name


@pytest.mark.gpu
def test_learns_on_a_gpu(tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    unseen = made_samples(60, 1)
    recipe = replace(MODERN, epochs=6, batch_size=16)
    found = fit(tiny_network(), made_samples(200), unseen, recipe, settings=FitSettings("cuda", folder=tmp_path))
    assert (logits_of(found.network, unseen).argmax(1) == unseen.labels).mean() > 0.95
    again = fit(tiny_network(), made_samples(200), unseen, recipe, settings=FitSettings("cuda", folder=tmp_path))
    assert same(found.network, again.network)


def test_samples_take_copies() -> None:
    samples = made_samples(5)
    taken = samples.take(np.array([3, 1]))
    assert isinstance(taken, Samples)
    assert np.array_equal(taken.labels, samples.labels[[3, 1]])
    taken.pixels[:] = 0
    assert samples.pixels.any()
