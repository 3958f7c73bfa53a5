"""What an error body says that a model refuses, in any wording and behind any proxy.

Pure text. Only what that very request carried can be refused by it. What becomes of it: `student.py` beside this.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

#: Fields that nothing can go without.
FIXED = frozenset({"model", "messages", "input", "system", "stream"})
#: Parts of a request that are the user's own and have no fields of the wire inside.
OPAQUE = frozenset({"messages", "input", "system", "schema", "parameters", "input_schema", "metadata"})
#: Fields that say how to sample: a number of theirs that is refused without naming a range is a field refused.
SAMPLING = frozenset({"temperature", "top_p", "top_k", "min_p", "frequency_penalty", "presence_penalty"})
#: Fields whose names are no everyday words.
DISTINCT = frozenset({"temperature", "logprobs", "verbosity"})
#: Those of them that have none inside at any depth.
USERS = OPAQUE - {"messages", "system"}
#: A mark that stands in blocks of a prompt, also in those that are the user's own.
MARK = "cache_control"
#: Levels of a body that are looked into, its strings that are read (count), and characters of each.
MOST_DEPTH, MOST_STRINGS, MOST_CHARS = 8, 64, 2000
#: Keys of error bodies under which servers quote the request.
ECHOES = frozenset(
    {"input", "input_value", "messages", "prompt", "content", "body", "request", "failed_generation", "ctx"}
)
#: Keys under which servers say which field they mean.
POINTERS = frozenset({"param", "parameter", "params", "field", "loc", "property", "argument"})


class Words(NamedTuple):
    """What an error body says: all its texts as one, the fields that it points at, and its numbers by name."""

    text: str
    pointed: tuple[str, ...]
    numbers: Mapping[str, int]


def read_words(raw: bytes) -> Words:
    """Return the words of an error body of any shape; what is no JSON is taken for text."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return Words(raw[:MOST_CHARS].decode("utf-8", "replace"), (), {})
    texts: list[str] = []
    pointed: list[str] = []
    numbers: dict[str, int] = {}
    for key, found in _walk(value):
        if type(found) is int:
            numbers.setdefault(key, found)
        elif isinstance(found, str) and len(texts) < MOST_STRINGS:
            (pointed if key in POINTERS else texts).append(found[:MOST_CHARS])
    return Words("\n".join(texts).replace("\\", ""), tuple(pointed), numbers)


def refused_in(words: Words, body: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what of a request its refusal names: fields, with dots into them, and `role:NAME`; often nothing.

    A value that is out of range is no refusal of its field, unless only the default is taken.

    Args:
        words: Of the error.
        body: The request, as it was sent.
    """
    sentences = [_without_condition(sentence) for sentence in _SENTENCES.split(words.text)]
    if role := _refused_role(sentences, words, _roles(body)):
        return (role,)
    found = {*_paths(body), *((MARK,) if has_field(body, MARK) else ())}
    paths = tuple(sorted(found, key=lambda path: (-len(path), path)))
    if pair := next(filter(None, (_excluding(sentence, paths) for sentence in sentences)), ""):
        return (pair,)
    named = [name for sentence in sentences for name in _refused_fields(sentence, words.text, paths)]
    if not named and any(_is_refusal(sentence, words.text, "") for sentence in sentences):
        named = [path for pointer in words.pointed for path in _named(_plain(pointer), paths, is_marked=True)]
    return tuple(dict.fromkeys(named))


def _walk(value: object, key: str = "", depth: int = 0) -> Iterator[tuple[str, object]]:
    """Yield key and value of all strings and numbers; the parts of a `loc` come as one string."""
    if depth > MOST_DEPTH:
        return
    if isinstance(value, dict):
        for name, inside in value.items():
            if name not in ECHOES:
                yield from _walk(inside, str(name), depth + 1)
    elif isinstance(value, list):
        if key in POINTERS and all(isinstance(part, str | int) for part in value):
            yield key, ".".join(map(str, value)) if key == "loc" else ", ".join(map(str, value))
        else:
            for inside in value[:MOST_STRINGS]:
                yield from _walk(inside, key, depth + 1)
    else:
        yield key, value


def has_field(value: object, name: str) -> bool:
    """True when a field of the wire has this name, at any depth."""
    if isinstance(value, list):
        return any(has_field(item, name) for item in value)
    return isinstance(value, Mapping) and (
        name in value or any(key not in USERS and has_field(item, name) for key, item in value.items())
    )


def _paths(value: object, head: str = "") -> Iterator[str]:
    """Yield the fields of a request that it could go without, with dots into objects and none for places in lists."""
    if isinstance(value, list):
        for inside in value[:MOST_STRINGS]:
            yield from _paths(inside, head)
    elif isinstance(value, Mapping) and head.count(".") < 3:
        for name, inside in value.items():
            if name == MARK:
                continue
            path = f"{head}.{name}" if head else str(name)
            if path not in FIXED:
                yield path
            if name not in OPAQUE:
                yield from _paths(inside, path)


def _roles(body: Mapping[str, Any]) -> frozenset[str]:
    messages = body.get("messages")
    turns = messages if isinstance(messages, list) else ()
    roles = {str(turn.get("role")) for turn in turns if isinstance(turn, Mapping)}
    return frozenset(roles | ({"system"} if body.get("system") else set()))


_SENTENCES = re.compile(r"(?<=[.;!?])\s+|\n(?!\s)")
_CONDITION = re.compile(r"^\W*(?:when|if|while|with|since|because|unless|for|to)\b[^,]{0,200},", re.IGNORECASE)
_CLAUSE = re.compile(r"\b(?:when|if|while|unless|instead|because|since|use|for model|try|expected)\b", re.IGNORECASE)
_DONE = r"(?:support|permit|allow|accept|recogni[sz]e|implement|understand|compatible|applicable|available|enabled)\w*"
_MORE = r"\s*(?:or|to|and|-|–)"
_ONLY_DEFAULT_TEXT = (
    r"\bonly\b[^.;]{0,60}\bdefault\b|\bdefault\b[^.;]{0,40}\bonly\b|other than (?:the |its )?(?:default|\d)"
    r"|\bonly\s+(?:\w+\s*=\s*|(?:the|a) value (?:of )?)?['\"`]?\d+(?:\.\d+)?['\"`]?\s*(?:\([^)]*\)\s*)?(?:is|are)\s+"
    r"(?:supported|allowed|accepted|permitted|valid)|\bmay only be (?:set to )?\d"
    rf"|\bonly (?:support|allow|accept|take)s? (?:a |the )?\w+(?: value)?\s*(?:=|of|is)?\s*1(?:\.0+)?\b(?!{_MORE})"
    r"|\bcan only be (?:set to )?(?:1|the default)"
    r"|must be (?:set to |equal to |exactly |left )?"
    rf"(?:the default|unset|default|1(?:\.0+)?(?![\d.]*\d)(?!{_MORE}))"
    r"|(?:must|should) be (?:omitted|removed|absent)"
)
_REFUSAL = re.compile(
    r"\b(?:neither|unsupported|unrecogni[sz]ed|disallowed|deprecated|incompatible|forbidden)"
    r"|\b(?:unknown|unexpected|invalid|extra)\s+(?:request\s+)?(?:json\s+)?"
    r"(?:name|field|param|argument|propert|key|keyword|body param|inputs?\b)\w*"
    r"|\b(?:is|are|was|were)\s+(?:unexpected|unknown|removed)\b"
    r"|\b(?:no|has no) (?:such )?(?:field|param|argument)\w*"
    r"|\bno (?:endpoints?|providers?|models?) found that (?:support|can handle)"
    r"|(?:\bnot|n['’]t|\bcannot|\bno longer|\bnever|\black\w*|\bwithout)\b(?:\W+\w+){0,3}?\W+" + _DONE +
    r"|\bnot an? (?:valid |known |recogni[sz]ed )?(?:param|field|argument|propert|option)\w*"
    r"|(?:\bcannot|can['’]t|\bcan not|must not|mustn['’]t|should not|may not)\s+be\s+"
    r"(?:set|specified|provided|present|used|configured|passed|given|combined|included)"
    r"|" + _ONLY_DEFAULT_TEXT,
    re.IGNORECASE,
)  # fmt: skip
_UNKNOWN = re.compile(r"\b(?:unknown|unrecogni[sz]ed|extra)\b", re.IGNORECASE)
_ONLY_DEFAULT = re.compile(_ONLY_DEFAULT_TEXT, re.IGNORECASE)
_VALUE = re.compile(
    r"unsupported value|invalid value|\bvalues?\b|support\w*(?:\W+\w+){0,2}?\s*[=\s]\s*['\"`]?-?\d"
    r"|cannot be ['\"`]?-?\d"
    r"|does(?:n['’]t| not) support ['\"`]|\w=['\"`]\w",
    re.IGNORECASE,
)
_RANGE = re.compile(
    r"<=|>=|\b(?:less|greater|larger|smaller|higher|lower|more|bigger) than|\bat (?:most|least)\b|\bbetween\b|\brange\b"
    r"|\bexceed|\btoo (?:large|big|small|high|low|long|many)|\bup to\b|\b(?:max|min)imum\b|\b(?:above|below)\b"
    r"|\b(?:supported|valid|allowed|accepted|permitted) (?:values|options)|\bone of\b|\bexpected\b",
    re.IGNORECASE,
)
_TOGETHER = re.compile(
    r"\bboth\b|\btogether\b|\bat the same time\b|\bsimultaneously\b|\bexclusive\b|\bonly one of\b|\beither\b.*\bor\b",
    re.IGNORECASE,
)
_MARKS = "'\"`[({“‘"
_MARKED_BEFORE = re.compile(
    r"(?:(?:param|argument|field|propert|key|keyword|name|input|option)\w*(?:\s+supplied|\(s\))?"
    r"|supplied|support\w*(?: for)?"
    r"|allow\w*|accept\w*|use|using)\W{0,3}$", re.IGNORECASE,
)  # fmt: skip
_MARKED_AFTER = re.compile(r"^(?:['\"`\])}”’:=]|\s+(?:param|argument|field|propert|option)|\s*$)", re.IGNORECASE)
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_ALL_SAMPLING = re.compile(r"\bsampling (?:param|setting|option)", re.IGNORECASE)


def _without_condition(sentence: str) -> str:
    """Cut off what a sentence begins with that says when it holds."""
    return _CONDITION.sub("", sentence)


def _refused_fields(sentence: str, text: str, paths: tuple[str, ...]) -> list[str]:
    """Return the fields that one sentence refuses: those before the words of refusal, else those behind."""
    found = _REFUSAL.search(sentence)
    if found is None:
        return []
    rest = sentence[found.end() :]
    clause = _CLAUSE.search(rest)
    behind = rest[: clause.start()] if clause else rest
    names = _named(sentence[: found.start()], paths) or _named(f"{found.group()}{behind}", paths)
    if _ALL_SAMPLING.search(sentence):
        names += [path for path in paths if path in SAMPLING]
    return [name for name in names if _is_refusal(sentence, text, name)]


def _excluding(sentence: str, paths: tuple[str, ...]) -> str:
    """Return two fields, a plus between them, that a sentence says exclude each other."""
    if not (
        _TOGETHER.search(sentence) and re.search(r"\b(?:cannot|can|not|only|either|never|exclusive)\b|n['’]t", sentence)
    ):
        return ""
    names = sorted(set(_named(sentence, paths)))
    return "+".join(names) if len(names) == 2 else ""


def _is_refusal(sentence: str, text: str, name: str) -> bool:
    """True unless it is a value that is refused, and others would be taken."""
    if not _REFUSAL.search(sentence):
        return False
    if _ONLY_DEFAULT.search(text):
        return True
    if _UNKNOWN.search(sentence):
        return True
    if _VALUE.search(sentence):
        return name in SAMPLING and not _RANGE.search(text)
    return not _RANGE.search(sentence)


def _named(text: str, paths: tuple[str, ...], *, is_marked: bool = False) -> list[str]:
    """Return the fields that a text names, in its order. Everyday words count only where they are marked as names."""
    if not paths:
        return []
    named, plain = [], _plain(text)
    for found in _pattern(paths).finditer(plain):
        path = paths[int(found.lastgroup[1:])] if found.lastgroup else ""
        is_name = "_" in path or "." in path or path in DISTINCT or _HUMP.search(found.group())
        if is_marked or is_name or _is_marked(plain, found):
            named.append(path)
    return named


def _is_marked(text: str, found: re.Match[str]) -> bool:
    before, after = text[: found.start()], text[found.end() :]
    return (before[-1:] != "" and before[-1:] in _MARKS) or bool(
        _MARKED_BEFORE.search(before) or (_MARKED_AFTER.search(after) and not before.strip(" -\n"))
        or re.match(r"\s*[:=]", after)
    )  # fmt: skip


def _plain(text: str) -> str:
    """Return a text without places in lists: `tools[0].strict` and `tools.0.strict` become `tools.strict`."""
    return re.sub(r"\[\d+\](?=\.)|\.\d+(?=\.)", "", text)


@lru_cache(maxsize=64)
def _pattern(paths: tuple[str, ...]) -> re.Pattern[str]:
    """Return what finds these names, longest first, spelt with underscores, spaces, hyphens or humps."""
    spelt = (r"[_\s-]?".join(map(re.escape, _HUMP.sub("_", path).split("_"))) for path in paths)
    parts = (f"(?P<p{i}>{name})" for i, name in enumerate(spelt))
    return re.compile(rf"(?<![A-Za-z0-9_])(?:{'|'.join(parts)})(?![A-Za-z0-9_])", re.IGNORECASE)


_ROLES_TAKEN = re.compile(
    r"\b(?:one of|expected|should be|must be|only|are|supported roles?:?|allowed)\b(?P<roles>[^.]*\buser\b[^.]*)",
    re.IGNORECASE,
)
_BAD_ROLE = re.compile(
    r"\b(?:unexpected|invalid|unknown|unsupported|incorrect|unrecogni[sz]ed|bad)\s+(?:message\s+)?role", re.IGNORECASE
)
_USER_FIRST = re.compile(
    r"roles must alternate|(?:must|should) (?:start|begin) with (?:a |an )?['\"`]?user|first message must\b[^.]*\buser",
    re.IGNORECASE,
)
_NOT = re.compile(
    r"\bnot\b|n['’]t\b|\bno\b|\bonly\b|\bmust\b|\bshould\b|\bexpected\b|\bun\w+|\binvalid\b|\bbad\b", re.IGNORECASE
)


def _refused_role(sentences: Iterable[str], words: Words, roles: frozenset[str]) -> str:
    """Return `role:NAME` of the role of instructions that is refused, or nothing."""
    told = list(sentences)
    for role in ("developer", "system"):
        if role in roles and any(_refuses_role(sentence, role) for sentence in told):
            return f"role:{role}"
    sent = next((role for role in ("developer", "system") if role in roles), "")
    at_role = "system" in words.pointed and any(_REFUSAL.search(sentence) for sentence in told)
    unnamed = any(
        _USER_FIRST.search(sentence)
        or (_BAD_ROLE.search(sentence) and not re.search(r"\b(?:user|assistant|tool|function)\b", sentence))
        for sentence in told
    )
    return f"role:{sent}" if sent and (unnamed or at_role) else ""


def _refuses_role(sentence: str, role: str) -> bool:
    taken = _ROLES_TAKEN.search(sentence)
    mention = re.search(rf"\b{role}\b", sentence, re.IGNORECASE)
    if taken and _NOT.search(sentence) and re.search(r"\b(?:assistant|roles?)\b", sentence, re.IGNORECASE):
        is_taken = re.search(rf"\b{role}\b", taken["roles"], re.IGNORECASE) is not None
        return not is_taken or bool(mention and mention.start() < taken.start("roles") and not is_taken)
    if re.search(rf"\brole\W+(?:can ?not|can['’]t|must not|may not|should not) be\W+{role}\b", sentence, re.IGNORECASE):
        return True
    if mention is None or not (_REFUSAL.search(sentence) or _BAD_ROLE.search(sentence)):
        return False
    near = rf"\b{role}\b\W{{0,3}}(?:\w+\W+){{0,2}}?(?:roles?|messages?|instructions?|prompts?|turns?)\b"
    far = rf"\b(?:roles?|variant|messages?)\b(?:\W+\w+){{0,6}}?\W+{role}\b"
    return bool(
        re.search(f"{near}|{far}", sentence, re.IGNORECASE) or re.match(rf"\W*(?:body\W+)?{role}\W*:", sentence)
    )
