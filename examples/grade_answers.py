"""Teach the fleet which answers are right. In this folder: `fleet up -d`, then `python grade_answers.py`."""

from fleet import grade, submit_task

# The right answer is known: the worker compares, and no model ever sees it.
sums = [submit_task.delay(f"What is {n} * 7?", pool="research", kind="sums", right=str(n * 7)) for n in range(1, 6)]
print([one.get(timeout=60)["answer"] for one in sums])

# It is known later, when somebody has looked.
late = submit_task.delay("Name a colour of the sky.", pool="research", kind="colours")
late.get(timeout=60)
grade(late.id, right=True)
print("graded: see `fleet bots show research-001`")
