// Checks calls and thoughts of a model's own choice with the clients for
// JavaScript: URL_OF_THE_MODEL_QWEN. What the model says is in test/recital.
import assert from 'node:assert/strict'
import test from 'node:test'
import Anthropic from '@anthropic-ai/sdk'
import { betaZodTool } from '@anthropic-ai/sdk/helpers/beta/zod'
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import { generateText, stepCountIs, streamText, tool } from 'ai'
import OpenAI from 'openai'
import { z } from 'zod'

const [url] = process.argv.slice(2)
const model = createOpenAICompatible({ name: 'infer', baseURL: `${url}/v1`, apiKey: 'none', includeUsage: true }).chatModel('qwen')
const ask = { model, maxRetries: 0, stopWhen: stepCountIs(3) }
const Weather = z.object({ city: z.string() })

// Tools returns the functions, which note how they are called.
const tools = (called) => ({
  get_weather: tool({ inputSchema: Weather, execute: async ({ city }) => { called.push(city); return 'sunny' } }),
  get_time: tool({ inputSchema: z.object({}), execute: async () => { called.push('time'); return 'noon' } }),
})

test('the AI SDK runs the tools and goes on', async () => {
  for (const prompt of ['How is the weather?', 'ponder']) {
    const called = []
    const whole = await generateText({ ...ask, prompt, tools: tools(called) })
    assert.deepEqual([whole.text, whole.finishReason, called], ['It is sunny in Paris.', 'stop', ['Paris']])
    assert.deepEqual(whole.steps.map((s) => s.finishReason), ['tool-calls', 'stop'])
    assert.equal(whole.steps[0].reasoningText, prompt === 'ponder' ? 'Paris, then.\n' : undefined)
    const stream = streamText({ ...ask, prompt, tools: tools(called) })
    const parts = []
    for await (const part of stream.fullStream) parts.push(part)
    assert.equal(await stream.text, 'It is sunny in Paris.')
    assert.equal(parts.filter((p) => p.type === 'tool-input-delta').map((p) => p.delta).join(''), '{"city": "Paris"}')
    assert.deepEqual(called, ['Paris', 'Paris'])
  }
})

test('the AI SDK takes two calls at once, behind a text', async () => {
  const called = []
  const { steps: [first] } = await generateText({ ...ask, prompt: 'both', tools: tools(called), stopWhen: stepCountIs(1) })
  assert.deepEqual([first.text, called], ['I will look at both.\n', ['Paris', 'time']])
})

test('the AI SDK shows thoughts', async () => {
  const whole = await generateText({ ...ask, prompt: 'sum' })
  assert.deepEqual([whole.reasoningText, whole.text], ['Five and two make seven.\n', 'It is seven.'])
  assert.ok(whole.usage.outputTokenDetails.reasoningTokens > 0)
  const stream = streamText({ ...ask, prompt: 'sum', providerOptions: { infer: { reasoningEffort: 'none' } } })
  assert.deepEqual([await stream.text, await stream.reasoningText], ['Seven.', undefined])
})

test('runTools of OpenAI', async () => {
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none', maxRetries: 0 })
  for (const stream of [false, true]) {
    const called = []
    const runner = client.chat.completions.runTools({
      model: 'qwen', stream, messages: [{ role: 'user', content: 'How is the weather?' }],
      tools: [{ type: 'function', function: { name: 'get_weather', parameters: z.toJSONSchema(Weather), parse: JSON.parse,
        function: ({ city }) => { called.push(city); return 'sunny' } } }],
    })
    assert.equal(await runner.finalContent(), 'It is sunny in Paris.')
    assert.deepEqual(called, ['Paris'])
  }
})

test('toolRunner of Anthropic', async () => {
  const client = new Anthropic({ baseURL: url, apiKey: 'none', maxRetries: 0 })
  const called = []
  const run = ({ city }) => { called.push(city); return 'sunny' }
  const last = await client.beta.messages.toolRunner({
    model: 'qwen', max_tokens: 99, messages: [{ role: 'user', content: 'ponder' }],
    tools: [betaZodTool({ name: 'get_weather', description: 'Weather of a city.', inputSchema: Weather, run })],
  })
  assert.deepEqual([last.content.at(-1).text, last.stop_reason, called], ['It is sunny in Paris.', 'end_turn', ['Paris']])
})
