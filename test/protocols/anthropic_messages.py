"""Anthropic's client against the scripted engine. Argument: the URL of infer."""

import sys

import anthropic
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import TypeAdapter

from checks import equal, raises, run

client = anthropic.Anthropic(base_url=sys.argv[1], api_key="none", max_retries=0)
events_of = TypeAdapter(RawMessageStreamEvent)
tools = [{"name": name, "description": "d", "input_schema": {"type": "object", "properties": {}}} for name in ("weather", "clock")]


def ask(text, **more):
    messages = text if isinstance(text, list) else [{"role": "user", "content": text}]
    return {"model": "m", "max_tokens": 99, "messages": messages, **more}


def create(text, **more):
    m = client.messages.create(**ask(text, **more))
    Message.model_validate(m.to_dict())
    return m


def whole():
    m = create("say", system="Be brief.", metadata={"user_id": "u"}, stop_sequences=["END"])
    equal((m.content[0].text, m.stop_reason, m.stop_sequence, m.model), ("Hello", "end_turn", None, "m"))
    equal((m.usage.input_tokens, m.usage.cache_read_input_tokens, m.usage.output_tokens), (3, 8, 3))
    equal(m.id[:4], "msg_")
    if not m._request_id:
        raise AssertionError("no request id")


def raw(text, **more):
    events = list(client.messages.create(**ask(text, stream=True, **more)))
    for e in events:
        events_of.validate_python(e.to_dict())
    return events


def stream():
    equal([e.type for e in raw("say")], [
        "message_start", "content_block_start", "content_block_delta", "content_block_delta", "content_block_stop",
        "message_delta", "message_stop"])
    with client.messages.stream(**ask("say")) as s:
        equal(list(s.text_stream), ["Hel", "lo"])
        final = s.get_final_message()
    equal((final.content[0].text, final.stop_reason, final.usage.input_tokens, final.usage.output_tokens), ("Hello", "end_turn", 3, 3))


def uses(m):
    return [(b.name, b.input, b.id) for b in m.content if b.type == "tool_use"]


def calling():
    want = [("weather", {"city": "Oslo"}, "call_1"), ("clock", {}, "call_2")]
    m = create("call", tools=tools, tool_choice={"type": "any"})
    equal((uses(m), m.stop_reason), (want, "tool_use"))
    with client.messages.stream(**ask("call", tools=tools)) as s:
        parts = [e.partial_json for e in s if e.type == "input_json"]
        final = s.get_final_message()
    equal((uses(final), "".join(parts)), (want, '{"city":"Oslo"}{}'))
    # What the client was given can be sent back.
    for past in (m, final):
        results = [{"type": "tool_result", "tool_use_id": u[2], "content": "1"} for u in want]
        turn = [{"role": "user", "content": "call"}, {"role": "assistant", "content": past.content}, {"role": "user", "content": results}]
        equal(create(turn, tools=tools).content[0].text, "Hello")


def thinking():
    m = create("think", thinking={"type": "enabled", "budget_tokens": 1024})
    equal([b.type for b in m.content], ["thinking", "text"])
    equal(m.content[0].thinking, "two and two")
    with client.messages.stream(**ask("think")) as s:
        final = s.get_final_message()
    equal((final.content[0].thinking, final.content[1].text), ("two and two", "4"))
    equal([b.type for b in create("think", thinking={"type": "disabled"}).content], ["text"])
    turn = [{"role": "user", "content": "think"}, {"role": "assistant", "content": m.content}, {"role": "user", "content": "say"}]
    equal(create(turn).content[0].text, "Hello")


def ends():
    equal(create("length").stop_reason, "max_tokens")
    m = create("stop", stop_sequences=["END"])
    equal((m.stop_reason, m.stop_sequence), ("stop_sequence", "END"))
    with client.messages.stream(**ask("stop")) as s:
        equal(s.get_final_message().stop_sequence, "END")


def counting():
    equal(client.messages.count_tokens(model="m", messages=[{"role": "user", "content": "say"}], system="s", tools=tools).input_tokens, 42)


def refusals():
    e = raises(anthropic.BadRequestError, lambda: create("say", extra_body={"surprise": 1}))
    equal((e.type, e.api_message), ("invalid_request_error", "surprise is not supported here; leave it out"))
    image = [{"role": "user", "content": [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}]}]
    e = raises(anthropic.BadRequestError, lambda: create(image))
    equal(e.api_message.split()[0], "messages[0].content[0].type")
    e = raises(anthropic.NotFoundError, lambda: client.messages.create(**{**ask("say"), "model": "other"}))
    equal((e.type, bool(e.request_id)), ("not_found_error", True))
    for stream in (False, True):
        e = raises(anthropic.RateLimitError, lambda: client.messages.create(**ask("limit", stream=stream)))
        equal(e.type, "rate_limit_error")


def broken():
    seen = []

    def read():
        with client.messages.stream(**ask("break")) as s:
            for text in s.text_stream:
                seen.append(text)

    e = raises(anthropic.APIStatusError, read)
    equal((seen, e.type, e.api_message), (["Hel"], "api_error", "the engine broke off"))


def comments():
    equal([e.type for e in raw("slow")], [
        "message_start", "content_block_start", "content_block_delta", "content_block_delta", "content_block_stop",
        "message_delta", "message_stop"])
    with client.messages.stream(**ask("slow")) as s:
        equal(list(s.text_stream), ["Hel", "lo"])
    # They were there: before the first event, and between two.
    with client.messages.with_streaming_response.create(**ask("slow", stream=True)) as r:
        lines = list(r.iter_lines())
    equal((lines[0], lines.count(": ping") > 1), (": ping", True))


def late():
    for read in (lambda: raw("late"), lambda: client.messages.stream(**ask("late")).__enter__().get_final_message()):
        e = raises(anthropic.APIStatusError, read)
        equal((e.type, e.api_message), ("api_error", "the engine broke off"))


run([comments, late, whole, stream, calling, thinking, ends, counting, refusals, broken])
