"""The figures: stored results of every one, drawing from them, and results that are the same on every run."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace

import fake_studies
import numpy as np
import pytest
from fake_studies import fake

import figures.figure as figure_module
from analysis import Place, Store, Study, reading, run
from analysis.studies import STUDIES
from analysis.studies.atlas import ATLAS
from figures.__main__ import main
from figures.atlas import agreement
from figures.figure import FORMATS, HERE, FigureError, StudyFigure
from figures.registry import FIGURES

NAMES = [one.name for one in FIGURES]
BY_NAME = {one.name: one for one in FIGURES}
OF_STUDIES = [one for one in FIGURES if isinstance(one, StudyFigure)]


@pytest.mark.parametrize("figure", FIGURES, ids=NAMES)
def test_results_and_pictures_are_stored(figure):
    assert figure.data.exists()
    assert figure.data.stat().st_size < (1_300_000 if isinstance(figure, StudyFigure) else 300_000)
    for suffix in FORMATS:
        assert (HERE / f"{figure.name}{suffix}").stat().st_size < 800_000


@pytest.mark.parametrize("name", NAMES)
def test_figures_are_drawn_from_stored_results(name, tmp_path, capsys):
    assert main([name, "--folder", str(tmp_path)]) == 0
    written = capsys.readouterr().out.split()
    assert written == [str(tmp_path / f"{name}{suffix}") for suffix in FORMATS]
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    # Of the formats it is the page that could say when it was made, or number its fonts anew.
    again = tmp_path / "again.pdf"
    BY_NAME[name].draw(BY_NAME[name].results(), again)
    assert again.read_bytes() == (tmp_path / f"{name}.pdf").read_bytes()


@pytest.mark.parametrize("figure", OF_STUDIES, ids=[one.name for one in OF_STUDIES])
def test_stored_results_are_those_of_the_declared_study(figure):
    """Nothing is missing that the study asks for, and its command knows the study."""
    assert STUDIES[figure.study.name] == figure.study
    with closing(sqlite3.connect(f"file:{figure.data}?mode=ro", uri=True)) as stored:
        keys = set(stored.execute("SELECT hash, seed FROM results"))
    assert keys == {task.key for task in figure.study.tasks()}


def raw(study, measure, criterion="snip", **network):
    """What the results file of a study holds, read without the engine: results in the order of the seeds."""
    query = "SELECT configuration, result FROM results WHERE measure = ? ORDER BY seed"
    with closing(sqlite3.connect(HERE / "results" / f"{study}.sqlite")) as stored:
        rows = [(json.loads(asked), json.loads(found)) for asked, found in stored.execute(query, (measure,))]
    return [
        found
        for asked, found in rows
        if asked["criterion"] == criterion and network.items() <= asked["network"].items()
    ]


def test_collapse_shows_what_is_stored():
    results = BY_NAME["collapse"].results()
    for panel, network in enumerate(
        ({"activation": "tanh", "init": "eoc"}, {"activation": "tanh", "init": [1.0, 0.2]},
         {"activation": "relu", "init": "eoc"}, {"activation": "relu", "init": [1.2, 0.2]})
    ):  # fmt: skip
        for criterion in ("snip", "grasp", "magnitude", "synflow", "random"):
            found = raw("collapse", "measured-collapse", criterion, **network)
            drawn = sorted(s for one in found for s in one["critical_sparsity"])
            shown = results[f"{panel}_{criterion}_measured"]
            assert list(shown) == drawn and len(drawn) == (10 if criterion == "synflow" else 40)
            (law,) = raw("collapse", "predicted-collapse", criterion, **network)
            assert list(results[f"{panel}_{criterion}_predicted"]) == law["quantiles"]


def test_collapse_depth_shows_what_is_stored_and_the_bound_where_it_binds():
    results = BY_NAME["collapse_depth"].results()
    for at, init in enumerate(([0.5, 0.2], [1.0, 0.2], "eoc", [2.0, 0.2], [5.0, 0.2])):
        for depth in (5, 10, 20, 40, 80, 160):
            name, network = f"{at}_{depth}", {"init": init, "depth": depth}
            found = raw("collapse-depth", "measured-collapse", **network)
            drawn = [s for one in found for s in one["critical_sparsity"]]
            assert np.median(results[f"{name}_measured"]) == np.median(drawn)
            (law,) = raw("collapse-depth", "predicted-collapse", **network)
            bound = results[f"{name}_bound"]
            assert (law["bound"] is None and np.isnan(bound)) or bound == law["bound"]
            # Where it says something it holds, and on the edge of chaos there is none.
            assert np.isnan(bound) or np.mean(drawn) < bound < 1
            assert np.isnan(bound) or init != "eoc"


def test_kept_per_layer_shows_what_is_stored():
    results = BY_NAME["kept_per_layer"].results()
    for phase, init in {"ordered": [1.0, 0.2], "critical": "eoc", "chaotic": [2.0, 0.2]}.items():
        found = raw("kept-per-layer", "measured-layers", init=init)
        (law,) = raw("kept-per-layer", "predicted-layers", init=init)
        mean = [sum(one["kept"][0][layer] for one in found) / len(found) for layer in range(100)]
        np.testing.assert_allclose(results[f"{phase}_kept"].mean(axis=0), mean, rtol=1e-12)
        assert list(results[f"{phase}_predicted"]) == law["kept"][0]
        # 30 % of all weights are left.
        assert np.average(mean, weights=[64 / 100, *[1] * 98, 10 / 100]) == pytest.approx(0.3, abs=1e-4)


def test_residual_shows_what_is_stored():
    results = BY_NAME["residual"].results()
    for at, (kind, norm) in enumerate(
        (("resnet", None), ("stable-resnet", None), ("resnet", "batch"), ("stable-resnet", "batch"))
    ):
        for depth in (32, 56):
            network = {"kind": kind, "normalisation": norm, "depth": depth}
            found = raw("residual-layers", "measured-layers", **network)
            (law,) = raw("residual-layers", "predicted-layers", **network)
            main = [i for i, name in enumerate(law["layers"]) if "shortcut" not in name]
            # A convolution, two a block, and a dense layer: what the network's name counts.
            assert len(main) == depth
            moments = [np.mean([one["log_moment"][i] for one in found]) / np.log(10.0) for i in main]
            np.testing.assert_allclose(results[f"{at}_{depth}_moments"].mean(axis=0), moments, atol=1e-9)
            kept = [np.mean([one["kept"][0][i] for one in found]) for i in main]
            np.testing.assert_allclose(results[f"{at}_{depth}_kepts"].mean(axis=0), kept, atol=1e-12)
            np.testing.assert_array_equal(results[f"{at}_{depth}_kept"][0], [law["kept"][0][i] for i in main])


def test_atlas_shows_what_is_stored():
    results = BY_NAME["atlas"].results()
    known = np.isfinite(results["predicted"])
    assert (known == np.isfinite(results["measured"])).all()
    asked = {(task.network, task.criterion) for task in ATLAS.tasks()}
    assert known.sum() == len(asked) and agreement(results)[1] == len(asked)
    relu30 = {"kind": "mlp", "depth": 30, "activation": "relu", "init": "eoc"}
    for column, criterion in enumerate(("snip", "grasp", "magnitude", "synflow")):
        found = raw("atlas", "measured-collapse", criterion, **relu30)
        drawn = [s for one in found for s in one["critical_sparsity"]]
        assert results["measured"][1, column] == np.median(drawn)
        (law,) = raw("atlas", "predicted-collapse", criterion, **relu30)
        assert results["predicted"][1, column] == law["quantiles"][24]


def test_recomputed_curves_are_the_stored_ones():
    figure = BY_NAME["critical_curves"]
    fresh, stored = figure.compute(), figure.results()
    assert fresh.keys() == stored.keys()
    for name in stored:
        np.testing.assert_allclose(fresh[name], stored[name], rtol=1e-9)


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Makes figures of made-up studies, with results below `tmp_path`."""
    monkeypatch.setattr(figure_module, "HERE", tmp_path)

    def make(study: Study) -> StudyFigure:
        def values(store: Store) -> dict[str, np.ndarray]:
            return {"value": np.array([row.found["value"] for row in store.rows()])}

        return StudyFigure("made", "nothing", replace(study, name="made"), values, lambda *_: None)

    return make


def test_results_of_another_form_of_the_study_are_not_drawn(made):
    figure = made(fake(fake_studies.numbers))
    run(replace(figure.study, seeds=2), figure.data)
    with pytest.raises(FigureError, match=r"lacks 8 results .* and holds 0 .*: made is not drawn"):
        figure.results()
    run(figure.study, figure.data, resume=True)
    assert len(figure.results()["value"]) == 12
    with pytest.raises(FigureError, match=r"lacks 0 results .* and holds 6"):
        made(fake(fake_studies.numbers, networks=1)).results()


def test_recomputing_goes_on_but_not_with_another_form_of_the_study(made):
    figure = made(fake(fake_studies.numbers, seeds=2))
    new = figure.data.with_suffix(".new.sqlite")
    run(replace(figure.study, seeds=1), new)
    with reading(new) as store:
        begun = {row.finished for row in store.rows()}
    assert len(figure.results(recompute=True)["value"]) == 4
    with reading(figure.data) as store:
        assert begun < {row.finished for row in store.rows()}
    run(made(fake(fake_studies.numbers, networks=3)).study, new)
    assert len(figure.results(recompute=True)["value"]) == 4
    assert [path.name for path in figure.data.parent.iterdir()] == ["made.sqlite"]


def test_a_failing_task_leaves_the_stored_results(made):
    figure = made(fake(fake_studies.stumble, seeds=2))
    run(figure.study, figure.data, place=Place(folder=str(figure.data.parent.parent)))
    before = figure.data.read_bytes()
    with pytest.raises(FigureError, match=r"2 tasks .* ModelError: this one cannot be done"):
        figure.results(recompute=True)
    assert figure.data.read_bytes() == before


def test_ctrl_c_ends_with_130_and_one_line(monkeypatch, capsys):
    def stop(self, *_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(StudyFigure, "render", stop)
    assert main(["collapse"]) == 130
    assert capsys.readouterr().err == "figures: stopped at collapse; what was drawn stays\n"


def test_unusable_arguments_are_refused_in_one_line(capsys):
    for arguments, message in (
        (["nonsense"], "got 'nonsense'"),
        (["--folder", "/nowhere"], "got '/nowhere'"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2
        assert message in capsys.readouterr().err
