"""Lessons applied: a finished request body without what its model refuses, and what of it was not Fleet's own idea.

The same for every wire: fields are dropped or renamed, roles folded. What a refusal looks like: `refusals.py`; what
is known: `fleet/lessons.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from fleet.errors import BadRequest, ContextTooLong, FleetError, KeyRejected, RateLimited, Relearnt
from fleet.lessons import UNSENT
from fleet.quoting import quote
from fleet.workers.calls import CONTEXT_FULL, PLAIN, Call, Completion, Wishes
from fleet.workers.load import sent_tokens
from fleet.workers.ports import Lessons
from fleet.workers.providers.taught.overflow import FULL_REASONS, overflow_in
from fleet.workers.providers.taught.refusals import MARK, USERS, Words, has_field, read_words, refused_in

#: Two names of one field, each standing in for the other: it is renamed, never dropped.
RENAMED = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
#: What a role of instructions becomes where it is refused; nothing: its text goes before the first user's turn.
ROLES = {"role:developer": "system", "role:system": ""}
#: Stands between two fields that a model does not take together.
TOGETHER = "+"
#: Fleet's names of what the wires call otherwise.
SPELT: dict[str, tuple[str, ...]] = {
    "reasoning_effort": ("effort",), "reasoning": ("effort",), "output_config.effort": ("effort",),
    "output_config": ("effort", "verbosity"), "thinking": ("thinking_tokens", "effort"), "service_tier": ("tier",),
    "stop_sequences": ("stop",), "functions": ("tools",), "function_call": ("tool_choice",),
    "topP": ("top_p",), "p": ("top_p",), "random_seed": ("seed",), "stopSequences": ("stop",), "serviceTier": ("tier",),
    "thinkingConfig": ("thinking_tokens", "effort"), "thinkingBudget": ("thinking_tokens",),
    "thinking_budget": ("thinking_tokens",), "budget_tokens": ("thinking_tokens",), "thinkingLevel": ("effort",),
}  # fmt: skip
#: Fields that are never left out: the limit of an answer, by whatever name, and its form, which has a way of its own
#: (`wire_schema.Forms`).
KEPT = frozenset({
    "max_tokens", "max_completion_tokens", "max_output_tokens", "response_format", "output_config.format",
})  # fmt: skip


#: Statuses whose words may be a refusal. Some servers fail with a 500 where a template refuses a role.
REFUSING = frozenset({400, 404, 405, 413, 415, 422, 500, 501})
#: Largest error body that is read for refusals, in bytes.
MOST_BYTES = 64 * 1024
#: Seconds within which two refusals that contradict each other are the same one: a model that takes neither name.
SAME_REFUSAL_S = 60.0


class Student:
    """One call's dealings with lessons: applied to its body, learnt from its error, confirmed by its answer.

    Args:
        lessons: What is known.
        api: `provider/model`.
        call: What is asked, and what of it Fleet chose itself.
    """

    __slots__ = ("_api", "_body", "_call", "_left_out", "_lessons", "_probed", "_sent")

    def __init__(self, lessons: Lessons, api: str, call: Call) -> None:
        self._lessons = lessons
        self._api = api
        self._call = call
        self._left_out: tuple[str, ...] = ()
        self._probed: list[str] = []
        self._body: dict[str, Any] = {}
        self._sent: dict[str, Any] = {}

    def prepared(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the body to be sent: without what the model refuses, but for what is to be tried once more."""
        self._body = self._sent = body
        if refused := self._lessons.refused(self._api):
            self._probed = [
                what for what in refused if carries(body, what) and self._lessons.may_probe(self._api, what)
            ]
            self._sent, self._left_out = self._shaped(refused.difference(self._probed))
        return self._sent

    def passed(self, completion: Completion, raw: bytes) -> Completion:
        """Return the answer, naming what was left out; what was tried once more and was taken is forgotten.

        An answer without a text because the prompt has left no room for one has the finish reason `CONTEXT_FULL`.
        """
        for what in self._probed:
            self._lessons.forget(self._api, what)
        if not completion.text and not completion.tool_calls and any(reason in raw for reason in FULL_REASONS):
            completion = replace(completion, finish_reason=CONTEXT_FULL)
        if self._left_out:
            completion = replace(completion, left_out=(*dict.fromkeys((*completion.left_out, *self._left_out)),))
        return completion

    def taught(self, error: FleetError, status: int, raw: bytes) -> FleetError:
        """Return what a failed call comes to.

        Args:
            error: As its status means.
            status: Of the answer.
            raw: Its body.

        Returns:
            `Relearnt` when it carried what the model refuses and the next one won't; `ContextTooLong`; `BadRequest`
            that names what the task asked for; else the error itself.
        """
        hides = 200 <= status < 300 and error.usage is not None
        if (
            isinstance(error, KeyRejected | RateLimited | Relearnt)
            or not (status in REFUSING or hides)
            or len(raw) > MOST_BYTES
        ):
            return error
        taught = self._read(error, read_words(raw))
        taught.usage = error.usage
        return taught

    def _read(self, error: FleetError, words: Words) -> FleetError:
        if (overflow := overflow_in(words)) is not None:
            estimated = sent_tokens(self._call.messages, self._call.wishes)
            true = overflow.true_input(estimated, self._call.max_output_tokens)
            return ContextTooLong(str(error), window_tokens=overflow.window_tokens, true_input_tokens=true)
        refused = [what for what in refused_in(words, self._sent) if self._learn(what)]
        if not refused:
            return error
        wishes = self._call.wishes
        named = "" if wishes.drop_params else ", ".join(map(quote, asked_for(refused, wishes)))
        if named:
            told = f"{error}: the model refuses {named}: leave it out, or set `drop_params`"
            return BadRequest(told, blame="prompt")
        after, _ = self._shaped(self._lessons.refused(self._api))
        if after == self._sent:
            return error  # nothing would change
        return Relearnt(f"{error}: later calls leave out {', '.join(map(quote, refused))}")

    def _learn(self, what: str) -> bool:
        """Note what is refused; False when both names of a field are, within seconds: then neither is taken."""
        other = RENAMED.get(what)
        if other is not None and (age_s := self._lessons.age_s(self._api, other)) is not None:
            if age_s < SAME_REFUSAL_S:
                return False
            self._lessons.forget(self._api, other)
        self._lessons.learn(self._api, what)
        return True

    def _shaped(self, refused: Collection[str]) -> Shaped:
        return shaped(self._body, refused, self._call.wishes)


class Shaped(NamedTuple):
    """A request's body as its model takes it, and the fields that are not in it any more."""

    body: dict[str, Any]
    left_out: tuple[str, ...]


def shaped(body: dict[str, Any], refused: Collection[str], wishes: Wishes = PLAIN) -> Shaped:
    """Return a body without what its model refuses; the one that is given stays as it is.

    Args:
        body: As an adapter made it.
        refused: What the model is known to refuse (`fleet.lessons.Lesson.what`).
        wishes: What the task asked for stays, so that the provider refuses it in its own words, unless `drop_params`.
    """
    left_out: list[str] = []
    for what in sorted(refused):
        if what in RENAMED:
            body = _renamed(body, what)
        elif what in ROLES:
            body = _without_role(body, what.removeprefix("role:"), ROLES[what])
        elif what == MARK and (wishes.drop_params or not is_asked(what, wishes)):
            if has_field(body, MARK):
                body = _unmarked(body)
                left_out.append(MARK)
        elif (field := _to_go(body, what, wishes)) and (wishes.drop_params or not is_asked(field, wishes)):
            body = without(body, field.split("."))
            left_out.append(name_of(field, wishes))
    return Shaped(body, tuple(left_out))


def asked_for(refused: Iterable[str], wishes: Wishes) -> tuple[str, ...]:
    """Return those of the refused fields that a task asked for."""
    whats = (what for what in refused if what not in RENAMED and what not in ROLES)
    return tuple(what for what in whats if all(is_asked(field, wishes) for field in what.split(TOGETHER)))


def asked_of(left_out: Iterable[str], wishes: Wishes) -> list[str]:
    """Return those of the names in `Completion.left_out` that a task asked for; marks of its prompt are its own."""
    return [name for name in left_out if name == MARK or is_asked(name, wishes)]


def is_asked(field: str, wishes: Wishes) -> bool:
    """True when a task itself asked for what a field is, or the object it stands in."""
    names = names_of(field)
    in_extra = "extra_body" in wishes.asked and names[0] in wishes.extra_body
    return in_extra or any(name in wishes.asked for name in names)


def name_of(field: str, wishes: Wishes) -> str:
    """Return Fleet's name of a field of either wire; what has none keeps its own."""
    names = SPELT.get(field) or (field,)
    return next((name for name in names if name in wishes.asked), names[0])


def names_of(field: str) -> tuple[str, ...]:
    """Return what a field of either wire, or the object it stands in, goes by in tasks and pools."""
    head = field.removeprefix(UNSENT).split(".")[0]
    return SPELT.get(field) or SPELT.get(head) or (head,)


def carries(body: Mapping[str, Any], what: str) -> bool:
    """True when a request has what a lesson is about."""
    if what in ROLES:
        role = what.removeprefix("role:")
        return bool(role == "system" and body.get("system")) or any(turn.get("role") == role for turn in _turns(body))
    if what == MARK:
        return has_field(body, MARK)
    return all(_has(body, field.split(".")) for field in what.split(TOGETHER))


def _to_go(body: Mapping[str, Any], what: str, wishes: Wishes) -> str:
    """Return the field that a lesson takes away from this request; of two that exclude each other what none asked."""
    if not carries(body, what):
        return ""
    fields = [field for field in what.split(TOGETHER) if field not in KEPT]
    return next((field for field in reversed(fields) if not is_asked(field, wishes)), fields[-1] if fields else "")


def without(value: Any, path: list[str]) -> Any:
    """Return a value without the field at `path`, in every item of the lists on the way; what gets empty goes too."""
    if isinstance(value, list):
        return [without(item, path) for item in value]
    if not isinstance(value, dict) or path[0] not in value:
        return value
    rest = {name: item for name, item in value.items() if name != path[0]}
    if len(path) > 1 and (inside := without(value[path[0]], path[1:])) not in ({}, []):
        return {name: inside if name == path[0] else item for name, item in value.items()}
    return rest


def _unmarked(value: Any) -> Any:
    """Return a value without the marks in it."""
    if isinstance(value, list):
        return [_unmarked(item) for item in value]
    if isinstance(value, dict):
        return {k: item if k in USERS else _unmarked(item) for k, item in value.items() if k != MARK}
    return value


def _has(value: Any, path: list[str]) -> bool:
    if not path:
        return True
    if isinstance(value, list):
        return any(_has(item, path) for item in value)
    return isinstance(value, Mapping) and path[0] in value and _has(value[path[0]], path[1:])


def _renamed(body: dict[str, Any], name: str) -> dict[str, Any]:
    other = RENAMED[name]
    if name not in body or other in body:
        return body
    return {other if field == name else field: value for field, value in body.items()}


def _turns(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    turns = body.get("messages")
    return [turn for turn in turns if isinstance(turn, dict)] if isinstance(turns, list) else []


def _without_role(body: dict[str, Any], role: str, other: str) -> dict[str, Any]:
    """Return a body whose messages of a role have another one, or stand before the first user's turn."""
    turns = _turns(body)
    if other:
        changed = [{**turn, "role": other} if turn.get("role") == role else turn for turn in turns]
        return {**body, "messages": changed}
    texts = [
        text
        for text in [_text(body.get("system")), *(_text(t.get("content")) for t in turns if t.get("role") == role)]
        if text
    ]
    rest = [turn for turn in turns if turn.get("role") != role]
    if not texts:
        return body
    folded = {name: value for name, value in body.items() if name != "system"}
    return {**folded, "messages": _before_user("\n\n".join(texts), rest)}


def _before_user(told: str, turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the turns with a text before what the user says first; a turn of its own when the user isn't first."""
    if not turns or turns[0].get("role") != "user":
        return [{"role": "user", "content": told}, *turns]
    content = turns[0].get("content")
    if isinstance(content, list):
        return [{**turns[0], "content": [{"type": "text", "text": told}, *content]}, *turns[1:]]
    return [{**turns[0], "content": f"{told}\n\n{content}" if content else told}, *turns[1:]]


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else ()
    return "\n\n".join(str(part.get("text") or "") for part in parts if isinstance(part, dict))
