"""Records come out of JSON lines and CSV as they were put in, or a line says what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from tfx.core.errors import DataError
from tfx.models.gpt2.tasks.examples import Records
from tfx.models.gpt2.tasks.records import Record, read_records


def put(folder: Path, name: str, content: str | bytes) -> Path:
    file = folder / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def fault(file: Path) -> str:
    with pytest.raises(DataError) as found:
        read_records(file)
    return str(found.value)


def test_json_lines(tmp_path: Path) -> None:
    file = put(tmp_path, "a.jsonl", '\ufeff{"text": "Früh\\n", "label": 1}\n\n{"tokens": ["a"]}\n')
    one, two = read_records(file)
    assert one.values == {"text": "Früh\n", "label": 1}
    assert (one.where, two.where) == (f"line 1 of {file}", f"line 3 of {file}")
    assert two.listed("tokens") == ["a"]


def test_csv(tmp_path: Path) -> None:
    file = put(tmp_path, "a.csv", 'text,label\r\n"a, ""b""\nc",good\r\nd,\r\n')
    one, two = read_records(file)
    assert one.values == {"text": 'a, "b"\nc', "label": "good"}
    assert two.values == {"text": "d", "label": None}
    assert not two.has("label")
    assert two.where == f"line 4 of {file}"


def test_a_list_in_a_cell() -> None:
    record = Record({"json": '["a b", 2]', "words": "a  b", "broken": "[a b"}, "here")
    assert record.listed("json") == ["a b", 2]
    assert record.listed("words") == ["a", "b"]
    assert record.listed("broken") == ["[a", "b"]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.txt", "x", "whose name ends with .jsonl or .csv"),
        ("a.jsonl", "", "holds no record"),
        ("a.jsonl", "[1]\n", "line 1 of {} is a list; expected an object"),
        ("a.jsonl", "{}\n{x}\n", "line 2 of {} is no JSON: "),
        ("a.jsonl", '{"a": 1, "a": 2}', "the key 'a' comes twice"),
        ("a.jsonl", b"{}\n\xff", "{} is not UTF-8 text: byte 0xff at offset 3"),
        ("a.jsonl", "[" * 100_000, "nested too deeply"),
        ("a.jsonl", '{}\n{"a": 1e400}', "line 2 of {}: the number '1e400' is too large"),
        ("a.jsonl", '{"a": ' + "1" * 5000 + "}", "1... is too large"),
        ("a.jsonl", '{"a": [-Infinity]}', "line 1 of {}: -Infinity is no number of JSON"),
        ("a.csv", "a,a\n1,2\n", "does not name each field once"),
        ("a.csv", "a,b\n1,2,3\n", "line 2 of {} has 3 cells; expected 2"),
        ("a.csv", 'a\n"b"c\n', "line 2 of {} is no CSV"),
        ("a.csv", "a,b\n", "holds no record"),
    ],
)
def test_what_is_no_record(tmp_path: Path, name: str, content: str, expected: str) -> None:
    file = put(tmp_path, name, content)
    assert expected.format(file) in fault(file)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert fault(tmp_path / "a.jsonl").startswith("cannot read the data file ")


def test_a_field_that_is_not_there() -> None:
    record = Record({"txt": "a", "label": None}, "line 7 of x.csv")
    with pytest.raises(DataError, match=r"line 7 of x.csv: there is 'txt', 'label'; expected 'te"):
        record.text("text")
    with pytest.raises(DataError, match="expected 'text' or 'answer'"):
        record.field("text", "answer")
    with pytest.raises(DataError, match=r"line 7 of x.csv: 'label' is empty; expected a value"):
        record.field("label", "answer")
    with pytest.raises(DataError, match="txt is an int; expected a list"):
        Record({"txt": 3}, "x").listed("txt")


# ---- held out ------------------------------------------------------------------------------------


def test_a_share_is_held_out_by_chance(tmp_path: Path) -> None:
    file = put(tmp_path, "a.jsonl", "".join(f'{{"n": {n}}}\n' for n in range(50)))
    found = Records.read(file, 0.2, seed=1)
    held_out = [record.values["n"] for record in found.val]
    kept = [record.values["n"] for record in found.train]
    assert len(held_out) == 10 and held_out != list(range(40, 50))
    assert sorted(held_out + kept) == list(range(50))
    again, other = Records.read(file, 0.2, seed=1), Records.read(file, 0.2, seed=2)
    assert [x.values["n"] for x in again.val] == held_out
    assert [x.values["n"] for x in other.val] != held_out
    assert Records.read(file, 0.0, seed=1).val == []


def test_a_folder_says_itself_what_is_held_out(tmp_path: Path) -> None:
    put(tmp_path, "train.jsonl", '{"n": 1}\n')
    with pytest.raises(DataError, match=r"has no val file; expected one of val\.jsonl and val\.cs"):
        Records.read(tmp_path, 0.5, seed=1)
    put(tmp_path, "val.csv", "n\n2\n")
    found = Records.read(tmp_path, 0.5, seed=1)
    assert [x.values for x in (*found.train, *found.val)] == [{"n": 1}, {"n": "2"}]
    put(tmp_path, "train.csv", "n\n2\n")
    with pytest.raises(DataError, match=r"has train\.jsonl and train\.csv"):
        Records.read(tmp_path, 0.5, seed=1)


def test_something_is_left_to_learn_from(tmp_path: Path) -> None:
    file = put(tmp_path, "a.jsonl", "{}\n")
    with pytest.raises(DataError, match="has 1 records; none is left to learn from"):
        Records.read(file, 0.9, seed=1)
