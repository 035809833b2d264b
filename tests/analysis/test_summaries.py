"""Tables of studies: lines in order, every number against another way to it, what is printed of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import analysis.__main__ as command
from analysis import Measure, Network, Place, Study, Task, reading, run
from analysis.__main__ import main
from analysis.rows import ordered
from analysis.studies import STUDIES
from analysis.summaries import LAYERS, SUMMARIES
from analysis.tables import TABLES
from analysis.tables_error import errors_frame, summarise_errors
from analysis.tables_layers import layers_frame, summarise_kept, summarise_layers

RESULTS = Path(__file__).resolve().parents[2] / "figures" / "results"
DEPTH = 9
NETWORKS = (Network("mlp", 10, 7), Network("mlp", DEPTH, 7), Network("mlp", DEPTH, 7, init=(1.0, 0.2)))


def rng(task: Task) -> np.random.Generator:
    return np.random.default_rng([task.seed, task.network.depth, len(task.measure.name)])


def predicted_layers(task: Task, place: Place) -> Mapping[str, Any]:
    draw, depth = rng(task), task.network.depth
    return {
        "layers": [f"layers.{i}" for i in range(depth)],
        "kept": draw.uniform(size=(2, depth)),
        "kept_std": draw.uniform(size=(2, depth)),
        **{name: draw.normal(size=depth) for name in ("log_moment", "log_moment_std", "log_moment_limit")},
    }


def measured_layers(task: Task, place: Place) -> Mapping[str, Any]:
    draw, depth = rng(task), task.network.depth
    return {"kept": draw.uniform(size=(2, depth)), "log_moment": draw.normal(size=depth)}


def errors(task: Task, place: Place) -> Mapping[str, Any]:
    lists = ("error", "square", "noise_square", "error_deviation", "predicted_std", "measured_std")
    draw = rng(task)
    spreads = ("gap_deviation", "predicted_spread", "measured_spread")
    return {
        "seeds": 5,
        "layers": task.network.depth,
        "weights": 100,
        "gap": np.nan if task.criterion == "snip" else -0.25,
        **{name: draw.uniform(size=2) for name in lists},
        **{name: float(draw.uniform()) for name in spreads},
    }


STUDY = Study(
    name="made",
    about="numbers drawn for this test",
    networks=NETWORKS,
    criteria=("snip", "random"),
    sparsities=(0.5, 0.95),
    seeds=3,
    measures=(
        Measure("predicted-layers", predicted_layers, seeded=False),
        Measure("measured-layers", measured_layers),
        Measure("error", errors, seeded=False),
    ),
)


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("summaries") / "made.sqlite"
    outcome = run(STUDY, path)
    assert outcome.done == outcome.tasks and not outcome.failures
    return path


def found(path: Path, measure: str, network: Network, criterion: str) -> list[dict[str, Any]]:
    """Results of a measure in the order of the seeds."""
    init = network.init if isinstance(network.init, str) else list(network.init)
    with reading(path) as store:
        return [
            row.found
            for row in store.rows(measure)
            if row.asked["criterion"] == criterion
            and (row.asked["network"]["depth"], row.asked["network"]["init"]) == (network.depth, init)
        ]


def of(frame: pd.DataFrame, network: Network, criterion: str, sparsity: float | None = None) -> pd.DataFrame:
    """The lines of a network and criterion."""
    init = network.init if isinstance(network.init, str) else "1,0.2"
    chosen = (frame["depth"] == network.depth) & (frame["init"] == init) & (frame["criterion"] == criterion)
    if sparsity is not None:
        chosen &= frame["sparsity"] == sparsity
    return frame.loc[chosen].reset_index(drop=True)


def test_lines_are_in_the_order_of_numbers_not_of_letters():
    frame = pd.DataFrame(
        {"depth": [100, 20, 5, 20, 20], "normalisation": [None, None, "batch", "batch", None]}
    )
    frame["sparsity"] = [0.9, 0.95, 0.9, 0.5, 0.5]
    # Networks of one kind stay together.
    assert ordered(frame)["depth"].tolist() == [5, 20, 20, 20, 100]
    assert ordered(frame)["sparsity"].tolist() == [0.9, 0.5, 0.5, 0.95, 0.9]
    assert ordered(pd.DataFrame()).empty


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("at", [0, 1])
def test_layers_are_summed_up(filled, network, at):
    (law,) = found(filled, "predicted-layers", network, "snip")
    seen = found(filled, "measured-layers", network, "snip")
    with reading(filled) as store:
        layers, kept = summarise_layers(store), summarise_kept(store)
    layers, kept = (of(frame, network, "snip", STUDY.sparsities[at]) for frame in (layers, kept))
    assert layers["name"].tolist() == law["layers"] and set(layers["seeds"]) == {3}
    np.testing.assert_array_equal(layers["kept"], law["kept"][at])
    np.testing.assert_array_equal(layers["kept_std"], law["kept_std"][at])
    by_hand = pd.DataFrame([one["kept"][at] for one in seen])
    np.testing.assert_allclose(layers["measured_kept"], by_hand.mean())
    np.testing.assert_allclose(layers["measured_kept_std"], by_hand.std())
    np.testing.assert_allclose(layers["kept_error"], by_hand.sem())
    # Moments are stored as natural logarithms.
    factors = pd.DataFrame([np.log10(np.exp(one["log_moment"])) for one in seen])
    np.testing.assert_allclose(layers["log_moment"], np.log10(np.exp(law["log_moment"])))
    np.testing.assert_allclose(layers["measured_log_moment"], factors.mean(), atol=1e-12)
    np.testing.assert_allclose(layers["log_moment_error"], factors.sem())
    # Means over layers of the same.
    (line,) = kept.to_dict(orient="records")
    off = (layers["kept"] - layers["measured_kept"]).abs()
    assert line["kept_error"] == pytest.approx(off.mean()) and line["worst_error"] == pytest.approx(off.max())
    assert line["worst_layer"] == layers["name"][off.argmax()]
    assert line["kept_std"] == pytest.approx(layers["kept_std"].mean())
    without = [np.abs(layers["kept"] - by_hand.drop(index=i).mean()).mean() for i in range(3)]
    assert line["standard_error"] == pytest.approx(np.sqrt(2.0 * np.var(without)))
    assert line["measured_kept_std"] == pytest.approx(np.sqrt((by_hand.var()).to_numpy()).mean())
    difference = (layers["log_moment"] - layers["measured_log_moment"]).abs()
    assert line["moment_error"] == pytest.approx(difference.mean())


def test_a_line_for_each_layer_of_each_network(filled):
    with reading(filled) as store:
        frame = layers_frame(store)
    networks = 1 + STUDY.seeds
    assert len(frame) == 2 * 2 * networks * sum(one.depth for one in NETWORKS)
    real = frame[frame["measure"] == "measured-layers"]
    # Only a prediction knows the names.
    assert (real["name"] == "layers." + real["layer"].astype(str)).all()
    (_, one, _) = found(filled, "measured-layers", NETWORKS[0], "random")
    line = of(real, NETWORKS[0], "random", 0.95).query("seed == 1 and layer == 6")
    assert line["kept"].tolist() == [one["kept"][1][6]] and line["log_moment"].tolist() == [
        one["log_moment"][6]
    ]


def test_errors_are_summed_up(filled):
    with reading(filled) as store:
        frame, lines = summarise_errors(store), errors_frame(store)
    assert frame["init"].tolist() == ["1,0.2"] * 2 + ["eoc"] * 4
    assert frame["depth"].tolist() == [9, 9, 9, 9, 10, 10]
    assert len(lines) == 2 * len(frame) == 12
    (one,) = found(filled, "error", NETWORKS[0], "random")
    (line,) = of(frame, NETWORKS[0], "random").to_dict(orient="records")
    worst = int(np.argmax(one["error"]))
    assert line["kept_error"] == pytest.approx(np.mean(one["error"]))
    assert (line["worst_error"], line["standard_error"]) == (
        one["error"][worst],
        one["error_deviation"][worst],
    )
    assert line["worst_at"] == STUDY.sparsities[worst] and line["gap"] == -0.25
    both = of(lines, NETWORKS[0], "random")
    np.testing.assert_allclose(both["noise"] ** 2, one["noise_square"])
    np.testing.assert_allclose(both["root_mean_square"] ** 2, one["square"])
    assert frame.query("criterion == 'snip'")["gap"].isna().all()


def test_what_is_printed(filled, capsys, monkeypatch):
    monkeypatch.setattr(command, "STUDIES", {"made": STUDY})
    assert main(["summary", "made", "--store", str(filled), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [name for name in said if isinstance(said[name], list)] == [one.name for one in SUMMARIES]
    assert len(said["errors"]) == 6 and len(said["kept"]) == 12 and said["networks"] == []
    assert main(["summary", "made", "--store", str(filled)]) == 0
    text = capsys.readouterr().out
    tables = text.split("\n\n")
    # Three with lines, and the last line; the others are not even begun.
    assert len(tables) == 4 and tables[3].startswith("30 results of study made")
    for table in tables[:3]:
        # Each network once, with its inits below each other.
        heads = [line.split("  ")[0] for line in table.splitlines() if line.startswith("mlp")]
        assert heads == ["mlp tanh 9x7", "mlp tanh 10x7"]
    of_layers = [
        int(line.split("layers.")[1].split()[0]) for line in tables[2].splitlines() if "layers." in line
    ]
    assert of_layers == 8 * [0, 2, 4, 6, 8] + 4 * [0, 2, 4, 7, 9] and LAYERS == 5
    error = next(one for one in said["errors"] if one["criterion"] == "snip")
    assert f"{error['worst_error']:.4f}" in tables[0] and error["gap"] is None and "–" in tables[0]


def test_a_table_is_chosen_for_the_store(filled, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "STUDIES", {"made": STUDY})
    path, store = tmp_path / "x.csv", ["--store", str(filled)]
    assert main(["export", "made", str(path), *store]) == 0
    assert capsys.readouterr().out == f"{len(pd.read_csv(path))} lines of table layers written to {path}\n"
    assert main(["export", "made", str(path), "--table", "networks", *store]) == 1
    assert "holds nothing for table 'networks': it has layers, errors, rows" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.sqlite")), ids=lambda path: path.stem)
def test_stores_of_the_figures_can_be_read_by_strangers(path, tmp_path, capsys, monkeypatch):
    """A summary with numbers, and a table for other programs, whatever is measured."""
    study = path.stem
    assert study in STUDIES
    monkeypatch.chdir(tmp_path)
    assert main(["summary", study]) == 1
    said = capsys.readouterr().err
    assert "does not exist" in said and "has what the figures show" in said
    assert main(["summary", study, "--store", str(path)]) == 0
    assert len(capsys.readouterr().out.splitlines()) >= 10
    assert main(["export", study, "all.csv", "--store", str(path)]) == 0
    frame = pd.read_csv("all.csv")
    assert frame["depth"].notna().all() and len(frame) > 5
    # Not the whole of a store as it is, but a table that says what its columns are.
    assert "of table rows" not in capsys.readouterr().out
    assert list(TABLES)[-1] == "rows"
