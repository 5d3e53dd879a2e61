"""The table of problem codes, generated from the service's catalogue of problems."""

from serve_app.http.problems import PROBLEM_TYPES


def problem_table() -> str:
    """Every problem code as a Markdown table, in the order of the HTTP status."""
    lines = ["| status | code | title | what to do |", "|--:|---|---|---|"]
    for code, problem in sorted(PROBLEM_TYPES.items(), key=lambda item: item[1].status):
        cells = (str(problem.status), f"`{code}`", problem.title, problem.remedy)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines)
