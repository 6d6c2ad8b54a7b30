"Checkpoints: those that people own give what they gave, those that were tampered with are refused."

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from petroscope.segmentation.classes import LumenStoneClasses  # noqa: E402
from petroscope.segmentation.resunet import ResUnet  # noqa: E402


def test_a_checkpoint_of_the_earlier_package_gives_its_logits(compat):
    model = ResUnet.load(compat / "resunet_filters4.pth", precision="float32")
    known = np.load(compat / "resunet_filters4.npz")
    with torch.inference_mode():
        logits = model.net(torch.from_numpy(known["image"]).permute(2, 0, 1)[None])[0].permute(1, 2, 0)
    assert (model.net.filters, model.net.depth, model.classes) == (4, 4, LumenStoneClasses.S1v1)
    assert model.scale == 1.0
    assert np.abs(logits.numpy() - known["logits"]).max() < 1e-4


@pytest.mark.parametrize("fault", ["missing", "foreign"])
def test_a_checkpoint_with_a_wrong_key_is_refused_in_one_line(compat, petroscope, tmp_path, fault):
    state = torch.load(compat / "resunet_filters4.pth", weights_only=True)
    if fault == "missing":
        del state["up2.conv.bn1.bias"]
    else:
        state["up9.conv.bn1.bias"] = torch.zeros(4)
    torch.save(state, tmp_path / "changed.pth")
    np.save(tmp_path / "x.npy", np.zeros(3))
    from petroscope.io.images import write_image

    write_image(tmp_path / "photo.png", np.zeros((32, 32, 3), np.uint8))
    argv = ("segment", tmp_path / "photo.png", "--out", tmp_path / "out", "--weights", tmp_path / "changed.pth")
    status, _, err = petroscope(*argv)
    assert status == 1 and len(err.splitlines()) == 1
    assert "changed.pth" in err and fault in err and "conv.bn1.bias" in err


def test_channels_follow_the_class_list():
    "Output number i is class number i: a bias that favours one output gives that class everywhere."
    model = ResUnet(LumenStoneClasses.S1v1, filters=4, depth=1)
    for i, code in enumerate(LumenStoneClasses.S1v1.codes):
        with torch.no_grad():
            model.net.out.weight.zero_()
            model.net.out.bias.copy_(torch.nn.functional.one_hot(torch.tensor(i), 7).float())
        assert (model.predict_image(np.zeros((9, 11, 3), np.uint8)) == code).all()
