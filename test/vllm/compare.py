"""compare.py SOCKET URL: ask vLLM on SOCKET and infer at URL the same through
OpenAI's client, and print every difference in what the client returns, one a
line. Ids, times and fingerprints differ between any two answers."""

import json
import sys

import httpx
import openai

QUESTION = [{"role": "user", "content": "Name the capital of France in one short sentence."}]
PLAIN = dict(model="smollm2", messages=QUESTION, temperature=0, max_tokens=24)
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


def chat(**more):
    return lambda c: c.chat.completions.create(**(PLAIN | more))


def completion(**more):
    return lambda c: c.completions.create(**(dict(model="smollm2", prompt="The capital of France is", temperature=0, max_tokens=6) | more))


CASES = {
    "chat": chat(),
    "chat with length": chat(max_tokens=3),
    "chat with two choices": chat(n=2, temperature=1, seed=7),
    "chat with stop": chat(stop=["France"]),
    "stream": chat(stream=True),
    "stream with usage": chat(stream=True, stream_options={"include_usage": True}),
    "stream with continuous usage": chat(stream=True, stream_options={"include_usage": True, "continuous_usage_stats": True}),
    "stream with two choices": chat(stream=True, n=2, temperature=1, seed=7, stream_options={"include_usage": True}),
    "completion": completion(),
    "completion of two prompts": completion(prompt=["The capital of France is", "One, two,"]),
    "completion stream": completion(stream=True),
    "completion stream with usage": completion(stream=True, stream_options={"include_usage": True}),
    "unknown model": chat(model="other"),
    "two choices at temperature 0": chat(n=2),
    "too long": chat(messages=[{"role": "user", "content": "word " * 2000}]),
    "too long stream": chat(messages=[{"role": "user", "content": "word " * 2000}], stream=True),
    "bad temperature": chat(temperature=9),
    "no messages": chat(messages=[]),
    "no tokens": chat(max_tokens=0),
    "tools without a parser": chat(tools=[TOOL], tool_choice="auto"),
    "stream options without stream": chat(extra_body={"stream_options": {"include_usage": True}}),
    "embeddings of a chat model": lambda c: c.embeddings.create(model="smollm2", input="x"),
}
VARYING = {"id", "created", "system_fingerprint"}


def plain(value):
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if k not in VARYING}
    if isinstance(value, list):
        return [plain(v) for v in value]
    return value


def result(call, client):
    try:
        answer = call(client)
        if isinstance(answer, openai.Stream):
            return joined([plain(chunk.model_dump()) for chunk in answer])
        return plain(answer.model_dump())
    except openai.APIStatusError as e:
        return {"exception": type(e).__name__, "status": e.status_code, "type": e.type, "code": e.code, "param": e.param,
                "message": e.message}


def joined(chunks):
    """One chunk a choice: those of two choices come in any order, and vLLM puts
    into one what was sampled while it had no time to send it."""
    choices = {}
    for c in chunks:
        index = c["choices"][0]["index"] if c["choices"] else 99
        choices[index] = join("", choices.get(index), c)
    return [choices[i] for i in sorted(choices)]


def join(key, a, b):
    if isinstance(a, dict) and isinstance(b, dict):
        return {k: join(k, a.get(k), b.get(k)) for k in a.keys() | b.keys()}
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [join(key, x, y) for x, y in zip(a, b)]
    if key in ("content", "text") and a is not None and b is not None:
        return a + b
    return a if b is None else b


def differences(path, a, b):
    if isinstance(a, dict) and isinstance(b, dict):
        for k in sorted(a.keys() | b.keys()):
            yield from differences(f"{path}.{k}", a.get(k, "absent"), b.get(k, "absent"))
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for i, (x, y) in enumerate(zip(a, b)):
            yield from differences(f"{path}[{i}]", x, y)
    elif a != b:
        yield path, a, b


def main(socket, url):
    direct = openai.OpenAI(base_url="http://vllm/v1", api_key="x", max_retries=0,
                           http_client=httpx.Client(transport=httpx.HTTPTransport(uds=socket)))
    through = openai.OpenAI(base_url=url + "/v1", api_key="x", max_retries=0)
    for name, call in CASES.items():
        for path, a, b in differences(name, result(call, direct), result(call, through)):
            print(path, json.dumps(a), "->", json.dumps(b))
    print(len(CASES), "cases")


main(*sys.argv[1:])
