// Checks that each client comes back by itself when a server that still loads
// its model refuses it. The URL and the name of the model come on the input
// line by line, so that all is loaded here before the server is started.
import assert from 'node:assert/strict'
import { createInterface } from 'node:readline'
import test from 'node:test'
import Anthropic from '@anthropic-ai/sdk'
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import { generateText } from 'ai'
import OpenAI from 'openai'

// Counted is a fetch that keeps the statuses of what it fetched.
function counted() {
  const statuses = []
  const get = async (...args) => {
    const answer = await fetch(...args)
    statuses.push(answer.status)
    return answer
  }
  return [get, statuses]
}

const messages = [{ role: 'user', content: 'Hi' }]
const clients = {
  openai: (url, model, get) => new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none', fetch: get, maxRetries: 20 })
    .chat.completions.create({ model, messages, max_tokens: 1 }),
  ai: (url, model, get) => generateText({
    model: createOpenAICompatible({ name: 'infer', baseURL: `${url}/v1`, fetch: get }).chatModel(model), messages, maxOutputTokens: 1, maxRetries: 20,
  }),
  anthropic: (url, model, get) => new Anthropic({ baseURL: url, apiKey: 'none', fetch: get, maxRetries: 20 })
    .messages.create({ model, messages, max_tokens: 1 }),
}

console.log('started')
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
const url = (await lines.next()).value
const model = (await lines.next()).value
test('loading', { concurrency: true }, async (t) => {
  await Promise.all(Object.entries(clients).map(([name, ask]) => t.test(name, async () => {
    const [get, statuses] = counted()
    await ask(url, model, get)
    assert.equal(statuses[0], 503)
    assert.equal(statuses.at(-1), 200)
  })))
})
