"""A peer that calls infer through its own Dapr sidecar, with the stock client.

The sidecar finds the app that dapr-app-id names. A stream whose last chunk has no
finish_reason was cut on the way: sidecars end a broken stream as if it were whole.
"""

import os

from openai import OpenAI

client = OpenAI(
    base_url=f"http://127.0.0.1:{os.environ['DAPR_HTTP_PORT']}/v1",
    default_headers={"dapr-app-id": os.environ.get("INFER_APP_ID", "infer")},
    api_key=os.environ.get("INFER_API_KEY", "none-is-needed-behind-a-sidecar"),
)

model = client.models.list().data[0].id
finish = None
for chunk in client.chat.completions.create(
    model=model,
    messages=[{"role": "user", "content": "Name three fruits."}],
    max_tokens=24,
    stream=True,
):
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
        finish = chunk.choices[0].finish_reason or finish
print()
if finish is None:
    raise SystemExit("the stream was cut: send the request again")
print("finished:", finish)
