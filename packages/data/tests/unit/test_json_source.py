"""Reading JSON, as lines and as documents."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import reading
from pyarrow import json as arrow_json

from umbel.data import datasource
from umbel.data._sources import lines
from umbel.data._sources.json import JSONDatasource

ROWS = [
    {"a": 1, "b": "x", "c": [1.5, 2.5], "d": {"e": True}},
    {"a": 2, "b": None, "c": [], "d": {"e": None}},
]


@pytest.mark.parametrize(
    "content",
    [
        "\n".join(map(json.dumps, ROWS)),
        "\n\n".join(map(json.dumps, ROWS)) + "\n\n",
        json.dumps(ROWS),
        "  \n" + json.dumps(ROWS, indent=2),
        "\n".join(json.dumps(row, indent=2) for row in ROWS),
        "\ufeff" + json.dumps(ROWS),
    ],
)
def test_every_form_gives_the_same_rows(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    assert reading.rows(JSONDatasource(tmp_path)) == ROWS


def test_lines_said_to_be_lines_are_read_as_such(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(map(json.dumps, ROWS)))
    assert reading.rows(JSONDatasource(tmp_path / "a.txt", lines=True)) == ROWS


def test_one_object_is_one_row(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(ROWS[0], indent=1))
    (tmp_path / "b.json").write_text(json.dumps(ROWS[1]))
    (tmp_path / "c.json").write_text("")
    assert reading.rows(JSONDatasource(tmp_path)) == ROWS


def test_rows_need_not_have_the_same_names(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"a": 1}, {"b": "x", "a": null}]')
    (tmp_path / "b.jsonl").write_text('{"c": 1}\n{"a": 3}\n')
    assert reading.rows(JSONDatasource(tmp_path)) == [
        {"a": 1, "b": None, "c": None},
        {"a": None, "b": "x", "c": None},
        {"a": None, "b": None, "c": 1},
        {"a": 3, "b": None, "c": None},
    ]


def test_large_files_of_lines_are_read_in_pieces_of_one_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "PIECE_BYTES", 200)
    rows: list[dict[str, Any]] = [
        {"n": index, "late": None if index < 30 else 0.5, "s": "x" * (index % 7)} for index in range(60)
    ]
    (tmp_path / "a.json").write_text("\n".join(map(json.dumps, rows)))
    source = JSONDatasource(tmp_path)
    (task,) = source.get_read_tasks(1)
    assert len(list(task.read_fn())) > 5
    assert reading.rows(source) == rows

    monkeypatch.setattr(lines, "PART_BYTES", 500)
    assert len(source.get_read_tasks(10)) == 1
    divided = JSONDatasource(tmp_path, lines=True)
    assert len(divided.get_read_tasks(10)) > 2
    assert reading.rows(divided, parallelism=10) == rows


def test_a_type_that_widens_later_is_unified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "PIECE_BYTES", 20)
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"a": 2}\n{"a": 3}\n{"a": 4.5}\n{"a": 5}\n')
    assert reading.table(JSONDatasource(tmp_path)).column("a").to_pylist() == [1.0, 2.0, 3.0, 4.5, 5.0]


def test_times_are_seen_and_types_that_are_given_are_obeyed(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"t": "2026-01-02 03:04:05", "n": 1}\n')
    assert reading.rows(JSONDatasource(tmp_path)) == [{"t": datetime.datetime(2026, 1, 2, 3, 4, 5), "n": 1}]
    schema = pa.schema([("t", pa.string()), ("n", pa.int8())])
    options = {"parse_options": arrow_json.ParseOptions(explicit_schema=schema)}
    assert reading.table(JSONDatasource(tmp_path, arrow_json_args=options)).schema == schema
    given = JSONDatasource(tmp_path, schema=pa.schema([("n", pa.int16())]))
    assert reading.table(given).equals(pa.table({"n": pa.array([1], pa.int16())}))
    assert given.schema() == pa.schema([("n", pa.int16())])


@pytest.mark.parametrize("content", ['{"a": 1}\n{"a": \n', "[1, 2]", '[{"a": 1}', "nothing"])
def test_what_is_not_json_of_rows_is_an_error_that_names_the_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(datasource.FileReadError, match=r"JSON cannot read '.*bad\.json'"):
        reading.rows(JSONDatasource(tmp_path))


def test_integers_of_more_than_64_bits_are_an_error_and_not_rounded(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"a": 123456789012345678901234567890}]')
    with pytest.raises(datasource.FileReadError, match=r"a\.json"):
        reading.rows(JSONDatasource(tmp_path))
