"Training: what settings mean, and when a run may be resumed."

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from petroscope.io.files import RunFolder  # noqa: E402
from petroscope.io.images import read_image, write_image, write_mask  # noqa: E402
from petroscope.segmentation.classes import LumenStoneClasses  # noqa: E402
from petroscope.segmentation.dataset import LumenStone  # noqa: E402
from petroscope.segmentation.resunet import ResUnet  # noqa: E402
from petroscope.segmentation.train import train  # noqa: E402
from petroscope.segmentation.training.config import TrainConfig  # noqa: E402
from petroscope.synth.rock import scene  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
S1 = LumenStoneClasses.S1v1
QUICK = TrainConfig(steps=1, batch_size=1, patch_size=16, validate_every=1, scale=0.5, sampling="uniform")


def small_model():
    torch.manual_seed(0)
    return ResUnet(S1, filters=2, depth=1, scale=0.5, precision="float32")


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.net.parameters()])


@pytest.fixture(scope="module")
def section():
    return scene((64, 96), seed=3)


pytestmark = pytest.mark.filterwarnings("ignore:no pixel of")


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    "Curves take longer than these trainings; the run of the fixture `whole` draws them."
    monkeypatch.setattr("petroscope.segmentation.training.run.write_curves", lambda *_: [])


def begin(root, out, resume=False, model=None):
    pairs = LumenStone(root, S1)
    model = model or small_model()
    train(model, pairs[:2], QUICK, held_out=pairs[2:], out=out, resume=resume, progress=False)
    return model


# ---- the gradient


def test_a_clip_of_0_is_no_clip(section):
    moved = {}
    for clip in (0, 1e6, 1e-3):
        model = small_model()
        before = weights(model)
        config = TrainConfig.from_dict({**vars(QUICK), "gradient_clip": clip, "weight_decay": 0})
        history = train(model, [section], config, progress=False)
        moved[clip] = weights(model) - before
        assert history[-1]["step"] == 1
    assert moved[0].abs().max() > 1e-4, "nothing was learned"
    torch.testing.assert_close(moved[0], moved[1e6], rtol=0, atol=0)


@pytest.mark.parametrize("settings, message", [
    ({"gradient_clip": -1}, "gradient_clip must be a number >= 0, got -1"),
    ({"gradient_clip": "off"}, "gradient_clip: expected a number, got 'off'"),
    ({"steps": 2.5}, "steps: expected a whole number, got 2.5"),
    ({"noise": None}, "noise: expected a number, got None"),
    ({"seed": True}, "seed: expected a whole number, got True"),
])  # fmt: skip
@pytest.mark.parametrize("make", [lambda settings: TrainConfig(**settings), TrainConfig.from_dict])
def test_a_setting_that_means_nothing_is_refused(make, settings, message):
    with pytest.raises(ValueError) as refused:
        make(settings)
    assert message in str(refused.value)


# ---- what a run leaves behind that could not begin


def broken(root):
    (root / "imgs/train/a.png").write_bytes(b"no picture")


def test_a_run_that_cannot_begin_leaves_model_and_folder_alone(data, tmp_path):
    model = small_model()
    model.record = {"seed": 7}
    broken(data)
    with pytest.raises(ValueError, match=r"a\.png"):
        begin(data, tmp_path / "run", model=model)
    assert model.record == {"seed": 7} and model.prior is None
    assert not (tmp_path / "run").exists()


def test_a_run_that_cannot_go_on_leaves_the_model_alone(data, tmp_path):
    begin(data, tmp_path / "run")
    model = small_model()
    model.record, before = {"seed": 7}, weights(model).clone()
    broken(data)
    with pytest.raises(ValueError, match=r"these photos or their masks were changed: a \(trained on\)"):
        begin(data, tmp_path / "run", resume=True, model=model)
    assert model.record == {"seed": 7} and torch.equal(weights(model), before)


# ---- the photos of a run


def change_a_pixel(root):
    mask = scene((48, 64), seed=ord("b")).mask
    mask[0, 0] = 8 if mask[0, 0] != 8 else 6
    write_mask(root / "masks/train/b.png", mask)
    return "these photos or their masks were changed: b (trained on)"


def change_held_out(root):
    write_image(root / "imgs/train/c.png", np.zeros((48, 64, 3), np.uint8))
    return "these photos or their masks were changed: c (held out)"


def change_places(root):
    "The same two names with each other's content."
    for part in ("imgs", "masks"):
        a, b = (root / part / f"train/{name}.png" for name in "ab")
        a.rename(root / "x")
        b.rename(a)
        (root / "x").rename(b)
    return "these photos or their masks were changed: a (trained on), b (trained on)"


@pytest.mark.parametrize("change", [change_a_pixel, change_held_out, change_places])
def test_photos_of_another_content_are_not_gone_on_with(data, tmp_path, change):
    begin(data, tmp_path / "run")
    message = change(data)
    with pytest.raises(ValueError) as refused:
        begin(data, tmp_path / "run", resume=True)
    assert message in str(refused.value)


def test_another_order_of_the_photos_is_another_run(data, tmp_path):
    pairs = LumenStone(data, S1)
    train(small_model(), pairs, QUICK, out=tmp_path / "run", progress=False)
    with pytest.raises(ValueError, match="the photos come in another order"):
        train(small_model(), pairs[::-1], QUICK, out=tmp_path / "run", resume=True, progress=False)


def test_a_folder_that_was_moved_holds_the_same_photos(data, tmp_path):
    first = begin(data, tmp_path / "run")
    moved = shutil.move(data, tmp_path / "elsewhere")
    again = begin(moved, tmp_path / "run", resume=True)
    assert torch.equal(weights(first), weights(again))
    np.testing.assert_array_equal(first.prior, again.prior)


def test_files_without_a_name_are_named_by_their_files(data, tmp_path):
    pairs = [(str(sample.image), str(sample.mask)) for sample in LumenStone(data, S1)]
    model = small_model()
    train(model, pairs, QUICK, out=tmp_path / "run", progress=False)
    assert model.record["trained_on"] == ["a", "b", "c"]
    assert json.loads((tmp_path / "run/config.json").read_text())["gradient_clip"] == 1.0


def put(state, file):
    "Write a state as a training does."
    with RunFolder(file.parent, "train") as own, own.writing([file.name]):
        torch.save(state, file)


def test_a_state_of_an_earlier_version_is_refused(data, tmp_path):
    begin(data, tmp_path / "run")
    file = tmp_path / "run/state.pt"
    state = torch.load(file, weights_only=True)
    del state["contents"]
    put(state, file)
    with pytest.raises(ValueError, match=r"state\.pt: was written by an earlier version"):
        begin(data, tmp_path / "run", resume=True)


# ---- a run that is killed, a disk that is full, a loss that is no number

ONE = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
LONGER = TrainConfig(steps=12, batch_size=2, patch_size=16, validate_every=4, scale=0.5, lovasz_weight=0.3)

# Trains as `LONGER` says, and is killed by the system inside a step, its weights half walked.
KILLED = """
import os, signal, sys
import torch
sys.path.insert(0, sys.argv[1])
import test_train
import petroscope.segmentation.training.run
petroscope.segmentation.training.run.write_curves = lambda *_: []
torch.set_num_threads(1)
steps = 0
def step(self, *args, walk=torch.optim.AdamW.step, **options):
    global steps
    steps += 1
    if steps == int(sys.argv[3]):
        with torch.no_grad():
            self.param_groups[0]["params"][0].add_(1)
        os.kill(os.getpid(), signal.SIGKILL)
    return walk(self, *args, **options)
torch.optim.AdamW.step = step
test_train.longer(sys.argv[2], resume=sys.argv[4] == "resume")
"""


def longer(out, resume=False, config=LONGER, model=None):
    model = model or small_model()
    sections = [scene((48, 64), seed=seed) for seed in (1, 2, 3)]
    train(model, sections[:2], config, held_out=sections[2:], out=out, resume=resume, progress=False)
    return model


def one_thread(work, *args, **options):
    "Another number of threads would round otherwise."
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return work(*args, **options)
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    "The folder of an uninterrupted run on one thread, as the killed ones are."
    folder = tmp_path_factory.mktemp("whole") / "run"
    one_thread(longer, folder)
    return folder


def kept(folder):
    return {name: (folder / name).read_bytes() for name in ("last.safetensors", "best.safetensors", "history.csv")}


def test_a_run_killed_in_mid_step_ends_with_the_same_bytes(whole, tmp_path):
    for step, how in ((7, "begin"), (3, "resume")):
        argv = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(tmp_path / "run"), str(step), how]
        done = subprocess.run(argv, env={**os.environ, **ONE}, capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
    one_thread(longer, tmp_path / "run", resume=True)
    assert kept(tmp_path / "run") == kept(whole)
    assert not [p for p in (tmp_path / "run").iterdir() if p.name.startswith((".", "tmp"))]
    starts = json.loads((tmp_path / "run/run.json").read_text())["starts"]
    assert [start["step"] for start in starts] == [0, 4, 4]


def test_a_full_disk_leaves_the_last_good_checkpoint(whole, tmp_path, monkeypatch):
    "The disk fills up while the state of step 8 is written."
    save, calls = torch.save, []

    def full(state, path):
        calls.append(path)
        if len(calls) == 2:
            Path(path).write_bytes(b"half of a st")
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        save(state, path)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"state\.pt"):
        one_thread(longer, tmp_path / "run")
    state = torch.load(tmp_path / "run/state.pt", weights_only=True)
    assert state["record"]["history"][-1]["step"] == 4
    assert not [p for p in (tmp_path / "run").iterdir() if p.name.startswith((".", "tmp"))]
    one_thread(longer, tmp_path / "run", resume=True)
    assert kept(tmp_path / "run") == kept(whole)


@pytest.mark.parametrize("fault", ["loss", "gradient"])
def test_a_loss_that_is_no_number_stops_with_the_last_good_weights(tmp_path, monkeypatch, fault):
    from petroscope.segmentation import train as module

    loss_of, steps = module.segmentation_loss, []

    def loss(logits, target, **weights):
        steps.append(1)
        value = loss_of(logits, target, **weights)
        if len(steps) < 7:
            return value
        # A square root at 0 is 0, and its slope is not.
        return value * float("nan") if fault == "loss" else value + (logits.sum() * 0).abs().sqrt()

    monkeypatch.setattr(module, "segmentation_loss", loss)
    model = small_model()
    with pytest.raises(FloatingPointError) as stopped:
        longer(tmp_path / "run", model=model)
    message = str(stopped.value)
    assert message.startswith(f"step 7: the {fault} is nan") and "lower the learning rate" in message
    assert f"the last good weights, of step 4, are {tmp_path / 'run/last.safetensors'}" in message
    assert torch.equal(weights(model), weights(ResUnet.load(tmp_path / "run/best.safetensors")))
    assert weights(model).isfinite().all()


def test_a_damaged_state_is_said_to_be_one(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    with RunFolder(tmp_path / "run", "train") as own, own.writing(["state.pt"]):
        (tmp_path / "run/state.pt").write_bytes((whole / "state.pt").read_bytes()[:500])
    with pytest.raises(ValueError, match=r"state\.pt: damaged"):
        longer(tmp_path / "run", resume=True)


def test_another_setting_is_refused_with_the_difference(whole):
    config = replace(LONGER, label_smoothing=0.1, optimizer="adam")
    with pytest.raises(ValueError) as refused:
        longer(whole, resume=True, config=config)
    assert "optimizer was 'adamw', is 'adam'; label_smoothing was 0.0, is 0.1" in str(refused.value)


def test_a_state_from_before_a_setting_existed_has_its_default(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    state = torch.load(whole / "state.pt", weights_only=True)
    del state["record"]["config"]["label_smoothing"]
    put(state, tmp_path / "run/state.pt")
    assert longer(tmp_path / "run", resume=True).record["history"][-1]["step"] == 12


def test_another_machine_goes_on_and_says_so(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    state = torch.load(whole / "state.pt", weights_only=True)
    state["record"]["versions"]["torch"] = "1.0"
    put(state, tmp_path / "run/state.pt")
    with pytest.warns(UserWarning, match=r"not to the last bit: torch was 1\.0"):
        longer(tmp_path / "run", resume=True)


# ---- photos that teach little


def test_a_class_without_a_pixel_is_reported_before_the_first_step(tmp_path):
    section = scene((48, 64), minerals=("BG", "Py/Mrc", "Sph"), seed=1)
    with pytest.warns(UserWarning, match="no pixel of Ccp, Gl, Brt, Tnt/Ttr in any mask") as told:
        train(small_model(), [section], QUICK, out=tmp_path / "run", progress=False)
    assert len([w for w in told if "no pixel" in str(w.message)]) == 1


@pytest.mark.parametrize("settings", [{}, {"sampling": "balanced", "lovasz_weight": 1.0, "border_weight": 2.0}])
def test_photos_of_one_class_only(settings):
    image, mask = scene((48, 64), seed=1)
    model = small_model()
    history = train(model, [(image, np.full_like(mask, 6))], replace(QUICK, steps=3, **settings), progress=False)
    assert all(np.isfinite(row["loss"]) for row in history) and weights(model).isfinite().all()


# ---- early stop, optimisers, logs


def test_a_run_that_gets_no_better_is_over(tmp_path, monkeypatch):
    from petroscope.segmentation import train as module
    from petroscope.segmentation.scores import score as score_of

    first = lambda model, pairs, scale: score_of(model, [pairs[0]], scale)  # noqa: E731
    monkeypatch.setattr("petroscope.segmentation.training.run.score", first)
    monkeypatch.setattr(module, "update_average", lambda *_: None)  # so that every score is that of the first
    for room in ("train", "training.run"):
        monkeypatch.setattr(f"petroscope.segmentation.{room}.best_row", lambda history: history[0])
    config = replace(LONGER, validate_every=1, patience=3)
    model = longer(tmp_path / "run", config=config)
    assert [row["step"] for row in model.record["history"]] == [1, 2, 3, 4]
    again = longer(tmp_path / "run", config=config, resume=True)
    assert [row["step"] for row in again.record["history"]] == [1, 2, 3, 4]


@pytest.mark.parametrize("settings", [
    {"optimizer": "adam"}, {"schedule": "one-cycle", "warmup": 0.3}, {"border_weight": 3.0}, {"label_smoothing": 0.1},
    {"lovasz_weight": 1.0, "dice_weight": 0.0}, {"freeze_batch_norm": True}, {"void_border_px": 2, "jpeg_quality": 50},
])  # fmt: skip
def test_every_setting_changes_what_is_learned(section, settings):
    learned = []
    for config in (replace(QUICK, steps=2), replace(QUICK, steps=2, **settings)):
        model = small_model()
        train(model, [section], config, progress=False)
        learned.append(weights(model))
    assert learned[1].isfinite().all() and not torch.equal(*learned)


def test_frozen_statistics_stay(section):
    model = small_model()
    train(model, [section], replace(QUICK, freeze_batch_norm=True), progress=False)
    state = model.net.state_dict()
    assert all((t == 0).all() for name, t in state.items() if name.endswith("running_mean"))


def test_a_run_folder_says_how_to_repeat_it(whole):
    about = json.loads((whole / "run.json").read_text())
    assert TrainConfig.from_dict(json.loads((whole / "config.json").read_text())) == LONGER
    assert about["network"]["filters"] == 2 and len(about["initial_weights"]) == 32
    assert list(about["photos"]) == ["photo_000 (trained on)", "photo_001 (trained on)", "photo_000 (held out)"]
    start = about["starts"][0]
    assert {"petroscope", "torch", "numpy", "opencv", "python"} <= set(start["versions"])
    assert {"device", "precision", "threads", "processes", "platform"} <= set(start["machine"])
    for name in ("iou", "mean_iou", "acc"):
        assert read_image(whole / f"metrics_{name}.png").shape[1] > 300
    columns = (whole / "history.csv").read_text().splitlines()[0].split(",")
    assert {"epoch", "accuracy", "accuracy void borders", "iou void borders Gl"} <= set(columns)


def test_tensorboard_is_written_if_wanted(section, tmp_path):
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    options = {"held_out": [section], "progress": False, "tensorboard": "on"}
    train(small_model(), [section], QUICK, out=tmp_path / "run", **options)
    assert list((tmp_path / "run/tensorboard").glob("events.*"))


@pytest.fixture
def two_roots(data, tmp_path):
    "Beside the photos of S1, two of S2, one of which has the name of one of those."
    for name in ("c", "d"):
        drawn = scene((48, 64), minerals=LumenStoneClasses.S2v1.labels, seed=ord(name))
        for part in ("imgs/train", "masks/train"):
            (tmp_path / "other" / part).mkdir(parents=True, exist_ok=True)
        write_image(tmp_path / f"other/imgs/train/{name}.png", drawn.image)
        write_mask(tmp_path / f"other/masks/train/{name}.png", drawn.mask)
    return data, tmp_path / "other"


def test_two_datasets_make_one_training(two_roots, tmp_path):
    from petroscope.cli.main import main

    quick = ["--scale", "0.5", "--set", "steps=2", "--set", "batch_size=4", "--set", "patch_size=16"]
    small = ["--filters", "2", "--depth", "1"]
    root, other = map(str, two_roots)
    run, cv = tmp_path / "run", tmp_path / "cv"
    both = ["train", root, "--also", other, "S2v1", "--hold-out", "0", "--tensorboard", "off", *quick]
    assert main([*both, *small, "--out", str(run)]) == 0
    model = ResUnet.load(run / "last.safetensors")
    assert model.classes.codes == (0, 1, 2, 3, 4, 5, 6, 7, 8, 11)
    assert model.record["annotated"] == [["S1v1", 3], ["S2v1", 2]]
    folds = ["crossval", *both[1 : both.index("--hold-out")], *both[both.index("--tensorboard") :], "--folds", "2"]
    assert main([*folds, *small, "--out", str(cv)]) == 0
    dealt = json.loads((cv / "folds.json").read_text())["photos"]
    assert sorted(dealt) == ["S1v1 a", "S1v1 b", "S1v1 c", "S2v1 c", "S2v1 d"]
    counted = [len(json.loads((cv / f"fold_{f}/scores.json").read_text())) for f in range(2)]
    assert sum(counted) == 5
    # What was learned about seven minerals serves ten, and a larger network teaches.
    more = ["--init", str(run / "last.safetensors"), "--teacher", str(run / "last.safetensors")]
    assert main([*both, *more, "--out", str(tmp_path / "more")]) == 0
    began = json.loads((tmp_path / "more/run.json").read_text())
    assert began["initial_weights"] == began["teachers"][0]


def test_other_teachers_make_another_run(data, section, tmp_path):
    teacher = small_model()
    train(small_model(), [tuple(section)], QUICK, out=tmp_path / "run", teachers=[teacher], progress=False)
    longer = {"out": tmp_path / "run", "resume": True, "progress": False}
    with pytest.raises(ValueError, match="teachers was"):
        train(small_model(), [tuple(section)], QUICK, **longer)
    with torch.no_grad():
        teacher.net.out.bias += 1
    with pytest.raises(ValueError, match="teachers was"):
        train(small_model(), [tuple(section)], QUICK, teachers=[teacher], **longer)


TRAIN_AND_TELL = """
import re, sys, warnings
warnings.simplefilter("ignore")
from petroscope.cli.main import main
status = main(sys.argv[1:])
print("peak", re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
sys.exit(status)
"""


def trained(root, out, *options):
    "The peak of the memory of `petroscope train` in MB, and the weights."
    settings = ["steps=30", "batch_size=2", "patch_size=64", "blur_px=0", "noise=0", "validate_every=30"]
    argv = ["train", str(root), "--out", str(out), "--hold-out", "0", "--scale", "1", "--model-scale", "0.9",
            "--filters", "2", "--depth", "1", "--tensorboard", "off", *options]  # fmt: skip
    argv += [word for setting in settings for word in ("--set", setting)]
    done = subprocess.run([sys.executable, "-c", TRAIN_AND_TELL, *argv], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split("peak ")[1]) / 1024, (out / "last.safetensors").read_bytes()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc here to read the peak of the memory from")
def test_a_set_larger_than_the_memory_budget_trains_in_it_to_the_same_bytes(tmp_path):
    "16 photos of 1.9 Mpx take 98 MB at the scale of the network; the budget is 20 MB."
    drawn = scene((300, 400), seed=5)
    for root, count in (("half", 8), ("whole", 16)):
        for i in range(count):
            rolled = (np.roll(part, 37 * i, (0, 1)) for part in drawn[:2])
            for part, folder, write in zip(rolled, ("imgs", "masks"), (write_image, write_mask), strict=True):
                file = tmp_path / root / folder / "train" / f"{i:02}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                write(file, np.tile(part, (4, 4) + (1,) * (part.ndim - 2)))
    on_disk = "--memory-gb", "0.02", "--cache", str(tmp_path / "cache")
    half, _ = trained(tmp_path / "half", tmp_path / "1", *on_disk)
    whole, same = trained(tmp_path / "whole", tmp_path / "2", *on_disk)
    held, expected = trained(tmp_path / "whole", tmp_path / "3", "--memory-gb", "1")
    assert same == expected
    assert whole < half + 35 and whole < held - 30, (half, whole, held)  # eight photos more take 49 MB
    assert len(list((tmp_path / "cache").iterdir())) == 3 * 16
