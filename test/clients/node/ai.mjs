// Checks a running server with the AI SDK and its provider for servers that
// speak OpenAI's protocol.
import assert from 'node:assert/strict'
import test from 'node:test'
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import { APICallError, NoObjectGeneratedError, Output, cosineSimilarity, embed, embedMany, generateObject, generateText, stepCountIs, streamObject, streamText, tool } from 'ai'
import { z } from 'zod'
import { busy, embedder, fails, idle, model, url } from './checks.mjs'

const connect = (more) => createOpenAICompatible({ name: 'infer', baseURL: `${url}/v1`, apiKey: 'none', includeUsage: true, ...more })
const plain = connect().chatModel(model)
// With supportsStructuredOutputs the schema is sent along; without, only that JSON is wanted.
const strict = connect({ supportsStructuredOutputs: true }).chatModel(model)
const ask = { model: plain, prompt: 'Name three fruits.', maxOutputTokens: 8, temperature: 0, seed: 1, maxRetries: 0 }
// What the SDK has no setting for is passed on as it is.
const single = { ...ask, maxOutputTokens: 64, providerOptions: { infer: { parallel_tool_calls: false } } }

const Pick = z.object({ colour: z.enum(['red', 'green']), ripe: z.boolean(), count: z.int().min(1).max(9) })
const lookup = (asked) => tool({
  description: 'Look a fruit up.',
  inputSchema: z.object({ fruit: z.enum(['apple', 'pear']) }),
  execute: async ({ fruit }) => { asked.push(fruit); return `${fruit}: 3 left` },
})

test('text and its stream say the same', async () => {
  await generateText({ ...ask, maxOutputTokens: 1 }) // the compared ones begin with a cached prompt
  const whole = await generateText(ask)
  assert.deepEqual([whole.finishReason, whole.usage.outputTokens, whole.response.modelId], ['length', 8, model])
  assert.ok(whole.text)
  const stream = streamText(ask)
  let text = ''
  for await (const delta of stream.textStream) text += delta
  assert.equal(text, whole.text)
  assert.equal(await stream.finishReason, 'length')
  const usage = await stream.usage
  assert.deepEqual([usage.inputTokens, usage.outputTokens, usage.totalTokens],
    [whole.usage.inputTokens, 8, whole.usage.totalTokens])
})

test('completion', async () => {
  const whole = await generateText({ ...ask, model: connect().completionModel(model), prompt: 'One, two, three,' })
  assert.equal(whole.usage.outputTokens, 8)
})

test('objects', async () => {
  const wanted = { ...ask, model: strict, maxOutputTokens: 64, schema: Pick }
  const whole = await generateObject(wanted)
  assert.deepEqual(Pick.parse(whole.object), whole.object)
  const stream = streamObject(wanted)
  let last
  for await (const partial of stream.partialObjectStream) last = partial
  assert.deepEqual(await stream.object, last)
  const text = await generateText({ ...ask, model: strict, maxOutputTokens: 64, output: Output.object({ schema: Pick }) })
  assert.ok(Pick.parse(text.output))
})

// The SDK writes schemas of draft 7, which has other words for some.
test('tuples and records', async () => {
  const tuple = await generateObject({ ...ask, model: strict, maxOutputTokens: 64, schema: z.object({ sizes: z.tuple([z.literal(1), z.literal(2)]) }) })
  assert.deepEqual(tuple.object, { sizes: [1, 2] })
  // How many a record has is up to the model, so that one is only begun.
  const record = z.object({ stock: z.record(z.string(), z.literal(1)) })
  const e = await fails(NoObjectGeneratedError, generateObject({ ...ask, model: strict, maxOutputTokens: 1, schema: record }))
  assert.equal(e.finishReason, 'length')
})

test('a forced tool', async () => {
  for (const toolChoice of ['required', { type: 'tool', toolName: 'lookup' }]) {
    const asked = []
    const forced = { ...single, tools: { lookup: lookup(asked) }, toolChoice }
    const whole = await generateText(forced)
    assert.equal(whole.finishReason, 'tool-calls')
    assert.deepEqual(whole.toolResults.map((r) => [r.toolName, r.output]), [['lookup', `${asked[0]}: 3 left`]])
    const stream = streamText(forced)
    let input = ''
    for await (const part of stream.fullStream) {
      assert.notEqual(part.type, 'error', part.error)
      if (part.type === 'tool-input-delta') input += part.delta
    }
    assert.deepEqual((await stream.toolCalls).map((c) => c.input), [JSON.parse(input)])
    assert.equal(asked.length, 2)
  }
})

// The second step sends the call and its result back and answers in words.
test('tool and answer', async () => {
  const asked = []
  const { steps } = await generateText({
    ...single, tools: { lookup: lookup(asked) }, stopWhen: stepCountIs(2),
    prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber === 0 ? 'required' : 'none' }),
  })
  assert.deepEqual(steps.map((s) => s.toolCalls.length), [1, 0])
  assert.equal(asked.length, 1)
  assert.ok(steps[1].text)
})

test('embeddings', async () => {
  const m = connect().embeddingModel(embedder)
  const one = await embed({ model: m, value: 'an apple', maxRetries: 0 })
  const many = await embedMany({ model: m, values: ['an apple', 'a pear'], maxRetries: 0 })
  assert.equal(one.embedding.length, 384)
  assert.ok(one.usage.tokens > 0)
  assert.ok(cosineSimilarity(one.embedding, many.embeddings[0]) > 0.999)
})

test('errors', async () => {
  let e = await fails(APICallError, generateText({ ...ask, model: connect().chatModel('gpt-4o') }))
  assert.deepEqual([e.statusCode, e.isRetryable], [404, false])
  assert.match(e.message, /gpt-4o/)
  e = await fails(APICallError, generateText({ ...ask, temperature: -1 }))
  assert.equal(e.statusCode, 400)
  assert.match(e.message, /temperature must be from 0 to 2/)
  const errors = []
  await streamText({ ...ask, temperature: -1, onError: ({ error }) => { errors.push(error) } }).consumeStream()
  assert.deepEqual(errors.map((e) => e.statusCode), [400])
  e = await fails(APICallError, embed({ model: connect().embeddingModel(model), value: 'a', maxRetries: 0 }))
  assert.equal(e.statusCode, 404)
})

test('an aborted stream frees its slot', async () => {
  const controller = new AbortController()
  const stream = streamText({ ...ask, maxOutputTokens: 900, abortSignal: controller.signal, providerOptions: { infer: { ignore_eos: true } } })
  const types = []
  for await (const part of stream.fullStream) {
    types.push(part.type)
    if (part.type !== 'text-delta' || controller.signal.aborted) continue
    await busy()
    controller.abort()
  }
  assert.equal(types.at(-1), 'abort')
  await idle()
})
