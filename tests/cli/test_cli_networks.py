"""Networks and batches that the command line's options describe."""

from __future__ import annotations

import json

import numpy as np
import pytest

import eoc_theory as eoc
from eoc_theory.cli import main
from eoc_theory.cli.networks import describe, network
from eoc_theory.cli.parser import build_parser
from eoc_theory.errors import DataError, EOCError


def parse(*options):
    return build_parser().parse_args(["predict", "--sparsity", "0.9", *options])


RELU = ("--activation", "relu", "--depth")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["cnn", *RELU, "4", "--width", "8"], lambda: eoc.cnn(4, 8, activation="relu")),
        (
            ["cnn", *RELU, "4", "--channels", "8", "--padding", "zeros", "--image", "1,28,20"],
            lambda: eoc.cnn(4, 8, activation="relu", padding_mode="zeros", input_shape=(1, 28, 20)),
        ),
        (["resnet", *RELU, "20"], lambda: eoc.resnet(20)),
        (
            ["stable-resnet", *RELU, "32", "--width", "32", "--out-features", "100"],
            lambda: eoc.resnet(32, width=32, scaling="stable", classes=100),
        ),
        (["resnet", *RELU, "8", "--normalisation", "none"], lambda: eoc.resnet(8, normalisation=None)),
        (["resnet", *RELU, "8", "--mode", "evaluation"], lambda: eoc.resnet(8, training=False)),
        (
            ["vgg", *RELU, "11", "--normalisation", "group", "--law", "orthogonal"],
            lambda: eoc.vgg(11, normalisation="group", law="orthogonal"),
        ),
        (["vgg", *RELU, "16", "--init", "pytorch"], lambda: eoc.vgg(16, init="pytorch")),
    ],
)
def test_kinds_make_the_network_of_the_api(options, expected):
    net, data = network(parse("--kind", *options))
    assert net == expected() and data is None


@pytest.mark.parametrize("batch", ["1", "7"])
def test_fewer_digits_than_classes_are_of_ten_classes_all_the_same(batch):
    pytest.importorskip("sklearn")
    net, data = network(
        parse("--kind", "mlp", *RELU, "3", "--width", "4", "--data", "digits", "--batch", batch)
    )
    assert net.out_features == data.classes == 10 and data.size == int(batch)


def test_what_is_no_npz_file_is_told_without_advice_to_unpickle_it(tmp_path):
    path = tmp_path / "batch.npz"
    path.write_text("inputs, targets")
    with pytest.raises(DataError, match=r"'inputs' .* 'targets' .*not an archive of plain arrays") as caught:
        network(parse("--kind", "mlp", *RELU, "3", "--width", "4", "--data", str(path)))
    assert "pickle" not in str(caught.value)


def test_digits_as_images():
    pytest.importorskip("sklearn")
    net, data = network(parse("--kind", "resnet", *RELU, "8", "--data", "digits", "--batch", "20"))
    assert data.inputs.shape == (20, 3 * 32 * 32) and data.classes == 10
    np.testing.assert_array_equal(data.inputs, eoc.digits_images(20)[0].reshape(20, -1))
    net, data = network(
        parse("--kind", "cnn", *RELU, "3", "--width", "4", "--data", "digits", "--image", "1,12,12")
    )
    assert str(net.input_shape) == "1x12x12" and data.inputs.shape == (100, 144)


def test_image_files(tmp_path):
    inputs = np.random.default_rng(0).standard_normal((6, 2, 9, 8))
    for name, values in (("images", inputs), ("flat", inputs.reshape(6, -1))):
        np.savez(tmp_path / f"{name}.npz", inputs=values, targets=np.arange(6) % 4)
    plain = ["--kind", "cnn", *RELU, "3", "--width", "4"]
    net, data = network(parse(*plain, "--data", str(tmp_path / "images.npz")))
    assert str(net.input_shape) == "2x9x8" and net.out_features == 4
    np.testing.assert_array_equal(data.inputs, inputs.reshape(6, -1))
    flat = ["--data", str(tmp_path / "flat.npz")]
    assert network(parse(*plain, *flat, "--image", "2,9,8"))[0] == net
    with pytest.raises(EOCError, match="image must say which shape the 144 entries of an input have"):
        network(parse(*plain, *flat))
    with pytest.raises(EOCError, match="inputs have 144 features, the network takes 60"):
        network(parse(*plain, *flat, "--image", "3,4,5"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["mlp", *RELU, "3"], "width must be given for --kind mlp"),
        (["cnn", *RELU, "3"], "width must be given for --kind cnn"),
        (["cnn", *RELU, "3", "--width", "4", "--in-features", "9"], "in_features goes with --kind mlp only"),
        (["mlp", *RELU, "3", "--width", "4", "--image", "3,4,4"], "image goes with --kind cnn or resnet"),
        (["cnn", *RELU, "3", "--width", "4", "--normalisation", "batch"], "normalisation goes with"),
        (["vgg", *RELU, "11", "--padding", "zeros"], "padding goes with --kind cnn only"),
        (["resnet", *RELU, "8", "--mode", "test"], "mode must be one of 'training', 'evaluation'"),
        (["resnet", *RELU, "9"], r"depth must be 6n \+ 2"),
        (["resnet", *RELU, "8", "--normalisation", "instance"], "normalisation must be one of"),
        (["cnn", *RELU, "3", "--width", "4", "--image", "3"], "input_shape must be"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(EOCError, match=message):
        network(parse("--kind", *options))


def test_descriptions_say_kind_inputs_and_mode():
    args = parse("--kind", "stable-resnet", *RELU, "8")
    told = describe(args, *network(args))
    assert told.startswith("stable-resnet of relu, 10 weight layers, width 16, inputs 3x32x32, ")
    assert "batch normalisation in training mode" in told and "sigma_w 1.41421" in told
    args = parse("--kind", "vgg", *RELU, "11", "--normalisation", "none")
    assert "no normalisation" in describe(args, *network(args))


def test_digits_are_enlarged_as_torch_does_it():
    pytest.importorskip("sklearn")
    torch = pytest.importorskip("torch")
    images, targets = eoc.digits_images(300, (2, 20, 33), seed=3)
    small, same = eoc.digits(300, seed=3)
    np.testing.assert_array_equal(targets, same)
    large = torch.nn.functional.interpolate(
        torch.as_tensor(small).reshape(-1, 1, 8, 8), size=(20, 33), mode="bilinear"
    ).numpy()
    # The scale is another: interpolation takes variance away.
    scale = images[0, 0, 10, 16] / large[0, 0, 10, 16]
    assert scale > 1
    np.testing.assert_allclose(images, np.repeat(large, 2, axis=1) * scale, rtol=1e-9, atol=1e-9)
    assert np.mean(eoc.digits_images(1700, (1, 20, 33))[0] ** 2) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("shape", [(3, 32), 32, "abc", (3, 0, 2)])
def test_image_shapes_that_are_none(shape):
    with pytest.raises(EOCError, match="shape"):
        eoc.digits_images(10, shape)


def test_predict_and_collapse_of_a_residual_network(capsys):
    small = ["--kind", "resnet", *RELU, "8", "--width", "4", "--image", "3,8,8", "--criterion", "magnitude"]
    assert main(["predict", *small, "--sparsity", "0.9", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    net = eoc.resnet(8, width=4, input_shape=(3, 8, 8))
    same = eoc.predict_pruning(net, 0.9, criterion="magnitude")
    assert tuple(found["layers"]) == net.weight_layers
    np.testing.assert_array_equal(found["kept"], same.kept)
    assert main(["collapse", *small]) == 0
    assert "batch normalisation in training mode" in capsys.readouterr().out


def test_compare_of_a_convolutional_network(capsys):
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    options = ["--kind", "cnn", *RELU, "3", "--width", "16", "--image", "1,8,8", "--sparsity", "0.8"]
    assert main(["compare", *options, "--data", "digits", "--batch", "20", "--seeds", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["layers"] == ["convs.0", "convs.1", "fc"]
    np.testing.assert_allclose(found["prediction"]["kept"], found["measured_kept"], atol=0.2)
