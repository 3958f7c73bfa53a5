"""Two tools over the texts in `corpus/`: what the agents beside it may call."""

from pathlib import Path

TEXTS = {
    path.stem: path.read_text(encoding="utf-8") for path in sorted((Path(__file__).parent / "corpus").glob("*.md"))
}
#: Passages that a search returns at most.
MOST_PASSAGES = 3


def search(words: str) -> str:
    """Return the passages that hold most of these words, each after the name of its text."""
    wanted = set(words.lower().split())
    passages = [(name, passage) for name, text in TEXTS.items() for passage in text.split("\n\n")]
    ranked = sorted(passages, key=lambda one: -len(wanted & set(one[1].lower().split())))
    found = [f"{name}: {passage}" for name, passage in ranked if wanted & set(passage.lower().split())]
    return "\n\n".join(found[:MOST_PASSAGES]) or f"nothing found; there are texts called {', '.join(TEXTS)}"


def read(name: str) -> str:
    """Return a whole text by its name."""
    return TEXTS.get(name) or f"no such text; there are {', '.join(TEXTS)}"
