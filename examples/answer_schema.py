"""Ask for JSON that fits a schema. In this folder: `fleet up -d`, then `python answer_schema.py`.

An answer that does not fit is repaired once; one that still does not fit is a failed result. A pydantic model class
works as well as a JSON schema.
"""

import json

from fleet import submit_task

SCHEMA = {"type": "integer", "minimum": 0}

result = submit_task.delay("What is 6 * 7?", pool="research", answer_schema=SCHEMA).get(timeout=60)
print(json.loads(result.answer) + 1)

# The simulator has nothing but prose to say here, so this one cannot be repaired.
result = submit_task.delay("Describe the sea.", pool="research", answer_schema=SCHEMA).get(timeout=60)
print(result.status, result.error.type)
