"""Masks in safetensors files, and those that torch.nn.utils.prune puts on a model."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest

import eoc_theory as eoc

torch: Any = pytest.importorskip("torch")
prune: Any = pytest.importorskip("torch.nn.utils.prune")


def model(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(4 * 36, 5)
    )


def masks() -> Any:
    return eoc.measure_pruning(model(), 0.6, criterion="magnitude", device="cpu").masks


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_files_keep_masks_and_say_what_they_are(tmp_path):
    pytest.importorskip("safetensors")
    path = tmp_path / "masks.safetensors"
    given = masks()
    eoc.save_masks(given, path)
    read = eoc.load_masks(path)
    assert same(read, given) and all(mask.dtype == bool for mask in read.values())
    # The header is JSON behind its length: any reader of the format has it.
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert header["__metadata__"]["format"] == "eoc-theory masks"
    assert header["0"] == {
        "dtype": "BOOL",
        "shape": [4, 1, 3, 3],
        "data_offsets": header["0"]["data_offsets"],
    }
    assert [one.name for one in tmp_path.iterdir()] == ["masks.safetensors"]


def test_files_of_torch_s_own_writer_are_read(tmp_path):
    writer = pytest.importorskip("safetensors.torch")
    tensors = {name: torch.as_tensor(mask).to(torch.uint8) for name, mask in masks().items()}
    writer.save_file(tensors, tmp_path / "theirs.safetensors")
    assert same(eoc.load_masks(tmp_path / "theirs.safetensors"), masks())
    eoc.save_masks({name: tensor.float() for name, tensor in tensors.items()}, tmp_path / "ours.safetensors")
    reader = pytest.importorskip("safetensors.torch")
    assert all(
        torch.equal(mask, tensors[name].bool())
        for name, mask in reader.load_file(tmp_path / "ours.safetensors").items()
    )


def test_what_is_no_mask_is_refused(tmp_path):
    writer = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "a.safetensors"
    for wrong in ({}, [np.ones(2)], {"a": np.array([0.5])}, {3: np.ones(2)}, {"a": "text"}):
        with pytest.raises(eoc.EOCError, match="masks"):
            eoc.save_masks(wrong, path)
        assert not path.exists()
    with pytest.raises(eoc.EOCError, match="cannot be read"):
        eoc.load_masks(path)
    with pytest.raises(eoc.EOCError, match="folder that exists"):
        eoc.save_masks(masks(), tmp_path / "none" / "a.safetensors")
    path.write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00notjson!")
    with pytest.raises(eoc.EOCError, match="not a safetensors file"):
        eoc.load_masks(path)
    writer.save_file({"w": np.array([0.3, 1.0])}, path)
    with pytest.raises(eoc.EOCError, match="something else than masks"):
        eoc.load_masks(path)


@pytest.mark.parametrize("put", [prune.l1_unstructured, prune.random_unstructured])
def test_masks_of_torch_are_ours(put):
    net = model()
    put(net[0], "weight", amount=0.5)
    found = eoc.masks_of(net)
    assert list(found) == ["0"] and np.array_equal(found["0"], net[0].weight_mask.numpy() != 0)
    # And ours are torch's: the same weights stay, and torch's tools take them.
    ours, theirs = eoc.prune_(model(), masks()), model()
    prune.custom_from_mask(theirs[0], "weight", torch.as_tensor(masks()["0"]))
    prune.custom_from_mask(theirs[3], "weight", torch.as_tensor(masks()["3"]))
    assert torch.equal(ours[0].weight, theirs[0].weight) and same(eoc.masks_of(ours), eoc.masks_of(theirs))
    assert prune.is_pruned(ours)
    prune.remove(ours[0], "weight")
    assert list(eoc.masks_of(ours)) == ["3"]


def test_masks_of_a_parametrised_weight():
    net = torch.nn.Sequential(torch.nn.utils.parametrizations.spectral_norm(torch.nn.Linear(6, 4)))
    wanted = np.arange(24).reshape(4, 6) % 3 != 0
    eoc.prune_(net, {"0": wanted})
    assert same(eoc.masks_of(net), {"0": wanted})
    assert eoc.masks_of(model()) == {}
    with pytest.raises(eoc.EOCError, match=r"torch\.nn\.Module"):
        eoc.masks_of(masks())


def test_a_model_travels_as_weights_and_masks(tmp_path):
    pytest.importorskip("safetensors")
    first = eoc.prune_(model(), masks())
    eoc.save_masks(eoc.masks_of(first), tmp_path / "m.safetensors")
    second = eoc.prune_(model(), eoc.load_masks(tmp_path / "m.safetensors"))
    images = torch.randn(2, 1, 8, 8)
    assert torch.equal(first(images), second(images))
    assert torch.equal(copy.deepcopy(second)(images), first(images))
