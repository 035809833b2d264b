"""The figures: stored results of every one, drawing from them, and results that are the same on every run."""

from __future__ import annotations

import numpy as np
import pytest

from figures.__main__ import main
from figures.figure import FORMATS, HERE
from figures.registry import FIGURES

NAMES = [one.name for one in FIGURES]


@pytest.mark.parametrize("figure", FIGURES, ids=NAMES)
def test_results_and_pictures_are_stored(figure):
    assert figure.data.exists()
    assert figure.data.stat().st_size < 300_000
    for suffix in FORMATS:
        assert (HERE / f"{figure.name}{suffix}").stat().st_size < 300_000


@pytest.mark.parametrize("name", NAMES)
def test_figures_are_drawn_from_stored_results(name, tmp_path, capsys):
    assert main([name, "--folder", str(tmp_path)]) == 0
    written = capsys.readouterr().out.split()
    assert written == [str(tmp_path / f"{name}{suffix}") for suffix in FORMATS]
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_recomputed_curves_are_the_stored_ones():
    figure = {one.name: one for one in FIGURES}["critical_curves"]
    fresh, stored = figure.compute(), figure.results()
    assert fresh.keys() == stored.keys()
    for name in stored:
        np.testing.assert_allclose(fresh[name], stored[name], rtol=1e-9)


def test_unusable_arguments_are_refused_in_one_line(capsys):
    for arguments, message in (
        (["nonsense"], "got 'nonsense'"),
        (["--folder", "/nowhere"], "got '/nowhere'"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2
        assert message in capsys.readouterr().err
