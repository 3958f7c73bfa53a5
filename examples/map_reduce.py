"""A long document, read in passages by many bots at once, then summed up by one. In this folder: `fleet up -d`, then
`python map_reduce.py FILE...` (or without FILE).

The passages are the tasks of a job (map). The task that follows the job reads their notes and makes one text of them
(reduce): `fleet.toml` has it done by `function = "map_reduce:sum_up"`. It may be stopped half way and run again.
"""

import asyncio
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

#: Characters of a passage, and of the notes that one call sums up, at most.
PASSAGE, AT_ONCE = 300, 1200


def passages(text: str) -> Iterator[str]:
    """Cut a text between paragraphs; a paragraph that is too long is cut where it must be."""
    passage = ""
    for paragraph in text.split("\n\n"):
        if passage and len(passage) + len(paragraph) > PASSAGE:
            yield passage
            passage = ""
        passage = f"{passage}\n\n{paragraph}".strip()
        while len(passage) > PASSAGE:
            yield passage[:PASSAGE]
            passage = passage[PASSAGE:]
    if passage:
        yield passage


async def sum_up(task, bot):
    """Make one text of the notes of a job, in the order of its passages; of many notes first a few texts."""
    from fleet import find_job

    job = find_job(task.metadata["job"])
    notes = {job.position(result.task_id): result.answer async for result in job if result.answer}
    texts = [notes[place] for place in sorted(notes)]
    while sum(map(len, texts)) > AT_ONCE and len(texts) > 1:
        groups = ["\n\n".join(texts[start : start + 4]) for start in range(0, len(texts), 4)]
        texts = await asyncio.gather(*(bot.chat(f"Sum up these notes:\n\n{group}") for group in groups))
    return await bot.chat(f"{task.prompt}\n\nNotes on its passages, in order:\n\n" + "\n\n".join(texts))


if __name__ == "__main__":
    from fleet import submit_job, submit_task

    files = [Path(name) for name in sys.argv[1:]] or sorted(Path("agents/corpus").glob("*.md"))
    document = "\n\n".join(file.read_text() for file in files)
    job = submit_job(
        ({"prompt": f"Note what matters in this passage:\n\n{one}", "pool": "research"} for one in passages(document)),
        key=f"document {hashlib.sha256(document.encode()).hexdigest()[:16]}",  # the same document is the same job
        then={"prompt": "What does this document say, in five sentences?", "pool": "editors", "kind": "summary"},
    )
    result = submit_task.AsyncResult(job.then_id).get(timeout=600)
    state = job.state
    print(f"{state.total} passages, {state.ok} notes, {result.status} after {result.attempts} calls by {result.bot}")
    print(result.answer)
