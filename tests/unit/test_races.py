"""Every pair of commands about one hold ends as `specification/races.md` says.

INV-4, INV-15 and INV-16: there is one writer, so one of two commands is the first. The page has a
cell for each ordered pair; this runs each in two commits, in one commit, and delivers both again.
"""

import msgspec
import pytest

from actors.rpc.messages import Applied, Refused, RequestResult
from tests.support.races import COMMANDS, STARTS, read_page, stage

PAGE = read_page()
PAIRS = [
    pytest.param(start, first, second, id=f"{start}: {first}, {second}")
    for start in STARTS
    for first in COMMANDS
    for second in COMMANDS
]


def test_the_page_has_every_pair_from_every_start() -> None:
    assert list(PAGE) == list(STARTS)
    for rows in PAGE.values():
        assert list(rows) == list(COMMANDS)
        assert all(list(row.seconds) == list(COMMANDS) for row in rows.values())


@pytest.mark.parametrize(("start", "first", "second"), PAIRS)
async def test_a_pair_of_commands_ends_as_the_page_says(
    start: str, first: str, second: str
) -> None:
    async with stage(start) as staged:
        outcomes, results = [], []
        for place, name in enumerate((first, second), start=1):
            version = staged.version
            (result,) = await staged.submit(staged.request(name, place))
            outcomes.append(staged.outcome(result, version))
            results.append(result)
        row = PAGE[start][first]
        assert outcomes == [row.outcome, row.seconds[second]]

        # A second delivery of either changes nothing, and under a key has the first one's answer.
        ended = staged.state(), staged.version
        for place, name in enumerate((first, second), start=1):
            request = staged.request(name, place, attempt=2)
            (again,) = await staged.submit(request)
            assert (staged.state(), staged.version) == ended
            if request.items[0].idempotency is not None and _is_stored(results[place - 1]):
                assert msgspec.structs.replace(again, replayed=False) == results[place - 1]


def _is_stored(result: RequestResult) -> bool:
    return isinstance(result, Applied | Refused)


@pytest.mark.parametrize(("start", "first", "second"), PAIRS)
async def test_a_pair_in_one_commit_ends_as_the_page_says(
    start: str, first: str, second: str
) -> None:
    """A commit has one time: if the expiry is in it, it comes before any command that names the
    hold, whichever came first."""
    names_it = STARTS[start].about_the_hold
    expiry_first = second == "expire" and first in names_it
    row = PAGE[start]["expire" if expiry_first else first]
    expected = row.seconds[first if expiry_first else second]
    async with stage(start) as staged:
        before, commits = staged.state(), staged.commits
        results = await staged.submit(staged.request(first, 1), staged.request(second, 2))
        assert staged.commits == commits + 1, "both were one commit"
        decided = results[0 if expiry_first else 1]
        if expected.startswith("`"):
            assert isinstance(decided, Refused)
            assert f"`{decided.refusal.code}`" == expected
        else:
            assert isinstance(decided, Applied)
        unchanged = expected.startswith("`") or expected == "as it is"
        ended = row.outcome if unchanged else expected
        assert staged.state() == (before if ended.startswith("`") else ended)
