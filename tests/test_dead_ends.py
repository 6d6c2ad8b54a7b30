"Files of other programs and machines are understood: wrapped checkpoints, other shapes, other forms of letters."

import json
import shutil
import unicodedata
from copy import deepcopy

import numpy as np
import pytest
import shapely

from petroscope.analysis.exchange import read_geojson, read_labelme
from petroscope.analysis.inputs import field_names
from petroscope.io.images import write_image, write_mask
from petroscope.segmentation.classes import VOID, LumenStoneClasses
from petroscope.segmentation.dataset import LumenStone, files_by_stem
from petroscope.segmentation.evaluate import SegmDetailedTester, predictions
from petroscope.synth.rock import scene

S1 = LumenStoneClasses.S1v1
NFC, NFD = (unicodedata.normalize(form, "Рудный й, grün 1") for form in ("NFC", "NFD"))


# Checkpoints.


@pytest.fixture(scope="module")
def model():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from petroscope.segmentation.resunet import ResUnet

    torch.manual_seed(0)
    return ResUnet(S1, filters=2, depth=1, precision="float32")


def wrapped(state, way):
    "A state dict as programs write it."
    import torch

    if way in ("state_dict", "model_state_dict"):
        return {"epoch": 3, way: {f"net.{name}": value for name, value in state.items()}, "optimizer": {"lr": 0.1}}
    if way == "parts":  # compiled one by one
        return {name.replace(".", "._orig_mod.", 1): value for name, value in state.items()}
    named = {f"{way}{name}": value for name, value in state.items()}
    return {"n_averaged": torch.tensor(7), **named} if way == "module." else named


WAYS = ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "net.", "net.module.", "parts",
        "state_dict", "model_state_dict"]  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_a_wrapped_checkpoint_is_the_network_in_it(model, tmp_path, way):
    import torch

    from petroscope.segmentation.resunet import ResUnet

    torch.save(wrapped(model.net.state_dict(), way), tmp_path / "a.pth")
    same(ResUnet.load(tmp_path / "a.pth", classes=S1), model)


@pytest.mark.parametrize("nested", [None, "state_dict", "model_state_dict"])
def test_another_network_of_the_same_names_is_refused(model, tmp_path, nested):
    import torch

    from petroscope.segmentation.resunet import ResUnet

    state = {f"model.{name}": value for name, value in model.net.state_dict().items()}
    torch.save({nested: state} if nested else state, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a\.pth: the names begin with `model\.`.*another one"):
        ResUnet.load(tmp_path / "a.pth", classes=S1)


def same(one, other):
    import torch

    a, b = one.net.state_dict(), other.net.state_dict()
    assert list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("suffix", [".safetensors", ".SAFETENSORS", ".SafeTensors"])
@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
def test_safetensors_in_any_case(model, tmp_path, suffix, prefix):
    import safetensors.torch

    from petroscope.segmentation.resunet import ResUnet
    from petroscope.segmentation.weights import read_state

    path = tmp_path / f"a{suffix}"
    model.save(path)
    same(ResUnet.load(path), model)
    assert read_state(path)[1]["scale"] == 1
    state = {f"{prefix}{name}": value.contiguous() for name, value in model.net.state_dict().items()}
    safetensors.torch.save_file(state, path)
    same(ResUnet.load(path, classes="S1v1"), model)


def test_what_torch_wraps_itself(model, tmp_path):
    import torch

    from petroscope.segmentation.resunet import ResUnet

    for net in (torch.compile(deepcopy(model.net)), torch.optim.swa_utils.AveragedModel(model.net)):
        torch.save(net.state_dict(), tmp_path / "a.pth")
        same(ResUnet.load(tmp_path / "a.pth", classes=S1), model)


def test_two_networks_in_one_file_are_refused(model, tmp_path):
    import torch

    from petroscope.segmentation.resunet import ResUnet

    state = model.net.state_dict()
    torch.save({**state, **{f"module.{name}": value for name, value in state.items()}}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a\.pth: .* are one tensor but for wrappers' names; save one net"):
        ResUnet.load(tmp_path / "a.pth", classes=S1)
    torch.save({"state_dict": {"a": 1}, "model_state_dict": {"b": 1}}, tmp_path / "b.pth")
    with pytest.raises(ValueError, match=r"b\.pth: expected names and tensors"):
        ResUnet.load(tmp_path / "b.pth", classes=S1)


# Shapes.

TURNED = [[5.1, 3.1], [9.2, 6.1], [6.2, 10.3], [2.1, 7.3]]


def labelme(folder, kind, points):
    shape = {"label": "Gl", "points": points} | ({} if kind == "none" else {"shape_type": kind})
    (folder / "a.json").write_text(json.dumps({"imageHeight": 14, "imageWidth": 13, "shapes": [shape]}))
    return folder / "a.json"


@pytest.mark.parametrize("kind", ["polygon", "oriented_rectangle", "rotation", "quadrilateral", "rectangle", "Polygon",
                                  None, "none"])  # fmt: skip
def test_labelmes_shapes_with_an_area(tmp_path, kind):
    y, x = np.mgrid[:14, :13] + 0.5
    inside = shapely.contains_xy(shapely.Polygon(TURNED), x, y)
    mask = read_labelme(labelme(tmp_path, kind, TURNED), S1)
    np.testing.assert_array_equal(mask, np.where(inside, 2, VOID))


@pytest.mark.parametrize("kind", ["line", "linestrip", "point", "points"])
def test_labelmes_shapes_without_an_area(tmp_path, kind):
    with pytest.raises(ValueError, match=rf"a shape 'Gl' of the kind '{kind}', which has no area"):
        read_labelme(labelme(tmp_path, kind, TURNED), S1)


@pytest.mark.parametrize("kind, points, told", [
    ("ellipse", TURNED[:3], "'ellipse', which is not known here"), ("cuboid", TURNED * 2, "not known here"),
    ("circle", TURNED, "got a circle 'Gl' of 4 points"), ("rectangle", TURNED[:3], "rectangle 'Gl' of 3 points"),
    ("polygon", TURNED[:2], "polygon 'Gl' of 2 points"), ("polygon", [], "polygon 'Gl' of 0 points"),
])  # fmt: skip
def test_labelmes_shapes_that_are_not_understood(tmp_path, kind, points, told):
    with pytest.raises(ValueError) as failed:
        read_labelme(labelme(tmp_path, kind, points), S1)
    assert told in str(failed.value) and "a.json" in str(failed.value) and "no area" not in str(failed.value)


def geojson(folder, geometry):
    feature = {"type": "Feature", "geometry": geometry, "properties": {"classification": {"name": "Gl"}}}
    (folder / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    return folder / "a.geojson"


def test_a_collection_of_geometries(tmp_path):
    parts = [shapely.box(1, 1, 3, 3), shapely.MultiPolygon([shapely.box(5, 5, 8, 8), shapely.box(9, 1, 10, 2)])]
    collection = shapely.geometry.mapping(shapely.GeometryCollection(parts))
    assert np.count_nonzero(read_geojson(geojson(tmp_path, collection), S1, (12, 12)) == 2) == 4 + 9 + 1
    with_line = shapely.geometry.mapping(shapely.GeometryCollection([*parts, shapely.LineString([(0, 0), (1, 1)])]))
    with pytest.raises(ValueError, match="got a LineString, which has no area"):
        read_geojson(geojson(tmp_path, with_line), S1, (12, 12))
    with pytest.raises(ValueError, match="of the type 'Circle', which GeoJSON does not know"):
        read_geojson(geojson(tmp_path, {"type": "Circle", "coordinates": [1, 1]}), S1, (12, 12))


# Names of files.


def dataset(folder, photo_name, mask_name):
    section = scene(shape=(60, 80), seed=1, scale=0.5)
    for kind in ("imgs", "masks"):
        (folder / kind / "train").mkdir(parents=True)
    write_image(folder / "imgs/train" / f"{photo_name}.png", section.image)
    write_mask(folder / "masks/train" / f"{mask_name}.png", section.mask)
    return section


@pytest.mark.parametrize("photo, mask", [(NFC, NFD), (NFD, NFC), (NFD, NFD)])
def test_photo_and_mask_in_other_forms_of_letters(tmp_path, photo, mask, recwarn):
    section = dataset(tmp_path, photo, mask)
    found = LumenStone(tmp_path, S1).check()
    assert [sample.name for sample in found] == [NFC] and not recwarn.list
    np.testing.assert_array_equal(found[0].read_mask(), section.mask)


@pytest.mark.parametrize("pred, target", [(NFC, NFD), (NFD + "_mask", NFC)])
def test_predictions_and_truths_in_other_forms(tmp_path, pred, target):
    section = scene(shape=(60, 80), seed=1, scale=0.5)
    for folder, name in (("p", pred), ("t", target)):
        (tmp_path / folder).mkdir()
        write_mask(tmp_path / folder / f"{name}.png", section.mask)
    assert [stem for stem, *_ in predictions(tmp_path / "p", tmp_path / "t")] == [NFC]
    done = SegmDetailedTester(tmp_path / "out", S1, pictures=False).test_predictions(tmp_path / "p", tmp_path / "t")
    assert done.metrics().mean_iou == 1


def test_twins_that_look_alike_are_told(tmp_path):
    dataset(tmp_path, NFC, NFC)
    shutil.copy(tmp_path / "imgs/train" / f"{NFC}.png", tmp_path / "imgs/train" / f"{NFD}.png")
    if len(list((tmp_path / "imgs/train").iterdir())) == 1:
        pytest.skip("this file system takes both forms for one name")
    with pytest.warns(UserWarning, match="with a twin"):
        LumenStone(tmp_path, S1)
    assert len(files_by_stem(tmp_path / "imgs/train", (".png",))[NFC]) == 2
    with pytest.raises(ValueError, match="have the same name"):
        field_names([f"{NFC}.png", f"other/{NFD}.png"])
