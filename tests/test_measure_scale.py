"Scale bars and stage micrometers: a reading is right, or there is none."

import cv2
import numpy as np
import pytest

import petroscope as ps
from petroscope.cli.main import main
from petroscope.io.folders import photos_in
from petroscope.io.images import read_image, write_image
from petroscope.synth.rock import scene
from petroscope.synth.scales import BAR_STYLES, draw_bar, draw_micrometer


@pytest.fixture(scope="module")
def section():
    return scene((600, 900), seed=11, scale=0.25).image


def bar(image, thick=8, at=(300, 200), length=240, color=(255, 255, 255)):
    image[at[0] : at[0] + thick, at[1] : at[1] + length] = color
    return image


@pytest.mark.parametrize("style", BAR_STYLES)
@pytest.mark.parametrize("seed", range(300, 303))
def test_a_drawn_bar_is_read_within_two_per_cent_or_not_at_all(section, style, seed):
    drawn = draw_bar(section, seed, style)
    try:
        found = ps.measure_scale(drawn.image, bar_um=100)
    except ValueError as error:
        assert "scale bar" in str(error)
    else:
        assert found.length_px == pytest.approx(drawn.length_px, rel=0.02)


@pytest.mark.parametrize("angle", [0, 1, 30, 45, 60, 89, 90, 135])
def test_a_micrometer_at_an_angle_has_the_distance_of_its_lines(angle):
    rows, cols = np.mgrid[:600, :700] - np.array([300, 350])[:, None, None]
    turn = np.deg2rad(angle)
    along, across = cols * np.cos(turn) + rows * np.sin(turn), rows * np.cos(turn) - cols * np.sin(turn)
    off = np.abs(along - 17.3 * np.round(along / 17.3))
    ink = np.clip(2 - off, 0, 1) * (np.abs(along) < 240) * (np.abs(across) < 40)
    image = np.repeat((220 - 180 * ink).astype(np.uint8)[..., None], 3, axis=2)
    found = ps.measure_scale(image, division_um=10)
    assert found.length_px == pytest.approx(17.3, rel=1e-3)
    assert len(found.lines) == 27  # 13 on either side of the middle, where 240 px end
    assert ps.measure_scale(255 - image, division_um=10).length_px == pytest.approx(17.3, rel=1e-3)


@pytest.mark.parametrize("seed", range(300, 312))
def test_a_drawn_micrometer_is_read_within_two_per_cent_or_not_at_all(seed):
    drawn = draw_micrometer((600, 800), seed)
    try:
        found = ps.measure_scale(drawn.image, division_um=10)
    except ValueError as error:
        assert "stage micrometer" in str(error)
    else:
        assert found.length_px == pytest.approx(drawn.length_px, rel=0.02)
        assert found.pixel_size_um == pytest.approx(10 / drawn.length_px, abs=4 * found.uncertainty_um)


def test_figures_follow_from_the_length():
    found = ps.measure_scale(bar(np.full((600, 900, 3), 90, np.uint8)), bar_um=120)
    assert found.length_px == pytest.approx(240, abs=0.01) and found.pixel_size_um == pytest.approx(0.5, abs=1e-4)
    assert found.uncertainty_um == pytest.approx(0.5 * 0.5 / 240, rel=1e-3)  # half a pixel
    assert found.lines.tolist() == [[[299.5, 199.5], [307.5, 199.5]], [[299.5, 439.5], [307.5, 439.5]]]
    assert "--pixel-size-um 0.5" in str(found)


@pytest.mark.parametrize("blocks", [2, 3, 5])
def test_blocks_of_a_bar_are_not_read_for_the_bar(blocks):
    "Blocks of two colours are one bar; beside a block of a colour that no bar has, no block is one."
    image = np.full((600, 900, 3), 128, np.uint8)
    for i in range(blocks):
        bar(image, at=(300, 200 + 60 * i), length=60, color=(0, 0, 0) if i % 2 else (255, 255, 255))
    assert ps.measure_scale(image, bar_um=100).length_px == pytest.approx(60 * blocks, abs=0.5)
    bar(image, at=(300, 200 + 60 * blocks), length=60, color=(60, 90, 160))
    with pytest.raises(ValueError, match="no scale bar was found for sure"):
        ps.measure_scale(image, bar_um=100)


@pytest.mark.parametrize("picture", ["section", "even", "noise", "grid", "letters"])
def test_what_shows_no_scale_is_refused(section, picture):
    rng = np.random.default_rng(0)
    image = {
        "section": section,
        "even": np.full((400, 600, 3), 128, np.uint8),
        "noise": rng.integers(0, 256, (400, 600, 3)).astype(np.uint8),
        "grid": np.repeat((rng.random((40, 60, 1)) > 0.5).astype(np.uint8) * 255, 3, axis=2)
        .repeat(10, 0)
        .repeat(10, 1),
        "letters": section.copy(),
    }[picture]
    if picture == "letters":
        cv2.putText(image, "Hill 1111", (60, 300), cv2.FONT_HERSHEY_SIMPLEX, 4, (255, 255, 255), 9)
    for length in {"bar_um": 100.0}, {"division_um": 10.0}:
        with pytest.raises(ValueError, match="expected"):
            ps.measure_scale(image, **length)


@pytest.mark.parametrize("what", ["dashes", "text in a box", "grey bar in a box", "bracket"])
def test_what_is_only_like_a_bar_is_refused(section, what):
    image, white = section.copy(), (255, 255, 255)
    if what == "dashes":
        for col in 100, 220, 340:
            bar(image, at=(400, col), length=60)
    elif what == "bracket":
        bar(image, thick=4, at=(400, 100), length=400)
        image[380:404, 100:104] = image[380:404, 496:500] = white
    else:
        image[350:420, 80:520] = white
        cv2.putText(image, "100 um", (200, 385), cv2.FONT_HERSHEY_SIMPLEX, 1, (0, 0, 0), 2)
        bar(image, at=(400, 100), length=400, color=(128, 128, 128) if what == "grey bar in a box" else white)
    with pytest.raises(ValueError, match="scale bar"):
        ps.measure_scale(image, bar_um=100)


@pytest.mark.parametrize("font, size, thick", [(0, 1, 2), (0, 4, 9), (2, 6, 14), (3, 4, 9)])
def test_strokes_of_letters_are_no_bars(section, font, size, thick):
    "The bar itself, of a colour that is not looked for, must not be replaced by a stroke of its number."
    image = bar(section.copy(), at=(450, 100), length=400, color=(200, 180, 90))
    cv2.putText(image, "100 um", (30, 300), font, size, (255, 255, 255), thick, cv2.LINE_AA)
    with pytest.raises(ValueError, match="scale bar"):
        ps.measure_scale(image, bar_um=100)


def test_real_photos_show_no_scale(s1):
    for path in photos_in([s1 / "imgs" / "train"])[::12]:
        for length in {"bar_um": 100.0}, {"division_um": 10.0}:
            with pytest.raises(ValueError, match="expected"):
                ps.measure_scale(path, **length)


def test_the_command_prints_the_size_and_draws_what_it_read(tmp_path, capsys):
    photo, picture = tmp_path / "photo.png", tmp_path / "read.png"
    write_image(photo, bar(np.full((600, 900, 3), 90, np.uint8)))
    assert main(["measure-scale", str(photo), "--bar", "120", "--out", str(picture)]) == 0
    assert "--pixel-size-um 0.5" in capsys.readouterr().out
    shown = read_image(picture)
    assert (shown[..., 0].astype(int) - shown[..., 1] > 100).any()  # magenta on grey
    for arguments, line in (
        (["--division", "10"], "expected a stage micrometer"),
        (["--bar", "120", "--region", "0", "0", "50", "50"], "no scale bar was found"),
        (["--bar", "120", "--region", "0", "0", "700", "50"], "within 600 rows"),
        (["--bar", "120", "--out", str(photo)], "the photo itself"),
        (["--bar", "nan"], "above 0"),
    ):
        assert main(["measure-scale", str(photo), *arguments]) == 1
        said = capsys.readouterr().err
        assert line in said and said.count("\n") == 1
    assert main(["measure-scale", str(photo)]) == 2
