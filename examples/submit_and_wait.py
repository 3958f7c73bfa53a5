"""Submit tasks and wait for their results. In this folder: `fleet up -d`, then `python submit_and_wait.py`."""

from fleet import submit_many, submit_task

# One task: `delay` returns at once, `get` waits for the typed result.
result = submit_task.delay("What is 6 * 7?", pool="research", priority="high").get(timeout=60)
print(result.answer, result.status, result.usage.total_tokens, "tokens")

# Many tasks: one round trip for 256 of them. An idempotency key makes it safe to run this twice.
prompts = [f"What is {number} + {number}?" for number in range(1, 6)]
ids = list(submit_many(prompts, idempotency_keys=[f"sums-{prompt}" for prompt in prompts]))
for task_id in ids:
    print(submit_task.AsyncResult(task_id).get(timeout=60).answer)
