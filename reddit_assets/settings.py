"""One frozen settings object: each setting is an environment variable, a flag and a sentence.

Imports nothing from the project but ``errors``. Every room takes what it needs as arguments;
only ``cli`` and ``platform`` read the environment, through :func:`load_settings`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from reddit_assets.errors import SettingsError

__all__ = ["Settings", "load_settings", "variable_of"]


def _env(*names: str) -> AliasChoices:
    """The environment variables that a field reads, beside its own name as an argument."""
    return AliasChoices(*names)


class Settings(BaseSettings):
    """Everything that can be set. Frozen; ``repr`` hides secrets; no host or path as a default."""

    model_config = SettingsConfigDict(
        env_prefix="REDDIT_",
        frozen=True,
        extra="ignore",
        populate_by_name=True,
        env_ignore_empty=True,
    )

    # --- where things are -----------------------------------------------------------------
    root: Path | None = Field(
        None, description="Folder that holds chains/, embeddings/ and clusters/."
    )
    chains_dir: Path | None = Field(None, description="Chain files, when not <root>/chains.")
    embeddings_dir: Path | None = Field(
        None, description="Embedding files, when not <root>/embeddings."
    )
    clusters_dir: Path | None = Field(None, description="Cluster files, when not <root>/clusters.")
    dumps_dir: Path | None = Field(None, description="Public dumps, when not <root>/dumps.")
    path_prefixes: str = Field(
        "",
        description="Comma-separated `theirs=ours`: folders of this host by the names that other "
        "hosts' jobs have for them (`/Volumes/data=/srv/corpus`).",
    )
    state_dir: Path | None = Field(
        None,
        description="Local folder for `up`'s servers, logs and process ids, one per root; "
        "default: a folder under the user's state directory.",
    )
    snapshot_dir: Path | None = Field(
        None,
        description="Local folder where scans keep what they have seen of the trees; default: a "
        "folder in the user's cache.",
    )
    redis_url: SecretStr | None = Field(
        None,
        validation_alias=_env("REDIS_URL", "redis_url"),
        description="redis:// or rediss:// URL of the queue, with user and password if needed.",
    )
    redis_ca_file: Path | None = Field(
        None, description="Certificate authority that a rediss:// server is checked against."
    )
    dagster_url: str | None = Field(
        None,
        validation_alias=_env("DAGSTER_URL", "dagster_url"),
        description="Address of the Dagster webserver that REST reports go to.",
    )
    maps_url: str | None = Field(
        None,
        description="Address at which people reach `reddit-assets maps`; Dagster's links to the "
        "maps begin with it. `up` sets it to its own.",
    )
    dagster_token: SecretStr | None = Field(
        None,
        validation_alias=_env("DAGSTER_TOKEN", "dagster_token"),
        description="Token that reports carry as `Authorization: Bearer …`, where a proxy before "
        "the webserver asks for one.",
    )
    dagster_postgres_url: SecretStr | None = Field(
        None,
        validation_alias=_env("DAGSTER_POSTGRES_URL", "dagster_postgres_url"),
        description="postgresql+psycopg2:// URL of Dagster's storage; `up` starts one if unset.",
    )

    # --- what is wanted -------------------------------------------------------------------
    subreddits: str = Field(
        "",
        description="Comma-separated names or patterns to include; a leading ! excludes "
        "(`Ask*,!AskReddit`); empty means all. Scans and sensors obey it.",
    )
    settle_seconds: float = Field(
        5.0, ge=0, description="A chain file younger than this waits: it may still be written."
    )
    adopt: bool = Field(
        True,
        description="Accept embedding files of the earlier system; false has them made again.",
    )
    remove_orphans: bool = Field(
        False, description="Nightly: delete embedding files whose chain file has vanished."
    )

    text_columns: str = Field(
        "",
        description="What a row's text is: comma-separated columns, the first that says "
        "something; `title+selftext` joins two with a blank line. Unset: "
        "body,text,selftext,content,message,title. Files made from other columns are stale.",
    )

    # --- dumps to chain files ---------------------------------------------------------------
    ingest_dates: str = Field(
        "",
        description="Dates of the messages to take, UTC, both ends included: "
        "`2020-01-01..2023-12-31`; either end may be missing.",
    )
    ingest_min_score: int | None = Field(
        None, description="Messages with a lower score are kept as thread structure only."
    )
    ingest_min_length: int = Field(
        0, ge=0, description="Shorter messages (characters) are kept as thread structure only."
    )
    ingest_removed: Literal["structure", "keep", "drop"] = Field(
        "structure",
        description="Removed and deleted messages: kept as thread structure only, kept as rows, "
        "or dropped (answers to them are orphans then).",
    )
    ingest_bots: str = Field(
        "",
        description="Authors whose messages are kept as thread structure only: comma-separated "
        "names or patterns (`AutoModerator,*_bot`), or @FILE with a name in each line.",
    )
    ingest_text: Literal["message", "chain"] = Field(
        "message",
        description="What is embedded: the message alone, or with its ancestors before it, in a "
        "column `text` (set REDDIT_TEXT_COLUMNS=text then).",
    )
    ingest_text_tokens: int | None = Field(
        None, ge=16, description="Token budget of `text`; unset takes the model's own limit."
    )
    chunk_rows: int = Field(
        20_000, ge=1, description="Rows of a chain file that is made from dumps."
    )
    skip_corrupt: bool = Field(
        False,
        description="Pass by parts of a dump that cannot be decompressed, instead of failing it.",
    )

    # --- embedding ------------------------------------------------------------------------
    model: str = Field(
        "all-MiniLM-L6-v2", description="Model name on the hub, or a path to a model folder."
    )
    model_dir: Path = Field(
        Path("models"),
        validation_alias=_env("MODEL_DIR", "REDDIT_MODEL_DIR", "model_dir"),
        description="Folder of models; the ONNX export lives in <model_dir>/onnx/minilm.",
    )
    backend: Literal["auto", "torch", "onnx", "openvino"] = Field(
        "auto", description="Embedding backend; auto takes the fastest conformant one here."
    )
    device: str = Field(
        "auto",
        description="Torch device: auto (MPS, else all CUDA devices, else the processor), cpu, "
        "mps, cuda (all of them), or some, as in cuda:0,cuda:1.",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = Field(
        "auto", description="Arithmetic of the backend; auto takes the fastest conformant one."
    )
    max_batch_tokens: int | None = Field(
        None,
        ge=1,
        validation_alias=_env("REDDIT_BATCH_TOKENS", "REDDIT_MAX_BATCH_TOKENS", "max_batch_tokens"),
        description="Most tokens in a batch; unset takes the best measured for the backend.",
    )
    window_rows: int | None = Field(
        None,
        ge=1,
        description="Rows tokenized ahead and sorted by length together; unset takes 20,000, and "
        "200,000 for each CUDA device.",
    )
    threads: int | None = Field(
        None, ge=1, description="Compute threads of a worker; unset takes the cores available."
    )
    allow_nonconformant: bool = Field(
        False,
        description="Let a worker with inexact vectors (int8) work. Its files are stale "
        "to scans without this setting.",
    )

    vector_layout: Literal["columns", "list", "both"] = Field(
        "columns",
        description="How files hold vectors: as columns emb_000, emb_001, … (the wire format), as "
        "one list `emb` (small files cost a fraction), or as both. All are read.",
    )
    vector_dtype: Literal["float32", "float16"] = Field(
        "float32",
        description="Numbers of the vectors in files; float16 halves them. Beside a list, columns "
        "are float32 always.",
    )

    # --- clustering -----------------------------------------------------------------------
    reduction: Literal["node", "umap", "none"] = Field(
        "node",
        description="Space that HDBSCAN sees: node (graph embedding), umap (as in the "
        "earlier system) or none (all dimensions).",
    )
    n_components: int | None = Field(
        None, ge=2, description="Dimensions after reduction; unset takes the reduction's own."
    )
    n_neighbors: int = Field(15, ge=2, description="Neighbours per row in the reduction's graph.")
    min_cluster_size: int | None = Field(
        None, ge=2, description="Smallest cluster; unset adapts to the number of rows."
    )
    min_samples: int | None = Field(
        None, ge=1, description="HDBSCAN's min_samples; unset takes the reduction's default."
    )
    selection_method: Literal["eom", "leaf"] | None = Field(
        None, description="HDBSCAN's cluster selection; unset takes the reduction's default."
    )
    seed: int = Field(42, description="Seed of everything random in clustering.")
    cluster_rows: int = Field(
        50_000,
        ge=1_000,
        description="Rows that are clustered together at most: a larger subreddit is cut into "
        "regions, each of which is clustered at full resolution.",
    )
    recluster_share: float = Field(
        0.2,
        ge=0,
        description="Share of a subreddit's rows that must have come or gone since its last full "
        "clustering for the next one to be full; until then new rows are placed into it. "
        "0 clusters in full each time.",
    )
    names: Literal["auto", "words"] = Field(
        "auto",
        description="How clusters are named: auto also compares phrases by the model's vectors, "
        "where a worker's host has it; words by counts alone.",
    )
    moved_share: float = Field(
        0.35,
        ge=0,
        le=1,
        description="Share of a subreddit's posts that may change their cluster in a night before "
        "the check clusters_stable warns; a full clustering moves up to a third.",
    )
    placeholders: str = Field(
        "[deleted],[removed]",
        description="Comma-separated texts that stand for no text: like empty texts, their rows "
        "are in no cluster and have no influence on clusters.",
    )
    cluster_memory_mb: int = Field(
        6_000, ge=100, description="Memory a clustering may use before it works on a sample."
    )

    # --- queue and workers ----------------------------------------------------------------
    lease_seconds: float = Field(
        30.0,
        gt=0,
        description="A lease not renewed for this long expires; another worker takes the job.",
    )
    stall_seconds: float = Field(
        300.0,
        gt=0,
        description="A computing process without progress or processor time for this long "
        "counts as hung.",
    )
    max_attempts: int = Field(
        3, ge=1, description="Failures (exceptions) after which a job is a dead letter."
    )
    max_recoveries: int = Field(
        3,
        ge=1,
        description="Crashes of a job alone in its process after which it is a dead letter.",
    )
    retry_seconds: float = Field(
        10.0, ge=0, description="Wait before the second attempt; doubled for each further one."
    )
    claim_jobs: int = Field(256, ge=1, description="Most jobs that a worker holds at a time.")
    poll_seconds: float = Field(0.5, gt=0, description="How often an idle worker looks for a job.")
    recycle_jobs: int = Field(
        500, ge=1, description="Cluster jobs after which the computing process is replaced."
    )
    recycle_mb: int = Field(
        4_000,
        ge=100,
        description="Resident megabytes above which that process is replaced between jobs.",
    )
    foreign_lost_seconds: float = Field(
        900.0,
        gt=0,
        description="A job gone from the public list for this long without its output was lost "
        "by a plain consumer and is pushed again.",
    )
    metrics_port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="Port of Prometheus metrics: a worker's of its own work, a reporter's of the "
        "whole; unset: none. In `up` the reporter takes it, and the workers the next ones.",
    )
    metrics_host: str = Field(
        "127.0.0.1",
        description="Address that the metrics listen on; 0.0.0.0 lets other hosts read them.",
    )
    log_format: Literal["text", "json"] = Field(
        "text",
        description="How workers and reporters log: lines for people, or JSON objects with kind, "
        "key and job.",
    )
    webhook_url: SecretStr | None = Field(
        None,
        description="Slack-compatible webhook that a reporter tells of new dead letters, a queue "
        "that stands still, a failed night, and once a day how it goes.",
    )
    summary_hour: int | None = Field(
        8, ge=0, le=23, description="Hour (UTC) of the webhook's daily summary; `off` for none."
    )
    log_mb: int = Field(
        20, ge=1, description="Size in MB from which `up` begins a new part of a log; 3 are kept."
    )
    report: Literal["auto", "rest", "none"] = Field(
        "auto",
        description="Whether a worker drains the outbox over REST; auto does where DAGSTER_URL "
        "is set.",
    )

    # --- Dagster --------------------------------------------------------------------------
    discovery_seconds: int = Field(
        30, ge=1, description="Seconds between two looks of the discovery sensor."
    )
    whole_look_files: int = Field(
        50_000,
        ge=0,
        description="Up to so many chain files, each look at the trees looks at every file; above, "
        "at folders whose times have changed, and at the others in rotation.",
    )
    relist_seconds: float = Field(
        3_600.0,
        gt=0,
        description="Within this time every folder is listed, whatever its time of change says: "
        "for files that are overwritten in place and shares whose folders' times lie.",
    )
    nights: int = Field(
        7,
        ge=1,
        description="Nights within which the nightly rescan reads every output in full; one that "
        "changed is read in the next night.",
    )
    tick_seconds: float = Field(
        40.0, gt=0, description="Time budget of one sensor tick; the next one goes on from there."
    )
    nightly_cron: str = Field("0 2 * * *", description="When the nightly rescan runs.")
    nightly_timezone: str = Field("UTC", description="Time zone of the nightly rescan.")
    fresh_hours: float = Field(
        24.0, gt=0, description="A file that waits longer for its embedding fails corpus_fresh."
    )
    run_lease_seconds: float = Field(
        60.0, gt=0, description="A Dagster run that renews no lease for this long counts as dead."
    )
    backfill_run_size: int = Field(
        10_000, ge=1, description="Most partitions in a run of a backfill."
    )
    layout: Literal["auto", "flat", "sharded"] = Field(
        "auto",
        description="Assets in Dagster: flat, one set for the whole tree, or sharded, one per "
        "bucket of subreddits. auto becomes sharded above 100,000 files, and stays so.",
    )

    @field_validator("device")
    @classmethod
    def _known_devices(cls, value: str) -> str:
        if value != "auto" and not re.fullmatch(r"((cpu|mps|cuda(:\d+)?)(,(?=.)|$))+", value):
            raise ValueError(f"{value!r} is not auto, cpu, mps, cuda or a list like cuda:0,cuda:1")
        return value

    @field_validator("summary_hour", mode="before")
    @classmethod
    def _no_summary(cls, value: object) -> object:
        return None if value == "off" else value

    def require_root(self) -> Path:
        """The root folder.

        Raises:
            SettingsError: none is set.
        """
        if self.root is None:
            raise SettingsError(
                "REDDIT_ROOT is not set.",
                hint="Set it (or pass --root) to the folder that holds chains/.",
            )
        return self.root

    def require_redis_url(self) -> str:
        """The queue's URL, secrets included: never print it.

        Raises:
            SettingsError: none is set.
        """
        if self.redis_url is None:
            if self.root is None:
                raise SettingsError(
                    "REDIS_URL is not set, and no root is named.",
                    hint="Name the root of a running `reddit-assets up` (--root DIR or "
                    "REDDIT_ROOT), whose queue is then found, or set REDIS_URL.",
                )
            raise SettingsError(
                f"REDIS_URL is not set, and no `reddit-assets up` runs for {self.root}.",
                hint=f"Start one (`reddit-assets up --root {self.root}`), or set REDIS_URL to the "
                "queue's redis:// URL.",
            )
        return self.redis_url.get_secret_value()

    def dagster_headers(self) -> dict[str, str]:
        """Headers of requests to the webserver, the token among them: never print them."""
        if self.dagster_token is None:
            return {}
        return {"Authorization": f"Bearer {self.dagster_token.get_secret_value()}"}

    def environment(self) -> dict[str, str]:
        """The environment variables that make a child process load these same settings."""
        variables: dict[str, str] = {}
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if value is None or value == field.default:
                continue
            if isinstance(value, SecretStr):
                value = value.get_secret_value()
            variables[variable_of(name)] = str(value)
        return variables


def variable_of(name: str) -> str:
    """The environment variable of a setting."""
    alias = Settings.model_fields[name].validation_alias
    return str(alias.choices[0]) if isinstance(alias, AliasChoices) else f"REDDIT_{name.upper()}"


def load_settings(**overrides: Any) -> Settings:
    """Settings from the environment, with ``overrides`` (flags; ``None`` means not given) on top.

    Raises:
        SettingsError: a value is not valid, with the variable's name and what it should be.
    """
    if os.environ.get("REDDIT_SHARDS"):
        raise SettingsError(
            "REDDIT_SHARDS is no longer a setting: no shard has assets of its own by name.",
            hint="Unset it. REDDIT_LAYOUT spreads many files over assets, by itself.",
        )
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        problems, flags = [], False
        for problem in error.errors():
            name = str(problem["loc"][0])
            name = name if name in Settings.model_fields else name.lower()
            shown = variable_of(name) if name in Settings.model_fields else name.upper()
            problems.append(f"{shown} ({name}): {problem['msg']}")
            flags |= name in given
        where = "flags" if flags else "environment"
        raise SettingsError(
            f"A setting is wrong: {'; '.join(problems)}.", hint=f"Correct it in the {where}."
        ) from None
