"""Queries of TPC-H, once for every module with this API and once as SQL. Each gives rows as lists of plain values.

What Ray's expressions lack (`when`), both do by one more key of the groups, and the last sums of two numbers in Python.
"""

from __future__ import annotations

import datetime
import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Rows = list[list[Any]]


@dataclass(frozen=True)
class Tables:
    """data: `umbel.data` or `ray.data`. partitions: of a join, which Ray has to be told; None where it need not be."""

    module: str
    folder: Path
    partitions: int | None

    @property
    def data(self) -> Any:
        return importlib.import_module(f"{self.module}.data")

    @property
    def expressions(self) -> Any:
        return importlib.import_module(f"{self.module}.data.expressions")

    def read(self, table: str, *columns: str) -> Any:
        return self.data.read_parquet(str(self.folder / table), columns=list(columns))

    def join(self, left: Any, right: Any, on: Sequence[str], right_on: Sequence[str], kept: Sequence[str]) -> Any:
        joined = left.join(right, "inner", self.partitions, on=tuple(on), right_on=tuple(right_on))
        return joined.select_columns(list(kept))

    def sum(self, column: str, name: str) -> Any:
        return importlib.import_module(f"{self.module}.data.aggregate").Sum(column, alias_name=name)

    def mean(self, column: str, name: str) -> Any:
        return importlib.import_module(f"{self.module}.data.aggregate").Mean(column, alias_name=name)

    def count(self, name: str) -> Any:
        return importlib.import_module(f"{self.module}.data.aggregate").Count(alias_name=name)

    def revenue(self) -> Any:
        col, lit = self.expressions.col, self.expressions.lit
        return col("l_extendedprice") * (lit(1.0) - col("l_discount"))


def q1(tables: Tables) -> Rows:
    col, lit = tables.expressions.col, tables.expressions.lit
    names = ("l_quantity", "l_extendedprice", "l_discount", "l_tax", "l_returnflag", "l_linestatus", "l_shipdate")
    lines = tables.read("lineitem", *names).filter(expr=col("l_shipdate") <= lit(datetime.date(1998, 9, 2)))
    priced = lines.with_column("disc_price", tables.revenue())
    priced = priced.with_column("charge", col("disc_price") * (lit(1.0) + col("l_tax")))
    grouped = priced.groupby(["l_returnflag", "l_linestatus"]).aggregate(
        tables.sum("l_quantity", "sum_qty"),
        tables.sum("l_extendedprice", "sum_base_price"),
        tables.sum("disc_price", "sum_disc_price"),
        tables.sum("charge", "sum_charge"),
        tables.mean("l_quantity", "avg_qty"),
        tables.mean("l_extendedprice", "avg_price"),
        tables.mean("l_discount", "avg_disc"),
        tables.count("count_order"),
    )
    order = ["l_returnflag", "l_linestatus", "sum_qty", "sum_base_price", "sum_disc_price", "sum_charge"]
    order += ["avg_qty", "avg_price", "avg_disc", "count_order"]
    return _values(grouped.sort(["l_returnflag", "l_linestatus"]).take_all(), order)


def q3(tables: Tables) -> Rows:
    col, lit = tables.expressions.col, tables.expressions.lit
    day = lit(datetime.date(1995, 3, 15))
    buyers = tables.read("customer", "c_custkey", "c_mktsegment").filter(expr=col("c_mktsegment") == lit("BUILDING"))
    orders = tables.read("orders", "o_orderkey", "o_custkey", "o_orderdate", "o_shippriority")
    orders = orders.filter(expr=col("o_orderdate") < day)
    lines = tables.read("lineitem", "l_orderkey", "l_extendedprice", "l_discount", "l_shipdate")
    lines = lines.filter(expr=col("l_shipdate") > day)
    kept = ["o_orderkey", "o_orderdate", "o_shippriority"]
    wanted = tables.join(orders, buyers.select_columns(["c_custkey"]), ["o_custkey"], ["c_custkey"], kept)
    kept = ["l_orderkey", "o_orderdate", "o_shippriority", "l_extendedprice", "l_discount"]
    priced = tables.join(lines, wanted, ["l_orderkey"], ["o_orderkey"], kept).with_column("revenue", tables.revenue())
    grouped = priced.groupby(["l_orderkey", "o_orderdate", "o_shippriority"]).aggregate(
        tables.sum("revenue", "revenue")
    )
    first = grouped.sort(["revenue", "o_orderdate"], descending=[True, False]).limit(10)
    return _values(first.take_all(), ["l_orderkey", "revenue", "o_orderdate", "o_shippriority"])


def q5(tables: Tables) -> Rows:
    col, lit = tables.expressions.col, tables.expressions.lit
    asia = tables.read("region", "r_regionkey", "r_name").filter(expr=col("r_name") == lit("ASIA"))
    nations = tables.read("nation", "n_nationkey", "n_name", "n_regionkey")
    nations = tables.join(nations, asia, ["n_regionkey"], ["r_regionkey"], ["n_nationkey", "n_name"])
    sellers = tables.read("supplier", "s_suppkey", "s_nationkey")
    sellers = tables.join(sellers, nations, ["s_nationkey"], ["n_nationkey"], ["s_suppkey", "s_nationkey", "n_name"])
    orders = tables.read("orders", "o_orderkey", "o_custkey", "o_orderdate").filter(
        expr=(col("o_orderdate") >= lit(datetime.date(1994, 1, 1)))
        & (col("o_orderdate") < lit(datetime.date(1995, 1, 1)))
    )
    buyers = tables.read("customer", "c_custkey", "c_nationkey")
    bought = tables.join(orders, buyers, ["o_custkey"], ["c_custkey"], ["o_orderkey", "c_nationkey"])
    lines = tables.read("lineitem", "l_orderkey", "l_suppkey", "l_extendedprice", "l_discount")
    kept = ["l_suppkey", "c_nationkey", "l_extendedprice", "l_discount"]
    lines = tables.join(lines, bought, ["l_orderkey"], ["o_orderkey"], kept)
    on, right_on = ["l_suppkey", "c_nationkey"], ["s_suppkey", "s_nationkey"]
    sold = tables.join(lines, sellers, on, right_on, ["n_name", "l_extendedprice", "l_discount"])
    grouped = (
        sold.with_column("revenue", tables.revenue()).groupby("n_name").aggregate(tables.sum("revenue", "revenue"))
    )
    return _values(grouped.sort("revenue", descending=True).take_all(), ["n_name", "revenue"])


def q6(tables: Tables) -> Rows:
    col, lit = tables.expressions.col, tables.expressions.lit
    lines = tables.read("lineitem", "l_shipdate", "l_discount", "l_quantity", "l_extendedprice").filter(
        expr=(col("l_shipdate") >= lit(datetime.date(1994, 1, 1)))
        & (col("l_shipdate") < lit(datetime.date(1995, 1, 1)))
        & (col("l_discount") >= lit(0.05))
        & (col("l_discount") <= lit(0.07))
        & (col("l_quantity") < lit(24.0))
    )
    return [[lines.with_column("revenue", col("l_extendedprice") * col("l_discount")).sum("revenue")]]


def q12(tables: Tables) -> Rows:
    col, lit = tables.expressions.col, tables.expressions.lit
    names = ("l_orderkey", "l_shipmode", "l_shipdate", "l_commitdate", "l_receiptdate")
    lines = tables.read("lineitem", *names).filter(
        expr=col("l_shipmode").is_in(["MAIL", "SHIP"])
        & (col("l_commitdate") < col("l_receiptdate"))
        & (col("l_shipdate") < col("l_commitdate"))
        & (col("l_receiptdate") >= lit(datetime.date(1994, 1, 1)))
        & (col("l_receiptdate") < lit(datetime.date(1995, 1, 1)))
    )
    orders = tables.read("orders", "o_orderkey", "o_orderpriority")
    kept = ["l_shipmode", "o_orderpriority"]
    joined = tables.join(
        lines.select_columns(["l_orderkey", "l_shipmode"]), orders, ["l_orderkey"], ["o_orderkey"], kept
    )
    urgent = joined.with_column("is_urgent", col("o_orderpriority").is_in(["1-URGENT", "2-HIGH"]))
    found = urgent.groupby(["l_shipmode", "is_urgent"]).aggregate(tables.count("lines")).take_all()
    counts = {(row["l_shipmode"], row["is_urgent"]): row["lines"] for row in found}
    modes = sorted({mode for mode, _ in counts})
    return [[mode, counts.get((mode, True), 0), counts.get((mode, False), 0)] for mode in modes]


def q14(tables: Tables) -> Rows:
    col, lit = tables.expressions.col, tables.expressions.lit
    lines = tables.read("lineitem", "l_partkey", "l_extendedprice", "l_discount", "l_shipdate").filter(
        expr=(col("l_shipdate") >= lit(datetime.date(1995, 9, 1)))
        & (col("l_shipdate") < lit(datetime.date(1995, 10, 1)))
    )
    parts = tables.read("part", "p_partkey", "p_type")
    kept = ["p_type", "l_extendedprice", "l_discount"]
    joined = tables.join(lines, parts, ["l_partkey"], ["p_partkey"], kept)
    priced = joined.with_column("revenue", tables.revenue()).with_column(
        "is_promo", col("p_type").str.starts_with("PROMO")
    )
    found = priced.groupby("is_promo").aggregate(tables.sum("revenue", "revenue")).take_all()
    revenue = {row["is_promo"]: row["revenue"] for row in found}
    return [[100.0 * revenue.get(True, 0.0) / sum(revenue.values())]]


def _values(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> Rows:
    return [[_plain(row[name]) for name in names] for row in rows]


def _plain(value: Any) -> Any:
    """As JSON has it: a date as its ISO form, a NumPy number as Python's."""
    if isinstance(value, datetime.date):
        return value.isoformat()[:10]
    return value.item() if hasattr(value, "item") else value


QUERIES: dict[str, Callable[[Tables], Rows]] = {"q1": q1, "q3": q3, "q5": q5, "q6": q6, "q12": q12, "q14": q14}

SQL = {
    "q1": """
        select l_returnflag, l_linestatus, sum(l_quantity), sum(l_extendedprice), sum(l_extendedprice * (1 - l_discount)),
            sum(l_extendedprice * (1 - l_discount) * (1 + l_tax)), avg(l_quantity), avg(l_extendedprice), avg(l_discount),
            count(*)
        from lineitem where l_shipdate <= date '1998-09-02'
        group by l_returnflag, l_linestatus order by l_returnflag, l_linestatus""",
    "q3": """
        select l_orderkey, sum(l_extendedprice * (1 - l_discount)) as revenue, o_orderdate, o_shippriority
        from customer, orders, lineitem
        where c_mktsegment = 'BUILDING' and c_custkey = o_custkey and l_orderkey = o_orderkey
            and o_orderdate < date '1995-03-15' and l_shipdate > date '1995-03-15'
        group by l_orderkey, o_orderdate, o_shippriority order by revenue desc, o_orderdate limit 10""",
    "q5": """
        select n_name, sum(l_extendedprice * (1 - l_discount)) as revenue
        from customer, orders, lineitem, supplier, nation, region
        where c_custkey = o_custkey and l_orderkey = o_orderkey and l_suppkey = s_suppkey and c_nationkey = s_nationkey
            and s_nationkey = n_nationkey and n_regionkey = r_regionkey and r_name = 'ASIA'
            and o_orderdate >= date '1994-01-01' and o_orderdate < date '1995-01-01'
        group by n_name order by revenue desc""",
    "q6": """
        select sum(l_extendedprice * l_discount) from lineitem
        where l_shipdate >= date '1994-01-01' and l_shipdate < date '1995-01-01'
            and l_discount between 0.05 and 0.07 and l_quantity < 24""",
    "q12": """
        select l_shipmode,
            cast(sum(case when o_orderpriority in ('1-URGENT', '2-HIGH') then 1 else 0 end) as bigint),
            cast(sum(case when o_orderpriority not in ('1-URGENT', '2-HIGH') then 1 else 0 end) as bigint)
        from orders, lineitem
        where o_orderkey = l_orderkey and l_shipmode in ('MAIL', 'SHIP') and l_commitdate < l_receiptdate
            and l_shipdate < l_commitdate and l_receiptdate >= date '1994-01-01' and l_receiptdate < date '1995-01-01'
        group by l_shipmode order by l_shipmode""",
    "q14": """
        select 100.0 * sum(case when p_type like 'PROMO%' then l_extendedprice * (1 - l_discount) else 0 end)
            / sum(l_extendedprice * (1 - l_discount))
        from lineitem, part
        where l_partkey = p_partkey and l_shipdate >= date '1995-09-01' and l_shipdate < date '1995-10-01'""",
}


def by_duckdb(connection: Any, name: str) -> Rows:
    """The answer of a connection that has the views of `views`."""
    return [[_plain(value) for value in row] for row in connection.execute(SQL[name]).fetchall()]


def views(connection: Any, folder: Path) -> None:
    for table in ("region", "nation", "customer", "supplier", "part", "orders", "lineitem"):
        connection.execute(f"create view {table} as select * from read_parquet('{folder / table}/*.parquet')")


def answers(folder: Path) -> dict[str, Rows]:
    """What DuckDB says of these files; kept beside them, so that an interpreter without it can check its own."""
    kept = folder / "answers.json"
    if not kept.exists():
        import duckdb

        connection = duckdb.connect()
        views(connection, folder)
        kept.write_text(json.dumps({name: by_duckdb(connection, name) for name in SQL}))
    found: dict[str, Rows] = json.loads(kept.read_text())
    return found
