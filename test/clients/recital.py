"""Checks calls and thoughts of a model's own choice with the official Python
clients: recital.py URL_OF_THE_MODEL_QWEN URL_OF_THE_MODEL_THINKER. What the
models say is in test/recital."""

import json
import sys

import anthropic
import openai

qwen, thinker = sys.argv[1:]
client = openai.OpenAI(base_url=qwen + "/v1", api_key="none", max_retries=0)
claude = anthropic.Anthropic(base_url=qwen, api_key="none", max_retries=0)

city = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
tools = [{"type": "function", "function": {"name": "get_weather", "parameters": city}},
         {"type": "function", "function": {"name": "get_time"}}]
flat = [{"type": "function", "name": t["function"]["name"], "parameters": t["function"].get("parameters"), "strict": None} for t in tools]
uses = [{"name": "get_weather", "input_schema": city}, {"name": "get_time", "input_schema": {"type": "object"}}]
paris = ("get_weather", {"city": "Paris"})
clock = ("get_time", {})


def equal(got, want):
    if got != want:
        raise AssertionError(f"got {got!r}, want {want!r}")


def user(text):
    return [{"role": "user", "content": text}]


def calls(message):
    for c in message.tool_calls or []:
        equal((c.type, c.id[:5]), ("function", "call_"))
    return [(c.function.name, json.loads(c.function.arguments)) for c in message.tool_calls or []]


def chat(text, **more):
    """Asks twice, whole and as a stream, whose parts must add up to the same."""
    ask = {"model": "qwen", "messages": user(text), "tools": tools, **more}
    whole = client.chat.completions.create(**ask)
    said = whole.choices[0].message
    with client.chat.completions.stream(**ask, stream_options={"include_usage": True}) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    streamed = final.choices[0].message
    deltas = [e.chunk.choices[0].delta for e in events if e.type == "chunk" and e.chunk.choices]
    thoughts = "".join(getattr(d, "reasoning_content", None) or "" for d in deltas)
    equal((streamed.content or None, calls(streamed), thoughts or None, final.choices[0].finish_reason, final.usage.completion_tokens),
          (said.content, calls(said), getattr(said, "reasoning_content", None), whole.choices[0].finish_reason, whole.usage.completion_tokens))
    equal(final.usage.completion_tokens_details, whole.usage.completion_tokens_details)
    return whole, deltas


def check_calls():
    whole, deltas = chat("How is the weather?")
    message = whole.choices[0].message
    equal((message.content, calls(message), whole.choices[0].finish_reason), (None, [paris], "tool_calls"))
    pieces = [c for d in deltas for c in d.tool_calls or []]
    equal([(c.index, c.type, c.function.name, c.function.arguments) for c in pieces[:1]], [(0, "function", "get_weather", "")])
    if len(pieces) < 3 or any(c.id or c.function.name for c in pieces[1:]):
        raise AssertionError(f"the arguments came in {pieces}")
    # The SDK's objects go back as they are; the model looks at both.
    past = user("How is the weather?") + [message, {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "sunny"}]
    answer, _ = chat("", messages=past)
    equal((answer.choices[0].message.content, answer.choices[0].finish_reason), ("It is sunny in Paris.", "stop"))
    whole, _ = chat("How is the weather?", tool_choice="none")
    equal((whole.choices[0].message.content, whole.choices[0].message.tool_calls), ("I have no tool for that: é🙂.", None))


def check_parallel():
    whole, deltas = chat("both")
    message = whole.choices[0].message
    equal((message.content, calls(message)), ("I will look at both.\n", [paris, clock]))
    equal([c.index for d in deltas for c in d.tool_calls or [] if c.id], [0, 1])
    if message.tool_calls[0].id == message.tool_calls[1].id:
        raise AssertionError("two calls have one id")
    whole, _ = chat("both", parallel_tool_calls=False)
    equal(calls(whole.choices[0].message), [paris])


def check_broken():
    whole, _ = chat("broken")
    choice = whole.choices[0]
    equal((choice.message.content, choice.message.tool_calls, choice.finish_reason), ('<tool_call>{"name": get_weather}</tool_call>', None, "stop"))


def check_thoughts():
    whole, _ = chat("sum")
    message = whole.choices[0].message
    equal((message.reasoning_content, message.content), ("Five and two make seven.\n", "It is seven."))
    tokens = whole.usage.completion_tokens_details.reasoning_tokens
    if not 0 < tokens < whole.usage.completion_tokens:
        raise AssertionError(f"{tokens} of {whole.usage} are thoughts")
    chat("sum", reasoning_effort="high")
    for off in ({"reasoning_effort": "none"}, {"extra_body": {"chat_template_kwargs": {"enable_thinking": False}}}):
        whole, _ = chat("sum", **off)
        message = whole.choices[0].message
        equal((getattr(message, "reasoning_content", None), message.content), (None, "Seven."))
        equal(whole.usage.completion_tokens_details.reasoning_tokens, 0)
    whole, _ = chat("ponder")
    message = whole.choices[0].message
    equal((message.reasoning_content, message.content, calls(message)), ("Paris, then.\n", None, [paris]))


def check_opened_thoughts():
    """The template of this model has already opened its thoughts."""
    client = openai.OpenAI(base_url=thinker + "/v1", api_key="none", max_retries=0)
    ask = {"model": "thinker", "messages": user("Two and two?")}
    message = client.chat.completions.create(**ask).choices[0].message
    equal((message.reasoning_content, message.content), ("Two and two.\n", "Four."))
    deltas = [c.choices[0].delta for c in client.chat.completions.create(**ask, stream=True)]
    equal("".join(getattr(d, "reasoning_content", None) or "" for d in deltas), "Two and two.\n")
    equal("".join(d.content or "" for d in deltas), "Four.")
    cut = client.chat.completions.create(**ask, max_tokens=2)
    equal((cut.choices[0].finish_reason, cut.choices[0].message.content, cut.usage.completion_tokens_details.reasoning_tokens), ("length", "", 2))


def check_messages():
    def create(text, **more):
        ask = {"model": "qwen", "max_tokens": 99, "messages": user(text), "tools": uses, **more}
        whole = claude.messages.create(**ask)
        with claude.messages.stream(**ask) as stream:
            json_parts = [e.partial_json for e in stream if e.type == "input_json"]
            final = stream.get_final_message()
        blocks = [[(b.type, getattr(b, "text", None), getattr(b, "thinking", None), getattr(b, "input", None)) for b in m.content] for m in (whole, final)]
        equal(blocks[1], blocks[0])
        equal((final.stop_reason, final.usage.output_tokens), (whole.stop_reason, whole.usage.output_tokens))
        equal(bool(json_parts), any(b.type == "tool_use" for b in whole.content))
        return whole

    m = create("both")
    equal([b.type for b in m.content], ["text", "tool_use", "tool_use"])
    equal(([(b.name, b.input) for b in m.content[1:]], m.stop_reason), ([paris, clock], "tool_use"))
    results = [{"type": "tool_result", "tool_use_id": b.id, "content": text} for b, text in zip(m.content[1:], ("sunny", "noon"))]
    end = create("", messages=user("both") + [{"role": "assistant", "content": m.content}, {"role": "user", "content": results}])
    equal((end.content[0].text, end.stop_reason), ("It is sunny in Paris.", "end_turn"))
    m = create("ponder", thinking={"type": "enabled", "budget_tokens": 1024})
    equal([b.type for b in m.content], ["thinking", "tool_use"])
    equal(m.content[0].thinking, "Paris, then.\n")
    equal([getattr(b, "text", None) for b in create("sum").content], [None, "It is seven."])
    m = create("sum", thinking={"type": "disabled"})
    equal([(b.type, b.text) for b in m.content], [("text", "Seven.")])
    m = create("broken")
    equal(([b.type for b in m.content], m.stop_reason), (["text"], "end_turn"))


def check_responses():
    def create(items, **more):
        ask = {"model": "qwen", "input": items, "tools": flat, **more}
        whole = client.responses.create(**ask)
        with client.responses.stream(**ask) as stream:
            types = [e.type for e in stream]
            final = stream.get_final_response()
        equal([o.type for o in final.output], [o.type for o in whole.output])
        equal(final.output_text, whole.output_text)
        return whole, types

    r, types = create("ponder")
    equal([o.type for o in r.output], ["reasoning", "function_call"])
    equal((r.output[0].content[0].text, r.output[1].name, json.loads(r.output[1].arguments)), ("Paris, then.\n", *paris))
    if r.usage.output_tokens_details.reasoning_tokens == 0:
        raise AssertionError(f"no reasoning tokens in {r.usage}")
    for wanted in ("response.reasoning_text.delta", "response.reasoning_text.done", "response.function_call_arguments.delta",
                   "response.function_call_arguments.done"):
        if wanted not in types:
            raise AssertionError(f"no {wanted} in {types}")
    items = user("ponder") + r.output + [{"type": "function_call_output", "call_id": r.output[1].call_id, "output": "sunny"}]
    equal(create(items)[0].output_text, "It is sunny in Paris.")
    r, _ = create("both")
    equal([o.type for o in r.output], ["message", "function_call", "function_call"])
    r, _ = create("sum", reasoning={"effort": "none"}, text={"verbosity": "low"})
    equal(([o.type for o in r.output], r.output_text), (["message"], "Seven."))


check_calls()
check_parallel()
check_broken()
check_thoughts()
check_opened_thoughts()
check_messages()
check_responses()
