"The settings file of a microscope: where it is found, what commands and functions take from it, what bad ones get."

import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import petroscope as ps
from petroscope.io.images import read_image, read_mask, write_image, write_mask
from petroscope.optics.flatfield import FlatField
from petroscope.optics.microscope import MicroscopeSettings, write_settings
from petroscope.optics.reference import Reference
from petroscope.segmentation.model import CallableModel
from petroscope.synth.rock import scene
from petroscope.synth.scales import draw_micrometer

SHAPE = (60, 80)
BRIGHT = ps.LumenStoneClasses.S1v1.subset(["BG", "Py/Mrc"])


def half(batch):
    "Takes what is brighter than 128 for pyrite."
    bright = (batch.mean(axis=3, dtype=np.float32)[:, None] > 128).astype(np.float32)
    return np.concatenate([1 - bright, bright], axis=1)


@pytest.fixture
def toy():
    made = CallableModel(BRIGHT, half)
    made.pixel_size_um, made.label_shift = (0.5, 0.0), 0
    return made


@pytest.fixture
def place(tmp_path):
    "A folder of grey photos whose right half was lit twice as much, with the flat field that tells so, and settings."
    gain = np.full((*SHAPE, 3), 2 / 3, np.float32)
    gain[:, 40:] = 4 / 3
    FlatField(gain, source="2 reference photos").save(tmp_path / "light.tif")
    photo = np.full((*SHAPE, 3), 80, np.uint8)
    photo[:, 40:] = 160
    (tmp_path / "photos").mkdir()
    for name in "ab":
        write_image(tmp_path / f"photos/{name}.png", photo)
    write_settings(tmp_path / "petroscope.toml", name="10x", flatfield=tmp_path / "light.tif", pixel_size_um=0.5)
    return tmp_path


def pyrite(mask):
    return (mask == BRIGHT["Py/Mrc"].code).mean()


def test_settings_of_the_nearest_folder_hold(place, toy):
    found = ps.segment(place / "photos/a.png", toy)
    assert (found.pixel_size_um, pyrite(found.mask)) == (0.5, 0)  # 120 everywhere
    assert found.applied.settings == "pixel_size_um 0.5, flatfield light.tif (petroscope.toml, 10x)"
    assert found.applied.flatfield.startswith("light.tif of petroscope.toml, 2 reference photos")
    assert {pyrite(one.mask) for one in ps.segment(place / "photos", toy)} == {0}
    (place / "photos/petroscope.toml").write_text("pixel_size_um = 0.505")
    found = ps.segment(place / "photos", toy)["a"]
    assert (found.pixel_size_um, pyrite(found.mask), found.applied.flatfield) == (0.505, 0.5, "")


def test_what_is_given_in_the_call_wins(place, toy):
    photo = place / "photos/a.png"
    found = ps.segment(photo, toy, flatfield="none")
    assert (found.applied.flatfield, found.pixel_size_um, pyrite(found.mask)) == ("", 0.5, 0.5)
    assert ps.segment(photo, toy, pixel_size_um=0.499).pixel_size_um == 0.499
    assert ps.segment(photo, toy, flatfield="none", pixel_size_um=0.5).applied.settings == ""


def test_settings_are_turned_off_named_and_handed_over(place, toy):
    photo = place / "photos/a.png"
    found = ps.segment(photo, toy, settings="none")
    assert (found.applied.settings, found.applied.flatfield, found.pixel_size_um) == ("", "", None)
    other = write_settings(place / "other.toml", pixel_size_um=0.51)
    for form in (other, place / "other.toml", str(place / "other.toml")):
        found = ps.segment(photo, toy, settings=form)
        assert (found.pixel_size_um, found.applied.flatfield) == (0.51, "")
    pixels = read_image(photo)
    assert ps.segment(pixels, toy).applied.settings == ""  # an array lies in no folder
    assert ps.segment(pixels, toy, settings=place / "petroscope.toml").pixel_size_um == 0.5


def test_a_scale_serves_weights_that_know_no_pixel_size(place, toy):
    toy.pixel_size_um = None
    with pytest.raises(ValueError, match=r"no scale follows from 0\.5 um/px: .*scale = in petroscope\.toml"):
        ps.segment(place / "photos/a.png", toy)
    write_settings(place / "petroscope.toml", scale=1.0)
    assert ps.segment(place / "photos/a.png", toy).pixel_size_um == 0.5


def test_a_reference_is_taken(place, toy):
    toy.mean_color = (108.4, 102.3, 93.3)  # LumenStone's light
    Reference("pyrite", (45.5, 52.0, 53.5, 54.5), (170.0, 160.0, 139.4), "pyrite.jpg").save(place / "pyrite.json")
    write_settings(place / "petroscope.toml", white_balance=place / "pyrite.json")
    found = ps.segment(place / "photos/a.png", toy)
    assert found.applied.white_balance.startswith("pyrite of pyrite.jpg: red x 1.25")
    assert "white_balance pyrite.json" in found.applied.settings
    assert ps.segment(place / "photos/a.png", toy, white_balance="none").applied.white_balance == ""


@pytest.mark.parametrize("verb", ["analyse", "evaluate"])
def test_evaluations_and_analyses_take_a_white_balance_too(place, data, toy, verb):
    toy.mean_color = (170, 170, 170)
    write_settings(place / "petroscope.toml", white_balance="grey-world+exposure", flatfield="none")
    if verb == "analyse":
        done = ps.analyse(place / "photos", place / "out", toy, kind="photo")
    else:
        done = ps.evaluate(data, toy, place / "out", split="train", pictures=False)
    assert "white_balance grey-world+exposure" in done.about["settings"]
    assert "grey-world+exposure" in done.about["white balance"]


def test_masks_need_no_white_balance(place):
    write_settings(place / "petroscope.toml", white_balance="auto")
    write_mask(place / "mask.png", np.full(SHAPE, 6, np.uint8))
    assert ps.analyse(place / "mask.png", place / "out").fields[0].kind == "mask"


def test_photos_of_two_microscopes_are_refused(place, toy):
    (place / "photos/petroscope.toml").write_text("scale = 0.5")
    write_image(place / "c.png", read_image(place / "photos/a.png"))
    with pytest.raises(
        ValueError, match=r"a\.png belongs to .*photos.petroscope\.toml, .*c\.png to .*petroscope\.toml"
    ):
        ps.segment([place / "photos/a.png", place / "c.png"], toy)
    assert len(ps.segment([place / "photos/a.png", place / "c.png"], toy, settings="none")) == 2


def test_a_photo_of_another_frame_names_settings_and_flat_field(place, toy):
    write_image(place / "photos/square.png", np.full((60, 60, 3), 90, np.uint8))
    expected = r"60 x 60 px, but the flat field \(light\.tif of petroscope\.toml, 2 reference photos\) is of 80 x 60 px"
    with pytest.raises(ValueError, match=expected):
        ps.segment(place / "photos/square.png", toy)


def test_analyse_takes_settings(place, toy):
    section = ps.analyse(place / "photos", place / "out", toy, kind="photo")
    assert section.grains.pixel_size_um == 0.5
    assert section.about["settings"] == "pixel_size_um 0.5, flatfield light.tif (petroscope.toml, 10x)"
    assert "light.tif of petroscope.toml" in section.about["flat field"]
    told = json.loads((place / "out/analysis.json").read_text(encoding="utf-8"))["result"]["about"]
    assert told["settings"] == section.about["settings"]
    write_mask(place / "mask.png", np.full(SHAPE, 6, np.uint8))
    assert ps.analyse(place / "mask.png", place / "out3", settings="none").grains.pixel_size_um is None


@pytest.fixture
def data(place):
    "A dataset of two photos below the folder of the settings."
    for part in ("imgs/train", "masks/train"):
        (place / "set" / part).mkdir(parents=True)
    for name in "ab":
        write_image(place / f"set/imgs/train/{name}.png", read_image(place / "photos/a.png"))
        write_mask(place / f"set/masks/train/{name}.png", np.zeros(SHAPE, np.uint8))
    return place / "set"


def test_evaluate_takes_settings(data, toy, tmp_path):
    how = {"split": "train", "pictures": False}
    found = ps.evaluate(data, toy, tmp_path / "out", **how)
    assert found.scores.metrics().accuracy == 1
    assert found.about["settings"] == "pixel_size_um 0.5, flatfield light.tif (petroscope.toml, 10x)"
    assert any(
        found.about["settings"] in path.read_text(encoding="utf-8") for path in (tmp_path / "out").glob("*.json")
    )
    assert ps.evaluate(data, toy, tmp_path / "b", settings="none", **how).scores.metrics().accuracy == 0.5
    pairs = [(data / f"imgs/train/{n}.png", data / f"masks/train/{n}.png") for n in "ab"]
    assert ps.evaluate(pairs, toy, tmp_path / "c", pictures=False).about["settings"] == found.about["settings"]


def test_stitch_takes_settings(place):
    drawn = scene((120, 200), seed=4, scale=0.3).image
    (place / "scan").mkdir()
    for i in range(3):
        write_image(place / f"scan/{i}.png", drawn[:60, 40 * i : 40 * i + 80])
    done = ps.stitch(place / "scan", place / "p.ome.tif", grid=(1, 3), overlap=0.5)
    assert done.panorama.pixel_size_um == 0.5 and done.panorama.flatfield.source.startswith("light.tif of petroscope")
    off = ps.stitch(place / "scan", place / "q.ome.tif", grid=(1, 3), overlap=0.5, settings="none", flatfield="none")
    assert off.panorama.pixel_size_um is None and off.panorama.flatfield == "none"


@pytest.mark.filterwarnings("ignore:no pixel of")
def test_train_takes_settings(data, here, tmp_path):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    quick = {"steps": 1, "batch_size": 1, "patch_size": 16, "validate_every": 1, "sampling": "uniform"}
    sets = [text for name, value in quick.items() for text in ("--set", f"{name}={value}")]
    small = ("--filters", 2, "--depth", 1, "--hold-out", 0, *sets)
    status, out, err = here("train", data, "--out", tmp_path / "run", *small)
    assert status == 0, err
    assert f"{tmp_path / 'petroscope.toml'}: pixel_size_um 0.5, flatfield light.tif" in out
    trained = ps.load_model(tmp_path / "run/best.safetensors")
    assert trained.pixel_size_um[0] == pytest.approx(0.5)
    assert trained.flatfield.source.startswith("light.tif of petroscope.toml")
    how = {"held_out": (), "progress": False, "init": tmp_path / "run/best.safetensors", **quick}
    again = ps.train(data, tmp_path / "again", **how)
    assert again.flatfield.source == trained.flatfield.source
    assert json.loads((tmp_path / "again/config.json").read_text(encoding="utf-8"))["pixel_size_um"] == 0.5
    off = ps.train(data, tmp_path / "off", **how, settings="none", flatfield="none")
    assert off.flatfield is None


def test_commands_say_which_settings_they_took(place, here, monkeypatch, toy):
    for room in ("segment", "train", "stitch"):
        monkeypatch.setattr(f"petroscope.cli.{room}.load_model", lambda args: toy)
    status, out, err = here("segment", place / "photos", "--out", place / "out")
    assert (status, err) == (0, "")
    assert out.startswith(f"{place / 'petroscope.toml'}: pixel_size_um 0.5, flatfield light.tif\n")
    assert (
        out.count("flat field light.tif of petroscope.toml") == 2 and pyrite(read_mask(place / "out/a_mask.png")) == 0
    )
    status, out, err = here("segment", place / "photos", "--out", place / "out", "--settings", "none")
    assert (status, "petroscope.toml" in out, pyrite(read_mask(place / "out/a_mask.png"))) == (0, False, 0.5)
    given = ("--flatfield", "none", "--pixel-size-um", 0.5)
    status, out, err = here("segment", place / "photos", "--out", place / "out", *given)
    assert "nothing is taken from it" in out and pyrite(read_mask(place / "out/a_mask.png")) == 0.5
    status, out, err = here("analyse", place / "photos", "--out", place / "section", "--photos", "--classes", "S1v1")
    assert f"{place / 'petroscope.toml'}: pixel_size_um 0.5, flatfield light.tif" in out


@pytest.mark.parametrize(
    "text, said",
    [
        ("flat_field = 'light.tif'", "unknown key 'flat_field'; the keys of a settings file are name, pixel_size_um"),
        ("scale = '1'", "scale: expected a number above 0, such as scale = 0.65, got '1'"),
        ("pixel_size_um = -1", "pixel_size_um: expected a number above 0"),
        ("pixel_size_um = inf", "pixel_size_um: expected a number above 0"),
        ("flatfield = true", "flatfield: expected text in quotes"),
        ("name = ''", "name: expected text in quotes"),
        ("flatfield = light.tif", "expected settings as TOML"),
        ("flatfield = 'gone.tif'", "flatfield: "),
        ("flatfield = 'photos/a.png'", "flatfield: "),
        ("white_balance = 'gone.json'", "white_balance: "),
        ("white_balance = 'light.tif'", "white_balance: "),
        ("white_balance = 'gray'", "white_balance: expected none, auto, grey-world"),
    ],
)
def test_a_wrong_file_gets_one_line_that_names_file_and_key(place, here, text, said):
    (place / "petroscope.toml").write_text(text)
    status, out, err = here("segment", place / "photos", "--out", place / "out")
    assert (status, out, err.count("\n")) == (1, "", 1) and not (place / "out").exists()
    assert err.startswith(f"petroscope: error: {place / 'petroscope.toml'}: {said}"), err


def test_a_file_that_is_not_there(place, here):
    status, _, err = here("segment", place / "photos", "--out", place / "out", "--settings", place / "gone.toml")
    assert (status, err.count("\n")) == (1, 1) and "gone.toml: expected a settings file" in err


def test_writing_keeps_every_other_line(tmp_path):
    path = tmp_path / "a.toml"
    path.write_bytes(b"\xef\xbb\xbf# mine\r\nscale = 0.5 # half\r\n\r\nname = 'a # b' # both\r\npixel_size_um = 1")
    write_settings(path, scale=0.25, name='x "y"', flatfield="none")
    expected = [
        "# mine",
        "scale = 0.25 # half",
        "",
        r'name = "x \"y\"" # both',
        "pixel_size_um = 1",
        'flatfield = "none"',
    ]
    assert path.read_bytes() == "".join(f"{line}\r\n" for line in expected).encode()


def test_what_is_no_settings_file_is_not_touched(tmp_path):
    for name, text in (("pyproject.toml", "[project]\nname = 'x'\n"), ("b.toml", "not toml"), ("c.toml", "\udcff")):
        path = tmp_path / name
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(ValueError, match=name):
            write_settings(path, scale=0.5)
        assert path.read_bytes() == text.encode("utf-8", "surrogateescape")
    path = tmp_path / "d.toml"
    path.write_text('"scale" = 0.5\nname = """\nscale = 3\n"""\n')
    with pytest.raises(ValueError, match=r"d\.toml: cannot be changed line by line; write scale into it by hand"):
        write_settings(path, scale=0.25)
    assert path.read_text().startswith('"scale" = 0.5')
    with pytest.raises(FileNotFoundError, match="expected the folder"):
        write_settings(tmp_path / "nowhere/petroscope.toml", scale=0.5)


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1).filter(str.strip)
numbers = st.floats(1e-9, 1e9)


@settings(max_examples=30)
@example("a", 1.0, 1.0, "\x7f")
@given(texts, numbers, numbers, texts)
def test_what_is_written_is_read_again(tmp_path_factory, name, size, scale, other):
    path = tmp_path_factory.mktemp("t") / "petroscope.toml"
    write_settings(path, name=name, pixel_size_um=size)
    found = write_settings(path, name=other, scale=scale)
    assert found == MicroscopeSettings(other, size, scale, path=path)


def test_files_are_relative_to_the_settings(tmp_path, monkeypatch):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/light.tif").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert write_settings("a/b/petroscope.toml", flatfield="a/light.tif").flatfield == "../light.tif"
    assert write_settings(tmp_path / "petroscope.toml", flatfield=tmp_path / "a/light.tif").flatfield == "a/light.tif"
    assert write_settings("petroscope.toml", flatfield="lumenstone").flatfield == "lumenstone"


def test_measurements_are_written_into_the_settings(tmp_path, here):
    camera = tmp_path / "camera"
    camera.mkdir()
    write_image(camera / "micrometer.png", draw_micrometer((480, 640), 9).image)
    x = np.linspace(0.8, 1.2, 160)[None, :, None]
    write_image(camera / "mirror.png", np.broadcast_to(200 * x, (120, 160, 3)).astype(np.uint8))
    write_image(camera / "pyrite.png", np.broadcast_to(np.array([180, 170, 150]) * x, (120, 160, 3)).astype(np.uint8))
    toml = tmp_path / "petroscope.toml"
    toml.write_text("# May\nname = '10x'\n")
    for argv in (
        ("measure-scale", camera / "micrometer.png", "--division", 10),
        ("calibrate", camera / "mirror.png", "--out", tmp_path / "light.tif"),
        ("calibrate", "--reference", f"pyrite={camera / 'pyrite.png'}", "--out", tmp_path / "pyrite.json"),
    ):
        status, out, err = here(*argv, "--settings", toml)
        assert (status, err) == (0, "") and f"{toml}: name 10x" in out
    found = MicroscopeSettings.load(toml)
    assert found.named().keys() == {"name", "pixel_size_um", "flatfield", "white_balance"}
    assert (found.flatfield, found.white_balance) == ("light.tif", "pyrite.json")
    assert toml.read_text().startswith("# May\nname = '10x'\npixel_size_um = ")
    # The reference was corrected by the flat field that the settings name.
    reference = Reference.load(tmp_path / "pyrite.json")
    assert reference.flatfield.startswith("light.tif of petroscope.toml")


@pytest.mark.parametrize("command", ["calibrate", "measure-scale"])
def test_settings_that_cannot_be_written_are_refused_before_work(tmp_path, here, command):
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    write_image(tmp_path / "a.png", np.full((120, 160, 3), 200, np.uint8))
    how = ("--division", 10) if command == "measure-scale" else ("--out", tmp_path / "light.tif")
    for name, said in (("pyproject.toml", "unknown key 'project'"), ("light.json", "ends in .toml")):
        status, _, err = here(command, tmp_path / "a.png", *how, "--settings", tmp_path / name)
        assert (status, err.count("\n")) == (1, 1) and name in err and said in err
    assert not (tmp_path / "light.tif").exists()
