"""The query plans of statements, including those inside functions (auto_explain)."""

import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

import asyncpg

_SETTINGS: Final = (
    "LOAD 'auto_explain'",
    "SET auto_explain.log_min_duration = 0",
    "SET auto_explain.log_nested_statements = on",
    "SET auto_explain.log_format = json",
    "SET client_min_messages = log",
)


async def plans_of(connection: asyncpg.Connection, work: Callable[[], Awaitable[Any]]) -> list[str]:
    """The shape of each statement's plan that ``work`` runs over ``connection``, in order.

    Repeated plans in a loop count once. Costs and execution counts are left out.
    """
    found: list[str] = []

    def note(_connection: object, message: Any) -> None:
        _, _, plan = message.message.partition("plan:\n")
        if plan:
            found.append(_shape(json.loads(plan)["Plan"]))

    for setting in _SETTINGS:
        await connection.execute(setting)
    connection.add_log_listener(note)
    try:
        await work()
    finally:
        connection.remove_log_listener(note)
        await connection.execute("RESET client_min_messages")
    # The driver queries the catalogue now and then; those plans are not ours.
    return [one for one in dict.fromkeys(found) if one != "Result" and "pg_" not in one]


def _shape(plan: dict[str, Any]) -> str:
    what = [plan["Node Type"]]
    what += [plan[key] for key in ("Index Name", "Relation Name") if key in plan]
    inner = [_shape(one) for one in plan.get("Plans", ())]
    return " ".join(what) + (f" ({', '.join(inner)})" if inner else "")
