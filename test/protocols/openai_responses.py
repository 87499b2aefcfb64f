"""OpenAI's client against the scripted engine. Argument: the URL of infer."""

import sys

import openai
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from checks import equal, raises, run

client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="none", max_retries=0)
events_of = TypeAdapter(ResponseStreamEvent)
tools = [
    {"type": "function", "name": name, "description": "d", "strict": True, "parameters": {"type": "object", "properties": {}}}
    for name in ("weather", "clock")
]


def create(text, **more):
    return client.responses.create(model="m", input=text, **more)


def whole():
    r = create("say", instructions="Be brief.", store=True, metadata={"a": "b"}, max_output_tokens=99, temperature=0)
    Response.model_validate(r.to_dict())  # every required field is there, with its type
    equal((r.status, r.output_text, r.store, r.temperature), ("completed", "Hello", False, 0))
    equal((r.usage.input_tokens, r.usage.output_tokens, r.usage.input_tokens_details.cached_tokens), (11, 3, 8))
    equal((r.metadata, r.instructions, r.max_output_tokens), ({"a": "b"}, "Be brief.", 99))
    equal((r.id[:5], r.output[0].id[:4]), ("resp_", "msg_"))


def streamed(text, **more):
    events = list(create(text, stream=True, **more))
    for e in events:
        events_of.validate_python(e.to_dict())
    equal([e.sequence_number for e in events], list(range(len(events))))
    return events


def stream():
    events = streamed("say")
    equal([e.type.removeprefix("response.") for e in events], [
        "created", "in_progress", "output_item.added", "content_part.added", "output_text.delta", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done", "completed"])
    equal("".join(e.delta for e in events if e.type == "response.output_text.delta"), "Hello")
    equal(events[-1].response.output_text, "Hello")


def helper():
    with client.responses.stream(model="m", input="say") as s:
        snapshots = [e.snapshot for e in s if e.type == "response.output_text.delta"]
        final = s.get_final_response()
    equal((snapshots, final.output_text, final.usage.total_tokens), (["Hel", "Hello"], "Hello", 14))


def calls(r):
    return [(i.name, i.arguments, i.call_id) for i in r.output if i.type == "function_call"]


def calling():
    want = [("weather", '{"city":"Oslo"}', "call_1"), ("clock", "{}", "call_2")]
    r = create("call", tools=tools, tool_choice="auto", parallel_tool_calls=True)
    equal(calls(r), want)
    events = streamed("call", tools=tools)
    equal(calls(events[-1].response), want)
    equal([e.arguments for e in events if e.type == "response.function_call_arguments.done"], [want[0][1], want[1][1]])
    with client.responses.stream(model="m", input="call", tools=tools) as s:
        for _ in s:
            pass
        final = s.get_final_response()
    equal(calls(final), want)
    # What the client was given can be sent back, as the protocol's examples do.
    for past in (r.output, final.output):
        turn = [{"role": "user", "content": "call"}, *past]
        turn += [{"type": "function_call_output", "call_id": c[2], "output": "1"} for c in want]
        equal(create(turn, tools=tools).output_text, "Hello")


def thinking():
    r = create("think", reasoning={"effort": "low", "summary": "auto"})
    equal([i.type for i in r.output], ["reasoning", "message"])
    equal(r.output[0].content[0].text, "two and two")
    events = streamed("think")
    equal("".join(e.delta for e in events if e.type == "response.reasoning_text.delta"), "two and two")
    equal(create([{"role": "user", "content": "think"}, *r.output, {"role": "user", "content": "say"}]).output_text, "Hello")


def length():
    r = create("length")
    equal((r.status, r.incomplete_details.reason, r.output[0].status), ("incomplete", "max_output_tokens", "incomplete"))
    equal(streamed("length")[-1].type, "response.incomplete")


class City(BaseModel):
    city: str


def structured():
    equal(client.responses.parse(model="m", input="json", text_format=City).output_parsed, City(city="Oslo"))


def refusals():
    e = raises(openai.BadRequestError, lambda: create("say", previous_response_id="resp_1"))
    equal((e.param, e.code, e.type), ("previous_response_id", "unsupported_parameter", "invalid_request_error"))
    e = raises(openai.BadRequestError, lambda: create("say", tools=[{"type": "web_search"}]))
    equal(e.param, "tools[0].type")
    image = [{"role": "user", "content": [{"type": "input_image", "detail": "auto", "image_url": "data:image/png;base64,AA=="}]}]
    equal(raises(openai.BadRequestError, lambda: create(image)).param, "input[0].content[0].type")
    equal(raises(openai.BadRequestError, lambda: create("say", extra_body={"surprise": 1})).param, "surprise")
    raises(openai.NotFoundError, lambda: client.responses.create(model="other", input="say"))
    for stream in (False, True):
        e = raises(openai.RateLimitError, lambda: create("limit", stream=stream))
        equal((e.code, e.type), ("queue_full", "rate_limit_error"))


def broken():
    events = streamed("break")
    equal([e.type for e in events[-2:]], ["error", "response.failed"])
    equal((events[-2].code, events[-2].message), ("engine_broke_off", "the engine broke off"))
    equal((events[-1].response.status, events[-1].response.error.code), ("failed", "server_error"))


def chat(text, api=client.chat.completions):
    return api.create(model="m", messages=[{"role": "user", "content": text}], stream=True)


def comments():
    events = streamed("slow")
    equal("".join(e.delta for e in events if e.type == "response.output_text.delta"), "Hello")
    equal("".join(c.choices[0].delta.content or "" for c in chat("slow") if c.choices), "Hello")
    # They were there: before the first event, and between two.
    for api, ask in ((client.chat.completions, {"messages": [{"role": "user", "content": "slow"}]}), (client.responses, {"input": "slow"})):
        with api.with_streaming_response.create(model="m", stream=True, **ask) as r:
            lines = list(r.iter_lines())
        equal((lines[0], lines.count(": ping") > 1), (": ping", True))


def late():
    events = streamed("late")
    equal([e.type for e in events], ["response.created", "response.in_progress", "error", "response.failed"])
    equal((events[0].response.model, events[2].code, events[3].response.status), ("m", "engine_broke_off", "failed"))
    e = raises(openai.APIError, lambda: list(chat("late")))
    equal((e.code, e.message), ("engine_broke_off", "the engine broke off"))


run([comments, late, whole, stream, helper, calling, thinking, length, structured, refusals, broken])
