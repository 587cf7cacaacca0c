// Drives the official Node SDK and prints what it reported, one JSON line per event.
// Usage: node session.cjs transcribe|recognize URL TOKEN PCM_FILE
//        node session.cjs synthesize|synthesize-long URL TOKEN TEXT [FORMAT FILE]
//        node session.cjs token ENDPOINT ACCESS_KEY_ID ACCESS_KEY_SECRET
"use strict"

const fs = require("fs")
const path = require("path")
const Nls = require("alibabacloud-nls")

const [mode, url, token, argument, format, file] = process.argv.slice(2)
const config = { url, appkey: "demo-appkey", token }

function say(event, message) {
  console.log(JSON.stringify({ event, message: message === undefined ? null : JSON.parse(message) }))
}

function report(task, events) {
  for (const event of events) task.on(event, (message) => say(event, message))
}

async function sendFile(task) {
  const audio = fs.readFileSync(argument)
  for (let start = 0; start < audio.length; start += 1024) {
    if (!task.sendAudio(audio.subarray(start, start + 1024))) throw new Error("not connected")
    await new Promise(setImmediate)
  }
}

async function recognise(task, events) {
  report(task, events)
  await task.start(task.defaultStartParams(), true, 6000)
  await sendFile(task)
  await task.close()
}

async function synthesise(task, more) {
  const pieces = []
  report(task, ["meta", "completed", "failed"])
  task.on("data", (data) => { pieces.push(Buffer.from(data)) })
  const params = task.defaultStartParams("xiaoyun")
  if (format) params.format = format
  await task.start({ ...params, ...more, text: argument }, true, 6000)
  const audio = Buffer.concat(pieces)
  if (file) fs.writeFileSync(file, audio)
  console.log(JSON.stringify({ event: "audio", bytes: audio.length }))
}

// Of the package's own file: its index for require() leaves it out.
async function createToken(endpoint, akid, akkey) {
  const getToken = require(path.join(path.dirname(require.resolve("alibabacloud-nls")), "lib/token"))
  say("token", JSON.stringify(await getToken({ endpoint, akid, akkey })))
}

const modes = {
  transcribe: () => recognise(
    new Nls.SpeechTranscription(config),
    ["started", "begin", "changed", "end", "completed", "failed"]),
  recognize: () => recognise(
    new Nls.SpeechRecognition(config), ["started", "changed", "completed", "failed"]),
  synthesize: () => synthesise(new Nls.SpeechSynthesizer(config)),
  "synthesize-long": () => synthesise(
    new Nls.SpeechSynthesizer(config, true), { enable_subtitle: true }),
  token: () => createToken(url, token, argument),
}

modes[mode]().then(() => process.exit(0), (error) => {
  console.error(String(error && error.message || error))
  process.exit(1)
})
