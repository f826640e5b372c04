"""Odd input to commands: a sentence, no traceback, and no secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from reddit_assets.cli.app import run
from reddit_assets.errors import SettingsError, without_login
from reddit_assets.settings import load_settings


@pytest.mark.parametrize("command", ["doctor", "where", "settings"])
def test_a_login_in_the_pages_address_is_never_shown(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "chains/as/Tea").mkdir(parents=True)
    (tmp_path / "chains/as/Tea/c_0.parquet").touch()
    monkeypatch.setenv("DAGSTER_URL", "http://somebody:sesame@127.0.0.1:1/dagster")
    monkeypatch.setenv("REDIS_URL", "redis://somebody:sesame@127.0.0.1:1/0")
    arguments = {"doctor": ["--quick"], "where": ["Tea"], "settings": []}[command]
    run([command, *arguments, "--root", str(tmp_path)])
    output = capsys.readouterr()
    said = "".join((output.out + output.err).split())  # a table breaks lines
    assert "127.0.0.1:1" in said
    assert "sesame" not in said


def test_an_address_without_a_login_stays_as_it_is() -> None:
    assert without_login("http://u:p@host:1/a@b") == "http://host:1/a@b"
    assert without_login("https://host/x") == "https://host/x"
    assert without_login("/data/a@b") == "/data/a@b"


def test_the_sample_into_a_place_that_cannot_be_written_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "file").touch()
    assert run(["sample", "--root", str(tmp_path / "file")]) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert str(tmp_path / "file") in said


def test_page_and_maps_need_two_ports(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "chains").mkdir()
    state = str(tmp_path / "state")
    arguments = ["--root", str(tmp_path), "--state-dir", state, "--port", "3999"]
    assert run(["up", *arguments, "--maps-port", "3999"]) == 1
    assert "cannot both have port 3999" in capsys.readouterr().err


def test_maps_of_a_root_that_is_not_there_are_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert run(["maps", "--root", str(tmp_path / "nowhere")]) == 1
    assert "Correct --root" in capsys.readouterr().err
    assert run(["maps", "--root", str(tmp_path), "--host", "::1", "--port", "3998"]) == 1
    assert "--host" in capsys.readouterr().err


def test_a_wrong_setting_is_named_as_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"REDDIT_LEASE_SECONDS.*flags"):
        load_settings(lease_seconds="soon")
    monkeypatch.setenv("REDDIT_SUMMARY_HOUR", "noon")
    with pytest.raises(SettingsError, match=r"REDDIT_SUMMARY_HOUR.*environment"):
        load_settings(root="/data")
    monkeypatch.setenv("REDDIT_SUMMARY_HOUR", "off")
    assert load_settings().summary_hour is None
