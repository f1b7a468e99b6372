"""Tables: CSV files become arrays as scikit-learn prepares them, and the format is JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chainrule.data import TableFormat, read_table

pd = pytest.importorskip("pandas")
preprocessing = pytest.importorskip("sklearn.preprocessing")

ROWS = """size,color,open,code,kind
1.5,red,True,7,b
2.5,blue,False,8,a
,red,True,7,b
4,,False,9,c
"""


def table(folder: Path, text: str = ROWS, name: str = "table.csv", encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_text(text, encoding=encoding)
    return path


def test_columns_are_those_of_scikit_learn(tmp_path: Path) -> None:
    frame = read_table(table(tmp_path), text=["code"])
    found = TableFormat.fit(frame, "kind")
    assert found.features == (
        "size", "color=", "color=blue", "color=red", "open=False", "open=True",
        "code=7", "code=8", "code=9",
    )  # fmt: skip
    assert (found.task, found.classes) == ("classification", ("a", "b", "c"))
    x, y, unknown = found.apply(frame)
    assert x.dtype == np.float32
    assert y is not None
    assert (y.tolist(), y.dtype, unknown) == ([1, 0, 1, 2], np.int64, {})
    size = preprocessing.StandardScaler().fit_transform(np.array([[1.5], [2.5], [np.nan], [4]]))
    assert np.array_equal(x[:, 0], np.nan_to_num(size[:, 0]).astype(np.float32))
    encoder = preprocessing.OneHotEncoder(sparse_output=False)
    texts = np.array([["red", "True", "7"], ["blue", "False", "8"], ["red", "True", "7"],
                      ["", "False", "9"]], object)  # fmt: skip
    assert np.array_equal(x[:, 1:], encoder.fit_transform(texts))


def test_the_format_is_json(tmp_path: Path) -> None:
    frame = read_table(table(tmp_path), text=["code"])
    for target in (None, "kind", "size", "code", "color"):
        rows = frame.dropna()
        found = TableFormat.fit(rows, target)
        again = TableFormat.from_notes(json.loads(json.dumps(found.notes())))
        assert again == found
        first, second = found.apply(rows), again.apply(read_table(table(tmp_path), again.text)[:2])
        assert first.x[:2].tobytes() == second.x.tobytes()
        if target is None:
            assert first.y is None


def test_regression_in_its_own_units(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = 1e6 + 1e3 * rng.normal(size=50)
    frame = pd.DataFrame({"a": rng.normal(size=50), "y": y})
    found = TableFormat.fit(frame, "y")
    assert (found.task, found.classes) == ("regression", None)
    standard = found.apply(frame).y
    assert standard is not None
    assert standard.shape == (50, 1)
    assert abs(standard.mean()) < 1e-6
    assert abs(standard.std() - 1) < 1e-6
    assert np.abs(found.original_units(standard)[:, 0] - y).max() < 1e-3
    assert found.apply(frame[["a"]], target=False).y is None


@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        ([3, 1, 2, 10], "classification", ("1", "2", "3", "10")),
        (list(range(21)), "regression", None),
        ([0.0, 1.0, 0.0], "regression", None),
        ([True, False, True], "classification", ("False", "True")),
        (["b", "a", "b"], "classification", ("a", "b")),
    ],
)
def test_the_task_of_a_target(values: Any, task: Any, classes: Any) -> None:
    frame = pd.DataFrame({"a": np.arange(len(values)), "y": values})
    found = TableFormat.fit(frame, "y")
    assert (found.task, found.classes) == (task, classes)
    other = TableFormat.fit(frame, "y", task="classification")
    assert other.task == "classification"
    if values[0] != "b":
        assert TableFormat.fit(frame.astype(float), "y", task="regression").task == "regression"


def test_unknown_and_missing_values_of_new_rows(tmp_path: Path) -> None:
    found = TableFormat.fit(read_table(table(tmp_path)), "kind")
    new = table(tmp_path, "kind,open,color,size,code,more\nb,true,green,,,1\n", "new.csv")
    x, y, unknown = found.apply(read_table(new, found.text))
    assert y is not None
    assert y.tolist() == [1]
    # An unknown text, "true" for "True" too, is zero in every column. A missing number is the mean.
    assert not x.any()
    assert unknown == {"color": 1, "open": 1}


def test_rows_of_text_only(tmp_path: Path) -> None:
    frame = read_table(table(tmp_path, "a,b\nx,1\ny,2\n"))
    found = TableFormat.fit(frame, "b", categories=["a"], drop=[])
    assert found.features == ("a=x", "a=y")
    assert found.apply(frame[:0]).x.shape == (0, 2)


@pytest.mark.parametrize(
    ("text", "separator", "encoding"),
    [
        ("a;b;c,d\n1;2;3\n", ";", "utf-8"),
        ("a\tb\tc,d\n1\t2\t3\n", "\t", "utf-8"),
        ("a,b,c;d\r\n1,2,3\r\n", ",", "utf-8-sig"),
    ],
)
def test_separators_and_the_byte_order_mark(
    text: str, separator: str, encoding: str, tmp_path: Path
) -> None:
    frame = read_table(table(tmp_path, text, encoding=encoding))
    assert list(frame.columns) == text.splitlines()[0].split(separator)
    assert frame.to_numpy().tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "file must be a table, got: No columns to parse from file"),
        ("a,b\n", "table must have at least one row, got 0"),
        ("1,2\n3,4\n", "the first line must have the names of the columns, got '1'"),
        ("a,b\n1,2,3\n4,5,6,7\n", "file must be a table, got"),
        ('a,b\n"1,2\n', "file must be a table, got"),
        (b"a,b\n\xff\xfe,2\n", "file must be a table, got: 'utf-8' codec can't decode byte 0xff"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "file must be a table, got"),
    ],
)
def test_files_that_are_no_table(text: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=rf"^read_table: {path}: .*{message}"):
        read_table(path)


def test_a_table_is_a_local_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_table("https://example.com/table.csv")
    with pytest.raises(IsADirectoryError):
        read_table(tmp_path)


FRAME = {
    "a": [1.0, 2.0, 3.0],
    "text": ["x", "y", "x"],
    "none": [np.nan] * 3,
    "inf": [1.0, np.inf, 2.0],
    "gap": [1.0, np.nan, 2.0],
    "one": ["z"] * 3,
}


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        (["a"], {"target": "b"}, "column must be one of 'a', got 'b'"),
        (["a"], {"target": "a"}, "at least one column must be an input, got none"),
        (["a", "text"], {"drop": ["b"]}, "column must be one of 'a', 'text', got 'b'"),
        (["a"], {"categories": ["b"]}, "column must be one of 'a', got 'b'"),
        (["a", "text"], {"target": "a", "drop": ["a"]}, "target must not be dropped, got 'a'"),
        (["a", "none"], {}, "column 'none' must have a value, got none: drop the column"),
        (["a", "inf"], {}, "column 'inf' must be finite, got infinity in row 2"),
        (["a", "gap"], {"target": "gap"}, "target 'gap' must have a value in each row, got none"),
        (["a", "one"], {"target": "one"}, "target 'one' must have at least 2 classes, got 'z' in"),
        (["a", "text"], {"target": "text", "task": "regression"}, "column 'text' must contain num"),
        (["a"], {"task": "ranking"}, 'task must be "classification" or "regression", got \'ran'),
    ],
)
def test_tables_that_are_refused(columns: list[str], options: Any, message: str) -> None:
    frame = pd.DataFrame({name: FRAME[name] for name in columns})
    with pytest.raises(ValueError, match=f"^table: {re.escape(message)}"):
        TableFormat.fit(frame, **options)


def test_names_and_dates_are_no_categories() -> None:
    frame = pd.DataFrame({"name": [f"n{i}" for i in range(1001)], "a": np.arange(1001.0)})
    message = "column 'name' must have at most 1000 different texts, got 1,001: drop the column"
    with pytest.raises(ValueError, match=f"^table: {message}$"):
        TableFormat.fit(frame, "a")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("color\nred\n", "column must be one of 'color', got 'size'"),
        (
            "size,color,kind\nbig,red,a\n",
            "column 'size' must contain numbers, got: Unable to",
        ),
        ("size,color,kind\n1,red,d\n", "column 'kind' must contain the classes 'a', 'b', 'c', got"),
        ("size,color,kind\n1,red,\n", "target 'kind' must have a value in each row, got none in 1"),
        ("size,color\n1,red\n", "column must be one of 'size', 'color', got 'kind'"),
    ],
)
def test_new_rows_that_are_refused(text: str, message: str, tmp_path: Path) -> None:
    frame = read_table(table(tmp_path))[["size", "color", "kind"]]
    found = TableFormat.fit(frame, "kind")
    with pytest.raises(ValueError, match=f"^table: {message}"):
        found.apply(read_table(table(tmp_path, text, "new.csv"), found.text))


GOOD: dict[str, Any] = {"name": "a", "mean": 0.5, "scale": 2}


@pytest.mark.parametrize(
    "notes",
    [
        None, [], {}, {"columns": []}, {"columns": {}}, {"columns": [1]}, {"columns": [{}]},
        {"columns": [GOOD], "other": 1},
        *({"columns": [{**GOOD, name: value}]} for name, value in (
            ("name", 1), ("mean", "x"), ("mean", float("nan")), ("scale", 0), ("scale", -1),
            ("scale", True), ("mean", None), ("categories", ["a"]),
        )),
        *({"columns": [{"name": "a", "categories": value}]}
          for value in ([], "ab", [1], ["a", "a"])),
        {"columns": [GOOD], "target": GOOD, "task": "classification"},
        {"columns": [GOOD], "target": {"name": "b", "categories": ["x"]}, "task": None},
        {"columns": [GOOD], "target": 1, "task": "regression"},
    ],
)  # fmt: skip
def test_notes_of_a_file_that_are_no_format(notes: Any) -> None:
    with pytest.raises(ValueError, match=r"^table: "):
        TableFormat.from_notes(notes)
    assert TableFormat.from_notes({"columns": [GOOD]}).columns[0].mean == 0.5
