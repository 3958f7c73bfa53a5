"""The user's own function that makes one answer of many: on a thread of its own, which may hang and hold no ask."""

from __future__ import annotations

import asyncio
import inspect
import threading
from typing import Any

from fleet.engine.asking.question import Aggregate
from fleet.errors import BotFunctionFailed
from fleet.models import BotResult
from fleet.quoting import duration


async def own_answer(function: Aggregate, name: str, given: list[BotResult], *, within_s: float) -> str:
    """Return what the user's function makes of the results with an answer.

    Args:
        function: The user's; it may be a coroutine function.
        name: As it is told.
        given: Results with an answer, in the order in which they came.
        within_s: Seconds that it may take.

    Raises:
        BotFunctionFailed: When it raises, returns no text, or takes too long.
    """
    try:
        async with asyncio.timeout(within_s):
            made = await _in_a_thread(function, given)
    except TimeoutError:
        raise BotFunctionFailed(
            f"aggregate {name}: expected an answer in the {duration(within_s)} that were left, got none"
        ) from None
    if not isinstance(made, str):
        raise BotFunctionFailed(
            f"aggregate {name}: expected it to return the answer as text, got {type(made).__name__}"
        )
    return made


async def _in_a_thread(function: Aggregate, given: list[BotResult]) -> Any:
    """Call it; a daemon's thread, for at its end a loop waits for those of its executor."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()

    def tell(made: Any, error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(made)
        else:
            done.set_exception(BotFunctionFailed(f"aggregate raised {type(error).__name__}: {error}"))

    def work() -> None:
        made, error = None, None
        try:
            made = function(given)
        except BaseException as raised:  # noqa: BLE001 - the user's code: whatever it raises is told
            error = raised
        if not loop.is_closed():
            loop.call_soon_threadsafe(tell, made, error)

    threading.Thread(target=work, daemon=True, name="fleet-aggregate").start()
    made = await done
    if not inspect.isawaitable(made):
        return made
    try:
        return await made
    except Exception as error:
        raise BotFunctionFailed(f"aggregate raised {type(error).__name__}: {error}") from error
