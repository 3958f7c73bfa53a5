"""How long a prompt has to begin alike for a provider to cache it, by model. No I/O, no settings.

The vendors' own figures, of November 2026. Anthropic's differ by model and are not in the order of their releases:
https://platform.claude.com/docs/en/build-with-claude/prompt-caching#cache-limitations
"""

from __future__ import annotations

import re

#: Tokens below which OpenAI, and most of Anthropic's models, cache nothing.
USUAL = 1024
#: Parts of names of Anthropic's models, and their tokens; the first that fits holds.
_BY_NAME = (
    (re.compile(r"(opus|fable|mythos)-5"), 512),
    (re.compile(r"haiku-4-5|opus-4-[567]"), 4096),
    (re.compile(r"sonnet-4-6|haiku"), 2048),
)


def least_cached_tokens(model: str) -> int:
    """Return the tokens below which a model's provider caches no beginning of a prompt.

    Args:
        model: As the provider, or one that sells it on, spells it: `claude-haiku-4-5`, `anthropic.claude-opus-4-6-v1`.
    """
    name = model.lower().replace(".", "-")
    if "claude" not in name:
        return USUAL
    return next((tokens for pattern, tokens in _BY_NAME if pattern.search(name)), USUAL)
