"""Every limit, wait and address of the service, with its reason.

One class, read from the environment once per process (prefix ``WALLET_``) by that process's
composition root and handed down from there. No other module reads the environment.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from wallet.currencies import scale_of

Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]


class Settings(BaseSettings):
    """Settings of the wallet service. The description of each field is its reason."""

    model_config = SettingsConfigDict(env_prefix="WALLET_", frozen=True, extra="ignore")

    # -- where things are ------------------------------------------------------------------
    database_url: str = Field(
        default="",
        description="Postgres to use. Empty: `wallet up` starts an embedded one.",
    )
    nats_url: str = Field(
        default="",
        description="NATS server with JetStream. Empty: `wallet up` starts an embedded one.",
    )
    http_host: str = Field(
        default="127.0.0.1",
        description="Address of the front port. Loopback unless you set another one.",
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

    # -- keys -----------------------------------------------------------------------------
    auth: Literal["required", "off"] = Field(
        default="off",
        description="`required`: the API's routes require a key. `off` is for one machine: the "
        "service then refuses to bind to a non-loopback address.",
    )
    auth_off_anywhere: bool = Field(
        default=False,
        description="Let `off` listen beyond loopback, because something in front keeps strangers "
        "away. Said in the log and on the docs page.",
    )
    key_staleness_s: Annotated[float, Field(gt=0, le=5)] = Field(
        default=3.0,
        description="A replica believes for so long what Postgres said of a key. A revoked key "
        "stops within it; without Postgres, every key does.",
    )
    keys_cached_max: Count = Field(
        default=10_000,
        description="Keys a replica remembers; and again as many that don't exist.",
    )
    key_rate_per_s: Annotated[float, Field(ge=0)] = Field(
        default=0.0,
        description="Requests and batch items a second that an ingress replica takes from a key "
        "which has no rate of its own; past it 429. 0: no limit.",
    )
    key_burst_s: Seconds = Field(
        default=2.0, description="A key that paused may send so many seconds' worth at once."
    )
    key_last_use_s: Seconds = Field(
        default=60.0, description="How often a replica writes down when keys were last used."
    )

    # -- money ----------------------------------------------------------------------------
    default_currency: str = Field(
        default="USD", description="Currency of a wallet created without one (ISO 4217)."
    )

    # -- shape of the deployment ------------------------------------------------------------
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
        description="Projection actors; each applies the events of its share of the stream's "
        "partitions.",
    )
    shard_num_cpus: Annotated[float, Field(ge=0)] = Field(
        default=0.0,
        description="CPUs that Ray reserves per shard. 0 on one machine, 1 on a cluster, so that "
        "shards are spread.",
    )

    shard_tls_certificate: str = Field(
        default="",
        description="PEM file of the certificate that replicas and shards present to each other. "
        "Empty: no TLS between them, for a trusted network. Set all three or none.",
    )
    shard_tls_key: str = Field(default="", description="PEM file of that certificate's key.")
    shard_tls_authority: str = Field(
        default="",
        description="PEM file of the certificate authority that signed it. It must sign for "
        "nobody else: every certificate of it is accepted.",
    )

    # -- bounds of the write path -------------------------------------------------------------
    request_timeout_s: Seconds = Field(
        default=10.0,
        description="Deadline of a write without X-Request-Timeout-Ms. A write that is not "
        "decided by then is rejected.",
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
        description="Of those, commands of one wallet, so that an overloaded wallet cannot fill "
        "the queue.",
    )
    ingress_calls_max: Count = Field(
        default=2,
        description="Calls in flight per shard and replica; a wallet's commands travel in one at "
        "a time. The second keeps a flooded wallet's neighbours from waiting for it; more hide "
        "the way's latency where shards are a network away.",
    )
    call_commands_max: Count = Field(
        default=1_000, description="Commands in one call to a shard (message size)."
    )
    call_wallet_share_max: Count = Field(
        default=16,
        description="Of those, commands of one wallet while others use the same shard: less is "
        "kinder to a flooded wallet's neighbours, and costs its own throughput.",
    )
    shard_ping_s: Seconds = Field(
        default=0.3,
        description="Interval of pings from each replica to each shard's event loop. A ping costs "
        "0.2 ms of CPU on both sides together if they are otherwise idle.",
    )
    shard_pings_missed_max: Count = Field(
        default=4,
        description="After this many unanswered pings (with the default interval after 1.2 to 1.5 "
        "s) a shard is given up and its commands go to the next one. A step of a shard and its "
        "garbage collection take 0.1 s each, and a few times that on a busy CPU.",
    )
    mailbox_max: Count = Field(
        default=8_192, description="Commands a shard queues before it refuses with 429."
    )
    mailbox_wallet_max: Count = Field(
        default=4_096,
        description="Of those, commands of one wallet: a flooded wallet can't fill the mailbox.",
    )
    batch_commands_max: Count = Field(
        default=2_000,
        description="Commands in one transaction: limits its latency and its memory.",
    )
    batch_wallet_share_max: Count = Field(
        default=1_000,
        description="Of those, commands of one wallet while others wait: neighbours travel in the "
        "next transaction.",
    )
    stall_s: Seconds = Field(
        default=2.0,
        description="A database that hasn't answered a batch for so long makes the shard refuse "
        "(503) what is queued behind it and what comes. One that fails does so at once.",
    )
    conflict_retries_max: Count = Field(
        default=8, description="Retries of a batch after a version conflict; then 503."
    )
    wallets_cached_max: Count = Field(
        default=50_000, description="Wallets cached per shard; the least recently used are evicted."
    )
    transfers_cached_max: Count = Field(
        default=1_000,
        description="Transfers cached per wallet, so that settling them soon needs no read.",
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
        description="Client-side time-out of a statement (outcome unknown). Server-side time-outs "
        "are shorter: lock_timeout 30 %, statement_timeout 80 % of it.",
    )
    write_probe_s: Seconds = Field(
        default=1.0,
        description="A shard without a confirmed commit for this long, or whose last one failed, "
        "writes a probe as often: one small commit, for /readyz.",
    )
    write_ready_s: Seconds = Field(
        default=2.0,
        description="A commit or a probe that waits longer than this makes /readyz report that "
        "writes fail. A checkpoint on a slow disk takes less.",
    )
    database_connect_timeout_s: Seconds = Field(
        default=2.0, description="Time-out of a new Postgres connection."
    )
    read_pool_max: Count = Field(
        default=8, description="Postgres connections per ingress replica, for reads."
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
        description="Retention of the stream (0: unlimited). The journal keeps all events.",
    )
    stream_duplicate_window_s: Seconds = Field(
        default=120.0,
        description="JetStream's duplicate window: it drops a repeated Nats-Msg-Id for this long; "
        "readers drop later ones by version.",
    )
    stream_replicas: Count = Field(default=1, description="Replicas of the stream (NATS cluster).")
    stream_sync_s: Annotated[float, Field(gt=0, le=30)] = Field(
        default=1.0,
        description="The NATS server's sync_interval: for how long it may have acknowledged what "
        "a power loss takes from it. Outbox rows are kept that long, and again, and a second more.",
    )
    publish_batch_max: Annotated[int, Field(ge=1, le=1_000)] = Field(
        default=1_000, description="Events in one publish, under one acknowledgement."
    )
    publish_interval_s: Annotated[float, Field(ge=0)] = Field(
        default=0.01,
        description="Minimum time between two publishes of a shard that are not full. The first "
        "event after a pause is published at once. Fewer and larger publishes leave more CPU to "
        "the writes.",
    )
    publish_timeout_s: Seconds = Field(
        default=5.0, description="Time-out of JetStream's acknowledgement before a retry."
    )
    outbox_max: Count = Field(
        default=1_000_000,
        description="Events a shard lets wait for JetStream; past it writes are refused (503).",
    )
    outbox_memory_max: Count = Field(
        default=20_000,
        description="Of those, events kept in memory; the rest are read back from the journal.",
    )
    outbox_sweep_s: Seconds = Field(
        default=1.0,
        description="How often a shard looks for events that a predecessor left unpublished; less "
        "often where looking takes Postgres long.",
    )

    # -- projections -------------------------------------------------------------------------
    projection_batch_max: Count = Field(
        default=2_000, description="Events applied in one transaction."
    )
    projection_interval_s: Annotated[float, Field(ge=0)] = Field(
        default=0.01,
        description="Pause after a batch once the stream has sent all that it had: fewer and "
        "larger transactions.",
    )
    projection_niceness: Annotated[int, Field(ge=0, le=19)] = Field(
        default=5,
        description="Nice value of the projections: on a busy CPU writes go first, and reads "
        "catch up after them.",
    )
    projection_poll_s: Seconds = Field(
        default=5.0, description="How long a request for events stays open before it is renewed."
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
        description="Time-out of each of /readyz's checks; then it counts as not ready.",
    )
    drain_timeout_s: Seconds = Field(
        default=15.0,
        description="On shutdown: time for the requests in flight to finish.",
    )

    @model_validator(mode="after")
    def _repetitions_are_dropped(self) -> Self:
        if self.stream_duplicate_window_s <= self.outbox_keep_s:
            raise ValueError(
                "stream_duplicate_window_s must be more than "
                f"2 * stream_sync_s + 1 = {self.outbox_keep_s:g}: what a lost connection had "
                "acknowledged is published again"
            )
        return self

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        files = (self.shard_tls_certificate, self.shard_tls_key, self.shard_tls_authority)
        if any(files) and not all(files):
            raise ValueError(
                "set shard_tls_certificate, shard_tls_key and shard_tls_authority, or none of them"
            )
        return self

    @property
    def outbox_keep_s(self) -> float:
        """How long outbox rows are kept once the stream has acknowledged their events."""
        return 2 * self.stream_sync_s + 1.0

    @field_validator("default_currency")
    @classmethod
    def _has_a_scale(cls, code: str) -> str:
        scale_of(code, None)
        return code
