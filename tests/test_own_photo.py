"A reader's own photo, put into the one box that asks for it, goes through to the end of a tutorial."

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("nbclient", reason="nbclient is not installed")

from tutorials import ROOT, run  # noqa: E402

from petroscope.io.images import write_image  # noqa: E402
from petroscope.synth.rock import scene  # noqa: E402

BOXES = {
    "getting_started": 'photo_file = folder / "my_section.png"\nscale = 0.5',
    "segm_resunet_inference": 'photo_file = folder / "section.jpg"\nscale = 0.5',
}


@pytest.mark.parametrize("name", BOXES)
def test_a_photo_of_another_size_goes_through(name, tmp_path):
    photo = tmp_path / "own photo.jpg"
    write_image(photo, scene((317, 430), seed=5, scale=0.8).image)
    own = f"from pathlib import Path\n\nphoto_file = Path({str(photo)!r})\nscale = 0.8"
    done = run(ROOT / f"nbs/tutorials/{name}.ipynb", {BOXES[name]: own}, tmp_path)  # raises what a cell raises
    shown = "".join(output.text for cell in done.cells for output in cell.get("outputs", []) if "text" in output)
    assert "pyrite" in shown
