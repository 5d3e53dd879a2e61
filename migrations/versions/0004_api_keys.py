"""API keys: who may call the service, and what for.

Why: requests must be refused unless they come with a key that is known, not revoked and not
expired. A key's id is public: it is looked up here and stored in `wallet_events.made_by`. Only a
hash of its secret is stored, so reading this table is not enough to call the service. Keys are
never deleted, because the journal references them.

Revision ID: 0004
"""

from migrations.scripts import run_script

revision = "0004"
down_revision = "0003"

_TABLES = """
CREATE TABLE api_keys (
    id           text PRIMARY KEY CHECK (id ~ '^[0-9a-f]{16}$'),
    name         text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    secret_hash  bytea NOT NULL CHECK (octet_length(secret_hash) = 32),
    scopes       text[] NOT NULL CHECK (
        cardinality(scopes) > 0 AND scopes <@ ARRAY['wallets:read', 'wallets:write', 'admin']),
    rate_per_s   double precision CHECK (rate_per_s >= 0),
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at   timestamptz,
    revoked_at   timestamptz,
    last_used_at timestamptz
);
"""


def upgrade() -> None:
    run_script(_TABLES)


def downgrade() -> None:
    run_script("DROP TABLE api_keys")
