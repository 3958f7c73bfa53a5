"""Files that aren't JSON lines."""

from __future__ import annotations

import csv
import gzip
import io
import json
import shlex
import subprocess
import sys

import pytest

from fleet.cli.run.entries import LineFormat, read_questions
from fleet.errors import ConfigurationError

ROWS = [{"id": "1", "prompt": "one, two"}, {"id": "2", "prompt": "three"}]


def table(delimiter: str) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["id", "prompt"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return text.getvalue().encode()


def refusal(content: bytes) -> str:
    with pytest.raises(ConfigurationError) as refused:
        list(read_questions(io.BytesIO(content), LineFormat()))
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (gzip.compress(b'"a"\n', mtime=0), "a gzip file"),
        (b"PK\x03\x04rest", "a zip file"),
        (b"BZh91AY", "a bzip2 file"),
        (b"PAR1rest", "a Parquet file"),
        ("\ufeff".encode("utf-16-le") + '"a"\n'.encode("utf-16-le"), "UTF-16 text"),
        (json.dumps(ROWS).encode(), "a JSON array"),
        (b"\xef\xbb\xbf\n\n" + json.dumps(ROWS, indent=2).encode(), "a JSON array"),
        (json.dumps(ROWS[0], indent=2).encode(), "a JSON object over several lines"),
        (table(","), "a CSV file"),
        (table(";"), "a CSV file"),
        (table("\t"), "a TSV file"),
        (b'"id","prompt"\n"1","x"\n', "a CSV file"),
    ],
)
def test_a_file_of_another_kind_is_named_with_what_makes_lines_of_it(content: bytes, name: str) -> None:
    told = refusal(content)
    assert f"got {name}" in told
    assert "lines.jsonl" in told


@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
def test_the_remedy_for_a_table_makes_lines_of_it(delimiter: str) -> None:
    told = refusal(table(delimiter))
    command = shlex.split(told.partition("`")[2].partition("`")[0].partition(" < ")[0])
    made = subprocess.run([sys.executable, *command[1:]], input=table(delimiter), capture_output=True, check=True)
    assert [json.loads(line) for line in made.stdout.splitlines()] == ROWS


@pytest.mark.parametrize("line", [b"hello, world", b"nonsense", b'"a, b"', b'{"id": 1, "prompt"', b"id", b"17"])
def test_a_line_that_is_only_wrong_fails_alone(line: bytes) -> None:
    assert len(list(read_questions([line, b'"fine"'], LineFormat()))) == 2
