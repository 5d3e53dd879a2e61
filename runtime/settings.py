"""All limits, timeouts and addresses of the service, each with its reason.

One class. The composition root of each process reads it once from the environment (prefix
``WALLET_``) and passes it on. No other module reads the environment.
"""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from runtime.renamed_settings import FormerNames, with_present_names
from wallet.currencies import resolve_scale

PREFIX: Final = "WALLET_"
"""Of the environment variables."""

Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]


class Settings(BaseSettings):
    """Settings of the wallet service. Each description gives the reason."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    # -- addresses and logs ----------------------------------------------------------------
    database_url: str = Field(
        default="",
        description="Postgres to use: a DSN with one or more hosts, not a connection pooler. "
        "Empty: `wallet up` starts an embedded one.",
    )
    nats_url: str = Field(
        default="",
        description="NATS server with JetStream. Empty: `wallet up` starts an embedded one.",
    )
    http_host: str = Field(
        default="127.0.0.1",
        description="Address the front port listens on.",
    )
    http_port: Annotated[int, Field(ge=1, le=65535)] = Field(
        default=8089, description="Port of the HTTP API."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Minimum level of log events."
    )
    log_format: Literal["json", "pretty"] = Field(
        default="json", description="`json` for machines, `pretty` for people at a terminal."
    )

    cors_origins: str = Field(
        default="",
        description="Origins whose pages may call the API from a browser, separated by commas, for "
        "instance `https://shop.example`. Empty: none. A page needs an API key like any client.",
    )

    # -- authentication -------------------------------------------------------------------
    auth: Literal["required", "off"] = Field(
        default="off",
        description="`required`: the API's routes need an API key. `off` is for one machine: the "
        "service refuses to start on a non-loopback address.",
    )
    allow_unauthenticated_remote: bool = Field(
        default=False,
        description="Allow WALLET_AUTH=off on a non-loopback address, because another layer "
        "authenticates clients. Logged, and shown on the docs page.",
    )
    api_key_cache_ttl_s: Annotated[float, Field(gt=0, le=5)] = Field(
        default=3.0,
        description="How long a replica trusts a cached API key. A revoked key is rejected "
        "within this time; without Postgres all keys are rejected after it.",
    )
    api_keys_cached_max: Count = Field(
        default=10_000,
        description="API keys cached per replica; the same number of unknown key ids is cached "
        "separately.",
    )
    api_key_rate_per_s: Annotated[float, Field(ge=0)] = Field(
        default=0.0,
        description="Default rate limit per API key and replica (requests and batch items per "
        "second); past it 429. 0 disables it.",
    )
    api_key_burst_s: Seconds = Field(default=2.0, description="Burst size, as seconds of the rate.")
    api_key_last_used_flush_interval_s: Seconds = Field(
        default=60.0, description="How often last-used times are written."
    )

    # -- currency -------------------------------------------------------------------------
    default_currency: str = Field(
        default="USD", description="Currency of a wallet created without one (ISO 4217)."
    )

    # -- deployment -------------------------------------------------------------------------
    shard_count: Count = Field(
        default=2,
        description="Shard actors on the ring. One saturates about one core; adding one moves 1/N "
        "of the wallets.",
    )
    ingress_replicas: Count = Field(
        default=2, description="HTTP replicas. HTTP parsing is the bottleneck, so one per core."
    )
    projection_groups: Count = Field(
        default=1,
        description="Projection actors; each projects its share of the stream's partitions.",
    )
    shard_num_cpus: Annotated[float, Field(ge=0)] = Field(
        default=0.0,
        description="CPUs that Ray reserves per shard. 0 on one machine, 1 on a cluster, so that "
        "shards are spread.",
    )

    shard_tls_certificate: str = Field(
        default="",
        description="PEM file of the certificate of replicas and shards (mutual TLS). Empty: no "
        "TLS between them, for a trusted network. Set all three or none.",
    )
    shard_tls_key: str = Field(default="", description="PEM file of that certificate's key.")
    shard_tls_authority: str = Field(
        default="",
        description="PEM file of the certificate authority that signed it. Every certificate of "
        "this authority may connect, so it should sign nothing else.",
    )

    # -- limits of the write path -------------------------------------------------------------
    request_timeout_s: Seconds = Field(
        default=10.0,
        description="Deadline of a write that names none; a command without a decision by then "
        "is rejected.",
    )
    request_timeout_max_s: Seconds = Field(
        default=60.0, description="Maximum of X-Request-Timeout-Ms."
    )
    ingress_queue_max: Count = Field(
        default=8_192,
        description="Commands that an ingress replica queues per shard; above it 429.",
    )
    ingress_wallet_queue_max: Count = Field(
        default=4_096,
        description="Of those, commands of one wallet: one overloaded wallet can't fill the queue.",
    )
    shard_calls_in_flight_max: Count = Field(
        default=2,
        description="Calls in flight per shard and replica; a wallet's commands are in one call "
        "at a time. The second keeps other wallets from waiting for an overloaded one; more "
        "hide the network latency to remote shards.",
    )
    call_commands_max: Count = Field(
        default=1_000, description="Commands in one call to a shard (message size)."
    )
    call_wallet_commands_max: Count = Field(
        default=16,
        description="Commands of one wallet per call while other wallets use the shard. A "
        "smaller quota is fairer to other wallets and lowers the overloaded wallet's own "
        "throughput.",
    )
    shard_ping_s: Seconds = Field(
        default=0.3,
        description="Heartbeat interval from a replica to each shard. A ping costs both sides "
        "together 0.2 ms of CPU on an idle connection.",
    )
    shard_pings_missed_max: Count = Field(
        default=4,
        description="After this many unanswered pings a shard counts as failed (with the default "
        "interval after 1.2 to 1.5 s), and its commands go to the failover shard. A batch step "
        "and a garbage collection block a shard for 0.1 s each, a few times that on a busy CPU.",
    )
    shard_unreachable_timeout_s: Seconds = Field(
        default=4.0,
        description="A command that reaches neither its shard nor a failover shard for this long "
        "gets 503, so that its client tries another node. A single shard is replaced in 2 to 3 s.",
    )
    mailbox_commands_max: Count = Field(
        default=8_192, description="Commands a shard queues; past it 429."
    )
    mailbox_wallet_commands_max: Count = Field(
        default=4_096,
        description="Of those, commands of one wallet: one overloaded wallet can't fill the "
        "mailbox.",
    )
    batch_commands_max: Count = Field(
        default=2_000,
        description="Commands in one transaction: limits its latency and its memory.",
    )
    batch_wallet_commands_max: Count = Field(
        default=1_000,
        description="Commands of one wallet per transaction while others wait: those go in the "
        "next transaction.",
    )
    database_stall_timeout_s: Seconds = Field(
        default=2.0,
        description="A batch unanswered for this long makes the shard reject queued and new "
        "commands with 503. A database that fails does so at once.",
    )
    conflict_retries_max: Count = Field(
        default=8,
        description="How often a batch is decided again after a version conflict; then 503.",
    )
    transfer_expiry_min_s: Seconds = Field(
        default=1.0,
        description="How far ahead a pending transfer must expire, at least: one that expires "
        "while its request is on the way is of no use.",
    )
    transfer_expiry_max_s: Seconds = Field(
        default=31_622_400.0,
        description="How far ahead it may expire, at most (366 days): money is not held for ever "
        "by mistake.",
    )
    wallets_cached_max: Count = Field(
        default=50_000, description="Wallets cached per shard; the least recently used are evicted."
    )
    transfers_cached_max: Count = Field(
        default=1_000,
        description="Transfers cached per active wallet, so that settling a recent one needs no "
        "read.",
    )
    batch_items_max: Count = Field(
        default=1_000, description="Items of one wallet's batch request (one transaction)."
    )
    multi_batch_items_max: Count = Field(
        default=10_000, description="Items of one batch request across wallets."
    )

    # -- Postgres -------------------------------------------------------------------------
    database_timeout_s: Seconds = Field(
        default=5.0,
        description="Client-side statement timeout; after it the outcome is unknown. Postgres "
        "ends a statement earlier if it can: lock waits at 30 %, execution at 80 % of it.",
    )
    write_probe_s: Seconds = Field(
        default=1.0,
        description="A shard without a confirmed commit for this long, or whose last one failed, "
        "writes probes at this interval: one small commit, so that /readyz reports whether "
        "writes work.",
    )
    write_ready_s: Seconds = Field(
        default=2.0,
        description="A commit or probe that takes longer than this makes /readyz report that "
        "writes fail. A checkpoint of a slow disk takes less.",
    )
    forked_wallets_stop: Literal["themselves", "all"] = Field(
        default="themselves",
        description="What is not written once the database is found to have lost commits: the "
        "wallets that lost some (`themselves`), or every wallet until `wallet recover` (`all`).",
    )
    database_connect_timeout_s: Seconds = Field(
        default=2.0,
        description="Connect timeout of a Postgres connection, for all hosts of the DSN together. "
        "Each gets its share, so raise it with the number of hosts.",
    )
    read_pool_max: Count = Field(
        default=8, description="Postgres connections per ingress replica, for reads."
    )
    statements_max: Count = Field(
        default=4,
        description="Statements that an ingress replica streams at once; another one is rejected "
        "(429). Each takes CPU from other requests.",
    )

    # -- events ----------------------------------------------------------------------------
    stream_name: str = Field(default="WALLET_EVENTS", description="JetStream stream.")
    stream_partitions: Count = Field(
        default=16,
        description="Partitions in the subject. Must not change once events exist: projections "
        "divide them.",
    )
    stream_max_age_s: Annotated[float, Field(ge=0)] = Field(
        default=7 * 86_400.0,
        description="How long the stream keeps events (0: no limit). The journal keeps all of "
        "them.",
    )
    stream_duplicate_window_s: Seconds = Field(
        default=120.0,
        description="JetStream deduplicates a repeated Nats-Msg-Id for this long; later "
        "duplicates are dropped by version.",
    )
    stream_replicas: Count = Field(default=1, description="Replicas of the stream (NATS cluster).")
    stream_sync_interval_s: Annotated[float, Field(gt=0, le=30)] = Field(
        default=1.0,
        description="NATS `sync_interval`: acknowledged messages younger than this can be lost "
        "on power failure. Outbox rows are retained for twice this and one second more.",
    )
    publish_batch_max: Annotated[int, Field(ge=1, le=1_000)] = Field(
        default=1_000, description="Events per publish, under one acknowledgement."
    )
    publish_interval_s: Annotated[float, Field(ge=0)] = Field(
        default=0.01,
        description="Minimum interval between two publishes of a shard that aren't full. The "
        "first event after a pause is published at once. Fewer and larger publishes leave more "
        "CPU to the writes.",
    )
    publish_timeout_s: Seconds = Field(
        default=5.0,
        description="Timeout of JetStream's acknowledgement; then the publish is retried.",
    )
    outbox_events_max: Count = Field(
        default=1_000_000,
        description="Unpublished events per shard; past it writes are rejected (503).",
    )
    outbox_memory_events_max: Count = Field(
        default=20_000,
        description="Of those, events kept in memory; the rest are read back from the journal.",
    )
    outbox_sweep_interval_s: Seconds = Field(
        default=1.0,
        description="How often a shard scans the outbox for events that a predecessor left "
        "unpublished; less often where a scan is slow.",
    )

    # -- projections -------------------------------------------------------------------------
    projection_batch_max: Count = Field(
        default=2_000, description="Events projected in one transaction."
    )
    projection_interval_s: Annotated[float, Field(ge=0)] = Field(
        default=0.01,
        description="Pause after a batch once the stream has no more messages: fewer and larger "
        "transactions.",
    )
    projection_niceness: Annotated[int, Field(ge=0, le=19)] = Field(
        default=5,
        description="Nice value of the projection's event loop thread: where CPU is short, "
        "writes go first and reads catch up.",
    )
    projection_pull_expires_s: Seconds = Field(
        default=5.0, description="Expiry of a pull request (NATS term)."
    )
    projection_ack_wait_s: Seconds = Field(
        default=30.0, description="JetStream redelivers events that are not acknowledged by then."
    )

    # -- requests ---------------------------------------------------------------------------
    body_bytes_max: Count = Field(
        default=65_536,
        description="Maximum body of a request for one transfer or wallet; above it 413.",
    )
    batch_body_bytes_max: Count = Field(
        default=4_194_304, description="Maximum body of a batch request; above it 413."
    )
    ready_timeout_s: Seconds = Field(
        default=2.0,
        description="Timeout of each check of /readyz; after it the component counts as not ready.",
    )
    drain_timeout_s: Seconds = Field(
        default=15.0,
        description="On shutdown: time for the requests in flight to finish.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        sources = (init_settings, env_settings, dotenv_settings, file_secret_settings)
        return (*sources, FormerNames(settings_cls, prefix=PREFIX))

    @model_validator(mode="before")
    @classmethod
    def _accept_former_names(cls, data: Any) -> Any:
        return with_present_names(data) if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _check_duplicate_window(self) -> Self:
        if self.stream_duplicate_window_s <= self.outbox_retention_s:
            raise ValueError(
                "stream_duplicate_window_s must be more than "
                f"2 * stream_sync_interval_s + 1 = {self.outbox_retention_s:g}: after a lost "
                "connection, acknowledged events are published again"
            )
        return self

    @model_validator(mode="after")
    def _check_tls_files(self) -> Self:
        files = (self.shard_tls_certificate, self.shard_tls_key, self.shard_tls_authority)
        if any(files) and not all(files):
            raise ValueError(
                "set shard_tls_certificate, shard_tls_key and shard_tls_authority, or none of them"
            )
        return self

    @model_validator(mode="after")
    def _check_expiry_bounds(self) -> Self:
        if self.transfer_expiry_min_s > self.transfer_expiry_max_s:
            raise ValueError("transfer_expiry_min_s must not exceed transfer_expiry_max_s")
        return self

    @property
    def outbox_retention_s(self) -> float:
        """How long outbox rows are retained after the stream acknowledged their events."""
        return 2 * self.stream_sync_interval_s + 1.0

    @field_validator("default_currency")
    @classmethod
    def _check_default_currency(cls, code: str) -> str:
        resolve_scale(code, None)
        return code
