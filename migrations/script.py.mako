"""${message}

Why: …

Revision ID: ${up_revision}
Revises: ${down_revision | comma,n}
"""

from migrations.scripts import run_script

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    run_script("")


def downgrade() -> None:
    run_script("")
