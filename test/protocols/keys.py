"""OpenAI's and Anthropic's clients against a server with keys, limits and
tokens. Arguments: the URL of infer, and the credentials as JSON."""

import json
import sys
import time

import anthropic
import openai

from checks import equal, raises, run

url, keys = sys.argv[1], json.loads(sys.argv[2])
HELLO = [{"role": "user", "content": "say"}]


def by_openai(key, **more):
    return openai.OpenAI(base_url=url + "/v1", api_key=key, **{"max_retries": 0, **more})


def by_anthropic(key=None, **more):
    return anthropic.Anthropic(base_url=url, api_key=key, **{"max_retries": 0, **more})


def chat(client, **more):
    return client.chat.completions.create(model="m", messages=HELLO, max_tokens=9, **more)


def message(client):
    return client.messages.create(model="m", messages=HELLO, max_tokens=9)


def a_key_lets_in():
    equal(chat(by_openai(keys["ann"])).choices[0].message.content, "Hello")
    equal([m.id for m in by_openai(keys["ann"]).models.list()], ["m"])
    equal("".join(c.choices[0].delta.content or "" for c in chat(by_openai(keys["ann"]), stream=True) if c.choices), "Hello")
    equal(message(by_anthropic(keys["ann"])).content[0].text, "Hello")
    equal(message(by_anthropic(auth_token=keys["ann"])).content[0].text, "Hello")


def azure_sends_another_header():
    same = by_openai(keys["ann"], default_headers={"api-key": keys["ann"]})
    equal(chat(same).choices[0].message.content, "Hello")
    alone = chat(same, extra_headers={"Authorization": openai.Omit()})
    equal(alone.choices[0].message.content, "Hello")
    e = raises(openai.AuthenticationError, lambda: chat(by_openai(keys["ann"], default_headers={"api-key": keys["told"]})))
    equal("several different keys" in str(e), True)


def a_wrong_key_does_not():
    wrong = "sk-wrong-0123456789abcdef"
    for stream in (False, True):
        e = raises(openai.AuthenticationError, lambda: chat(by_openai(wrong), stream=stream))
        equal((e.code, e.type, e.response.headers["www-authenticate"]), ("invalid_api_key", "authentication_error", "Bearer"))
        equal(wrong in str(e), False)
    raises(openai.AuthenticationError, lambda: by_openai(wrong).models.list())
    e = raises(anthropic.AuthenticationError, lambda: message(by_anthropic(wrong)))
    equal((e.body["type"], e.body["error"]["type"]), ("error", "authentication_error"))
    equal(wrong in str(e), False)


def not_every_model():
    raises(openai.PermissionDeniedError, lambda: chat(by_openai(keys["elsewhere"])))
    e = raises(anthropic.PermissionDeniedError, lambda: message(by_anthropic(keys["elsewhere"])))
    equal(e.body["error"]["type"], "permission_error")


def a_token_lets_in():
    equal(chat(by_openai(keys["token"])).choices[0].message.content, "Hello")
    equal(message(by_anthropic(auth_token=keys["token"])).content[0].text, "Hello")
    e = raises(openai.AuthenticationError, lambda: chat(by_openai(keys["expired"])))
    equal("expired" in str(e), True)
    raises(openai.PermissionDeniedError, lambda: chat(by_openai(keys["roleless"])))


def what_is_left_is_told():
    first = by_openai(keys["told"]).chat.completions.with_raw_response.create(model="m", messages=HELLO, max_tokens=9)
    h = first.headers
    equal((h["x-ratelimit-limit-requests"], h["x-ratelimit-remaining-requests"], h["x-ratelimit-limit-tokens"]), ("1", "0", "9000"))
    equal(h["x-ratelimit-reset-requests"].endswith("s"), True)
    e = raises(openai.RateLimitError, lambda: chat(by_openai(keys["told"])))
    equal((e.code, e.type, e.response.headers["x-ratelimit-remaining-requests"]), ("rate_limit_exceeded", "rate_limit_error", "0"))
    equal(1 <= int(e.response.headers["retry-after"]) <= 60, True)
    e = raises(anthropic.RateLimitError, lambda: message(by_anthropic(keys["told"])))
    equal((e.body["error"]["type"], e.response.headers["anthropic-ratelimit-requests-limit"]), ("rate_limit_error", "1"))
    # What can never fit is not tried again.
    client = by_openai(keys["small"], max_retries=1)
    e = raises(openai.APIStatusError, lambda: client.chat.completions.create(model="m", messages=HELLO, max_tokens=101))
    equal((e.status_code, e.code, e.response.headers["x-should-retry"]), (413, "request_too_large", "false"))


def clients_obey_retry_after():
    """20 requests a minute: whoever has spent them waits 3 s for the next, once."""
    for client, ask, kind in (
        (by_openai(keys["busy1"], max_retries=1), chat, openai.RateLimitError),
        (by_anthropic(keys["busy2"], max_retries=1), message, anthropic.RateLimitError),
    ):
        without = client.with_options(max_retries=0)
        began = time.monotonic()
        for sent in range(10_000):
            try:
                ask(without)
            except kind:
                break
        equal(sent >= 20, True)
        ask(client)  # succeeds at its only retry, so it came late enough
        # The 21st cannot be had sooner than 3 s after the first.
        equal(time.monotonic() - began >= 3 * (sent + 1 - 20), True)


run([a_key_lets_in, azure_sends_another_header, a_wrong_key_does_not, not_every_model, a_token_lets_in, what_is_left_is_told, clients_obey_retry_after])
