// Vercel's AI SDK, another client of OpenAI's contract: node vercel_ai.mjs URL FILE. Prints what it made of the answer.
import { readFile } from 'node:fs/promises'
import { createOpenAI } from '@ai-sdk/openai'
import { experimental_transcribe as transcribe } from 'ai'

const [url, file] = process.argv.slice(2)
const openai = createOpenAI({ baseURL: `${url}/v1`, apiKey: 'any' })
const { text, segments, language, durationInSeconds } = await transcribe({
  model: openai.transcription('whisper-1'),
  audio: await readFile(file),
  providerOptions: { openai: { timestampGranularities: ['segment'] } },
  maxRetries: 0,
})
console.log(JSON.stringify({ text, segments, language, durationInSeconds }))
