// Checks a running server with Anthropic's client for JavaScript.
import assert from 'node:assert/strict'
import test from 'node:test'
import Anthropic from '@anthropic-ai/sdk'
import { betaZodTool } from '@anthropic-ai/sdk/helpers/beta/zod'
import { z } from 'zod'
import { fails, fruits, idle, model, url } from './checks.mjs'

const client = new Anthropic({ baseURL: url, apiKey: 'none', maxRetries: 0 })
const ask = { model, messages: fruits, max_tokens: 8, temperature: 0 }
const Lookup = z.object({ fruit: z.enum(['apple', 'pear']) })
const lookup = {
  name: 'lookup', description: 'Look a fruit up.',
  input_schema: { type: 'object', properties: { fruit: { type: 'string', enum: ['apple', 'pear'] } }, required: ['fruit'], additionalProperties: false },
}

test('a message and its stream say the same', async () => {
  await client.messages.create({ ...ask, max_tokens: 1 }) // the compared ones begin with a cached prompt
  const whole = await client.messages.create(ask)
  assert.deepEqual([whole.type, whole.role, whole.model, whole.stop_reason], ['message', 'assistant', model, 'max_tokens'])
  assert.equal(whole.usage.output_tokens, 8)
  assert.ok(whole._request_id)
  const stream = client.messages.stream(ask)
  let text = ''
  stream.on('text', (delta) => { text += delta })
  const final = await stream.finalMessage()
  assert.equal(text, whole.content[0].text)
  assert.deepEqual([final.content[0].text, final.stop_reason, final.usage.output_tokens], [text, 'max_tokens', 8])
  const types = []
  for await (const event of await client.messages.create({ ...ask, stream: true })) types.push(event.type)
  assert.deepEqual(types.filter((t) => t !== 'content_block_delta'),
    ['message_start', 'content_block_start', 'content_block_stop', 'message_delta', 'message_stop'])
})

test('counting', async () => {
  const { input_tokens: tokens } = await client.messages.countTokens({ model, messages: fruits })
  const { usage } = await client.messages.create({ ...ask, max_tokens: 1 })
  assert.equal(tokens, usage.input_tokens + (usage.cache_read_input_tokens ?? 0))
  const more = await client.messages.countTokens({ model, messages: fruits, system: 'Be brief.', tools: [lookup] })
  assert.ok(more.input_tokens > tokens)
})

test('a forced tool', async () => {
  for (const tool_choice of [{ type: 'any', disable_parallel_tool_use: true }, { type: 'tool', name: 'lookup' }]) {
    const forced = { ...ask, max_tokens: 64, tools: [lookup], tool_choice }
    const whole = await client.messages.create(forced)
    const use = whole.content.find((b) => b.type === 'tool_use')
    assert.deepEqual([whole.stop_reason, use.name], ['tool_use', 'lookup'])
    assert.ok(Lookup.parse(use.input))
    const stream = client.messages.stream(forced)
    let json = ''
    stream.on('inputJson', (delta) => { json += delta })
    const streamed = (await stream.finalMessage()).content.find((b) => b.type === 'tool_use')
    assert.deepEqual(JSON.parse(json), streamed.input)
    const result = { type: 'tool_result', tool_use_id: use.id, content: '3 left' }
    const answer = await client.messages.create({
      ...ask, tools: [lookup], tool_choice: { type: 'none' },
      messages: [...fruits, { role: 'assistant', content: whole.content }, { role: 'user', content: [result] }],
    })
    assert.equal(answer.content[0].type, 'text')
  }
})

// The helper calls the tool, sends its result back and stops after two turns.
// It asks for a conversation kept by the server first, and goes on without.
test('toolRunner', async () => {
  const asked = []
  const tool = betaZodTool({ name: 'lookup', description: 'Look a fruit up.', inputSchema: Lookup,
    run: ({ fruit }) => { asked.push(fruit); return `${fruit}: 3 left` } })
  const last = await client.beta.messages.toolRunner({
    ...ask, max_tokens: 64, tools: [tool], tool_choice: { type: 'any', disable_parallel_tool_use: true }, max_iterations: 2 })
  assert.equal(asked.length, 2)
  assert.equal(last.stop_reason, 'tool_use')
})

test('errors', async () => {
  let e = await fails(Anthropic.NotFoundError, client.messages.create({ ...ask, model: 'claude' }))
  assert.deepEqual([e.status, e.error.error.type], [404, 'not_found_error'])
  assert.ok(e.requestID)
  e = await fails(Anthropic.BadRequestError, client.messages.create({ ...ask, temperature: -1 }))
  assert.equal(e.error.error.type, 'invalid_request_error')
  assert.match(e.error.error.message, /temperature/)
  await fails(Anthropic.BadRequestError, client.messages.stream({ ...ask, surprise: 1 }).done())
})

test('an aborted stream frees its slot', async () => {
  const stream = client.messages.stream({ ...ask, max_tokens: 900, messages: [{ role: 'user', content: 'Count to a thousand.' }] })
  stream.on('text', () => stream.abort())
  await fails(Anthropic.APIUserAbortError, stream.done())
  await idle()
})
