"""Writes every generated table into its document, or checks the documents.

python -m specification.generators          # writes them
python -m specification.generators --check  # changes nothing; exit code 1 if a document is outdated
"""

import sys
from pathlib import Path

from specification.generators.all_tables import ALL_TABLES
from specification.generators.doc_tables import update_tables

if __name__ == "__main__":
    check = "--check" in sys.argv
    outdated = update_tables(Path(__file__).resolve().parents[2], ALL_TABLES, check=check)
    for file in outdated:
        print(file)
    sys.exit(bool(outdated) and check)
