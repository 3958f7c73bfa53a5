"""What `test_google_sdk.py` runs in an environment of its own: the google-genai SDK of today against a simulator.

Usage: `python google_program.py URL URL_OF_A_BUSY_ONE`. Prints one JSON object.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from google import genai
from google.genai import errors, types

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
WEATHER = types.FunctionDeclaration(
    name="get_weather",
    parameters_json_schema={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)


def client_of(url: str) -> genai.Client:
    options = types.HttpOptions(base_url=url, retry_options=types.HttpRetryOptions(attempts=1))
    return genai.Client(api_key="test-key", vertexai=False, http_options=options)


def tokens(answer: types.GenerateContentResponse) -> list[int]:
    told = answer.usage_metadata
    assert told is not None
    return [told.prompt_token_count or 0, (told.candidates_token_count or 0) + (told.thoughts_token_count or 0)]


def converse(client: genai.Client) -> dict[str, Any]:
    ask, more = client.models.generate_content, types.GenerateContentConfig
    tool = more(tools=[types.Tool(function_declarations=[WEATHER])])
    plain = ask(model="m", contents="What is 2+2?", config=more(system_instruction="Be brief.", temperature=0.5))
    formed = ask(
        model="m", contents="Pick a number",
        config=more(response_mime_type="application/json", response_json_schema=SCHEMA),
    )  # fmt: skip
    thought = ask(
        model="m", contents="Tell me of bridges",
        config=more(thinking_config=types.ThinkingConfig(thinking_budget=200, include_thoughts=True)),
    )  # fmt: skip
    pieces = list(client.models.generate_content_stream(model="m", contents="Tell me of bridges"))
    called = ask(model="m", contents="Please get_weather in Bonn", config=tool)
    assert called.function_calls and called.candidates and called.candidates[0].content
    back = types.Part.from_function_response(name="get_weather", response={"rain": True})
    asked = types.Content(role="user", parts=[types.Part(text="Please get_weather in Bonn")])
    turns: list[Any] = [asked, called.candidates[0].content, types.Content(role="user", parts=[back])]
    told = ask(model="m", contents=turns, config=tool)
    return {
        "plain": plain.text,
        "formed": formed.text,
        "pieces": [piece.text for piece in pieces],
        "called": [call.name for call in called.function_calls],
        "told": told.text,
        "thoughts": [bool(part.thought) for part in thought.parts or ()],
        "tokens": [tokens(one) for one in (plain, formed, thought, pieces[-1], called, told)],
        "models": [model.name for model in client.models.list()][:1],
    }


def refused(client: genai.Client) -> dict[str, Any]:
    for _ in range(2):
        try:
            client.models.generate_content(model="m", contents="What is 2+2?")
        except errors.ClientError as error:
            return {"code": error.code, "status": error.status, "details": error.details}
    return {}


if __name__ == "__main__":
    found = converse(client_of(sys.argv[1]))
    print(json.dumps({"version": genai.__version__, **found, "refused": refused(client_of(sys.argv[2]))}))
