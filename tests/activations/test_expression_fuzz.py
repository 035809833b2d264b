"""Some hundreds of random and damaged expressions; more with ``python -m tests.fuzz_expressions``."""

from __future__ import annotations

import pytest

from tests.fuzz_expressions import run


@pytest.mark.slow
def test_random_expressions_are_right_or_refused() -> None:
    findings = run(400, seed=20)
    assert findings.wrong == []
    assert findings.counts["accepted"] > 80
    assert findings.counts["points"] > 800
    # A limit for hangs, several times what the counted work allows.
    assert findings.slowest[0][0] < 20, findings.slowest[0]
