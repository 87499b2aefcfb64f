// What the scripts share. Each takes URL MODEL EMBEDDER, prints what failed and
// exits with 1 if anything did.
import assert from 'node:assert/strict'

export const [url, model, embedder] = process.argv.slice(2)

export const fruits = [{ role: 'user', content: 'Name three fruits.' }]

// running is how many requests are in the engine.
async function running() {
  const text = await (await fetch(`${url}/metrics`)).text()
  return Number(/^infer_requests_running (\d+)$/m.exec(text)[1])
}

// Until polls what can only be seen from outside, for at most a minute.
async function until(what, ok) {
  for (const end = Date.now() + 60_000; Date.now() < end;) {
    if (await ok()) return
  }
  assert.fail(`waited a minute for ${what}`)
}

export const busy = () => until('a slot to be taken', async () => await running() === 1)
export const idle = () => until('all slots to be free', async () => await running() === 0)

// Fails returns the error of a promise, which must be exactly of this class.
export async function fails(kind, promise) {
  const error = await promise.then(
    (value) => assert.fail(`no ${kind.name} but ${JSON.stringify(value)}`), (error) => error)
  assert.equal(error.constructor, kind, `got ${error}`)
  return error
}
