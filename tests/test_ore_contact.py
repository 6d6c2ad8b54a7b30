"Contact with ore minerals is told of any mask; liberation only of one in which a class is known to be resin."

import csv
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petroscope.analysis.contacts import exposure, liberation, ore_contact, ore_contacts
from petroscope.analysis.grains import find_grains
from petroscope.analysis.modal import modal
from petroscope.analysis.section import analyse
from petroscope.cli.main import main
from petroscope.io.images import write_mask
from petroscope.segmentation.classes import VOID, ClassSet, LumenStoneClasses, MineralClass

S1 = LumenStoneClasses.S1v1
MOUNT = ClassSet("mount", [*S1, MineralClass(20, "Resin", "resin", (10, 10, 10))])
BG, PY, SPH, RESIN = 0, 6, 8, 20


def rock(around=BG):
    "A crystal of pyrite in quartz, one half in sphalerite, one in sphalerite: 400 px each."
    mask = np.full((60, 110), around, np.uint8)
    mask[5:55, 5:105] = BG
    mask[20:40, 10:30] = PY
    mask[15:45, 45:60], mask[20:40, 40:60] = SPH, PY
    mask[12:48, 67:103], mask[20:40, 75:95] = SPH, PY
    return mask


def lines(table):
    return {line.mineral: line for line in table}


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_pyrite_in_quartz_is_free_of_ore_and_not_said_to_be_liberated(tmp_path):
    write_mask(tmp_path / "a.png", rock())
    done = analyse(tmp_path / "a.png", tmp_path / "out", S1)
    line = {row["mineral"]: row for row in rows(tmp_path / "out/ore_contact.csv")}["Py/Mrc"]
    assert float(line["free_of_ore"]) == pytest.approx(1 / 3) and float(line["locked_in_ore"]) == pytest.approx(1 / 3)
    assert not done.liberation and not (tmp_path / "out/liberation.csv").exists()
    assert not [name for name in rows(tmp_path / "out/grains.csv")[0] if "free" in name or "purity" in name]
    text = re.sub(r"data:image[^\"]+", "", (tmp_path / "out/report.html").read_text(encoding="utf-8"))
    assert "This is not liberation" in text and "<h2>Liberation</h2>" not in text and "--resin BG" in text


def test_where_background_is_resin_the_figures_are_those_of_liberation(tmp_path, capsys):
    write_mask(tmp_path / "a.png", rock())
    assert main(["analyse", str(tmp_path / "a.png"), "--out", str(tmp_path / "out"), "--resin", "BG"]) == 0
    line = {row["mineral"]: row for row in rows(tmp_path / "out/liberation.csv")}["Py/Mrc"]
    assert float(line["by_border_liberated"]) == pytest.approx(1 / 3)
    assert float(line["by_area_liberated"]) == pytest.approx(1 / 3)
    grains = {row["grain"]: row for row in rows(tmp_path / "out/grains.csv") if row["mineral"] == "Py/Mrc"}
    assert sorted(float(g["free_border"]) for g in grains.values()) == pytest.approx([0, 50 / 80, 1], abs=0.05)
    assert "<h2>Liberation</h2>" in (tmp_path / "out/report.html").read_text(encoding="utf-8")


def test_gangue_between_ore_and_resin_locks():
    mask = rock(around=RESIN)
    grains = find_grains(mask, MOUNT, resin="Resin")
    assert "Resin" not in grains.mineral and exposure(grains).free.tolist() == [0] * len(grains)
    pyrite = lines(liberation(grains))["Py/Mrc"]
    assert (pyrite.mineral, pyrite.by_border_locked, pyrite.by_border_liberated) == ("Py/Mrc", 1, 0)
    assert len(set(exposure(grains).particle)) == 1
    at_the_edge = np.where(mask == BG, np.uint8(RESIN), mask)
    assert lines(liberation(find_grains(at_the_edge, MOUNT, resin="Resin")))["Py/Mrc"][3] == pytest.approx(1 / 3)
    shares = {row.label: row.minerals for row in modal(mask, MOUNT, resin="Resin").rows()}
    assert np.isnan(shares["Resin"]) and np.isnan(shares["BG"])
    assert shares["Py/Mrc"] + shares["Sph"] == pytest.approx(100)


def test_a_section_with_a_class_of_resin(tmp_path):
    write_mask(tmp_path / "a.png", rock(around=RESIN))
    done = analyse(tmp_path / "a.png", tmp_path / "out", MOUNT, resin="Resin")
    assert {line.mineral for line in done.liberation} == set(S1.labels) - {"BG"}
    assert {row["mineral"] for row in rows(tmp_path / "out/grains.csv")} == {"Py/Mrc", "Sph"}


def masks_apart(folder):
    "The section with a class of resin, as a mask without one and a black and white picture of the resin."
    (folder / "resin").mkdir()
    write_mask(folder / "a.png", np.where(rock(around=RESIN) == RESIN, np.uint8(BG), rock(around=RESIN)))
    write_mask(folder / "resin/a.png", np.where(rock(around=RESIN) == RESIN, np.uint8(255), np.uint8(0)))
    return folder / "a.png", folder / "resin/a.png"


def test_a_resin_mask_is_as_a_class_of_resin(tmp_path, capsys):
    mask, resin = masks_apart(tmp_path)
    write_mask(tmp_path / "b.png", rock(around=RESIN))
    one = analyse(mask, tmp_path / "one", S1, resin_masks=[resin])
    two = analyse(tmp_path / "b.png", tmp_path / "two", MOUNT, resin="Resin")
    assert [tuple(map(str, line)) for line in one.liberation] == [tuple(map(str, line)) for line in two.liberation]
    assert [line.percent for line in one.modal.rows()] == [line.percent for line in two.modal.rows()]
    argv = ["analyse", str(mask), "--out", str(tmp_path / "three"), "--resin-masks", str(tmp_path / "resin")]
    assert main(argv) == 0
    for name in ("liberation.csv", "grains.csv", "modal.csv", "a.geojson"):
        assert (tmp_path / "three" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    assert "resin" in (tmp_path / "three/report.html").read_text(encoding="utf-8")


def test_photos_with_a_resin_mask(tmp_path):
    mask, resin = masks_apart(tmp_path)
    codes = np.where(rock(around=RESIN) == RESIN, np.uint8(BG), rock(around=RESIN))
    photo = np.repeat(codes[..., None] * np.uint8(20), 3, axis=2)
    done = analyse(photo, tmp_path / "out", S1, model=lambda image: image[..., 0] // 20, resin_masks=[resin])
    assert str(done.liberation) == str(analyse(mask, tmp_path / "two", S1, resin_masks=[resin]).liberation)


def test_resin_on_minerals_is_told(tmp_path):
    mask, _ = masks_apart(tmp_path)
    with pytest.warns(UserWarning, match="px of resin lie on minerals"):
        done = analyse(mask, tmp_path / "out", S1, resin_masks=[np.ones(rock().shape, np.uint8)])
    assert any("lie on minerals" in note for note in done.notes)


@pytest.mark.parametrize("options, told", [
    ({"resin_masks": []}, "a resin mask for each of 1 fields, got 0"),
    ({"resin_masks": ["a.png"], "resin": "BG"}, "needs a background, and no resin among the classes"),
    ({"resin_masks": ["a.png"], "background": None}, "needs a background"),
    ({"resin_masks": [rock()]}, "one other value where it is, got"),
    ({"resin_masks": [rock()[:9] * 0]}, r"is 9 x 110 px \(height x width\), the mask that it belongs to 60 x 110"),
    ({"resin_masks": [rock() * 1.0]}, "expected a mask, an array"),
    ({"resin_masks": ["nosuch.png"]}, "nosuch.png"),
])  # fmt: skip
def test_resin_masks_that_cannot_be_meant(tmp_path, options, told):
    with pytest.raises(ValueError, match=told):
        analyse(rock(), tmp_path / "out", S1, **options)


def test_a_resin_mask_that_is_missing(tmp_path, capsys):
    mask, resin = masks_apart(tmp_path)
    resin.rename(tmp_path / "resin/b.png")
    assert main(["analyse", str(mask), "--out", str(tmp_path / "o"), "--resin-masks", str(tmp_path / "resin")]) == 1
    assert "one resin mask for each input, as a.png" in capsys.readouterr().err and not (tmp_path / "o").exists()


@pytest.mark.parametrize("call", [
    lambda mask: find_grains(mask, S1, resin="Epoxy"), lambda mask: modal(mask, S1, resin="Epoxy"),
])  # fmt: skip
def test_a_resin_that_is_no_class_is_refused(call):
    with pytest.raises(ValueError, match=r"no class 'Epoxy' in S1v1 \(BG, .*to be the resin"):
        call(rock())


def test_the_command_refuses_a_resin_that_is_no_class(tmp_path, capsys):
    write_mask(tmp_path / "a.png", rock())
    assert main(["analyse", str(tmp_path / "a.png"), "--out", str(tmp_path / "out"), "--resin", "Epoxy"]) == 1
    assert "no class 'Epoxy'" in capsys.readouterr().err


def test_liberation_without_resin_says_what_to_do():
    for function in liberation, exposure:
        with pytest.raises(ValueError, match="nothing says which class is resin"):
            function(find_grains(rock(), S1))


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_contact_is_that_of_the_pixels(seed, cell):
    "By sides and corners of pixels, counted slowly; background, void and the edge are no ore."
    rng = np.random.default_rng(seed)
    mask = np.kron(rng.choice(np.array([0, 1, 6, 8, VOID], np.uint8), (5, 6)), np.ones((cell, cell), np.uint8))
    grains = find_grains(mask, S1)
    ore, known = dict.fromkeys(S1.codes, 0.0), dict.fromkeys(S1.codes, 0.0)
    for dy, dx, weight in ((0, 1, 1), (1, 0, 1), (1, 1, 0.5**0.5), (1, -1, 0.5**0.5)):
        for (y, x), code in np.ndenumerate(mask):
            if y + dy < mask.shape[0] and 0 <= x + dx < mask.shape[1]:
                other = mask[y + dy, x + dx]
                for a, b in ((code, other), (other, code)):
                    if VOID not in (a, b) and a != b:
                        known[int(a)] += weight
                        ore[int(a)] += weight * (b != 0)
    for line in ore_contacts(grains):
        code = S1[line.mineral].code
        if known[code]:
            assert line.ore_contact == pytest.approx(ore[code] / known[code])
    share = ore_contact(grains)
    assert ((share >= 0) & (share <= 1) | np.isnan(share)).all()
