"""Plain SQL in migrations: executed unchanged, one statement at a time."""

from alembic import op


def run_script(script: str, *, single_statement: bool = False) -> None:
    """Execute the statements of ``script``, separated by ``;`` at the end of a line.

    ``single_statement``: the script is one statement with semicolons inside (a function's body).
    The driver prepares every statement, and a prepared statement can't hold two.
    """
    connection = op.get_bind()
    for statement in [script] if single_statement else script.split(";\n"):
        if statement.strip():
            connection.exec_driver_sql(statement)
