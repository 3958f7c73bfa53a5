"""Ask equal tasks once. In this folder: `fleet up -d`, then `python caching.py`; `fleet cache` shows what it saved.

`fleet.toml` says that tasks of kind `classify` have one right answer, whichever bot is asked.
"""

from fleet import submit_many, submit_task

tickets = ["My parcel is late.", "The lamp is broken.", "My parcel is late.", "My parcel is late."]
asked = [{"prompt": f"Which team? {ticket}", "kind": "classify", "pool": "classifiers"} for ticket in tickets]
ids = list(submit_many(asked))
results = [submit_task.AsyncResult(task_id).get(timeout=60) for task_id in ids]

parcels = [results[number] for number in (0, 2, 3)]
print(len({result.answer for result in parcels}), "answer to three equal tasks")
print(sum(result.attempts for result in parcels), "call at most for them")

# A task may say that it is to be asked anew. Its answer is kept for the next one.
anew = submit_task.delay({**asked[0], "reuse": False}).get(timeout=60)
print("asked anew:", anew.served_by)
