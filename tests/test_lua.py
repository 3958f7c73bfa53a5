"""How Lua reads, checked on every script: places have names, functions are short, and the header is the contract.

Also here: what becomes of names as a script is loaded, and what is refused then.
"""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
import re
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis

from fleet.errors import StoreError
from fleet.store.client import Script, Store, connect, run_script
from fleet.store.layouts import Layout, Place, Places
from tests.house import sources

ROOT = Path(__file__).resolve().parent.parent

#: Lines of a Lua function at most.
MAX_LINES = 40

_OPENS = {"function", "if", "do", "repeat"}
_CLOSES = {"end", "until"}


def lua_files() -> list[Path]:
    """Return every script of the house."""
    return sorted((ROOT / "fleet").rglob("*.lua"))


def scripts() -> dict[Path, Script]:
    """Return file -> script, of all that a module loads."""
    found: dict[Path, Script] = {}
    for folder in {path.parent for path in lua_files()}:
        package = ".".join(folder.relative_to(ROOT).parts)
        for module in pkgutil.iter_modules([str(folder)], f"{package}."):
            values = vars(importlib.import_module(module.name)).values()
            for script in [value for value in values if isinstance(value, Script)]:
                if (folder / script.name).exists():
                    found.setdefault(folder / script.name, script)
    return found


def body(path: Path) -> str:
    """Return a script without comments and strings."""
    return re.sub(r"""--[^\n]*|'(?:\\.|[^'\\\n])*'""", "", path.read_text(encoding="utf-8"))


def header(path: Path) -> str:
    """Return the comment lines that a Lua file opens with."""
    return "\n".join(takewhile(lambda line: line.startswith("--"), path.read_text(encoding="utf-8").splitlines()))


def functions(source: str) -> Iterator[tuple[int, int]]:
    """Yield first line and number of lines of every function."""
    opened: list[tuple[str, int]] = []
    for number, line in enumerate(source.splitlines(), 1):
        for word in re.findall(r"[A-Za-z_]\w*", line):
            if word in _OPENS:
                opened.append((word, number))
            elif word in _CLOSES:
                kind, first = opened.pop()
                if kind == "function":
                    yield first, number - first + 1
    assert not opened


def test_every_script_is_loaded_by_a_module_that_names_its_keys_and_arguments() -> None:
    assert lua_files(), "expected Lua scripts under fleet/, found none"
    assert set(scripts()) == set(lua_files())
    for path, script in scripts().items():
        used = {table for table in ("KEYS", "ARGV") if re.search(rf"\b{table}\b", body(path))}
        declared = {table for table, names in (("KEYS", script.keys), ("ARGV", script.argv)) if names}
        assert used == declared, path


def numbered_places(source: str, tables: set[str]) -> list[str]:
    """Return places of tables that have a number instead of a name. `ARGV[i + 1]` is the one beside another."""
    table = "|".join(sorted({"KEYS", "ARGV", *tables}))
    indexed = rf"\b(?:{table})\[(?:\d|(?!\w*_PLACES)[A-Z_]+ [+-] \d)[^\]]*\]"
    return re.findall(rf"{indexed}|unpack\((?:KEYS|ARGV), ?\d[^)]*\)", source)


def test_no_place_is_a_number() -> None:
    for path, script in scripts().items():
        tables = {name for group in script.names.tables for name in group.split()}
        wrong = numbered_places(body(path), tables)
        assert not wrong, f"{path.relative_to(ROOT)}: expected a name for each place, got {wrong}"


@pytest.mark.parametrize("wrong", ["KEYS[1]", "ARGV[2 + k]", "row[RATE + 2]", "row[13 + class]", "unpack(KEYS, 3, 9)"])
def test_a_number_for_a_place_is_found(wrong: str) -> None:
    assert numbered_places(f"local x = {wrong}", {"row"}) == [wrong]


def test_functions_are_short() -> None:
    long = {
        f"{path.relative_to(ROOT)}:{first}": lines
        for path in lua_files()
        for first, lines in functions(body(path))
        if lines > MAX_LINES
    }
    assert not long, f"expected at most {MAX_LINES} lines a function, split {long}"


def test_the_lines_of_a_function_are_counted() -> None:
    source = "local function f(a)\n  for i = 1, 2 do\n    if a then return function() end end\n  end\nend\nf()"
    assert list(functions(source)) == [(3, 1), (1, 5)]


def test_every_header_tells_of_keys_arguments_and_reply_and_names_each_of_them() -> None:
    for path, script in scripts().items():
        head = header(path)
        names = [*script.names.keys.names, *script.names.argv.names]
        missing = [word for word in ("KEYS", "ARGV", "Reply") if not re.search(rf"\b{word}\b", head, re.IGNORECASE)]
        missing += [name for name in names if not re.search(rf"\b{name}\b", head)]
        assert not missing, f"{path.relative_to(ROOT)}: expected a comment on top that tells {missing}"


def test_no_python_string_holds_lua() -> None:
    lua = re.compile(r"redis\.p?call\(")
    files = sources(ROOT, "*.py")
    inside = [str(path.relative_to(ROOT)) for path in files if lua.search(path.read_text(encoding="utf-8"))]
    assert not inside, f"expected Lua in .lua files only, found some in {inside}"


# -- what becomes of names


class Row(Places):
    """A row of a test."""

    RATE = Place(3)
    TASKS = Place()
    #: By class, from 0 on.
    ASKED = Place(2, first=0)


class Pair(NamedTuple):
    """Two numbers."""

    left: float
    right: float


ROW, PAIR = Layout.of(Row, "3B3I"), Layout.of(Pair)


@pytest.fixture
def load(tmp_path: Path) -> Any:
    """Write a script and load it."""

    def load(text: str, name: str = "some.lua", **declared: Any) -> Script:
        (tmp_path / name).write_text(text)
        return Script.beside(str(tmp_path / "module.py"), name, **declared)

    return load


def test_a_name_is_the_number_that_its_table_gives_it(load: Any) -> None:
    text = "return { KEYS[TASKS], ARGV[COUNT], row[TASKS], row[RATE + k], row[ASKED + k] }"
    script = load(f"local leases = KEYS[LEASES]\n{text}", keys="leases tasks", argv="count", tables={"row": ROW})
    assert script.text.splitlines()[1] == "return { KEYS[2], ARGV[1], row[4], row[k], row[5 + k] }"


@pytest.mark.parametrize(
    ("lua", "is_worth"),
    [
        ("#ARGV - TAGS + 1", 3), ("2 * TAGS + 1", 1), ("2 ^ TAGS + 1", 2), ("TAGS + 1", 1), ("({ 7, 8 })[TAGS + 1]", 7),
        ("3 -NEGATIVE", 4), ("3-NEGATIVE", 4), ("NEGATIVE ^ 2", 1), ("2 ^ NEGATIVE * 4", 2),
        ("({ 7, 8 })[2 + NEGATIVE]", 7), ("3 -BELOW", 5), ("BELOW ^ 2", 4),
    ],
)  # fmt: skip
def test_a_sum_with_a_name_is_worth_what_it_is_with_the_number(
    load: Any, redis_url: str, lua: str, is_worth: int
) -> None:
    text = f"local BELOW = -2\nreturn {{ {lua}, ARGV[TAGS + 1], NEGATIVE, BELOW }}"
    script = load(text, argv="tags*", constants={"NEGATIVE": -1})
    with connect(redis_url) as client:
        assert run_script(client, script, *script.call(tags=["1", "2"])) == [is_worth, b"1", -1, -2]


def test_python_counts_as_lua_does() -> None:
    assert (Row.RATE, Row.TASKS, Row.ASKED) == (0, 4, 5)
    row = ROW.unpack(ROW.struct.pack(1, 2, 3, 40, 50, 60))
    assert (row[Row.RATE + 1], row[Row.TASKS], row[Row.ASKED + 0], row[Row.ASKED + 1]) == (1, 40, 50, 60)
    assert ROW.unpack(b"of another version") == (0.0,) * 7


def test_lua_and_python_pack_a_layout_alike(load: Any, redis_url: str) -> None:
    text = (
        "local row = { struct.unpack(ROW_FORMAT, ARGV[PACKED]) }\n"
        "row[TASKS] = row[TASKS] + #ARGV[PACKED] - ROW_BYTES + 1\n"
        "row[RATE + 3] = row[ASKED + 0] + ({ ROW_ZEROS })[1]\n"
        "return struct.pack(ROW_FORMAT, unpack(row, 1, ROW_PLACES))"
    )
    script = load(text, argv="packed", tables={"row": ROW})
    with connect(redis_url) as client:
        reply = run_script(client, script, *script.call(packed=ROW.struct.pack(1, 2, 3, 40, 50, 60)))
    assert ROW.unpack(reply)[1:] == (1, 2, 50, 41, 50, 60)


def test_numbers_at_the_top_are_put_in_where_they_are_used_and_lines_stay(load: Any) -> None:
    script = load("-- head\nlocal STEP, MOST = 0.5, 20\nlocal function f(x) return x * STEP + MOST end\nreturn f(1)")
    head, numbers, function, _ = script.text.splitlines()
    assert (head, numbers.strip(), function) == ("-- head", "", "local function f(x) return x * 0.5 + 20 end")


def test_names_in_comments_and_strings_stay(load: Any) -> None:
    text = "-- KEYS[BOTS] of ROW_BYTES\nreturn { KEYS[BOTS], 'KEYS[BOTS] STEP' }"
    assert load(text, keys="bots").text == text.replace("{ KEYS[BOTS]", "{ KEYS[1]")


def test_the_rest_is_counted_from_the_place_before_it(load: Any) -> None:
    script = load("for i = PAIRS + 1, #ARGV, 2 do f(ARGV[LIFE_S], ARGV[i]) end", argv="life_s pairs*")
    assert script.text == "for i = 1 + 1, #ARGV, 2 do f(ARGV[1], ARGV[i]) end"
    assert script.call(life_s=5, pairs=["a", 1]) == ([], [5, "a", 1])


@pytest.mark.parametrize(
    ("text", "declared", "said"),
    [
        ("return KEYS[BOTS]", {}, "some.lua:1: expected a place of KEYS"),
        ("\nreturn row[BOTS]", {"tables": {"row": ROW}}, "some.lua:2: expected a place of row"),
        ("return MOST", {}, "expected a declared name, got MOST"),
        ("return KEYS[BOTS]", {"keys": "bots leases"}, r"expected KEYS\[LEASES\] in use"),
        ("return 1", {"constants": {"MOST": 3}}, "expected MOST in use"),
        ("local DEAD, USED = 3, 4\nreturn USED", {}, "expected DEAD in use"),
        ("local x = 1\n--[[ DEAD ]] return x", {}, r"some.lua:2: expected comments and strings that end .* got --\[\["),
        ("return 1 --[==[ x\n]==]", {}, "expected comments and strings that end with their line"),
        ("return [[\nKEYS[BOTS] ]]", {}, "expected comments and strings that end with their line"),
        ("return KEYS[BOTS]", {"keys": "bots", "constants": {"BOTS": 3}}, "declared once, got BOTS"),
        ("local leases, bots = unpack(KEYS)", {"keys": "bots leases"}, "expected bots, leases in this order"),
        ("local right, left = struct.unpack(PAIR_FORMAT, x)", {"tables": {"pair": PAIR}}, "expected left, right"),
        ("return struct.pack(PAIR_FORMAT, right, left)", {"tables": {"pair": PAIR}}, "expected left, right"),
        ("return struct.pack(PAIR_FORMAT, left)", {"tables": {"pair": PAIR}}, "expected left, right"),
        ("return struct.pack(LONE_FORMAT, left)", {"tables": {"pair": PAIR}}, r"expected a layout \(pair\)"),
    ],
)
def test_what_is_not_as_declared_is_refused_as_it_is_loaded(
    load: Any, text: str, declared: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        load(text, **declared)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("release({ leases }, { bot })", "expected bots in this order"),
        ("release({ bots }, { bot, bot })", "expected bot in this order"),
        ("f()", "expected a call of release, got none"),
    ],
)
def test_a_function_gets_what_its_file_declares(load: Any, call: str, said: str) -> None:
    release = load("return KEYS[BOTS] .. ARGV[BOT]", "release.lua", keys="bots", argv="bot")
    with pytest.raises(ValueError, match=said):
        load(f"return {call}", using=[release])


@pytest.mark.parametrize("named", [{"bots": "b"}, {"bots": "b", "life_s": 1, "leases": "l"}, {}])
def test_a_call_that_lacks_a_name_or_has_one_too_many_is_refused(load: Any, named: dict[str, Any]) -> None:
    script = load("return KEYS[BOTS] .. ARGV[LIFE_S]", keys="bots", argv="life_s")
    with pytest.raises(TypeError, match=r"some\.lua\(\) (missing|got an unexpected)"):
        script.call(**named)
    with pytest.raises(TypeError, match=r"some\.lua\(\) (missing|got an unexpected)"):
        script.arguments(**(named | {"kind": "k"}))


def test_a_call_in_two_steps_is_the_call(load: Any) -> None:
    text = "return { KEYS[BOTS], KEYS[INDEX] or '', ARGV[LIFE_S], ARGV[KIND], #ARGV - PAIRS }"
    script = load(text, keys="bots index?", argv="life_s kind pairs*")
    later = script.prepared("index kind pairs")(bots="b", life_s=5)
    for own in ({"index": None, "kind": "k", "pairs": [1, 2]}, {"index": "i", "kind": "l", "pairs": []}):
        assert later(**own) == script.call(bots="b", life_s=5, **own)
    with pytest.raises(TypeError, match=r"some\.lua\(\) missing .* 'pairs'"):
        later(index=None, kind="k")
    with pytest.raises(TypeError, match=r"some\.lua\(\) missing .* 'life_s'"):
        script.prepared("kind")(bots="b", index=None, pairs=[])
    with pytest.raises(ValueError, match=r"expected names of bots, .* got leases"):
        script.prepared("leases")


def test_a_name_with_a_mark_stands_last(load: Any) -> None:
    with pytest.raises(ValueError, match=r"behind the last one only, got \['names\*'\]"):
        load("return ARGV[COUNT]", argv="names* count")


def test_fields_are_packed_by_name_as_the_tuple_of_them_is() -> None:
    assert PAIR.packer(Pair)(right=2.0, left=1.0) == PAIR.pack(Pair(1.0, 2.0))
    with pytest.raises(TypeError, match=r"Pair\(\) missing .* 'right'"):
        PAIR.packer(Pair)(left=1.0)  # type: ignore[call-arg]


def test_a_last_key_may_be_left_out(load: Any) -> None:
    script = load("return KEYS[BOTS] .. (KEYS[INDEX] or '')", keys="bots index?")
    assert script.call(bots="b", index=None) == (["b"], [])
    assert script.call(bots="b", index="i") == (["b", "i"], [])


def test_what_a_script_declares_can_be_declared_again(load: Any) -> None:
    text = "return { KEYS[BOTS], KEYS[INDEX] or '', ARGV[LIFE_S], #ARGV - PAIRS }"
    script = load(text, keys="bots index?", argv="life_s pairs*")
    assert (script.keys, script.argv) == ("bots index?", "life_s pairs*")
    assert load(text, keys=script.keys, argv=script.argv) == script


def test_an_error_of_redis_names_file_and_line_of_every_part(load: Any, redis_url: str) -> None:
    above = load("-- one\n-- two\nlocal x = 1\n", "above.lua")
    inner = load("-- head\n\nreturn redis.call(ARGV[COMMAND])\n", "inner.lua", argv="command")
    outer = load(
        "-- head\nlocal command = ARGV[COMMAND]\nif command == '' then\n  return nil .. 'x'\nend\n"
        "return inner({}, { command })\n",
        "outer.lua", argv="command", using=[inner], behind=above,
    )  # fmt: skip
    with connect(redis_url) as client:
        with pytest.raises(redis.ResponseError, match=r"\bouter\.lua:4\b"):
            run_script(client, outer, *outer.call(command=""))
        with pytest.raises(redis.ResponseError, match=r"\binner\.lua:3\b"):
            run_script(client, outer, *outer.call(command="NO-SUCH-COMMAND"))

    async def work() -> None:
        store = Store(redis_url)
        try:
            await store.run(outer, *outer.call(command=""))
        finally:
            await store.close()

    with pytest.raises(StoreError, match=r"\bouter\.lua:4\b"):
        asyncio.run(work())
