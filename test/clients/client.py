"""Checks a running server with the official Python client: client.py BASE_URL MODEL."""

import asyncio
import sys

import openai

base_url, model = sys.argv[1:]
client = openai.OpenAI(base_url=base_url, api_key="none", max_retries=0)
fruits = [{"role": "user", "content": "Name three fruits."}]


def fails(kind, **parameters):
    try:
        client.chat.completions.create(**{"model": model, "messages": fruits, "max_tokens": 4, **parameters})
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__} for {parameters}")


def check_models():
    assert [m.id for m in client.models.list()] == [model]
    assert client.models.retrieve(model).id == model


def check_chat():
    whole = client.chat.completions.create(model=model, messages=fruits, max_tokens=8, temperature=0)
    assert whole.choices[0].message.content and whole.choices[0].finish_reason == "length", whole
    assert whole.usage.completion_tokens == 8, whole.usage
    stream = client.chat.completions.create(
        model=model, messages=fruits, max_tokens=8, temperature=0, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content, (text, whole)
    assert [c.usage.completion_tokens for c in chunks if c.usage] == [8] and not chunks[-1].choices, chunks[-1]
    parts = [{"role": "user", "content": [{"type": "text", "text": "Name three fruits."}]}]
    same = client.chat.completions.create(model=model, messages=parts, max_tokens=8, temperature=0)
    assert same.choices[0].message.content == text, same


def check_completion():
    whole = client.completions.create(model=model, prompt="1, 2, 3, 4, 5, 6, 7,", max_tokens=12, temperature=0)
    assert whole.choices[0].text.strip().startswith("8, 9"), whole
    stopped = client.completions.create(model=model, prompt="1, 2, 3, 4, 5, 6, 7,", max_tokens=12, temperature=0, stop="9")
    assert stopped.choices[0].finish_reason == "stop" and "9" not in stopped.choices[0].text, stopped


def check_errors():
    error = fails(openai.NotFoundError, model="gpt-4o")
    assert error.code == "model_not_found" and error.type == "not_found_error", error.body
    error = fails(openai.BadRequestError, temperature=-1)
    assert error.param == "temperature" and error.code == "invalid_value", error.body
    error = fails(openai.BadRequestError, messages=[{"role": "user", "content": "word " * 400}])
    assert error.code == "context_length_exceeded", error.body
    error = fails(openai.BadRequestError, extra_body={"guided_regex": "a+"})
    assert error.param == "guided_regex", error.body


async def check_concurrent():
    many = openai.AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0)

    async def one():
        stream = await many.chat.completions.create(model=model, messages=fruits, max_tokens=16, stream=True)
        return [c async for c in stream][-1].choices[0].finish_reason

    async def leaves():
        stream = await many.chat.completions.create(model=model, messages=fruits, stream=True)
        await anext(aiter(stream))
        await stream.close()
        return "length"

    ends = await asyncio.gather(*[one() for _ in range(6)], leaves(), leaves())
    assert set(ends) <= {"length", "stop"}, ends


def warm_up():
    """Answers that are compared all begin with a cached prompt: see warm in server_test.go."""
    client.chat.completions.create(model=model, messages=fruits, max_tokens=1)


check_models()
warm_up()
check_chat()
check_completion()
check_errors()
asyncio.run(check_concurrent())
