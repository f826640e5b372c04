"""Which columns a row's text is of: the first that says something, or what a setting names."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from embedding_fakes import UnitBackend, fake_spec
from factories import write_chain, write_embedding

from reddit_assets.corpus.chainfile import ChainFile
from reddit_assets.corpus.fingerprints import Stamp, embedding_version
from reddit_assets.corpus.layout import Layout
from reddit_assets.corpus.output import publish
from reddit_assets.corpus.provenance import EmbeddingProvenance, read_output
from reddit_assets.corpus.scan import Reason, Scanner, ScanOptions, Verdict
from reddit_assets.corpus.texts import empty_rows, text_rule, texts_of
from reddit_assets.engines.embedding.engine import Embedder
from reddit_assets.engines.embedding.model import ModelSpec
from reddit_assets.errors import BadFileError, SettingsError
from reddit_assets.ledger.job import Claim, Kind
from reddit_assets.ledger.planner import queue_wanted, wanted_jobs
from reddit_assets.platform.quality import check_embeddings
from reddit_assets.tasks.embed import EmbedTask
from reddit_assets.tasks.filework import FileJob, FileResult
from reddit_assets.tasks.pipeline import FilePipeline
from reddit_assets.tasks.posts import columns_of_texts

KEY = "tc/Posts/c_0"
SAID = [f"a self post number {number} about gardening" for number in range(6)]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout.of(tmp_path)


def put(layout: Layout, table: pa.Table, key: str = KEY) -> Path:
    path = layout.chain_path(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def read(path: Path, columns: str = "") -> list[str]:
    with ChainFile(path, columns) as chain:
        return [
            text for b in chain.batches(2) for text in texts_of(b, chain.text_column).to_pylist()
        ]


@pytest.mark.parametrize(
    "columns",
    [
        {"body": pa.nulls(6, pa.string()), "title": ["t"] * 6, "selftext": SAID},
        {"body": pa.nulls(6), "title": ["t"] * 6, "selftext": SAID},
        {"body": [""] * 6, "selftext": SAID},
        {"body": [" \n"] * 6, "selftext": SAID},
        {"selftext": [""] * 6, "title": SAID},
        {"title": SAID},
        {
            "body": [text if at % 2 else None for at, text in enumerate(SAID)],
            "selftext": [None if at % 2 else text for at, text in enumerate(SAID)],
        },
        {"body": [text.encode() for text in SAID]},
        {"body": pa.array([None] * 6, pa.dictionary(pa.int8(), pa.string())), "text": SAID},
        {"body": pa.array([b""] * 6, pa.binary()), "text": pa.array(SAID, pa.string_view())},
    ],
    ids=lambda columns: "-".join(columns),
)
def test_an_empty_choice_leaves_the_row_to_the_next(
    layout: Layout, columns: dict[str, object]
) -> None:
    assert read(put(layout, pa.table(columns))) == SAID


def test_a_full_first_column_is_taken_as_it_was(layout: Layout) -> None:
    assert read(put(layout, pa.table({"title": ["t", "u"], "body": ["a", " b "]}))) == ["a", " b "]


@pytest.mark.parametrize(
    ("columns", "texts"),
    [
        ("title+selftext", ["t\n\ns", "u", "v"]),
        (" selftext , title ", ["s", "u", "v"]),
        ("selftext", ["s", "", ""]),
        ("nowhere,title", ["t", "u", "v"]),
        ("nowhere+title", ["t", "u", "v"]),
        ("selftext+title+body", ["s\n\nt\n\nx", "u\n\ny", "v\n\nz"]),
    ],
)
def test_a_setting_names_the_columns_and_joins_them(
    layout: Layout, columns: str, texts: list[str]
) -> None:
    table = pa.table(
        {"title": ["t", "u", "v"], "selftext": ["s", None, ""], "body": ["x", "y", "z"]}
    )
    assert read(put(layout, table), columns) == texts


def test_bytes_that_are_no_text_stay_for_the_tokenizer_to_mend(layout: Layout) -> None:
    raw = [b"\xff broken", b"fine"]
    path = put(layout, pa.table({"body": pa.array(raw, pa.binary())}))
    with ChainFile(path) as chain:
        (batch,) = chain.batches(9)
        assert texts_of(batch, chain.text_column).cast(pa.large_binary()).to_pylist() == raw


def test_columns_that_are_not_there_are_a_sentence_with_their_names(layout: Layout) -> None:
    path = put(layout, pa.table({"body": ["a"]}))
    with pytest.raises(BadFileError, match=r"no text column \(one of title\+selftext,summary\)"):
        ChainFile(path, "title+selftext, summary")


def test_white_space_is_no_text() -> None:
    texts = pa.array(["", " \t\n", "a", "\u00a0"], pa.large_string())
    assert empty_rows(texts).to_pylist() == [True, True, False, False]


# --- versions and verdicts -------------------------------------------------------------------
def test_the_usual_columns_enter_no_version() -> None:
    assert text_rule("") == text_rule(" body,text, selftext,content,message,title ") == ""
    assert embedding_version("source", "model", "") == embedding_version("source", "model")
    assert embedding_version("source", "model", "title") != embedding_version("source", "model")


def scanner(layout: Layout, columns: str = "") -> Scanner:
    return Scanner(layout, ScanOptions(settle_seconds=0, text_columns=text_rule(columns)))


def test_another_setting_makes_files_stale_and_the_usual_one_none(layout: Layout) -> None:
    # Given a file that was made before there was such a setting, and one of the earlier system
    adopted = "tc/Posts/c_1"
    for key in (KEY, adopted):
        write_chain(layout, key)
        write_embedding(layout, key)
    table = pq.read_table(layout.embedding_path(adopted)).replace_schema_metadata(None)
    pq.write_table(table, layout.embedding_path(adopted))
    # Then both are done as long as nothing is set
    (status,) = scanner(layout).scan()
    assert [file.verdict for file in status.files] == [Verdict.FRESH, Verdict.ADOPTED]
    # and stale with a setting, under a stamp that says so.
    (status,) = scanner(layout, "title+selftext").scan()
    assert [file.reason for file in status.files] == [Reason.OTHER_TEXT] * 2
    stamps = {job.stamp for job, _ in wanted_jobs(status, "title+selftext")}
    assert stamps.isdisjoint(job.stamp for job, _ in wanted_jobs(status))


def test_a_job_of_other_text_columns_is_the_hosts_fault(layout: Layout) -> None:
    write_chain(layout, KEY)
    task = EmbedTask.__new__(EmbedTask)
    task.layout, task._text_columns = layout, "title"
    task.embedder = SimpleNamespace(conformance=None)  # type: ignore[assignment]
    stamp = Stamp(1, 2)
    for known in ("", str(stamp), stamp.job_stamp("title")):
        task._check_settings(Claim(Kind.EMBED, KEY, "id", "token", "worker", known))
    with pytest.raises(SettingsError, match="other text columns") as caught:
        task._check_settings(
            Claim(Kind.EMBED, KEY, "id", "token", "worker", stamp.job_stamp("body"))
        )
    assert caught.value.host_fault


# --- through the pipeline --------------------------------------------------------------------
class _Publish:
    def __init__(self) -> None:
        self.results: list[FileResult] = []

    def started(self, job: FileJob) -> None:
        pass

    def progress(self, job: FileJob, rows: int) -> None:
        pass

    def finished(self, job: FileJob, result: FileResult) -> None:
        publish(result.temporary, job.output)
        self.results.append(result)

    def failed(self, job: FileJob, error: Exception) -> None:
        raise error


def embed(layout: Layout, minilm: ModelSpec, columns: str = "") -> EmbeddingProvenance:
    told = _Publish()
    job = FileJob("0" * 16, KEY, layout.chain_path(KEY), layout.embedding_path(KEY))
    embedder = Embedder(fake_spec(minilm), UnitBackend())
    FilePipeline(embedder, told, text_columns=columns).run(iter([job]))
    made = read_output(layout.embedding_path(KEY)).provenance
    assert isinstance(made, EmbeddingProvenance)
    assert told.results[0].provenance == made
    return made


def test_the_pipeline_embeds_and_records_what_the_setting_says(
    layout: Layout, minilm: ModelSpec
) -> None:
    put(layout, pa.table({"title": ["t", "u"], "selftext": ["s", None], "body": ["x", "y"]}))
    usual = embed(layout, minilm)
    plain = pq.read_table(layout.embedding_path(KEY))["emb_000"].to_numpy()
    assert (usual.text_column, usual.text_columns) == ("body,selftext,title", "")
    joined = embed(layout, minilm, "title + selftext")
    assert (joined.text_column, joined.text_columns) == ("title+selftext", "title+selftext")
    assert joined.data_version != usual.data_version
    vectors = pq.read_table(layout.embedding_path(KEY))["emb_000"].to_numpy()
    assert not np.allclose(plain, vectors)
    assert columns_of_texts([read_output(layout.embedding_path(KEY))]) == "title+selftext"
    assert scanner(layout, "title+selftext").file(KEY).verdict is Verdict.FRESH  # type: ignore[union-attr]
    assert scanner(layout).file(KEY).reason is Reason.OTHER_TEXT  # type: ignore[union-attr]


@pytest.mark.parametrize(("full", "told"), [(2, True), (3, False)])
def test_a_file_of_mostly_empty_texts_says_so(
    layout: Layout, minilm: ModelSpec, full: int, told: bool
) -> None:
    # Given six rows of which more than half, or just half, have no text
    put(layout, pa.table({"body": SAID[:full] + [None] * (6 - full)}))
    assert embed(layout, minilm).empty_texts == pytest.approx((6 - full) / 6, abs=1e-6)
    # Then the scan and the check say it, or not
    report = queue_wanted(scanner(layout), {}, dry_run=True)
    assert report.mostly_empty == ([KEY] if told else [])
    found = check_embeddings(layout, [KEY]).warnings.get(KEY, "")
    assert ("texts are empty (body)" in found) is told
