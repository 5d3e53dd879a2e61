"""Every generated table: its name in the markers, its document, and its function."""

from typing import Final

from specification.generators.doc_tables import GENERATED_TABLES, Table
from specification.generators.log_event_table import log_event_table
from specification.generators.metric_table import metrics_table
from specification.generators.performance_table import performance_table
from specification.generators.problem_table import problem_table

ALL_TABLES: Final[dict[str, Table]] = {
    **GENERATED_TABLES,
    "log_events": ("docs/operating/logs.md", log_event_table),
    "metrics": ("specification/metrics.md", metrics_table),
    "performance": ("README.md", performance_table),
    "problems": ("docs/using/problems.md", problem_table),
}
