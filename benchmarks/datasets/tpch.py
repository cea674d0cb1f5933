"""Tables of TPC-H, with the columns that queries 1, 3, 5, 6, 12 and 14 need and some that they do not.

Numbers, keys and dates have the distributions of the specification (revision 3), so that filters and joins select as much as
with its own generator; names, addresses and comments are left out. Prices, discounts and taxes are float64, as in Polars' version
of the benchmark: a product of three decimals has more digits than Arrow's decimal128, by whose kernels Ray multiplies. Keys are
int64, dates date32. Sums of floats depend on their order, so an answer is compared to the cent, and to nine digits.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FILES = 8  # of lineitem and of orders
EPOCH = datetime.date(1970, 1, 1)
CUSTOMERS, SUPPLIERS, PARTS, ORDERS_PER_CUSTOMER = 150_000, 10_000, 200_000, 10

REGIONS = ("AFRICA", "AMERICA", "ASIA", "EUROPE", "MIDDLE EAST")
NATIONS = (
    ("ALGERIA", 0), ("ARGENTINA", 1), ("BRAZIL", 1), ("CANADA", 1), ("EGYPT", 4), ("ETHIOPIA", 0), ("FRANCE", 3),
    ("GERMANY", 3), ("INDIA", 2), ("INDONESIA", 2), ("IRAN", 4), ("IRAQ", 4), ("JAPAN", 2), ("JORDAN", 4), ("KENYA", 0),
    ("MOROCCO", 0), ("MOZAMBIQUE", 0), ("PERU", 1), ("CHINA", 2), ("ROMANIA", 3), ("SAUDI ARABIA", 4), ("VIETNAM", 2),
    ("RUSSIA", 3), ("UNITED KINGDOM", 3), ("UNITED STATES", 1),
)  # fmt: skip
SEGMENTS = ("AUTOMOBILE", "BUILDING", "FURNITURE", "HOUSEHOLD", "MACHINERY")
PRIORITIES = ("1-URGENT", "2-HIGH", "3-MEDIUM", "4-NOT SPECIFIED", "5-LOW")
MODES = ("AIR", "FOB", "MAIL", "RAIL", "REG AIR", "SHIP", "TRUCK")
INSTRUCTIONS = ("COLLECT COD", "DELIVER IN PERSON", "NONE", "TAKE BACK RETURN")
TYPES = tuple(
    f"{first} {second} {third}"
    for first in ("STANDARD", "SMALL", "MEDIUM", "LARGE", "ECONOMY", "PROMO")
    for second in ("ANODIZED", "BURNISHED", "PLATED", "POLISHED", "BRUSHED")
    for third in ("TIN", "NICKEL", "BRASS", "STEEL", "COPPER")
)


def days(year: int, month: int, day: int) -> int:
    return (datetime.date(year, month, day) - EPOCH).days


FIRST_ORDER, LAST_ORDER, TODAY = days(1992, 1, 1), days(1998, 8, 2), days(1995, 6, 17)


def write(folder: Path, scale_factor: float) -> None:
    """A folder of Parquet files for each table."""
    random = np.random.default_rng(7)
    customers = max(10, int(CUSTOMERS * scale_factor))
    suppliers = max(4, int(SUPPLIERS * scale_factor))
    parts = max(10, int(PARTS * scale_factor))
    _save(folder, "region", {"r_regionkey": np.arange(5), "r_name": pa.array(REGIONS)})
    _save(
        folder,
        "nation",
        {
            "n_nationkey": np.arange(len(NATIONS)),
            "n_name": pa.array([name for name, _ in NATIONS]),
            "n_regionkey": np.array([region for _, region in NATIONS]),
        },
    )
    _save(
        folder,
        "customer",
        {
            "c_custkey": np.arange(1, customers + 1),
            "c_nationkey": random.integers(0, len(NATIONS), customers),
            "c_acctbal": _cents(random.integers(-99_999, 1_000_000, customers)),
            "c_mktsegment": _text(SEGMENTS, random.integers(0, len(SEGMENTS), customers)),
        },
    )
    _save(
        folder,
        "supplier",
        {
            "s_suppkey": np.arange(1, suppliers + 1),
            "s_nationkey": random.integers(0, len(NATIONS), suppliers),
            "s_acctbal": _cents(random.integers(-99_999, 1_000_000, suppliers)),
        },
    )
    part_keys = np.arange(1, parts + 1)
    _save(
        folder,
        "part",
        {
            "p_partkey": part_keys,
            "p_type": _text(TYPES, random.integers(0, len(TYPES), parts)),
            "p_size": random.integers(1, 51, parts),
            "p_retailprice": _cents(_retail_cents(part_keys)),
        },
    )
    orders = customers * ORDERS_PER_CUSTOMER
    bounds = np.linspace(0, orders, FILES + 1).astype(np.int64)
    for number in range(FILES):
        _orders(folder, number, np.arange(bounds[number], bounds[number + 1]), customers, suppliers, parts)


def _orders(folder: Path, number: int, indices: np.ndarray, customers: int, suppliers: int, parts: int) -> None:
    """One file of orders, and of their lines."""
    random = np.random.default_rng((11, number))
    count = len(indices)
    keys = indices // 8 * 32 + indices % 8 + 1  # eight of each 32 numbers are used
    buyers = random.integers(0, customers * 2 // 3, count)  # a third of the customers, each third one, buys nothing
    dates = random.integers(FIRST_ORDER, LAST_ORDER + 1, count)

    per_order = random.integers(1, 8, count)
    of_order = np.repeat(np.arange(count), per_order)
    lines = len(of_order)
    part_keys = random.integers(1, parts + 1, lines)
    which = random.integers(0, 4, lines)  # of the four suppliers that a part has
    quantity = random.integers(1, 51, lines)
    cents = quantity * _retail_cents(part_keys)
    discount, tax = random.integers(0, 11, lines), random.integers(0, 9, lines)
    shipped = dates[of_order] + random.integers(1, 122, lines)
    committed = dates[of_order] + random.integers(30, 91, lines)
    received = shipped + random.integers(1, 31, lines)
    returned = np.where(received <= TODAY, random.integers(0, 2, lines), 2)
    is_open = shipped > TODAY
    total = np.bincount(of_order, cents / 100 * (1 + tax / 100) * (1 - discount / 100), minlength=count)
    open_lines = np.bincount(of_order, is_open, minlength=count)
    status = np.where(open_lines == 0, 0, np.where(open_lines == per_order, 1, 2))
    _save(
        folder,
        "orders",
        {
            "o_orderkey": keys,
            "o_custkey": buyers // 2 * 3 + buyers % 2 + 1,
            "o_orderstatus": _text(("F", "O", "P"), status),
            "o_totalprice": np.round(total, 2),
            "o_orderdate": _dates(dates),
            "o_orderpriority": _text(PRIORITIES, random.integers(0, len(PRIORITIES), count)),
            "o_shippriority": np.zeros(count, np.int32),
        },
        number,
    )
    first_line = np.cumsum(per_order) - per_order
    _save(
        folder,
        "lineitem",
        {
            "l_orderkey": keys[of_order],
            "l_partkey": part_keys,
            "l_suppkey": (part_keys + which * (suppliers // 4 + (part_keys - 1) // suppliers)) % suppliers + 1,
            "l_linenumber": np.arange(lines) - first_line[of_order] + 1,
            "l_quantity": quantity.astype(np.float64),
            "l_extendedprice": _cents(cents),
            "l_discount": _cents(discount),
            "l_tax": _cents(tax),
            "l_returnflag": _text(("R", "A", "N"), returned),
            "l_linestatus": _text(("F", "O"), is_open),
            "l_shipdate": _dates(shipped),
            "l_commitdate": _dates(committed),
            "l_receiptdate": _dates(received),
            "l_shipinstruct": _text(INSTRUCTIONS, random.integers(0, len(INSTRUCTIONS), lines)),
            "l_shipmode": _text(MODES, random.integers(0, len(MODES), lines)),
        },
        number,
    )


def _retail_cents(part_keys: np.ndarray) -> np.ndarray:
    return 90_000 + part_keys // 10 % 20_001 + 100 * (part_keys % 1_000)


def _cents(cents: np.ndarray) -> np.ndarray:
    """The float64 next to each number of cents: that which a literal of two digits is."""
    return cents / 100


def _text(values: Sequence[str], indices: np.ndarray) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(indices.astype(np.int32)), pa.array(values)).cast(pa.string())


def _dates(numbers: np.ndarray) -> pa.Array:
    return pa.array(numbers.astype(np.int32)).cast(pa.date32())


def _save(folder: Path, name: str, columns: dict[str, object], number: int = 0) -> None:
    (folder / name).mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), folder / name / f"{number}.parquet")
