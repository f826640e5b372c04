"""Public dumps to chain files: beside `zstd | wc`, a Python loop, and DuckDB without threads.

Dumps are generated: lengths and keys as real ones have them, every quirk among them. Every line of
the CSV is from one run. `--kills N` kills ingesting N times and compares the chain files.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

from reddit_assets.engines.host import available_cores, cpu_name
from reddit_assets.local.sample_dumps import base36

RESULT = Path(__file__).parent / "results" / "ingest.csv"
KEYS = ("id", "parent_id", "link_id", "body", "subreddit", "author", "permalink", "created_utc",
        "ups", "downs", "score", "retrieved_on", "title", "selftext")  # fmt: skip
# Keys of a comment of 2023 that nothing here reads.
REST = (
    '"all_awardings":[],"archived":false,"associated_award":null,"author_flair_background_color":null,'
    '"author_flair_css_class":null,"author_flair_richtext":[],"author_flair_template_id":null,'
    '"author_flair_text":null,"author_flair_text_color":null,"author_flair_type":"text",'
    '"author_patreon_flair":false,"author_premium":false,"can_gild":false,"collapsed":false,'
    '"collapsed_because_crowd_control":null,"collapsed_reason":null,"collapsed_reason_code":null,'
    '"comment_type":null,"controversiality":0,"distinguished":null,"edited":false,"gilded":0,'
    '"gildings":{},"is_submitter":false,"locked":false,"no_follow":true,"score_hidden":false,'
    '"send_replies":true,"stickied":false,"subreddit_type":"public","top_awarded_type":null,'
    '"total_awards_received":0,"treatment_tags":[],"unrepliable_reason":null'
)

PYTHON_LOOP = """
import csv, io, json, sys, zstandard
keys = {keys!r}
out = csv.writer(open(sys.argv[2], "w"))
with open(sys.argv[1], "rb") as file:
    lines = io.TextIOWrapper(
        zstandard.ZstdDecompressor(max_window_size=2**31).stream_reader(
            file, read_across_frames=True),
        "utf-8", errors="replace")
    for line in lines:
        try:
            row = json.loads(line)
            values = [row.get(key) for key in keys]
        except (ValueError, AttributeError):
            continue
        {write}
"""
DUCKDB = """
import duckdb, sys
types = ", ".join(f"'{{key}}': 'VARCHAR'" for key in {keys!r})
duckdb.connect(config={{"threads": 2, "memory_limit": "1500MB"}}).execute(
    f"COPY (SELECT * FROM read_json('{{sys.argv[1]}}', format='newline_delimited', "
    f"ignore_errors=true, columns={{{{{{types}}}}}})) TO '{{sys.argv[2]}}' "
    "(FORMAT parquet, COMPRESSION zstd)")
"""


def generate(path: Path, lines: int) -> None:
    """A month of comments, as zstandard."""
    dice = random.Random(7)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(dice.choices(letters, k=dice.randrange(2, 9))) for _ in range(8_000)]
    bodies = [
        " ".join(dice.choices(words, k=max(1, int(dice.lognormvariate(2.9, 0.9)))))[:10_000]
        for _ in range(50_000)
    ]
    recent: dict[int, list[int]] = {}
    with subprocess.Popen(["zstd", "-q", "-3", "-f", "-o", path], stdin=subprocess.PIPE) as packer:
        assert packer.stdin is not None
        held = []
        for number in range(lines):
            held.append(_line(dice, bodies, recent, number))
            if len(held) == 20_000 or number == lines - 1:
                packer.stdin.write("".join(held).encode("utf-8", "surrogatepass"))
                held.clear()


def _line(dice: random.Random, bodies: list[str], recent: dict[int, list[int]], number: int) -> str:
    if number % 20_011 == 7:
        return '{"id": "cut of\n'
    # Some twenty threads go on at a time.
    thread = max(0, number // 25 - int(dice.expovariate(0.2)))
    subreddit = f"subreddit{thread * 2654435761 % 997 % (1 + thread % 700)}"
    link, own = base36(90_000_000 + thread), base36(20_000_000_000 + number)
    earlier = recent.setdefault(thread, [])
    recent.pop(thread - 200, None)
    top = not earlier or dice.random() < 0.3
    parent = f"t3_{link}" if top else "t1_" + base36(20_000_000_000 + dice.choice(earlier))
    earlier.append(number)
    created: object = 1_682_899_200 + number // 140
    if number % 97 == 3:
        created = f'"{created}"'
    body = "[removed]" if number % 23 == 5 else bodies[dice.randrange(50_000)]
    if number % 211 == 9:
        own = base36(20_000_000_000 + number - 1)
    return (
        f'{{{REST},"author":"user{dice.randrange(100_000)}","author_fullname":"t2_{own}",'
        f'"body":"{body}","created_utc":{created},"id":"{own}","link_id":"t3_{link}",'
        f'"name":"t1_{own}","parent_id":"{parent}",'
        f'"permalink":"/r/{subreddit}/comments/{link}/some_title_of_a_post/{own}/",'
        f'"retrieved_on":{1_683_000_000 + number},"score":{number % 90},"subreddit":"{subreddit}",'
        f'"subreddit_id":"t5_2qh1i","subreddit_name_prefixed":"r/{subreddit}","ups":{number % 90},'
        f'"_meta":{{"retrieved_2nd_on":{1_683_100_000 + number}}}}}\n'
    )


def run(command: list[str] | str) -> tuple[float, float, float]:
    """Seconds, seconds of processor, and largest resident megabytes of the whole tree."""
    started = time.monotonic()
    shell = isinstance(command, str)
    child = subprocess.Popen(
        command, shell=shell, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    ended, most = threading.Event(), [0]
    watcher = threading.Thread(target=_watch, args=(child.pid, ended, most))
    watcher.start()
    _, status, used = os.wait4(child.pid, 0)
    seconds = time.monotonic() - started
    ended.set()
    watcher.join()
    if status:
        raise SystemExit(f"{command} failed with {status}")
    return seconds, used.ru_utime + used.ru_stime, most[0] / 1e6


def _watch(pid: int, ended: threading.Event, most: list[int]) -> None:
    while not ended.wait(0.2):
        with suppress(psutil.Error):
            parent = psutil.Process(pid)
            tree = [parent, *parent.children(recursive=True)]
            most[0] = max(most[0], sum(process.memory_info().rss for process in tree))


def ours(dump: Path, root: Path) -> list[str]:
    return [sys.executable, "-m", "reddit_assets.cli", "ingest", str(dump), "--root", str(root)]


def kills(folder: Path, lines: int, count: int) -> str:
    """Kills ingesting at random moments; whether the chain files are the same."""
    dump = folder / "RC_2023-04.zst"
    generate(dump, lines)
    whole, _, _ = run(ours(dump, folder / "whole"))
    dice, done = random.Random(3), 0
    while done < count:
        child = subprocess.Popen(
            ours(dump, folder / "killed"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            child.wait(whole * dice.uniform(0.2, 0.98))
            # It came to its end: begin at the beginning.
            subprocess.run(["rm", "-rf", str(folder / "killed")], check=True)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            done += 1
    run(ours(dump, folder / "killed"))
    same = subprocess.run(["diff", "-rq", folder / "whole/chains", folder / "killed/chains"])
    return "the same bytes" if same.returncode == 0 else "DIFFERENT"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=5_000_000)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--without", nargs="*", default=[], help="steps to leave out")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="ingest-bench-") as name:
        folder = Path(name)
        sizes = (options.lines // 5, options.lines)
        for lines in sizes:
            dump = folder / f"RC_2023-05-{lines}.zst"
            generate(dump, lines)
            steps: dict[str, list[str] | str] = {
                "zstd -dc | wc -l": f"zstd -dcq {dump} | wc -l",
                "Python json loop": _script(
                    PYTHON_LOOP.format(keys=KEYS, write="pass"), dump, folder
                ),
                "Python json loop that writes CSV": _script(
                    PYTHON_LOOP.format(keys=KEYS, write="out.writerow(values)"), dump, folder
                ),
                "DuckDB read_json to parquet, no threads": _script(
                    DUCKDB.format(keys=KEYS), dump.with_suffix(".json.zst"), folder
                ),
                "reddit-assets ingest": ours(dump, folder / f"root-{lines}"),
            }
            os.link(dump, dump.with_suffix(".json.zst"))
            for step, command in steps.items():
                if step in options.without:
                    continue
                if lines != options.lines and step.startswith("Python json loop"):
                    continue
                seconds, processor, megabytes = run(command)
                rows.append((lines, step, round(seconds, 2), round(lines / seconds),
                             round(processor / lines * 1e6, 2), round(megabytes)))  # fmt: skip
                print(*rows[-1], sep="  ", flush=True)
        if options.kills:
            print(f"{options.kills} kills: {kills(folder, options.lines // 50, options.kills)}")
    facts = {
        "date": datetime.now(UTC).date(),
        "processor": cpu_name(),
        "cores": available_cores(),
        "duckdb": version("duckdb"),
        "load": round(os.getloadavg()[0], 1),
    }
    names = ("lines", "step", "seconds", "rows_per_second", "processor_us_per_row", "memory_mb")
    with open(options.out, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow((*facts, *names))
        writer.writerows((*facts.values(), *row) for row in rows)


def _script(text: str, dump: Path, folder: Path) -> list[str]:
    return [sys.executable, "-c", text, str(dump), str(folder / "out")]


if __name__ == "__main__":
    main()
