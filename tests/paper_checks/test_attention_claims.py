"""The claims on transformers: quick ones whole, and what their numbers rest on."""

from __future__ import annotations

import numpy as np
import pytest

from paper_checks.attention_phases import POINTS, STACKS, away_from_borders, phase_of, points
from paper_checks.attention_transition import (
    OVERLAPS,
    TOKENS,
    extrapolated,
    sampled_square,
    square,
    transition,
)
from paper_checks.claim import ATTENTION, run
from paper_checks.registry import CLAIMS
from paper_checks.transformers import Blocks, Seen, sample

OF_ATTENTION = {claim.name: claim for claim in CLAIMS if claim.group == ATTENTION}


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_ATTENTION)
def test_quick_claims_on_attention_have_their_recorded_verdicts(name):
    outcome = run(OF_ATTENTION[name])
    assert outcome.agrees, outcome.to_text()


def test_there_are_seven_claims_on_attention_with_sources():
    assert len(OF_ATTENTION) == 7
    assert all("20" in claim.statement for claim in OF_ATTENTION.values())


@pytest.mark.parametrize("p", OVERLAPS)
def test_the_transition_is_where_it_should_be(p):
    assert transition(p) == pytest.approx(np.sqrt(2 / (1 - p)), rel=0.05)


def test_extrapolation_finds_a_limit_that_is_known():
    log_t = np.log(TOKENS)
    assert extrapolated(0.7 - 0.3 / log_t + 0.2 * np.log(log_t) / log_t) == pytest.approx(0.7, abs=1e-9)


def test_rows_of_scores_with_overlap():
    found, error = sampled_square(64, 1.2, 0.4, rows=4000)
    assert abs(found - square(64, 1.2, 0.4)) < 5 * error


def test_sampled_transformers_are_made_by_their_seed():
    net = Blocks(64, 2, 8, 2, 1.0, 1.0)
    one, again, other = sample(net, 3), sample(net, 3), sample(net, 4)
    assert one.gap.tolist() == again.gap.tolist() != other.gap.tolist()
    assert one.log_moments["q"].tolist() == again.log_moments["q"].tolist()
    assert (
        one.gap.shape == (3,)
        and one.entropy.shape == (2,)
        and set(one.log_moments) == set("qkvo") | {"w1", "w2"}
    )
    assert sample(net, 3, gradients=False).log_moments == {}


def test_phases_of_networks_from_what_was_measured():
    def seen(gap, entropy, growth):
        zero = np.zeros(3)
        return Seen(zero, np.full(3, gap), np.full(2, entropy), np.full(3, growth), {})

    assert phase_of([seen(0.01, 3.0, 0.0)]) == "rank-collapsed"
    assert phase_of([seen(0.5, 0.3, 9.0)]) == "entropy-collapsed"
    assert phase_of([seen(0.5, 3.0, 9.0), seen(0.5, 3.0, 8.0)]) == "exploding"
    assert phase_of([seen(0.5, 3.0, -9.0)]) == "vanishing"
    assert phase_of([seen(0.5, 3.0, 2.0)]) == "trainable"


def test_points_are_away_from_borders_and_in_several_phases():
    import eoc_theory as eoc

    chosen = [point for stack in STACKS for point in points(*stack, POINTS // 2)]
    assert len(chosen) == POINTS and len({phase for _, _, phase in chosen}) >= 4
    grid = eoc.attention_phase([0.5, 6.9], [0.1], tokens=64)
    assert away_from_borders(grid).tolist() == [[True, False]]
