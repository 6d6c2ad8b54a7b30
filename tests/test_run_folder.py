"Folders for results: what is not the command's own is refused before work, and two runs never mix."

import errno
import json
import os
import shutil
import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from petroscope import synth
from petroscope.analysis.section import analyse
from petroscope.cli import main as cli
from petroscope.io.files import RECORD, RunFolder, read_record
from petroscope.io.images import write_image, write_mask
from petroscope.optics.calibrate import calibrate
from petroscope.panorama.panorama import Panorama
from petroscope.panorama.stitch import stitch
from petroscope.segmentation import evaluate
from petroscope.segmentation.classes import LumenStoneClasses
from petroscope.segmentation.evaluate import SegmDetailedTester
from petroscope.segmentation.model import CallableModel
from petroscope.segmentation.predict import predict_file
from petroscope.synth.rock import scene

S1 = LumenStoneClasses.S1v1
FOREIGN = b"somebody's work of an hour"


def names(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def recorded(folder):
    "Names of the record of a folder; none where there is none."
    return read_record((folder / RECORD).read_bytes()) if (folder / RECORD).exists() else {}


asked = []


def network(batch):
    "Stands for a network: bright is pyrite; it notes how often it was asked."
    asked.append(len(batch))
    probs = np.full((len(batch), len(S1), *batch.shape[1:3]), 0.01, np.float32)
    bright = batch.mean(axis=3) > 128
    probs[:, 0], probs[:, S1.labels.index("Py/Mrc")] = ~bright, bright
    return probs / probs.sum(axis=1, keepdims=True)


@pytest.fixture
def model(monkeypatch):
    asked.clear()
    for room in ("segment", "train", "stitch"):
        monkeypatch.setattr(f"petroscope.cli.{room}.load_model", lambda args: CallableModel(S1, network))
    return asked


@pytest.fixture(autouse=True)
def plain_pictures(monkeypatch, plain_plots):
    "How a picture looks says nothing of where it is written."
    monkeypatch.setattr("petroscope.synth.rock.scene", partial(scene, shape=(60, 80)))  # for `demo`


@pytest.fixture(scope="module")
def drawn():
    return [scene(shape=(60, 80), seed=seed, scale=0.25) for seed in (1, 2)]


@pytest.fixture
def photos(tmp_path, drawn):
    "Two photos in a folder `photos`, their masks in `truth`, other masks in `pred`."
    for name in ("photos", "truth", "pred"):
        (tmp_path / name).mkdir()
    for stem, section in zip("ab", drawn, strict=True):
        write_image(tmp_path / "photos" / f"{stem}1.png", section.image)
        for name in ("truth", "pred"):
            write_mask(tmp_path / name / f"{stem}1.png", section.mask)
    return tmp_path


def run(capsys, *argv):
    "Status of a command and what it said to people."
    capsys.readouterr()
    status = cli.main([str(arg) for arg in argv])
    told = capsys.readouterr().err
    print(told, file=sys.stdout)
    return status, told


def segment(photos, *more, out="out"):
    return ("segment", photos / "photos" / "a1.png", photos / "photos" / "b1.png", "--out", photos / out, *more)


def judge(photos, *more, out="out"):
    masks = ("--pred", photos / "pred", "--target", photos / "truth")
    return ("evaluate", *masks, "--classes", "S1v1", "--out", photos / out, *more)


QUICK = ("--classes", "S1v1", "--filters", 2, "--depth", 1, "--scale", 0.25, "--device", "cpu",
         "--set", "steps=1", "--set", "patch_size=32", "--set", "batch_size=1", "--tensorboard", "off")  # fmt: skip


def lumenstone(photos):
    "The photos and masks laid out as a dataset."
    root = photos / "set"
    for name, part in ("photos", "imgs"), ("truth", "masks"):
        if not (root / part / "train").exists():
            shutil.copytree(photos / name, root / part / "train")
    return root


def compared(photos, capsys):
    "The call of `compare` on two evaluations."
    for out in ("one", "two"):
        if not (photos / out).exists():
            assert run(capsys, *judge(photos, out=out))[0] == 0
    return ("compare", photos / "one", photos / "two", "--out", photos / "out")


COMMANDS = {
    "segment": (lambda photos, capsys: segment(photos, "--confidence"), ("a1_mask.png", "b1_overlay.jpg",
                "a1_minerals.csv", "b1_confidence.png", "a1_confidence.jpg")),
    "evaluate": (lambda photos, capsys: judge(photos), ("metrics.json", "photos.csv", "report.html", "run.json",
                 "records/b1.json", "photos/a1/overlay.jpg")),
    "compare": (compared, ("comparison.csv", "b1.jpg")),
    "analyse": (lambda photos, capsys: ("analyse", photos / "truth", "--out", photos / "out"), ("modal.csv",
                "grains.csv", "report.html", "analysis.json", "a1_minerals.png", "b1.geojson")),
    "demo": (lambda photos, capsys: ("demo", "--out", photos / "out", "--scenes", 1), ("section_00.jpg",
             "section_00_truth.png", "section_00_mask.png", "section_00_sheet.png", "metrics.json")),
    "train": (lambda photos, capsys: ("train", lumenstone(photos), *QUICK, "--hold-out", 0.5, "--out",
              photos / "out"), ("config.json", "run.json", "last.safetensors", "best.safetensors", "history.csv",
              "state.pt", "metrics_iou.png")),
    "cross-validation": (lambda photos, capsys: ("crossval", lumenstone(photos), *QUICK, "--folds", 2, "--out",
                         photos / "out"), ("folds.json", "scores.json", "fold_1/scores.json")),
}  # fmt: skip
RECORDED = {"cross-validation": "crossval"}  # as which command
EACH = [(command, name) for command, (_, own) in COMMANDS.items() for name in own]


@pytest.mark.parametrize("command, name", EACH)
def test_a_foreign_file_is_refused_before_any_work(photos, model, capsys, command, name):
    argv = COMMANDS[command][0](photos, capsys)
    file = photos / "out" / name
    file.parent.mkdir(parents=True)
    file.write_bytes(FOREIGN)
    status, told = run(capsys, *argv)
    assert status == 1 and told.count("\n") == 1
    assert str(file) in told and f"petroscope {RECORDED.get(command, command)} did not write it" in told
    assert "--out" in told
    assert names(photos / "out") == [name] and file.read_bytes() == FOREIGN and not model


def refused(capsys, argv, file, told):
    "The command refuses the file in one line and changes nothing."
    before = {p: p.read_bytes() for p in file.parent.rglob("*") if p.is_file()}
    status, said = run(capsys, *argv)
    assert status == 1 and said.count("\n") == 1 and str(file) in said and told in said, said
    assert {p: p.read_bytes() for p in file.parent.rglob("*") if p.is_file()} == before


GOES_ON = ("train", "cross-validation")


def options(command):
    "Without a confidence map, which only a network gives."
    return (lambda photos, capsys: segment(photos)) if command == "segment" else COMMANDS[command][0]


@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in GOES_ON])
def test_own_files_are_replaced_and_changed_ones_are_not(photos, model, capsys, command):
    argv = options(command)(photos, capsys)
    assert run(capsys, *argv)[0] == 0
    first = names(photos / "out")
    assert {*recorded(photos / "out"), RECORD} == set(first)
    assert run(capsys, *argv)[0] == 0 and names(photos / "out") == first
    for name in COMMANDS[command][1]:
        file = photos / "out" / name
        if file.exists():  # without a confidence map there is none
            own = file.read_bytes()
            file.write_bytes(FOREIGN)
            refused(capsys, argv, file, f"was changed since petroscope {command} wrote it")
            file.write_bytes(own)
    file = photos / "out" / COMMANDS[command][1][0]
    file.unlink()  # moved away, as the message says
    assert run(capsys, *argv)[0] == 0 and names(photos / "out") == first


@pytest.mark.parametrize("command", GOES_ON)
def test_a_training_goes_on_with_its_own_files_only(photos, capsys, command):
    argv = COMMANDS[command][0](photos, capsys)
    assert run(capsys, *argv)[0] == 0
    folder = photos / "out"
    folds = [f"fold_{i}/{name}" for i in (0, 1) for name in (RECORD, *recorded(folder / f"fold_{i}"))]
    assert {*recorded(folder), RECORD, *(folds if command != "train" else ())} == set(names(folder))
    again = (*argv, "--resume") if command == "train" else argv
    assert run(capsys, *again)[0] == 0
    for name in COMMANDS[command][1]:
        file = photos / "out" / name
        if not file.exists():  # curves are of photos held out
            continue
        own = file.read_bytes()
        file.write_bytes(FOREIGN)
        refused(capsys, again, file, f"was changed since petroscope {RECORDED.get(command, command)} wrote it")
        file.write_bytes(own)


def test_folds_trained_at_once_share_a_folder(photos, capsys):
    "A fold is another process's business; only the fold itself is locked."
    argv = COMMANDS["cross-validation"][0](photos, capsys)
    with RunFolder(photos / "out" / "fold_0", "train"):
        assert run(capsys, *argv, "--fold", 1)[0] == 0
        status, told = run(capsys, *argv, "--fold", 0)
        assert status == 1 and f"{photos / 'out' / 'fold_0'}: another run" in told
    assert run(capsys, *argv)[0] == 0


def test_a_mask_corrected_by_hand_is_kept_by_the_whole_call(photos, model, capsys):
    assert run(capsys, *segment(photos))[0] == 0
    mask = photos / "out" / "a1_mask.png"
    write_mask(mask, np.zeros((60, 80), np.uint8))
    before = list(model)
    refused(capsys, segment(photos), mask, "was changed since")
    assert model == before


def test_photos_are_not_replaced_by_results_of_others(photos, model, capsys):
    "With `--out` the photos' own folder, a photo has the name of another one's overlay."
    folder = photos / "photos"
    (folder / "b1.png").rename(folder / "a1_overlay.jpg")
    argv = ("segment", folder / "a1.png", folder / "a1_overlay.jpg", "--out", folder)
    refused(capsys, argv, folder / "a1_overlay.jpg", "is an input")
    os.link(folder / "a1_overlay.jpg", folder / "linked.jpg")
    refused(capsys, ("segment", folder / "a1.png", folder / "linked.jpg", "--out", folder), folder / "a1_overlay.jpg",
            "is an input")  # fmt: skip


def test_commands_do_not_replace_each_others_files(photos, model, capsys):
    assert run(capsys, *segment(photos))[0] == 0
    with pytest.raises(ValueError, match="was written by petroscope segment, and analyse would overwrite it"):
        RunFolder(photos / "out", "analyse", ["a1_mask.png"]).__enter__()


@pytest.mark.parametrize("command", [c for c in COMMANDS if c != "cross-validation"])
def test_two_runs_at_once_do_not_mix(photos, model, capsys, command):
    argv = options(command)(photos, capsys)
    with RunFolder(photos / "out", command):
        status, told = run(capsys, *argv)
        assert status == 1 and told.count("\n") == 1 and "another run of petroscope is writing here" in told
        assert not model and names(photos / "out") == [RECORD]
    assert run(capsys, *argv)[0] == 0


WORKS = """
import sys
from petroscope.io.files import RunFolder
with RunFolder(sys.argv[1], "segment", ["a1_mask.png"]) as run, run.writing(["a1_mask.png"]):
    open(sys.argv[1] + "/a1_mask.png", "w").write("half a mask")
    print("working", flush=True)
    input()
"""


def test_the_folder_of_a_killed_run_is_usable_again(photos, model, capsys):
    arguments = [sys.executable, "-c", WORKS, str(photos / "out")]
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "working\n"
        status, told = run(capsys, *segment(photos))
        assert status == 1 and "another run of petroscope is writing here" in told
    finally:
        process.kill()
        process.communicate()
    assert run(capsys, *segment(photos))[0] == 0
    assert (photos / "out" / "a1_mask.png").read_bytes().startswith(b"\x89PNG")


def test_a_record_that_was_cut_off_in_a_line_is_read(photos, model, capsys):
    assert run(capsys, *segment(photos))[0] == 0
    record = photos / "out" / RECORD
    record.write_bytes(record.read_bytes() + b'{"by": "segment", "wri')
    assert run(capsys, *segment(photos))[0] == 0
    assert all(json.loads(line) for line in record.read_text().splitlines())


def test_a_foreign_record_is_refused(photos, model, capsys):
    (photos / "out").mkdir()
    record = photos / "out" / RECORD
    record.write_text('{"rows": 3}\n')
    refused(capsys, segment(photos), record, "petroscope's record of the files")


def test_a_link_to_a_foreign_file_is_no_own_file(photos, model, capsys):
    (photos / "out").mkdir()
    (photos / "mine.png").write_bytes(FOREIGN)
    (photos / "out" / "a1_mask.png").symlink_to(photos / "mine.png")
    (photos / "out" / "b1_mask.png").symlink_to(photos / "nowhere.png")
    refused(capsys, segment(photos), photos / "out" / "a1_mask.png", "did not write it")
    (photos / "out" / "a1_mask.png").unlink()
    refused(capsys, segment(photos), photos / "out" / "b1_mask.png", "did not write it")
    assert not (photos / "nowhere.png").exists()


def test_a_folder_without_locks_is_used_with_a_warning(tmp_path, monkeypatch):
    def no_locks(file):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("petroscope.io.files._try_lock", no_locks)
    with pytest.warns(UserWarning, match="cannot be locked"), RunFolder(tmp_path / "out", "segment") as run:
        with run.writing(["a.txt"]):
            (run.folder / "a.txt").write_text("a")
    assert names(tmp_path / "out") == ["a.txt", RECORD]


def test_on_windows_a_byte_behind_the_record_is_locked(tmp_path, monkeypatch):
    "What is locked there cannot be read by others; `msvcrt` is played."
    held = set()

    def locking(number, mode, size):
        assert mode == "at once" and os.lseek(number, 0, os.SEEK_CUR) > 1 << 29 and size == 1
        key = os.fstat(number).st_ino
        if key in held:
            raise PermissionError(errno.EACCES, "Permission denied")
        held.add(key)

    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(locking=locking, LK_NBLCK="at once"))
    monkeypatch.setattr("petroscope.io.files.sys", SimpleNamespace(platform="win32"))
    with RunFolder(tmp_path / "out", "segment") as run:
        with run.writing(["a.txt"]):
            (run.folder / "a.txt").write_text("a")
        with pytest.raises(ValueError, match="another run of petroscope"):
            RunFolder(tmp_path / "out", "segment").refuse()
    held.clear()
    RunFolder(tmp_path / "out", "segment", ["a.txt"]).refuse()
    held.clear()
    RunFolder(tmp_path / "new", "segment").refuse()
    assert names(tmp_path) == ["out/a.txt", f"out/{RECORD}"] and not (tmp_path / "new").exists()


def test_a_waiting_run_begins_when_the_other_has_ended(tmp_path):
    arguments = [sys.executable, "-c", WORKS, str(tmp_path)]
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        process.stdout.readline()
        process.stdin.write("\n")
        process.stdin.flush()
        with RunFolder(tmp_path, "segment", wait_s=30) as run:
            assert run.files["a1_mask.png"].key and not run.files["a1_mask.png"].begun
    finally:
        process.kill()
        process.communicate()


# An evaluation that failed.


def evaluated(folder, predict, drawn, **options):
    pairs = [(f"photo {i}", section.image, section.mask) for i, section in enumerate(drawn)]
    return SegmDetailedTester(folder, S1, pictures=False, resamples=20).test_on_set(pairs, predict, **options)


def fails(image):
    raise ValueError("no such network")


def brightness(image):
    return np.where(image.mean(axis=2) > 128, np.uint8(S1["Py/Mrc"].code), np.uint8(0))


@pytest.mark.parametrize("resume", [None, False, True])
def test_a_failed_evaluation_does_not_lock_its_folder(tmp_path, drawn, resume):
    with pytest.raises(ValueError, match="no photo could be evaluated"):
        evaluated(tmp_path / "out", fails, drawn)
    if resume:
        with pytest.raises(ValueError, match="no photo could be evaluated"):
            evaluated(tmp_path / "out", fails, drawn, resume=True)
        return
    assert len(evaluated(tmp_path / "out", brightness, drawn, resume=resume).records) == 2


def test_records_of_photos_are_not_taken_for_those_of_another_evaluation(tmp_path, drawn):
    "Who removed run.json has removed what says how they were made."
    assert len(evaluated(tmp_path / "out", brightness, drawn).records) == 2
    (tmp_path / "out" / "run.json").unlink()
    dark = evaluated(tmp_path / "out", lambda image: np.zeros(image.shape[:2], np.uint8), drawn)
    assert dark.scores.counts["all"][..., 1:].sum() == 0  # nothing but background was predicted


def test_an_evaluation_without_a_mineral_does_not_lock_its_folder(tmp_path, drawn):
    empty = np.repeat(np.array([[0, 255]], np.uint8), [60, 20], axis=1).repeat(60, axis=0)
    blank = [section._replace(mask=empty) for section in drawn]
    for _ in range(2):
        with pytest.raises(ValueError, match="nothing to score"):
            evaluated(tmp_path / "out", lambda image: np.zeros(image.shape[:2], np.uint8), blank)
    assert len(evaluated(tmp_path / "out", brightness, drawn).records) == 2


def test_an_evaluation_that_was_cut_off_is_begun_anew_or_resumed(photos, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(evaluate, "write_figures", interrupted)
        assert run(capsys, *judge(photos))[0] == 130
    status, told = run(capsys, *judge(photos))
    assert status == 1 and "--resume" in told and "--anew" in told
    assert run(capsys, *judge(photos, "--void", 3, "--resume"))[0] == 1
    assert run(capsys, *judge(photos, "--void", 3, "--anew"))[0] == 0
    assert "void_3_px" in json.loads((photos / "out" / "metrics.json").read_text())


# Single files with companions: stitching and calibration.


@pytest.fixture
def fields(tmp_path):
    "Four overlapping fields `t0.tif` ... in a folder, and two photos of a mirror."
    folder = tmp_path / "w"
    folder.mkdir()
    for i, field in enumerate(synth.fields(2, 2, field_shape=(120, 160), overlap=0.3, jitter_px=2, seed=1).images):
        write_image(folder / f"t{i}.tif", field)
    for name in ("mirror.png", "mirror2.png"):
        rows, cols = np.mgrid[:90, :120]
        light = 200 - 0.004 * ((rows - 45) ** 2 + (cols - 60) ** 2)
        write_image(folder / name, np.repeat(light.astype(np.uint8)[..., None], 3, axis=2))
    return folder


def stitched(folder, out):
    return ("stitch", *(folder / f"t{i}.tif" for i in range(4)), "--grid", "2x2", "--overlap", 0.3, "--out", out)


def calibrated(folder, out):
    return ("calibrate", folder / "mirror.png", folder / "mirror2.png", "--out", out)


INPUTS = [(stitched, "t0.tif", "t0.tif"), (calibrated, "mirror.tif", "mirror.png"), (stitched, "out/s.ome.tif", None),
          (stitched, "out/s.ome.tif", "out/s_component1.ome.tif"), (stitched, "out/s.ome.tif", "out/s_preview.jpg"),
          (calibrated, "out/light.tif", "out/light.png"), (calibrated, "out/light.tif", None)]  # fmt: skip


@pytest.mark.parametrize("how", [os.link, os.symlink])
@pytest.mark.parametrize("call, out, result", INPUTS)
def test_photos_are_not_replaced_by_a_panorama_or_a_light(fields, capsys, monkeypatch, call, out, result, how):
    "By their own name, a hard link or a symbolic link."
    (fields / "out").mkdir()
    target = fields / (result or out)
    if not target.exists():
        how(fields / ("t2.tif" if call is stitched else "mirror2.png"), target)
    refuse_work(monkeypatch)
    refused(capsys, call(fields, fields / out), target, "is an input, and a result of this name would overwrite it")


def refuse_work(monkeypatch):
    "Nothing may be read or measured before the refusal."
    for name in ("petroscope.panorama.panorama.Panorama.from_fields", "petroscope.optics.calibrate._measured"):
        monkeypatch.setattr(name, lambda *_, **__: pytest.fail("work began"))


RESULTS = [*((stitched, "s.ome.tif", f"s{end}") for end in (".ome.tif", "_positions.csv", "_geometry.json",
             "_report.html", "_preview.jpg", "_component1.ome.tif", "_component1_preview.jpg")),
           *((calibrated, "light.tif", f"light{end}") for end in (".tif", ".png"))]  # fmt: skip


@pytest.mark.parametrize("call, out, result", RESULTS)
def test_foreign_files_are_not_replaced_by_a_panorama_or_a_light(fields, capsys, monkeypatch, call, out, result):
    (fields / result).write_bytes(FOREIGN)
    refuse_work(monkeypatch)
    refused(capsys, call(fields, fields / out), fields / result, "did not write it; choose another")


@pytest.mark.parametrize("call, out, changed", [(stitched, "s.ome.tif", "s_positions.csv"),
                                                (calibrated, "light.tif", "light.png")])  # fmt: skip
def test_own_panoramas_and_lights_are_replaced(fields, capsys, call, out, changed):
    argv = call(fields, fields / out)
    assert run(capsys, *argv)[0] == 0
    first = names(fields)
    record = f"{out.partition('.')[0]}_files.jsonl"
    made = [name for name in first if not name.startswith(("t", "mirror"))]
    assert {*read_record((fields / record).read_bytes()), record} == set(made)
    assert run(capsys, *argv)[0] == 0 and names(fields) == first
    (fields / changed).write_bytes(FOREIGN)
    refused(capsys, argv, fields / changed, "was changed since")


def test_two_panoramas_in_one_folder_are_two_runs(fields, capsys):
    with RunFolder(fields, "stitch", record="s_files.jsonl"):
        status, told = run(capsys, *stitched(fields, fields / "s.ome.tif"))
        assert status == 1 and "another run of petroscope" in told
        assert run(capsys, *stitched(fields, fields / "other.ome.tif"))[0] == 0
    assert (fields / "other_report.html").exists() and not (fields / "s.ome.tif").exists()


def test_functions_protect_as_the_commands_do(fields, drawn, tmp_path):
    "Without a command line."
    with pytest.raises(ValueError, match=r"t0\.tif: is an input"):
        stitch([fields / f"t{i}.tif" for i in range(4)], fields / "t0.tif", grid=(2, 2))
    with pytest.raises(ValueError, match=r"mirror\.png: is an input"):
        calibrate([fields / "mirror.png"], fields / "mirror.tif")
    for name in ("report.html", "state.pt"):
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / name).write_bytes(FOREIGN)
    with pytest.raises(ValueError, match=r"report\.html: is there already"):
        evaluated(tmp_path / "out", brightness, drawn)
    with pytest.raises(ValueError, match=r"report\.html: is there already"):
        analyse(drawn[0].mask, tmp_path / "out")
    from petroscope.segmentation.resunet import ResUnet
    from petroscope.segmentation.train import train

    with pytest.raises(ValueError, match=r"state\.pt: is there already"):
        train(ResUnet(S1, filters=2, depth=1), [(drawn[0].image, drawn[0].mask)], out=tmp_path / "out")
    assert names(tmp_path / "out") == ["report.html", "state.pt"]


@pytest.mark.parametrize("how", [os.link, os.symlink])
def test_a_panorama_and_its_masks_do_not_replace_a_field(fields, how):
    panorama = Panorama.from_fields([fields / f"t{i}.tif" for i in range(4)], grid=(2, 2), overlap=0.3).align()
    masks = [fields / f"mask{i}.png" for i in range(4)]
    for path in masks:
        write_mask(path, np.zeros((120, 160), np.uint8))
    for target, read, write in [
        ("s.tif", "t1.tif", panorama.compose),
        ("s2.tif", "mask1.png", lambda path: panorama.compose_masks(masks, path)),
        ("s3.tif", "t1.tif", lambda path: panorama.compose_masks(masks, path)),
    ]:
        how(fields / read, fields / target)
        before = (fields / read).read_bytes()
        with pytest.raises(ValueError, match=rf"{target}: is an input"):
            write(fields / target)
        assert (fields / read).read_bytes() == before


@pytest.mark.parametrize("how", [os.link, os.symlink])
@pytest.mark.parametrize("written", ["mask", "confidence"])
def test_the_mask_of_a_section_does_not_replace_its_photo(fields, how, written):
    how(fields / "t0.tif", fields / "linked.tif")
    paths = {"mask": fields / "m.tif", "confidence": fields / "c.tif", written: fields / "linked.tif"}
    with pytest.raises(ValueError, match=r"linked\.tif: is an input"):
        predict_file(CallableModel(S1, network), fields / "t0.tif", paths["mask"], confidence=paths["confidence"])
