"Several processes train what one would have trained."

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from petroscope.segmentation.classes import LumenStoneClasses  # noqa: E402
from petroscope.segmentation.resunet import ResUnet  # noqa: E402
from petroscope.segmentation.train import train  # noqa: E402
from petroscope.segmentation.training.config import TrainConfig  # noqa: E402
from petroscope.segmentation.training.patches import batches, patch_sources  # noqa: E402
from petroscope.synth.rock import scene  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
S1 = LumenStoneClasses.S1v1
SETTINGS = {"steps": 20, "batch_size": 4, "patch_size": 32, "validate_every": 20, "scale": 0.5, "lovasz_weight": 0.5}
CONFIG = TrainConfig(**SETTINGS, void_border_px=1)  # void, so that a mean over pixels is none over processes

WORKER = """
import sys
from dataclasses import replace
import numpy as np
import torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
import test_distributed as t
import petroscope.segmentation.training.run
from petroscope.segmentation.distributed import process_group
petroscope.segmentation.training.run.write_curves = lambda *_: []
out = sys.argv[2]
with process_group(torch.device("cpu")) as group:  # one for all that follows
    sources = t.patch_sources(t.small_model(), t.sections(), t.CONFIG)
    cut = [batch for _, batch in zip(range(3), t.batches(sources, t.CONFIG, 0, group))]
    np.savez(f"{out}/patches{group.rank}.npz", *[part for batch in cut for part in batch])
    for frozen in (True, False):
        model = t.small_model(seed=group.rank)  # the first process has the say
        config = replace(t.CONFIG, freeze_batch_norm=frozen)
        history = t.train(model, t.sections(), config, held_out=t.sections(1), out=f"{out}/{frozen}", progress=False)
        torch.save((model.net.state_dict(), model.prior.tolist(), history), f"{out}/{frozen}{group.rank}.pt")
"""


def small_model(seed=0):
    torch.manual_seed(seed)
    return ResUnet(S1, filters=2, depth=1, scale=0.5, precision="float32")


def sections(first=2):
    return [scene((64, 96), seed=first), scene((64, 96), seed=first + 4)]


def alone(frozen):
    from dataclasses import replace

    model = small_model()
    config = replace(CONFIG, freeze_batch_norm=frozen)
    history = train(model, sections(), config, held_out=sections(1), progress=False)
    return model, history


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    "What two processes on this computer have written."
    out = tmp_path_factory.mktemp("two")
    (out / "worker.py").write_text(WORKER)
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    argv = [*start, str(out / "worker.py"), str(Path(__file__).parent), str(out)]
    done = subprocess.run(argv, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


def flat(state):
    return torch.cat([t.flatten().double() for t in state.values()])


def test_a_step_of_two_processes_has_the_patches_of_one(two):
    sources = patch_sources(small_model(), sections(), CONFIG)
    cut = [part for _, batch in zip(range(3), batches(sources, CONFIG), strict=False) for part in batch]
    parts = [np.load(two / f"patches{rank}.npz") for rank in (0, 1)]
    for i, whole in enumerate(cut):
        np.testing.assert_array_equal(np.concatenate([part[f"arr_{i}"] for part in parts]), whole)


def test_with_frozen_statistics_two_processes_learn_what_one_learns(two):
    model, history = alone(frozen=True)
    (first, prior, rows), second = (torch.load(two / f"True{rank}.pt", weights_only=False) for rank in (0, 1))
    difference = (flat(first) - flat(model.net.state_dict())).abs().max().item()
    print(f"largest difference of a weight after 20 steps: {difference:.1e}")
    assert difference < 1e-5
    np.testing.assert_allclose(prior, model.prior, atol=1e-5)
    assert [row["step"] for row in rows] == [20] and abs(rows[0]["loss"] - history[0]["loss"]) < 1e-4
    assert torch.equal(flat(first), flat(second[0])) and prior == second[1] and rows == second[2]


def test_with_live_statistics_each_process_has_its_own_and_the_first_one_s_are_kept(two):
    model, history = alone(frozen=False)
    (first, _, rows), second = (torch.load(two / f"False{rank}.pt", weights_only=False) for rank in (0, 1))
    one = model.net.state_dict()
    for kind, names in (
        ("weights", [n for n in one if "running" not in n and "num" not in n]),
        ("statistics", [n for n in one if "running" in n]),
    ):
        a, b = (flat({n: state[n] for n in names}) for state in (first, one))
        print(f"{kind}: relative difference {((a - b).norm() / b.norm()).item():.3f}")
        assert 1e-4 < (a - b).norm() / b.norm() < 0.5
    print(f"loss {rows[0]['loss']:.4f}, of one process {history[0]['loss']:.4f}")
    assert abs(rows[0]["loss"] - history[0]["loss"]) < 0.1
    assert torch.equal(flat(first), flat(second[0]))


def test_only_the_first_process_writes(two):
    import json

    about = json.loads((two / "True/run.json").read_text())
    assert len(about["starts"]) == 1 and about["starts"][0]["machine"]["processes"] == 2
    assert ResUnet.load(two / "True/best.safetensors").record["history"]
