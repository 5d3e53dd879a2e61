"""The scenarios as data, and the requests generated from them."""

import json
from collections import Counter
from functools import cache

import pytest

from bench.generators.request_script import RequestScript, ResponseMode
from bench.plan import FULL, QUICK
from bench.scenarios import (
    BATCH_ITEMS,
    BY_NAME,
    SCENARIOS,
    Kind,
    Scenario,
    Spread,
    funding_script,
    needs_batch_route,
    script_of,
)

WALLETS = [f"01a20661-b79b-7859-b245-{n:012x}" for n in range(200)]


@cache
def script_for(scenario: Scenario) -> RequestScript:
    """Its request script for `WALLETS`. Cached: some have 100,000 templates."""
    return script_of(scenario, WALLETS)


def test_every_scenario_of_the_specification_is_there() -> None:
    assert set(BY_NAME) == {
        "hot_unary",
        "uniform_unary",
        "zipf_unary",
        "four_hot_unary",
        "hot_batch",
        "uniform_batch",
        "two_phase",
        "hot_with_keys",
        "read_get",
        "read_strong",
        "mixed",
    }


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
def test_a_request_script_is_the_same_every_time(scenario: Scenario) -> None:
    assert script_for(scenario) == script_of(scenario, WALLETS)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
def test_the_headline_is_one_of_the_concurrencies(scenario: Scenario) -> None:
    assert scenario.headline in scenario.concurrencies
    assert FULL.concurrencies(scenario)[-1] == scenario.headline
    assert set(FULL.concurrencies(scenario)) == set(scenario.concurrencies)
    assert scenario.headline in QUICK.concurrencies(scenario)


def test_a_quick_run_measures_one_connection_where_a_target_needs_it() -> None:
    assert QUICK.concurrencies(BY_NAME["hot_unary"]) == (1, 256)
    assert QUICK.concurrencies(BY_NAME["mixed"]) == (256,)


def test_a_hot_scenario_goes_to_one_wallet() -> None:
    for scenario in SCENARIOS:
        if scenario.spread is Spread.HOT:
            script = script_for(scenario)
            assert all(WALLETS[0] in template.path for template in script.templates)


def test_a_uniform_scenario_goes_to_every_wallet_once_before_any_twice() -> None:
    paths = [template.path for template in script_for(BY_NAME["uniform_unary"]).templates]
    assert len(paths) == len(set(paths)) == len(WALLETS)


def test_a_zipf_scenario_has_a_few_hot_wallets_and_many_cold_ones() -> None:
    counts = Counter(template.path for template in script_for(BY_NAME["zipf_unary"]).templates)
    (_, first), (_, second) = counts.most_common(2)
    assert 1.9 < first / second < 2.4  # 2 to the power of 1.1
    assert len(counts) == len(WALLETS)


def test_a_batch_is_a_thousand_transfers() -> None:
    for name in ("hot_batch", "uniform_batch"):
        script = script_for(BY_NAME[name])
        assert script.mode is ResponseMode.ITEMS
        assert {len(json.loads(template.body)["items"]) for template in script.templates} == {
            BATCH_ITEMS
        }


def test_only_a_batch_of_many_wallets_names_them() -> None:
    hot = json.loads(script_for(BY_NAME["hot_batch"]).templates[0].body)
    many = json.loads(script_for(BY_NAME["uniform_batch"]).templates[0].body)
    assert "wallet_id" not in hot["items"][0]
    assert hot["atomic"] is False
    assert {item["wallet_id"] for item in many["items"]} == set(WALLETS)


def test_mixed_is_four_fifths_writing() -> None:
    templates = script_for(BY_NAME["mixed"]).templates
    reads = sum(template.method == "GET" for template in templates) / len(templates)
    credits_ = sum(template.path.endswith("credit") for template in templates) / len(templates)
    assert reads == pytest.approx(0.2, abs=0.01)
    assert credits_ == pytest.approx(0.2, abs=0.01)


def test_two_phase_creates_what_it_then_completes() -> None:
    script = script_for(BY_NAME["two_phase"])
    assert script.mode is ResponseMode.SETTLE
    assert json.loads(script.templates[0].body)["status"] == "pending"


def test_reads_send_nothing_and_ask_for_nothing_new() -> None:
    script = script_for(BY_NAME["read_strong"])
    assert script.items_per_request == 0
    assert all(
        template.path.endswith("?consistency=strong") and not template.body
        for template in script.templates
    )


def test_only_scenarios_with_keys_send_keys() -> None:
    for scenario in SCENARIOS:
        with_key = {template.has_key for template in script_for(scenario).templates}
        assert with_key == {scenario.has_key}


def test_what_needs_money_gets_it_first() -> None:
    assert [s.name for s in SCENARIOS if s.funded] == ["mixed"]
    singles, batches = (funding_script(WALLETS, in_batches=flag) for flag in (False, True))
    assert len(singles.templates) == len(WALLETS)
    assert [len(json.loads(template.body)["items"]) for template in batches.templates] == [
        len(WALLETS)
    ]


def test_a_quick_run_has_the_open_loop_that_a_target_needs() -> None:
    assert [s.name for s in SCENARIOS if QUICK.has_open_loop(s)] == ["hot_unary"]
    assert [s.name for s in SCENARIOS if FULL.has_open_loop(s)] == ["hot_unary", "uniform_unary"]


def test_a_full_run_measures_three_times_what_a_target_needs() -> None:
    assert {s.name: FULL.open_loop_runs(s) for s in SCENARIOS if FULL.has_open_loop(s)} == {
        "hot_unary": 3,
        "uniform_unary": 1,
    }
    assert {QUICK.open_loop_runs(s) for s in SCENARIOS} == {1}


def test_batches_need_their_route() -> None:
    needing = {s.name for s in SCENARIOS if needs_batch_route(s)}
    assert needing == {s.name for s in SCENARIOS if s.kind is Kind.BATCH}
