"""Which findings are news to whoever is told of them by a message, and how the message reads. Pure.

A finding is told when it begins, when it grows worse, now and then while it lasts, and when it has been gone for
`OVER_AFTER_S`: one that comes and goes is one finding. What is not told, because too many messages were sent or because
nobody took it, stays news, and the attempts grow rare.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from fleet.frozen import Frozen
from fleet.quoting import clock, counted
from fleet.signals.diagnosis.finding import SEVERITIES, Diagnosis, Severity, is_of_many

#: Seconds for which a finding must be gone until it is told to be over.
OVER_AFTER_S = 60.0
#: Seconds over which messages are counted.
COUNTED_S = 3600.0
#: Seconds between two attempts of which the first failed: twice as many with each, and at most. After a first failure
#: the next look tries again.
PAUSE_S, MOST_PAUSE_S = 10.0, 600.0
#: Findings in one message at most (count); the others are counted.
MOST_LINES = 20

What = Literal["began", "worse", "lasts", "over"]
_WORDS: dict[What, str] = {"began": "", "worse": "WORSE NOW ", "lasts": "STILL ", "over": "OVER "}


class ToldAlert(Frozen):
    """A finding that was told, and is not over."""

    kind: str
    about: str
    severity: Severity
    sentence: str
    began_at: float = Field(description="Unix time in seconds at which it was told first.")
    told_at: float = Field(description="Unix time in seconds at which it was told last.")
    seen_at: float = Field(description="Unix time in seconds of the last look that found it.")


class AlertLog(Frozen):
    """What has been told."""

    told: tuple[ToldAlert, ...] = ()
    posts: tuple[float, ...] = Field((), description="Unix times of what may have arrived within the last hour.")
    failures: int = Field(0, description="Attempts in a row that failed.")
    next_try_at: float = Field(0.0, description="Unix time before which none is made.")


class News(Frozen):
    """One line of a message."""

    what: What
    kind: str
    about: str
    severity: Severity
    sentence: str
    command: str = Field("", description="A command that helps, or shows more.")
    began_at: float


class Announcement(Frozen):
    """What a look at the findings has to tell, and what is known after it."""

    news: tuple[News, ...] = Field(description="Empty: there is nothing to tell, or there may be no message now.")
    if_told: AlertLog
    if_not: AlertLog
    next_at: float | None = Field(None, description="Unix time of the next message, while there may be none.")


def look_for_news(
    found: Sequence[Diagnosis], log: AlertLog, *, lowest: Severity, repeat_s: float, most_per_hour: int, now_s: float
) -> Announcement:
    """Return what there is to tell.

    Args:
        found: What is wrong now.
        log: What has been told.
        lowest: The least severe that is told.
        repeat_s: Seconds after which a finding that lasts is told again.
        most_per_hour: Messages an hour at most.
        now_s: Unix time.
    """
    wanted: dict[tuple[str, str], Diagnosis] = {
        (one.kind, one.about): one for one in found if _rank(one.severity) <= _rank(lowest)
    }
    known = {(one.kind, one.about): one for one in log.told}
    posts = tuple(at for at in log.posts if at > now_s - COUNTED_S)
    news, after, before = list[News](), list[ToldAlert](), list[ToldAlert]()
    wide = {kind for kind, about in wanted if is_of_many(about)}
    ended_wide = {
        kind for (kind, about), last in known.items()
        if is_of_many(about) and (kind, about) not in wanted and now_s - last.seen_at >= OVER_AFTER_S
    }  # fmt: skip
    for key, one in wanted.items():
        last = known.get(key)
        seen = None if last is None else last.model_copy(update={"seen_at": now_s})
        what = _what(one, last, repeat_s, now_s) or ("lasts" if one.kind in ended_wide else None)
        if what is not None:
            news.append(_news(what, one, last, now_s))
        after.append(seen if seen is not None and what is None else _told(one, last, now_s))
        before += [seen] if seen is not None else []
    for key, last in known.items():
        if key in wanted:
            continue
        before.append(last)
        if key[0] in wide and not is_of_many(key[1]):  # one finding tells it with others now
            after.append(last.model_copy(update={"seen_at": now_s}))
        elif now_s - last.seen_at < OVER_AFTER_S:
            after.append(last)
        else:
            news.append(News(what="over", began_at=last.began_at, **last.model_dump(include=_SAME)))
    next_at = held_until(log, most_per_hour=most_per_hour, now_s=now_s)
    may_post = next_at is None
    return Announcement(
        news=tuple(news) if may_post else (),
        if_told=AlertLog(told=tuple(after), posts=(*posts, now_s) if news and may_post else posts),
        if_not=AlertLog(told=tuple(before), posts=posts, failures=log.failures, next_try_at=log.next_try_at),
        next_at=next_at,
    )


def held_until(log: AlertLog, *, most_per_hour: int, now_s: float) -> float | None:
    """Return the Unix time of the next attempt to send something; None: now."""
    posts = [at for at in log.posts if at > now_s - COUNTED_S]
    counted_at = posts[-most_per_hour] + COUNTED_S if len(posts) >= most_per_hour else 0.0
    at = max(counted_at, log.next_try_at)
    return at if at > now_s else None


def after_failure(log: AlertLog, *, may_have_arrived: bool, retry_after_s: float, now_s: float) -> AlertLog:
    """Return what is known after an attempt that failed.

    Args:
        log: Before it.
        may_have_arrived: Nobody has said that it did not: it counts as a message.
        retry_after_s: Seconds for which the other side asked to wait; at most an hour is waited.
        now_s: Unix time.
    """
    pause_s = min(MOST_PAUSE_S, PAUSE_S * 2.0 ** min(log.failures, 16)) if log.failures else 0.0
    return log.model_copy(update={
        "posts": (*log.posts, now_s) if may_have_arrived else log.posts,
        "failures": log.failures + 1,
        "next_try_at": now_s + max(pause_s, min(retry_after_s, COUNTED_S)),
    })  # fmt: skip


def told_in_text(
    look: Announcement, *, most_per_hour: int, link: str | None, now_s: float, is_marked_up: bool = False
) -> str:
    """Return news as people read them: one line each, with the command that helps.

    Args:
        look: The news.
        most_per_hour: Messages an hour at most.
        link: Ends it; None: nothing does.
        now_s: Unix time.
        is_marked_up: Who reads it takes `<...>` for a link or a call to everybody, as Slack does: it is escaped.
    """
    lines = [line for one in look.news[:MOST_LINES] for line in lines_of(one, now_s)]
    if len(look.news) > MOST_LINES:
        lines.append(f"and {counted(len(look.news) - MOST_LINES, 'more finding')}")
    if len(look.if_told.posts) >= most_per_hour:
        lines.append(
            f"This is message {most_per_hour:,} within the hour, so the next one comes at "
            f"{clock(look.if_told.posts[-most_per_hour] + COUNTED_S, now_s)} (alerts.most_per_hour)"
        )
    text = "\n".join(lines)
    return "\n".join([html.escape(text, quote=False) if is_marked_up else text, *([link] if link else [])])


#: Fields that news have from what was told.
_SAME = {"kind", "about", "severity", "sentence"}


def _rank(severity: Severity) -> int:
    return SEVERITIES.index(severity)


def _what(one: Diagnosis, last: ToldAlert | None, repeat_s: float, now_s: float) -> What | None:
    if last is None:
        return "began"
    if _rank(one.severity) < _rank(last.severity):
        return "worse"
    return "lasts" if now_s - last.told_at >= repeat_s else None


def _news(what: What, one: Diagnosis, last: ToldAlert | None, now_s: float) -> News:
    began_at = now_s if last is None else last.began_at
    return News(
        what=what, kind=one.kind, about=one.about, severity=one.severity, sentence=one.sentence,
        command=one.help.command, began_at=began_at,
    )  # fmt: skip


def _told(one: Diagnosis, last: ToldAlert | None, now_s: float) -> ToldAlert:
    return ToldAlert(
        kind=one.kind, about=one.about, severity=one.severity, sentence=one.sentence,
        began_at=now_s if last is None else last.began_at, told_at=now_s, seen_at=now_s,
    )  # fmt: skip


def lines_of(one: News, now_s: float) -> list[str]:
    """Return one piece of news as people read it."""
    if one.what == "over":
        return [f"OVER, told first at {clock(one.began_at, now_s)}: {one.sentence}"]
    helps = [f"    what helps: {one.command}"] if one.command else []
    return [f"{_WORDS[one.what]}{one.severity.upper()} {one.sentence}", *helps]
