"What stitching is given: tables of positions in every dialect, pixel sizes that disagree, mirrors that are none."

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from petroscope import synth
from petroscope.io.images import write_image
from petroscope.optics.calibrate import calibrate
from petroscope.optics.flatfield import FlatField
from petroscope.panorama.panorama import Panorama
from petroscope.panorama.placement import _with_names
from petroscope.panorama.positions import positions_of, read_pieces, read_positions
from petroscope.panorama.stitch import stitch

ROWS = [("f1.png", 0.0, 12.5), ("f2.png", -3.25, 400.0), ("Größe 3.png", 1e3, 0.0)]
WANTED = {name: (row, col) for name, row, col in ROWS}


def table(sep=",", comma=False, head=("field", "row", "col"), end="\n", first=""):
    cells = [[name, *(f"{x}".replace(".", "," if comma else ".") for x in xy)] for name, *xy in ROWS]
    return first + end.join(sep.join(row) for row in [head, *cells]) + end


DIALECTS = {
    "plain": (table(), "utf-8"),
    "byte-order mark": (table(), "utf-8-sig"),
    "semicolons": (table(";"), "utf-8"),
    "German Excel": (table(";", comma=True, end="\r\n"), "cp1252"),
    "Excel's first line": (table(";", first="sep=;\n"), "utf-8"),
    "tabs": (table("\t"), "utf-8"),
    "tabs and decimal commas": (table("\t", comma=True), "utf-8"),
    "Excel's Unicode text": (table("\t", end="\r\n"), "utf-16"),
    "UTF-16 without a mark": (table("\t"), "utf-16-le"),
    "the other UTF-16": (table(), "utf-16-be"),
    "capitals": (table(head=("Field", "ROW", "Col")), "utf-8"),
    "spaces": (table(", ", head=("field", " row", "col ")), "utf-8"),
    "empty lines": (table().replace("\n", "\n\n"), "utf-8"),
    "other columns": (table(head=("field", "row", "col")).replace("row,col\n", "row,col,z\n").replace(".0\n", ".0,7\n")
                      .replace("12.5\n", "12.5,\n"), "utf-8"),
}  # fmt: skip


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_table_is_read_whatever_wrote_it(dialect, tmp_path):
    text, encoding = DIALECTS[dialect]
    (tmp_path / "p.csv").write_bytes(text.encode(encoding))
    assert read_positions(tmp_path / "p.csv") == WANTED


@given(
    numbers=st.lists(st.tuples(*[st.decimals(-9999, 9999, places=3)] * 2), min_size=1, max_size=5),
    sep=st.sampled_from(";\t"), encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252"]),
)  # fmt: skip
def test_decimal_commas_come_back(numbers, sep, encoding, tmp_path_factory):
    path = tmp_path_factory.mktemp("t") / "p.csv"
    lines = [sep.join(("Field", "Row", "Col"))]
    lines += [sep.join((f"{i}.png", *(str(x).replace(".", ",") for x in xy))) for i, xy in enumerate(numbers)]
    path.write_bytes("\n".join(lines).encode(encoding))
    assert read_positions(path) == {f"{i}.png": tuple(map(float, xy)) for i, xy in enumerate(numbers)}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"field;x;y\nf1.png;1;2\n", r"expected the columns field, row and col, got field, x, y \(row, col missing\)"),
        (b"field,row,col\nf1.png,1,5,2,5\n", "decimal comma need columns parted by ; or tabs"),
        (b"field,row,col\nf1.png,1.234,5a\n", "line 2: expected numbers"),
        (b"field,row,col\nf1.png,1\n", "line 2: expected field, row, col"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "got no text"),
        (b"", "an empty file"),
    ],
)
def test_a_table_that_cannot_be_read_says_why(content, reason, tmp_path):
    (tmp_path / "p.csv").write_bytes(content)
    with pytest.raises(ValueError, match=reason) as error:
        read_positions(tmp_path / "p.csv")
    assert str(error.value).startswith(str(tmp_path / "p.csv"))


@pytest.mark.parametrize(
    "name", [r"C:\scan\day 1\f1.png", r"\\server\scan\f1.png", "scan/f1.png", r"D:\F1.PNG", "F1.png", "f1"]
)
def test_names_of_other_systems_are_found(name):
    fields = ["here/f1.png", "here/f2.png"]
    found = positions_of(fields, {name: (1.0, 2.0), name.replace("1.", "2.").removesuffix("1") or "f2": (3.0, 4.0)}
                         if "1." in name else {name: (1.0, 2.0), "f2": (3.0, 4.0)})  # fmt: skip
    assert found.tolist() == [[1, 2], [3, 4]]


def test_composed_and_decomposed_letters_are_one_name():
    assert positions_of(["a/Gro\u0308\u00dfe.png"], {"Gr\u00f6\u00dfe.png": (1.0, 2.0)}).tolist() == [[1, 2]]


def test_pieces_are_read_from_a_table(tmp_path):
    (tmp_path / "p.csv").write_text("field,row,col,theta_deg,residual_px,component\na,0,0,0,0,0\nb,0,0,0,0,1\n")
    assert read_pieces(tmp_path / "p.csv") == {"a": 0, "b": 1}
    (tmp_path / "q.csv").write_text("field,row,col\na,0,0\n")
    assert read_pieces(tmp_path / "q.csv") == {}


def sized(folder, sizes):
    section = synth.fields(1, len(sizes), field_shape=(300, 400), overlap=0.3, seed=1)
    paths = [folder / f"f{i}.png" for i in range(len(sizes))]
    from PIL import Image

    for path, image, size in zip(paths, section.images, sizes, strict=True):
        Image.fromarray(image).save(path, dpi=None if size is None else (25400 / size,) * 2)
    return paths


def test_pixel_sizes_that_differ_are_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"f1.png has 0.25 µm, f[02].png has 0.5 µm.*--pixel-size-um"):
        Panorama.from_fields(sized(tmp_path, [0.5, 0.25, 0.5]))


def test_the_user_decides_on_the_pixel_size_and_is_told(tmp_path):
    with pytest.warns(UserWarning, match=r"given, 0.5 µm.*1 fields say otherwise \(f1.png says 0.25 µm\)"):
        assert Panorama.from_fields(sized(tmp_path, [0.5, 0.25, 0.5]), pixel_size_um=0.5).pixel_size_um == 0.5


@pytest.mark.parametrize("sizes", [[0.5, 0.5], [None, 0.5], [0.5, 0.501]])
def test_one_pixel_size_is_taken(sizes, tmp_path):
    assert Panorama.from_fields(sized(tmp_path, sizes)).pixel_size_um == pytest.approx(0.5, rel=0.003)


def test_a_mirror_with_impossible_light_is_refused(tmp_path):
    y, x = np.mgrid[-1:1:300j, -1:1:400j]
    half = np.clip(200 * np.exp(-1.3 * (x + 0.4) ** 2 - 0.8 * y**2), 31, 255)
    write_image(tmp_path / "m.png", cv2.merge([half.astype(np.uint8)] * 3))
    with pytest.raises(ValueError, match=r"m.png: a shading of 1\d\d % is more than .* no mirror.*--fields"):
        calibrate([tmp_path / "m.png"], tmp_path / "light.tif")
    assert not (tmp_path / "light.tif").exists()


def test_a_mirror_in_strong_but_possible_light_is_taken(tmp_path):
    y, x = np.mgrid[-1:1:300j, -1:1:400j]
    light = 200 * (1 - 0.3 * (x**2 + y**2))
    flat = FlatField.from_reference(cv2.merge([light.astype(np.uint8)] * 3))
    assert 0.6 < flat.shading < 1


def test_notes_name_fields(tmp_path):
    panorama = Panorama.from_fields(sized(tmp_path, [0.5, 0.5]))
    told = "the pair of fields 0 and 1 contradicts it; with field 1: blank overlap"
    assert _with_names(told, panorama.names) == (
        "the pair of f0.png and f1.png contradicts it; with f1.png: blank overlap"
    )


def test_pieces_of_an_earlier_run_are_kept_apart(tmp_path):
    "Two pieces that the first run wrote with an origin each must not be stacked by the second."
    one, other = (synth.fields(2, 2, field_shape=(300, 400), overlap=0.3, jitter_px=4, seed=seed) for seed in (1, 8))
    paths = [tmp_path / f"f{i}.png" for i in range(8)]
    for path, image in zip(paths, [*one.images, *other.images], strict=True):
        write_image(path, image)
    stitch(paths, tmp_path / "a.ome.tif")
    with pytest.warns(UserWarning, match=r"4 fields of component 0, 4 fields of component 1\); they are kept apart"):
        again = Panorama.from_fields(paths, tmp_path / "a_positions.csv").align()
    first = Panorama.from_fields(paths).align()
    assert [sorted(piece) for piece in again.components()] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    for piece in again.components():
        assert again.alignment.offset[piece] == pytest.approx(first.alignment.offset[piece], abs=0.2)


def test_positions_of_one_piece_stay_one_frame(tmp_path):
    paths = sized(tmp_path, [0.5, 0.5, 0.5])
    stitch(paths, tmp_path / "a.ome.tif")
    again = Panorama.from_fields(paths, tmp_path / "a_positions.csv").align()
    assert again.other_piece is None and len(again.components()[0]) == 3
