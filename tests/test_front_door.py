"What people try first: `import petroscope as ps`, and then what they know from other packages."

import contextlib
import inspect
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import petroscope as ps
from petroscope.io.images import write_image, write_mask
from petroscope.segmentation.model import CallableModel

ROOT = Path(__file__).resolve().parent.parent


def bright(batch):
    light = (batch.mean(axis=-1) > 140).astype(np.float32)
    return np.stack([1 - light, light], axis=1)


@pytest.fixture(scope="module")
def toy():
    return CallableModel(ps.LumenStoneClasses.S1v1.subset(["BG", "Py/Mrc"]), bright)


@pytest.fixture(scope="module")
def section():
    return ps.synth.scene((120, 160), ("BG", "Py/Mrc"), seed=2, scale=0.5)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("set")
    for split in ("train", "test"):
        for kind in ("imgs", "masks"):
            (root / kind / split).mkdir(parents=True)
        for seed in range(3):
            drawn = ps.synth.scene((96, 128), ("BG", "Py/Mrc", "Sph"), seed=seed, scale=0.5)
            write_image(root / f"imgs/{split}/p{seed}.jpg", drawn.image)
            write_mask(root / f"masks/{split}/p{seed}.png", drawn.mask)
    return root


@pytest.fixture(scope="module")
def photo(tmp_path_factory, section):
    path = tmp_path_factory.mktemp("photos") / "photo.jpg"
    write_image(path, section.image)
    return path


def shown(thing):
    "What `help` prints."
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        help(thing)
    return out.getvalue()


def segment_a_file(photo, toy, **_):
    assert ps.segment(str(photo), toy, scale=0.5).mask.shape == (120, 160)


def segment_an_array(section, toy, **_):
    assert ps.segment(section.image, toy, scale=0.5).confidence.max() <= 1


def segment_a_folder(photo, toy, **_):
    assert [p.name for p in ps.segment(photo.parent, toy, scale=0.5)] == ["photo"]


def segment_with_test_time_augmentation(section, toy, **_):
    assert ps.segment(section.image, model=toy, scale=0.5, tta=4).mask.any()


def name_the_weights(section, **_):
    pytest.importorskip("torch")
    assert set(ps.segment(section.image, model="s1v1", scale=0.5).classes.labels) >= {"BG", "Gl", "Py/Mrc"}


def prediction_has_areas_and_overlay(section, toy, tmp_path, **_):
    said = ps.segment(section.image, toy, scale=0.5)
    assert [row.label for row in said.areas()] == ["BG", "Py/Mrc"] and said.overlay().ndim == 3
    assert {path.suffix for path in said.save(tmp_path)} == {".png", ".jpg", ".csv", ".json"}


def prediction_shows_itself(section, toy, **_):
    said = ps.segment(section.image, toy, scale=0.5)
    assert said._repr_png_()[1:4] == b"PNG" and "pyrite" in repr(said)


def prediction_as_a_dataframe(section, toy, **_):
    pandas = pytest.importorskip("pandas")
    assert isinstance(ps.segment(section.image, toy, scale=0.5).to_dataframe(), pandas.DataFrame)


def read_a_photo(photo, **_):
    assert ps.read_image(photo).shape == (120, 160, 3)


def read_a_mask(dataset, **_):
    assert ps.read_mask(dataset / "masks/test/p0.png").dtype == np.uint8


def load_a_model_by_name(**_):
    pytest.importorskip("torch")
    assert ps.load_model("s1v1").classes == ps.LumenStoneClasses.S1v1 and "s1v1" in ps.list_models()


def model_says_what_it_is(**_):
    pytest.importorskip("torch")
    said = repr(ps.load_model("s1v1"))
    assert "ResUnet" in said and "S1v1" in said and "0x" not in said


def pretrained_network(**_):
    pytest.importorskip("torch")
    assert ps.ResUnet.pretrained("s1v1").scale == ps.load_model().scale


def stitch_a_folder(tmp_path, **_):
    for number, image in enumerate(ps.synth.fields(1, 2, (160, 200), overlap=0.3, seed=3).images):
        write_image(tmp_path / f"f{number}.png", image)
    ps.stitch(tmp_path, tmp_path / "out.ome.tif", grid=(1, 2), overlap=0.3)
    assert (tmp_path / "out.ome.tif").exists()


def panorama_class(**_):
    assert callable(ps.Panorama.from_fields)


def analyse_a_mask(dataset, tmp_path, **_):
    done = ps.analyse(dataset / "masks/test/p0.png", tmp_path / "out", pixel_size_um=1.0)
    assert (tmp_path / "out/report.html").exists() and len(done.grains)


def evaluate_a_dataset(dataset, tmp_path, **_):
    network = CallableModel(ps.LumenStoneClasses.S1v1, lambda batch: np.eye(7, dtype=np.float32)[
        (batch.mean(axis=-1) > 140) * 6].transpose(0, 3, 1, 2))  # fmt: skip
    done = ps.evaluate(dataset, network, tmp_path / "out", scale=0.5, pictures=False)
    assert len(done.records) == 3


def train_a_network(dataset, tmp_path, **_):
    pytest.importorskip("torch")
    settings = {"steps": 2, "batch_size": 2, "patch_size": 32, "validate_every": 2, "scale": 0.5}
    model = ps.train(dataset, tmp_path / "run", held_out=0.34, progress=False, **settings)
    assert isinstance(model, ps.ResUnet) and (tmp_path / "run/best.safetensors").exists()


def class_set_by_its_name(dataset, **_):
    assert len(ps.LumenStone(dataset, "S1v1")) == 3
    assert ps.SegmMetrics("S1v1").classes == ps.LumenStoneClasses.S1v1


def predict_a_path(photo, toy, **_):
    assert toy.predict(photo, scale=0.5).mask.shape == (120, 160)


def balancer_in_a_loader(dataset, **_):
    data = pytest.importorskip("torch").utils.data
    patches = ps.SelfBalancingDataset(ps.LumenStone(dataset, "S1v1"), "S1v1", patch_size=32)
    image, mask = next(iter(data.DataLoader(patches, batch_size=2)))[:2]
    assert image.shape[0] == mask.shape[0] == 2


def leave_minerals_out(section, **_):
    pytest.importorskip("torch")
    said = ps.segment(section.image, classes=["BG", "Py/Mrc"], scale=0.5)
    assert set(np.unique(said.mask)) <= {0, 6}


def help_names_the_parameters(**_):
    for thing in (ps.segment, ps.read_image, ps.ResUnet):
        assert "Parameters\n" in shown(thing), thing
    assert "Views of each tile that are averaged" in shown(ps.segment)


def subpackages_hand_on_their_names(**_):
    assert ps.segmentation.ResUnet is ps.ResUnet and ps.panorama.Panorama is ps.Panorama
    assert ps.io.read_mask is ps.read_mask and ps.analysis.find_grains and ps.view.overlay and ps.view.plot_heat_maps
    assert callable(ps.segmentation.compare.compare) and callable(ps.segmentation.evaluation_report.plot_iou)
    assert callable(ps.segmentation.balancer.coverage) and callable(ps.segmentation.read_history)


def dir_lists_the_names(**_):
    assert {"segment", "stitch", "analyse", "evaluate", "train", "ResUnet", "synth"} <= set(dir(ps))


GUESSES = (
    segment_a_file, segment_an_array, segment_a_folder, segment_with_test_time_augmentation, name_the_weights,
    prediction_has_areas_and_overlay, prediction_shows_itself, prediction_as_a_dataframe, read_a_photo, read_a_mask,
    load_a_model_by_name, model_says_what_it_is, pretrained_network, stitch_a_folder, panorama_class,
    analyse_a_mask, evaluate_a_dataset, train_a_network, class_set_by_its_name,
    predict_a_path, balancer_in_a_loader, leave_minerals_out, help_names_the_parameters,
    subpackages_hand_on_their_names, dir_lists_the_names,
)  # fmt: skip


@pytest.mark.parametrize("guess", GUESSES, ids=lambda guess: guess.__name__)
def test_first_guess(guess, photo, section, dataset, toy, tmp_path):
    guess(photo=photo, section=section, dataset=dataset, toy=toy, tmp_path=tmp_path)


def test_the_stub_and_the_package_agree():
    for name in ps.__all__:
        assert getattr(ps, name) is not None
    assert set(inspect.signature(ps.segment).parameters) >= {"photos", "model", "scale", "tta"}


def test_import_is_quick_and_loads_nothing_large():
    code = "import time; t = time.perf_counter(); import petroscope; print(time.perf_counter() - t); import sys; "
    code += "assert not {'torch', 'matplotlib', 'numpy', 'cv2'} & set(sys.modules)"
    took = [float(subprocess.check_output([sys.executable, "-c", code], cwd=ROOT)) for _ in range(3)]
    assert min(took) < 0.3
