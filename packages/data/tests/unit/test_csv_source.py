"""Reading CSV."""

from __future__ import annotations

import datetime
from pathlib import Path

import pyarrow as pa
import pytest
import reading
from pyarrow import csv as arrow_csv

from umbel.data import datasource
from umbel.data._sources import csv, lines
from umbel.data._sources.csv import CSVDatasource


def test_names_and_types_are_seen(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('a,b,c,d\n1,x,1.5,2026-01-02\n,"y, ""z""",,\n')
    assert reading.rows(CSVDatasource(tmp_path)) == [
        {"a": 1, "b": "x", "c": 1.5, "d": datetime.date(2026, 1, 2)},
        {"a": None, "b": 'y, "z"', "c": None, "d": None},
    ]


def test_a_column_of_a_small_file_has_the_type_of_all_its_values(tmp_path: Path) -> None:
    rows = ["1"] * 400_000 + ["2.5"]
    (tmp_path / "a.csv").write_text("a\n" + "\n".join(rows))
    assert reading.table(CSVDatasource(tmp_path)).schema.field("a").type == pa.float64()


def test_files_of_unlike_types_are_unified(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a\n1\n")
    (tmp_path / "b.csv").write_text("a,b\n2.5,x\n")
    (tmp_path / "c.csv").write_text("")
    assert reading.rows(CSVDatasource(tmp_path)) == [{"a": 1.0, "b": None}, {"a": 2.5, "b": "x"}]


def test_options_of_arrow_are_obeyed(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1;x\n2;y\n")
    options = {
        "read_options": arrow_csv.ReadOptions(column_names=["a", "b"]),
        "parse_options": arrow_csv.ParseOptions(delimiter=";"),
        "convert_options": arrow_csv.ConvertOptions(column_types={"a": pa.int8()}),
    }
    table = reading.table(CSVDatasource(tmp_path, arrow_csv_args=options))
    assert table.combine_chunks().equals(pa.table({"a": pa.array([1, 2], pa.int8()), "b": ["x", "y"]}))


def test_columns_are_chosen_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "k=1").mkdir()
    (tmp_path / "k=1" / "a.csv").write_text("a,b,c\n1,x,2\n")
    scheme = datasource.Partitioning("hive")
    source = CSVDatasource(tmp_path, partitioning=scheme, include_paths=True).with_columns(["c", "k", "a"])
    assert source is not None
    assert [list(row.items()) for row in reading.rows(source)] == [[("c", 2), ("k", "1"), ("a", 1)]]
    missing = source.with_columns(["z"])
    assert missing is not None
    with pytest.raises(datasource.FileReadError, match=r"a\.csv.*'z'"):
        reading.rows(missing)


def test_a_filter_on_partitions_leaves_files_unread(tmp_path: Path) -> None:
    for key in "12":
        (tmp_path / f"k={key}").mkdir()
        (tmp_path / f"k={key}" / "a.csv").write_text(f"a\n{key}\n")
    (tmp_path / "k=2" / "a.csv").write_text('a\n"never closed')
    source, residual = CSVDatasource(tmp_path, partitioning=datasource.Partitioning("hive")).with_filter(
        pa.compute.field("k") == "1"
    )
    assert residual is None
    assert reading.rows(source) == [{"a": 1, "k": "1"}]


def test_a_schema_that_is_given_is_obeyed(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n1,x\n")
    schema = pa.schema([("b", pa.string()), ("a", pa.string()), ("new", pa.int8())])
    source = CSVDatasource(tmp_path, schema=schema)
    assert source.schema() == schema
    assert reading.table(source).schema == schema
    assert reading.rows(source) == [{"b": "x", "a": "1", "new": None}]


def numbered(path: Path, rows: int = 400) -> list[dict[str, object]]:
    expected: list[dict[str, object]] = [
        {"id": index, "name": f"näme {index}", "x": index / 2} for index in range(rows)
    ]
    path.write_text("id,name,x\n" + "".join(f"{row['id']},{row['name']},{row['x']}\n" for row in expected))
    return expected


def test_a_large_file_is_divided_among_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "PART_BYTES", 1000)
    monkeypatch.setattr(lines, "PIECE_BYTES", 300)
    monkeypatch.setattr(csv, "_SEEN_BYTES", 400)
    expected = numbered(tmp_path / "a.csv")
    source = CSVDatasource(tmp_path)
    assert len(source.get_read_tasks(100)) > 5
    assert reading.rows(source, parallelism=100) == reading.rows(source, parallelism=2) == expected
    few = source.with_columns(["x", "id"])
    assert few is not None
    assert reading.rows(few, parallelism=100) == [{"x": row["x"], "id": row["id"]} for row in expected]
    values = {"parse_options": arrow_csv.ParseOptions(newlines_in_values=True)}
    assert len(CSVDatasource(tmp_path, arrow_csv_args=values).get_read_tasks(100)) == 1


def test_a_large_file_that_is_compressed_comes_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "PIECE_BYTES", 1000)
    monkeypatch.setattr(csv, "_WHOLE_BYTES", 1000)
    expected = numbered(tmp_path / "plain")
    with pa.output_stream(tmp_path / "a.csv.gz", compression="gzip") as stream:
        stream.write((tmp_path / "plain").read_bytes())
    source = CSVDatasource(tmp_path / "a.csv.gz")
    (task,) = source.get_read_tasks(1)
    assert len(list(task.read_fn())) > 5
    assert reading.rows(source) == expected


def test_a_type_that_changes_late_in_a_large_file_is_an_error_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "PART_BYTES", 500)
    monkeypatch.setattr(csv, "_SEEN_BYTES", 100)
    (tmp_path / "a.csv").write_text("a\n" + "1\n" * 1000 + "x\n")
    with pytest.raises(
        datasource.FileReadError, match=r"a\.csv.*conversion error to int64.*ConvertOptions\(column_types="
    ):
        reading.rows(CSVDatasource(tmp_path), parallelism=10)


def test_a_row_of_the_wrong_length_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n1,2\n3\n")
    with pytest.raises(datasource.FileReadError, match=r"CSV cannot read '.*a\.csv'.*Expected 2 columns, got 1"):
        reading.rows(CSVDatasource(tmp_path))
