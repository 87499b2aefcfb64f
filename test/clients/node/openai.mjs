// Checks a running server with OpenAI's client for JavaScript.
import assert from 'node:assert/strict'
import test from 'node:test'
import OpenAI from 'openai'
import { zodFunction, zodResponseFormat, zodTextFormat } from 'openai/helpers/zod'
import { z } from 'zod'
import { busy, embedder, fails, fruits, idle, model, url } from './checks.mjs'

const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none', maxRetries: 0 })
const ask = { model, messages: fruits, max_tokens: 8, temperature: 0, seed: 1 }

const Pick = z.object({ colour: z.enum(['red', 'green']), ripe: z.boolean(), count: z.int().min(1).max(9) })
const lookup = { name: 'lookup', description: 'Look a fruit up.', parameters: z.object({ fruit: z.enum(['apple', 'pear']) }) }

test('models', async () => {
  const ids = []
  for await (const m of client.models.list()) ids.push(m.id)
  assert.deepEqual(ids, [model, embedder])
  assert.equal((await client.models.retrieve(model)).object, 'model')
})

test('chat and its stream say the same', async () => {
  await client.chat.completions.create({ ...ask, max_tokens: 1 }) // the compared ones begin with a cached prompt
  const whole = await client.chat.completions.create(ask)
  assert.equal(whole.object, 'chat.completion')
  assert.equal(whole.choices[0].finish_reason, 'length')
  assert.equal(whole.usage.completion_tokens, 8)
  assert.ok(whole._request_id)
  let text = ''
  let usage
  for await (const chunk of await client.chat.completions.create({ ...ask, stream: true, stream_options: { include_usage: true } })) {
    assert.equal(chunk.object, 'chat.completion.chunk')
    text += chunk.choices[0]?.delta.content ?? ''
    usage = chunk.usage ?? usage
  }
  assert.equal(text, whole.choices[0].message.content)
  assert.equal(usage.total_tokens, whole.usage.total_tokens)
  const stream = client.chat.completions.stream({ ...ask, stream_options: { include_usage: true } })
  let deltas = ''
  stream.on('content', (delta) => { deltas += delta })
  const final = await stream.finalChatCompletion()
  assert.equal(deltas, text)
  assert.equal(final.choices[0].message.content, text)
  assert.equal(final.usage.completion_tokens, 8)
})

test('completions', async () => {
  const count = { model, prompt: '1, 2, 3, 4, 5, 6, 7,', max_tokens: 12, temperature: 0 }
  const whole = await client.completions.create(count)
  assert.match(whole.choices[0].text, /^ ?8, 9/)
  let text = ''
  for await (const chunk of await client.completions.create({ ...count, stream: true })) text += chunk.choices[0]?.text ?? ''
  assert.equal(text, whole.choices[0].text)
})

test('structured output', async () => {
  const response_format = zodResponseFormat(Pick, 'pick')
  const whole = await client.chat.completions.parse({ ...ask, max_tokens: 64, response_format })
  assert.deepEqual(Pick.parse(whole.choices[0].message.parsed), whole.choices[0].message.parsed)
  const final = await client.chat.completions.stream({ ...ask, max_tokens: 64, response_format }).finalChatCompletion()
  assert.ok(Pick.parse(final.choices[0].message.parsed))
})

test('a forced tool', async () => {
  const tools = [zodFunction(lookup)]
  const forced = { ...ask, max_tokens: 64, tools, tool_choice: 'required', parallel_tool_calls: false }
  const whole = await client.chat.completions.parse(forced)
  const [call] = whole.choices[0].message.tool_calls
  assert.equal(whole.choices[0].finish_reason, 'tool_calls')
  assert.equal(call.function.name, 'lookup')
  assert.ok(lookup.parameters.parse(call.function.parsed_arguments))
  const stream = client.chat.completions.stream(forced)
  let last
  stream.on('tool_calls.function.arguments.delta', (e) => { last = e.arguments })
  const [streamed] = (await stream.finalChatCompletion()).choices[0].message.tool_calls
  assert.equal(streamed.function.arguments, last)
  assert.equal(streamed.type, 'function')
  assert.ok(streamed.id)
  assert.ok(lookup.parameters.parse(streamed.function.parsed_arguments))
})

// The helper calls the function, sends its answer back and asks again.
test('runTools', async () => {
  for (const stream of [false, true]) {
    const asked = []
    const runner = client.chat.completions.runTools({
      ...ask, max_tokens: 64, stream, parallel_tool_calls: false, tool_choice: { type: 'function', function: { name: 'lookup' } },
      tools: [zodFunction({ ...lookup, function: ({ fruit }) => { asked.push(fruit); return `${fruit}: 3 left` } })],
    })
    await runner.done()
    assert.equal(asked.length, 1)
    assert.deepEqual(runner.messages.map((m) => m.role), ['user', 'assistant', 'tool'])
    assert.equal(await runner.finalFunctionToolCallResult(), `${asked[0]}: 3 left`)
  }
})

test('responses', async () => {
  const ask = { model, input: 'Name three fruits.', instructions: 'Be brief.', max_output_tokens: 8, temperature: 0 }
  await client.responses.create(ask) // as above
  const whole = await client.responses.create(ask)
  assert.equal(whole.status, 'incomplete')
  assert.equal(whole.usage.output_tokens, 8)
  assert.ok(whole.output_text)
  const stream = client.responses.stream(ask)
  let deltas = ''
  stream.on('response.output_text.delta', (e) => { deltas += e.delta })
  const final = await stream.finalResponse()
  assert.equal(final.output_text, whole.output_text)
  assert.equal(deltas, whole.output_text)
  const text = { format: zodTextFormat(Pick, 'pick') }
  const parsed = await client.responses.parse({ ...ask, max_output_tokens: 64, text })
  assert.ok(Pick.parse(parsed.output_parsed))
})

test('embeddings', async () => {
  const input = ['an apple', 'a pear']
  const base64 = await client.embeddings.create({ model: embedder, input }) // what it asks for by itself
  const floats = await client.embeddings.create({ model: embedder, input, encoding_format: 'float' })
  assert.deepEqual(base64.data.map((d) => d.embedding.length), [384, 384])
  for (const i of [0, 1]) {
    for (const [j, x] of base64.data[i].embedding.entries()) assert.ok(Math.abs(x - floats.data[i].embedding[j]) < 1e-6)
  }
})

test('errors', async () => {
  const fault = (more) => client.chat.completions.create({ ...ask, ...more })
  let e = await fails(OpenAI.NotFoundError, fault({ model: 'gpt-4o' }))
  assert.deepEqual([e.status, e.code, e.param, e.type], [404, 'model_not_found', 'model', 'not_found_error'])
  assert.ok(e.requestID)
  e = await fails(OpenAI.BadRequestError, fault({ temperature: -1 }))
  assert.deepEqual([e.code, e.param, e.type], ['invalid_value', 'temperature', 'invalid_request_error'])
  e = await fails(OpenAI.BadRequestError, fault({ guided_regex: 'a+', stream: true }))
  assert.deepEqual([e.code, e.param], ['unsupported_parameter', 'guided_regex'])
  e = await fails(OpenAI.BadRequestError, client.responses.create({ model, input: 'a', previous_response_id: 'resp_1' }))
  assert.equal(e.param, 'previous_response_id')
  e = await fails(OpenAI.NotFoundError, client.embeddings.create({ model, input: 'a' }))
  assert.equal(e.param, 'model')
})

test('an aborted stream frees its slot', async () => {
  const controller = new AbortController()
  const stream = await client.chat.completions.create(
    { ...ask, max_tokens: 900, stream: true, ignore_eos: true }, { signal: controller.signal })
  for await (const chunk of stream) {
    assert.ok(chunk.id)
    await busy()
    break
  }
  controller.abort()
  await idle()
  const helper = client.chat.completions.stream({ ...ask, max_tokens: 900, ignore_eos: true })
  helper.on('content', () => helper.abort())
  await fails(OpenAI.APIUserAbortError, helper.done())
  await idle()
})
