"Names and colours that could mean two things are refused; names that differ only in their letters' form are one."

import json
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from petroscope.analysis.exchange import read_geojson, read_labelme
from petroscope.analysis.palettes import read_colored, write_colored
from petroscope.io.images import write_image
from petroscope.segmentation.classes import VOID, ClassSet, LumenStoneClasses, MineralClass, as_classes, name_key

S1 = LumenStoneClasses.S1v1
GALENA = MineralClass(2, "Gl", "galena", (80, 240, 220))
NFC, NFD = (unicodedata.normalize(form, "grünlich Ёлка") for form in ("NFC", "NFD"))


@pytest.mark.parametrize("label, name", [
    ("gl", "x"), (" Gl\t", "x"), ("GL", "x"), ("Ｇｌ", "x"), ("x", "Galena"), ("x", " galena"), ("x", "GL"),
    ("galena", "x"),
])  # fmt: skip
def test_two_classes_of_one_name(label, name):
    with pytest.raises(ValueError, match=r"class set mine: .*'Gl' \(code 2\)|.*'galena' \(code 2\).*rename one"):
        ClassSet("mine", [GALENA, MineralClass(9, label, name, (1, 2, 3))])


def test_forms_of_letters_are_one_name():
    assert NFC != NFD
    with pytest.raises(ValueError, match="rename one"):
        ClassSet("mine", [MineralClass(1, NFC, "a", (1, 1, 1)), MineralClass(2, NFD, "b", (2, 2, 2))])


def test_one_class_may_have_one_name_twice():
    assert ClassSet("mine", [MineralClass(1, "Gold", "gold", (1, 1, 1))]).labels == ("Gold",)


@given(st.text())
def test_the_key_of_a_name(name):
    key = name_key(name)
    assert name_key(key) == key
    for other in (
        f" {name}\n",
        unicodedata.normalize("NFD", name),
        unicodedata.normalize("NFC", name),
        name.casefold(),
    ):
        assert name_key(other) == key


def test_sets_that_differ_in_case_are_not_joined():
    other = ClassSet("other", [MineralClass(8, "SPH", "zinc blende", (1, 2, 3))])
    with pytest.raises(ValueError, match=r"cannot be one set|rename one"):
        S1 | other
    with pytest.raises(ValueError, match=r"cannot be one set|rename one"):
        S1 | ClassSet("other", [MineralClass(9, "SPH", "zinc blende", (1, 2, 3))])


def colored(path, *colors):
    write_image(path, np.array([colors], np.uint8).repeat(2, axis=0))
    return path


@pytest.mark.parametrize("color", [(10, 20, 30), (255, 255, 255), (0, 0, 0)])
def test_a_palette_with_one_colour_for_two(tmp_path, color):
    path = colored(tmp_path / "a.png", color, (200, 0, 0))
    with pytest.raises(ValueError, match=rf"\({color[0]}, .*for Gl, Sph"):
        read_colored(path, S1, {"Gl": color, "Sph": color, "BG": (200, 0, 0)})
    same = ClassSet("same", [MineralClass(0, "BG", "background", color), MineralClass(3, "A", "a", color)])
    for call in (lambda: read_colored(path, same), lambda: write_colored(tmp_path / "b.png", path_mask(), same)):
        with pytest.raises(ValueError, match="several share one"):
            call()
    assert not (tmp_path / "b.png").exists()


def path_mask():
    return np.array([[0, 3]], np.uint8)


def test_a_class_may_be_white(tmp_path):
    path = colored(tmp_path / "a.png", (255, 255, 255), (200, 0, 0))
    assert read_colored(path, S1, {"Gl": (255, 255, 255), "BG": (200, 0, 0)})[0].tolist() == [2, 0]
    assert read_colored(path, S1, {"BG": (200, 0, 0)})[0].tolist() == [VOID, 0]


@pytest.mark.parametrize("palette, told", [
    ({"Gl": (1, 1, 1), "galena": (2, 2, 2)}, "'Gl' and 'galena' are the same class"),
    ({"Rutile": (1, 1, 1)}, r"expected labels of S1v1 .*Rutile"),
    ({"Gl": (0, 256, 0)}, "0..255"), ({"Gl": (0.5, 0, 0)}, "0..255"), ({"Gl": (1, 2)}, r"\(r, g, b\)"),
])  # fmt: skip
def test_palettes_that_say_nothing_clear(tmp_path, palette, told):
    with pytest.raises(ValueError, match=told):
        read_colored(colored(tmp_path / "a.png", (1, 1, 1)), S1, palette)


def geojson(folder, *names):
    square = [[0, 0], [4, 0], [4, 4], [0, 4], [0, 0]]
    features = [{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [square]},
                 "properties": {"classification": {"name": name}}} for name in names]  # fmt: skip
    (folder / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")
    return folder / "a.geojson"


@pytest.mark.parametrize("name", ["GALENA", " galena ", "gl", "Ｇalena"])
def test_names_in_files_of_other_programs(tmp_path, name):
    assert (read_geojson(geojson(tmp_path, name), S1, (4, 4)) == 2).all()


@pytest.mark.parametrize("in_file, said", [(NFC, NFD), (NFD, NFC), (NFD, NFC.upper())])
def test_own_names_in_any_form(tmp_path, in_file, said):
    assert (read_geojson(geojson(tmp_path, in_file), S1, (4, 4), names={said: "Gl"}) == 2).all()


def test_own_names_that_contradict_each_other(tmp_path):
    for names in ({"Mine": "Gl", "mine ": "Sph"}, {NFC: "Gl", NFD: None}):
        with pytest.raises(ValueError, match="are the same name, and stand for several classes"):
            read_geojson(geojson(tmp_path, "Mine"), S1, (4, 4), names=names)
    assert (read_geojson(geojson(tmp_path, "Mine"), S1, (4, 4), names={"Mine": "Gl", "mine": "Gl"}) == 2).all()


def test_labelme_too(tmp_path):
    shapes = [{"label": " Galena", "points": [[0, 0], [4, 0], [4, 4], [0, 4]]}]
    (tmp_path / "a.json").write_text(json.dumps({"imageHeight": 4, "imageWidth": 4, "shapes": shapes}))
    assert (read_labelme(tmp_path / "a.json", S1) == 2).all()


def test_a_set_by_its_name():
    assert as_classes("s1v1") is S1 and as_classes(" S1_v1 ") is S1
    with pytest.raises(ValueError, match="no class set 'S9'; choose S1v1"):
        as_classes("S9")
