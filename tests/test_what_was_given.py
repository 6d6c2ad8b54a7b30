"A file's path given for an array, the name of a class set for the set: it works, or one line says why it does not."

import warnings

import numpy as np
import pytest

from petroscope.analysis import contacts, grains, inputs, job, modal, palettes, polygons, section, sizes, watershed
from petroscope.analysis import exchange as export
from petroscope.io.images import write_image, write_mask
from petroscope.notebook.retouch import Retouch, grain_at
from petroscope.notebook.viewer import Layer
from petroscope.segmentation import (
    augment,
    balancer,
    calibration,
    dataset,
    evaluate,
    evaluation,
    masks,
    metrics,
    model,
    samplers,
    scores,
    tiling,
)
from petroscope.segmentation import (
    illumination as light,
)
from petroscope.segmentation import (
    reliability as confidence,
)
from petroscope.segmentation.classes import LumenStoneClasses, code_counts, foreign_codes
from petroscope.synth.rock import scene
from petroscope.view import plot

S1 = LumenStoneClasses.S1v1
SCENE = scene(shape=(60, 80), seed=1, scale=0.5)
MASK, PHOTO = SCENE.mask, SCENE.image


@pytest.fixture
def paths(tmp_path, monkeypatch):
    "The names of a mask's and of a photo's file in the current folder."
    monkeypatch.chdir(tmp_path)
    write_mask("m.png", MASK)
    write_image("p.png", PHOTO)
    return "m.png", "p.png"


def probs(classes=S1):
    return np.full((len(classes), *MASK.shape), 1 / len(classes), np.float32)


def network(classes):
    def function(batch):
        return np.full((len(batch), 7, *batch.shape[1:3]), 1 / 7, np.float32)

    return model.CallableModel(classes, function)


# A call by the mask, the photo and the classes; what takes files is checked with files, what does not says so.
TAKES_FILES = {
    "find_grains": lambda m, p, c: grains.find_grains(m, c),
    "find_grains, parted": lambda m, p, c: grains.find_grains(m, c, neck=0.7),
    "label_picture": lambda m, p, c: grains.label_picture(m, grains.find_grains(m, c)),
    "label_bands": lambda m, p, c: list(grains.label_bands(m, grains.find_grains(m, c, neck=0.7))),
    "grain_picture": lambda m, p, c: grains.grain_picture(m, grains.find_grains(m, c)),
    "plot_grains": lambda m, p, c: grains.plot_grains(m, grains.find_grains(m, c)),
    "contacts": lambda m, p, c: contacts.contacts(grains.find_grains(m, c)),
    "modal": lambda m, p, c: modal.modal(m, c),
    "cell_counts": lambda m, p, c: modal.cell_counts(m, c, (2, 2)),
    "kind_of": lambda m, p, c: inputs.kind_of(m, c),
    "field_picture": lambda m, p, c: job.field_picture(m, c, p),
    "analyse": lambda m, p, c: section.analyse(m, "out", c, photos=[p]),
    "write_geojson": lambda m, p, c: export.write_geojson("a.geojson", m, c),
    "write_coco": lambda m, p, c: export.write_coco("a.json", {"p.png": m}, c),
    "write_colored": lambda m, p, c: palettes.write_colored("c.png", m, c),
    "find_outlines": lambda m, p, c: polygons.find_outlines(m),
    "write_label_tiff": lambda m, p, c: export.write_label_tiff("l.ome.tif", m),
    "Sample.read": lambda m, p, c: dataset.Sample("a", p, m).read(c),
    "SelfBalancingDataset": lambda m, p, c: balancer.SelfBalancingDataset([(p, m)], c, 16),
    "SegmDetailedTester": lambda m, p, c: evaluate.SegmDetailedTester("e", c, pictures=False).test_on_set(
        [(p, m)], lambda image: MASK),
    "score": lambda m, p, c: scores.score(network(c), [(p, m)]),
}  # fmt: skip
ARRAYS_ONLY = {
    "SegmMetrics.from_masks": lambda m, p, c: metrics.SegmMetrics.from_masks(m, m, c),
    "confusion_matrix": lambda m, p, c: metrics.confusion_matrix(m, m, c),
    "count_photo": lambda m, p, c: evaluation.count_photo("a", m, m, c, scores.regions("lumenstone")),
    "worst_places": lambda m, p, c: evaluation.worst_places(m, m),
    "class_pixels": lambda m, p, c: masks.class_pixels(m, c),
    "one_hot": lambda m, p, c: masks.one_hot(m, c),
    "recode": lambda m, p, c: masks.recode(m, {i: i for i in range(15)}),
    "void_borders": lambda m, p, c: masks.void_borders(m, 2),
    "void_borders_lumenstone": lambda m, p, c: masks.void_borders_lumenstone(m),
    "border_distance": lambda m, p, c: masks.border_distance(m),
    "check_not_binary": lambda m, p, c: masks.check_not_binary(m),
    "enclosed_void": lambda m, p, c: masks.enclosed_void(m),
    "part_grains": lambda m, p, c: watershed.part_grains(m),
    "find_temperature": lambda m, p, c: calibration.find_temperature(probs(), m, c),
    "expected_pixels": lambda m, p, c: modal.expected_pixels(probs(), m, c),
    "segment_photo": lambda m, p, c: job.segment_photo(p, network(c), c),
    "resample": lambda m, p, c: tiling.resample(p, (30, 40)),
    "plot_confidence": lambda m, p, c: confidence.plot_confidence(p, m, np.ones(MASK.shape), c),
    "outside": lambda m, p, c: light.outside(p),
    "Retouch": lambda m, p, c: Retouch(m, c),
    "grain_at": lambda m, p, c: grain_at(m, 5, 5),
    "apply": lambda m, p, c: augment.apply(p, m, (30, 40), 16, augment.Change()),
    "write_image": lambda m, p, c: write_image("b.png", p),
    "write_mask": lambda m, p, c: write_mask("b.png", m),
    "code_counts": lambda m, p, c: code_counts(m),
    "foreign_codes": lambda m, p, c: foreign_codes(m, range(15)),
    "occurrence": lambda m, p, c: samplers.occurrence(m, 6, 16),
    "integral": lambda m, p, c: samplers.integral(m, 6),
    "doubtful": lambda m, p, c: confidence.doubtful(m),
    "Layer": lambda m, p, c: Layer("minerals", m, c),
}
PLOTS = {
    "colorize": lambda m, p, c: plot.colorize(m, c),
    "overlay": lambda m, p, c: plot.overlay(p, m, c),
    "areas": lambda m, p, c: plot.areas(m, c),
    "with_legend": lambda m, p, c: plot.with_legend(p, m, c),
    "plot_minerals": lambda m, p, c: plot.plot_minerals(p, m, c),
    "error_map": lambda m, p, c: plot.error_map(m, m, p),
    "plot_errors": lambda m, p, c: plot.plot_errors(p, m, m, c),
    "scale_bar": lambda m, p, c: plot.scale_bar(p, 1.0),
}
WITHOUT_CLASSES = {
    "find_outlines", "write_label_tiff", "worst_places", "recode", "void_borders", "void_borders_lumenstone",
    "resample", "border_distance", "check_not_binary", "enclosed_void", "part_grains", "outside", "grain_at",
    "apply", "error_map", "code_counts", "foreign_codes", "occurrence", "integral", "doubtful",
    "scale_bar", "write_image", "write_mask",
}  # fmt: skip
ALL = TAKES_FILES | ARRAYS_ONLY | PLOTS


def told(call, *args):
    "The one line that a call fails with."
    with pytest.raises((ValueError, TypeError, FileNotFoundError)) as failed:
        call(*args)
    text = str(failed.value)
    assert "\n" not in text and ("expected" in text or "must be" in text), text
    return text


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("name", ALL)
def test_the_call_is_right_with_arrays(name, paths):
    ALL[name](MASK, PHOTO, S1)


@pytest.mark.parametrize("name", TAKES_FILES)
def test_files_are_taken(name, paths):
    TAKES_FILES[name](*paths, S1)


@pytest.mark.parametrize("name", sorted((ARRAYS_ONLY | PLOTS).keys()))
def test_a_path_for_an_array_is_told(name, paths):
    assert "str" in told(ALL[name], *paths, S1)


@pytest.mark.parametrize("name", sorted((TAKES_FILES | ARRAYS_ONLY).keys() - WITHOUT_CLASSES))
def test_the_name_of_a_class_set_is_taken(name, paths):
    ALL[name](MASK, PHOTO, "S1v1")


@pytest.mark.parametrize("name", sorted(PLOTS.keys() - WITHOUT_CLASSES))
def test_pictures_say_how_to_look_a_name_up(name, paths):
    assert "LumenStoneClasses.by_name('S1v1')" in told(PLOTS[name], MASK, PHOTO, "S1v1")


@pytest.mark.parametrize("wrong", ["S9", None, 7, ["BG", "Sph"]])
@pytest.mark.parametrize(
    "name", sorted((TAKES_FILES | ARRAYS_ONLY).keys() - WITHOUT_CLASSES - {"Sample.read", "Layer"})
)
def test_what_is_no_class_set_is_refused(name, wrong, paths):
    with pytest.raises((ValueError, TypeError), match=r"no class set 'S9'; choose|expected a ClassSet as classes, got"):
        ALL[name](MASK, PHOTO, wrong)


@pytest.mark.parametrize("name", ["find_grains", "find_grains, parted", "modal", "write_geojson", "Sample.read"])
def test_a_file_that_is_not_there(name, paths):
    with pytest.raises(FileNotFoundError, match=r"nosuch\.png"):
        TAKES_FILES[name]("nosuch.png", paths[1], S1)


@pytest.mark.parametrize("wrong", [None, 7, [1, 2], [[0, 1]], "", b"m.png"])
def test_grains_of_nothing_that_is_a_mask(wrong, paths):
    with pytest.raises((ValueError, FileNotFoundError), match=r"expected"):
        grains.find_grains(wrong, S1)


@pytest.mark.parametrize("wrong", ["m.png", MASK, None])
@pytest.mark.parametrize("function", [
    contacts.contacts, contacts.ore_contact, contacts.ore_contacts, contacts.exposure, contacts.liberation,
    contacts.inclusions, contacts.count_inclusions, sizes.intercepts, sizes.size_curves, sizes.edge_weights,
    sizes.border_lengths, lambda found: grains.label_picture(MASK, found),
    lambda found: grains.grain_picture(MASK, found),
])  # fmt: skip
def test_what_is_no_grains_is_refused(function, wrong, paths):
    with pytest.raises(ValueError, match="expected grains, as find_grains finds them in a mask, got"):
        function(wrong)
