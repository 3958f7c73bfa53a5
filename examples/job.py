"""Many tasks with one end. In this folder: `fleet up -d`, then `python job.py`; stop it half way and run it again."""

from collections.abc import Iterator

from fleet import submit_job, submit_task


def sums() -> Iterator[dict[str, str]]:
    for number in range(1, 101):
        yield {"prompt": f"What is {number} + {number}?", "pool": "research"}


job = submit_job(sums(), key="sums", then={"prompt": "What is 6 * 7?", "pool": "research"})
total = 0
for result in job:  # in the order in which they end
    total += int(result.answer or 0)
print(job.state.word, job.state.ok, "of", job.state.total, "sum", total)
print(submit_task.AsyncResult(job.then_id).get(timeout=60).answer)
