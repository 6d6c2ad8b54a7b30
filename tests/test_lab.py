"Tutorials in JupyterLab, as their readers meet them: run through without an error, and the widgets move."

import re
import shutil

import lab
import pytest

# The two that are quickest; all the others take the same path, and run as notebooks in any case.
TUTORIALS = ["getting_started", "lumenstone_and_own_masks"]
pytestmark = pytest.mark.skipif(bool(lab.missing()), reason=lab.missing() or "everything is here")


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    "JupyterLab over a copy of the tutorials, and a browser: a function that opens one of them."
    folder = tmp_path_factory.mktemp("tutorials")
    for path in (lab.ROOT / "nbs" / "tutorials").glob("*.ipynb"):
        shutil.copy(path, folder)
    with lab.jupyterlab(folder, tmp_path_factory.mktemp("lab")) as url, lab.chromium() as browser:
        yield lambda name: lab.Notebook(browser, url, f"{name}.ipynb")


@pytest.mark.parametrize("name", TUTORIALS)
def test_tutorial_runs_and_its_widgets_move(desk, name, tmp_path):
    notebook = desk(name)
    try:
        notebook.run()
        assert not notebook.errors(), "\n\n".join([f"{name} failed in JupyterLab", *notebook.errors()])
        assert all(cell["count"] for cell in notebook.cells() if cell["source"].strip()), f"{name}: a cell did not run"
        widgets = notebook.widgets()
        told = any(re.search(r"petroscope\.notebook|ps\.notebook", cell["source"]) for cell in notebook.cells())
        assert bool(widgets) == told, f"{name}: {len(widgets)} widgets are shown, where its cells speak of " + (
            "some" if told else "none"
        )
        for number, widget in enumerate(widgets, 1):
            moves = notebook.moves(widget)
            assert moves and all(moves.values()), (
                f"{name}, widget {number}: what moved the picture: {moves or 'nothing'}"
            )
        assert not notebook.errors(), "\n\n".join([f"{name} failed after its widgets were moved", *notebook.errors()])
        assert not notebook.foreign, f"{name} asks other hosts: {notebook.foreign}"
        assert not notebook.complaints, f"{name}: the browser's console says: {notebook.complaints}"
    except BaseException:
        notebook.page.screenshot(path=tmp_path / f"{name}.png", full_page=True)
        print(f"a screenshot is in {tmp_path / f'{name}.png'}")
        raise
    finally:
        notebook.close()
