"""Ask for JSON that fits a schema. In this folder: `fleet up -d`, then `python answer_schema.py`.

The provider is asked for it by its wire, or by the prompt where the model takes no schema. An answer that does not fit
is repaired once; one that still does not fit is a failed result. A pydantic model class works as well as a JSON schema.
"""

import json

from pydantic import BaseModel

from fleet import submit_task


class Sea(BaseModel):
    """What is wanted of the second task."""

    name: str
    depth_m: int


result = submit_task.delay("What is 6 * 7?", pool="research", answer_schema={"type": "integer"}).get(timeout=60)
print(json.loads(result.answer) + 1)

result = submit_task.delay("Describe a sea.", pool="research", answer_schema=Sea).get(timeout=60)
print(result.status, sorted(Sea.model_validate_json(result.answer).model_dump()))
