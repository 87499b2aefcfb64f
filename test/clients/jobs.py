"""Files and batches with the official Python client: jobs.py BASE_URL MODEL."""

import json
import sys
import time

import openai

base_url, model = sys.argv[1:]
client = openai.OpenAI(base_url=base_url, api_key="none", max_retries=2)

lines = [
    {"custom_id": f"c{i}", "method": "POST", "url": "/v1/completions", "body": {"model": model, "prompt": "1, 2, 3,", "max_tokens": 4}}
    for i in range(5)
]
lines[3]["body"]["temperature"] = -1
text = "\n".join(map(json.dumps, lines)).encode()

file = client.files.create(file=("in.jsonl", text), purpose="batch")
assert file.bytes == len(text) and file.purpose == "batch" and file.filename == "in.jsonl", file
assert client.files.retrieve(file.id) == file
assert client.files.content(file.id).read() == text
assert file.id in [f.id for f in client.files.list(purpose="batch", order="asc")]

batch = client.batches.create(input_file_id=file.id, endpoint="/v1/completions", completion_window="24h", metadata={"k": "v"})
assert batch.status in ("validating", "in_progress") and batch.metadata == {"k": "v"}, batch
deadline = time.monotonic() + 120
while batch.status not in ("completed", "failed", "expired", "cancelled"):
    assert time.monotonic() < deadline, batch
    time.sleep(0.2)
    batch = client.batches.retrieve(batch.id)
assert batch.status == "completed" and batch.errors is None, batch
counts = batch.request_counts
assert (counts.total, counts.completed, counts.failed) == (5, 4, 1), counts
answers = [json.loads(line) for line in client.files.content(batch.output_file_id).text.splitlines()]
assert [a["custom_id"] for a in answers] == ["c0", "c1", "c2", "c4"], answers
assert all(a["response"]["body"]["choices"][0]["text"] for a in answers), answers
errors = [json.loads(line) for line in client.files.content(batch.error_file_id).text.splitlines()]
assert [(e["custom_id"], e["response"]["status_code"]) for e in errors] == [("c3", 400)], errors
assert batch.id in [b.id for b in client.batches.list(limit=1)]

try:
    client.batches.cancel(batch.id)
    raise AssertionError("a completed batch was cancelled")
except openai.ConflictError as error:
    assert error.code == "wrong_state", error

bad = client.files.create(file=("bad.jsonl", b"{\n"), purpose="batch")
failed = client.batches.create(input_file_id=bad.id, endpoint="/v1/completions", completion_window="24h")
while failed.status != "failed":
    assert time.monotonic() < deadline, failed
    time.sleep(0.2)
    failed = client.batches.retrieve(failed.id)
assert failed.errors.data[0].line == 1 and failed.errors.data[0].code == "invalid_json", failed

assert client.files.delete(file.id).deleted
try:
    client.files.retrieve(file.id)
    raise AssertionError("a deleted file is there")
except openai.NotFoundError as error:
    assert error.code == "not_found", error
print("files and batches: sound")
