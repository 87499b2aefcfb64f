"""The official client and a usage with infer_cost: python cost.py BASE_URL MODEL."""

import sys

import openai

client = openai.OpenAI(base_url=sys.argv[1], api_key="unused", max_retries=0)
messages = [{"role": "user", "content": "Count to a hundred."}]


def check(usage):
    cost = usage.model_extra["infer_cost"]
    assert cost["gpu_seconds"] > 0 and cost["joules"] > 0, usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens > 0, usage


check(client.chat.completions.create(model=sys.argv[2], messages=messages, max_tokens=32).usage)
stream = client.chat.completions.create(
    model=sys.argv[2], messages=messages, max_tokens=32, stream=True, stream_options={"include_usage": True}
)
*before, last = list(stream)
assert not any(chunk.usage for chunk in before), before
check(last.usage)

# Responses and messages are translated, and have no room for it.
response = client.responses.create(model=sys.argv[2], input="Hello", max_output_tokens=16)
assert "infer_cost" not in response.usage.model_extra, response.usage
