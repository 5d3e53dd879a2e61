"""Encoding of batch results, with parts that are JSON already or not."""

import msgspec

from serve_app.http.models import (
    BatchResult,
    MultiBatchResults,
    WalletBatchResults,
    encoded_already,
)
from serve_app.http.problems import problem_document
from tests.support.domain import make_transfer, make_wallet
from wallet.representation import ENCODER, balances_view, transfer_result_view

TRANSFER = transfer_result_view(make_transfer(), make_wallet())
BALANCES = balances_view(make_wallet())


def test_an_encoded_transfer_gives_the_same_result_as_the_transfer() -> None:
    body = ENCODER.encode(BatchResult(status=201, transfer=TRANSFER))

    encoded = encoded_already(ENCODER.encode(TRANSFER))

    assert ENCODER.encode(BatchResult(status=201, transfer=encoded)) == body
    assert msgspec.json.decode(body, type=BatchResult).transfer == TRANSFER


def test_a_result_has_no_member_that_says_nothing() -> None:
    problem = problem_document("insufficient_funds", "the wallet has 0.00", "r-1")

    kept = ENCODER.encode(BatchResult(status=409, problem=problem, replayed=True))
    new = ENCODER.encode(BatchResult(status=201, transfer=TRANSFER))

    assert msgspec.json.decode(kept).keys() == {"status", "problem", "replayed"}
    assert msgspec.json.decode(new).keys() == {"status", "transfer"}


def test_encoded_results_give_the_same_batch_as_the_results() -> None:
    results = [BatchResult(status=201, transfer=TRANSFER)] * 2
    encoded = [encoded_already(ENCODER.encode(result)) for result in results]

    many = ENCODER.encode(MultiBatchResults(items=encoded))
    single = ENCODER.encode(
        WalletBatchResults(items=encoded, wallet=encoded_already(ENCODER.encode(BALANCES)))
    )
    no_wallet = ENCODER.encode(WalletBatchResults(items=encoded, wallet=None))

    assert many == ENCODER.encode(MultiBatchResults(items=results))
    assert single == ENCODER.encode(WalletBatchResults(items=results, wallet=BALANCES))
    assert msgspec.json.decode(no_wallet)["wallet"] is None
