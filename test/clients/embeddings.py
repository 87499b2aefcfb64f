"""Checks embeddings of a running server with the official Python client: embeddings.py BASE_URL EMBEDDER CHAT_MODEL."""

import sys

import openai

base_url, embedder, chat = sys.argv[1:]
client = openai.OpenAI(base_url=base_url, api_key="none", max_retries=0)


def near(a, b):
    return len(a) == len(b) and all(abs(x - y) < 1e-6 for x, y in zip(a, b))


def main():
    default = client.embeddings.create(model=embedder, input="hello world")  # base64 on the wire
    floats = client.embeddings.create(model=embedder, input="hello world", encoding_format="float")
    assert near(default.data[0].embedding, floats.data[0].embedding), (default, floats)
    assert len(default.data[0].embedding) == 384 and default.usage.prompt_tokens == default.usage.total_tokens == 4, default.usage
    ids = client.embeddings.create(model=embedder, input=[[101, 7592, 2088, 102], [101, 102]])
    assert [d.index for d in ids.data] == [0, 1], ids
    short = client.embeddings.create(model=embedder, input=["a", "b"], dimensions=8)
    assert [len(d.embedding) for d in short.data] == [8, 8], short
    for parameters, param in [({"input": "word " * 400}, "input"), ({"input": ""}, "input"), ({"input": "a", "dimensions": 1000}, "dimensions")]:
        try:
            client.embeddings.create(model=embedder, **parameters)
        except openai.BadRequestError as error:
            assert error.param == param, error.body
        else:
            raise AssertionError(f"{parameters} was accepted")
    try:
        client.embeddings.create(model=chat, input="a")
    except openai.NotFoundError as error:
        assert error.code == "model_not_found" and error.param == "model", error.body
    else:
        raise AssertionError("a model that chats made embeddings")
    many = client.embeddings.create(model=embedder, input=[f"text number {i}" for i in range(2048)], dimensions=1)
    assert [d.index for d in many.data] == list(range(2048))


main()
