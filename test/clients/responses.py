"""Kept and background responses with the official Python client: responses.py BASE_URL MODEL."""

import sys
import time

import openai

base_url, model = sys.argv[1:]
client = openai.OpenAI(base_url=base_url, api_key="none", max_retries=4)


def ended(r):
    deadline = time.monotonic() + 120
    while r.status in ("queued", "in_progress"):
        assert time.monotonic() < deadline, r
        time.sleep(0.2)
        r = client.responses.retrieve(r.id)
    return r


# A chain: the second turn is counted with the first before it.
first = client.responses.create(model=model, input="My name is Bob. Remember it.", max_output_tokens=16, temperature=0)
second = client.responses.create(model=model, input="What is my name?", previous_response_id=first.id, max_output_tokens=16, temperature=0)
by_hand = client.responses.create(
    model=model, max_output_tokens=16, temperature=0, store=False,
    input=[{"role": "user", "content": "My name is Bob. Remember it."}, *first.output, {"role": "user", "content": "What is my name?"}])
assert second.previous_response_id == first.id and second.store and not by_hand.store, second
assert second.usage.input_tokens == by_hand.usage.input_tokens > first.usage.total_tokens, (second.usage, by_hand.usage)
assert second.output_text == by_hand.output_text != "", (second.output_text, by_hand.output_text)
assert client.responses.retrieve(second.id).output_text == second.output_text
items = client.responses.input_items.list(second.id, order="asc", limit=2)
assert [i.role for i in items] == ["user", "assistant", "user"], list(items)

# In the background: polled, and cancelled.
r = client.responses.create(model=model, input="Say hello.", background=True, max_output_tokens=16)
assert r.status in ("queued", "in_progress") and r.background, r
r = ended(r)
assert r.status in ("completed", "incomplete") and r.output_text and r.usage.output_tokens, r
assert client.responses.cancel(r.id).status == r.status
long = client.responses.create(model=model, input="Tell a long story.", background=True, max_output_tokens=1500)
for _ in range(2):
    assert client.responses.cancel(long.id).status == "cancelled"

# A stream that breaks off is resumed after its last event.
events = []
for e in client.responses.create(model=model, input="Count to ten.", background=True, stream=True, max_output_tokens=24, temperature=0):
    events.append(e)
    if e.sequence_number == 4:
        break
id = events[0].response.id
events += client.responses.retrieve(id, stream=True, starting_after=4)
assert [e.sequence_number for e in events] == list(range(len(events))), events
assert [e.type for e in events[:3]] == ["response.created", "response.queued", "response.in_progress"], events[:3]
last = events[-1].response
assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == last.output_text == client.responses.retrieve(id).output_text

client.responses.delete(id)
try:
    client.responses.retrieve(id)
    raise AssertionError("a deleted response is there")
except openai.NotFoundError:
    pass
