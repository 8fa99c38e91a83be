// The page: a clip or the microphone in, text out; what it cost beside it. The graph runs in worker.js.
import { start } from "./loading.js";
import { compressionRatio, LOOPS } from "./loops.js";
import { $, say, seconds, show } from "./page.js";
import { decode, resample, windows } from "./windows.js";

const waiting = new Map();
const lab = (window.lab = { results: [] }); // for whoever looks from the console, and for the tests
let worker, manifest;

start((loaded) => {
  worker = loaded;
  worker.onmessage = ({ data }) => answered(data);
  worker.onerror = (event) => say(`The graph stopped: ${event.message ?? "no reason given"}. Reload the page.`, true);
  $("file").disabled = $("record").disabled = false;
}, (read) => {
  manifest = read;
  if (manifest.knows) introduce(manifest.name, manifest.knows);
});

// A narrow model answers every sentence with one of its own: say which it knows before somebody speaks.
function introduce(name, { what, sentences }) {
  $("what").textContent = `${name} knows ${what}.`;
  $("sentences").replaceChildren();
  for (const [language, texts] of Object.entries(sentences)) {
    for (const text of texts) {
      const entry = $("sentences").appendChild(document.createElement("li"));
      entry.textContent = text;
      entry.lang = language;
    }
  }
  $("knows").hidden = false;
}

// Transcribing ----------------------------------------------------------------------------------------------------------

let count = 0;
function ask(samples) {
  const id = ++count;
  worker.postMessage({ id, samples });
  return new Promise((resolve, reject) => waiting.set(id, { resolve, reject }));
}

function answered({ id, error, ...answer }) {
  const { resolve, reject } = waiting.get(id);
  waiting.delete(id);
  error ? reject(new Error(error)) : resolve(answer);
}

async function transcribe(name, samples) {
  if (!samples.length) throw new Error("there is no sound in it");
  const pieces = windows(samples, manifest.windowSamples, manifest.sampleRate), parts = [];
  for (const [i, piece] of pieces.entries()) {
    say(pieces.length > 1 ? `Listening to part ${i + 1} of ${pieces.length}` : "Listening");
    parts.push(await ask(piece));
  }
  const result = { name, text: parts.map((part) => part.text).join(" ").trim(), tokens: parts.map((part) => part.tokens),
                   sound_s: samples.length / manifest.sampleRate, seconds: parts.reduce((sum, part) => sum + part.seconds, 0),
                   samples };
  result.real_time_factor = result.seconds / result.sound_s;
  result.compression_ratio = Math.max(...(await Promise.all(parts.map((part) => compressionRatio(part.text)))));
  lab.results.push(result);
  add(result);
  show("real-time factor", result.real_time_factor.toFixed(2));
  say("");
}

function add(result) {
  const entry = document.createElement("li"), text = document.createElement("p"), about = document.createElement("small");
  text.textContent = result.text || "(nothing heard)";
  about.textContent = `${result.name}: ${seconds(result.sound_s)} of sound in ${seconds(result.seconds)}, ` +
    `real-time factor ${result.real_time_factor.toFixed(2)}`;
  if (result.compression_ratio > LOOPS) entry.append(warning(result.compression_ratio));
  entry.append(text, about);
  $("results").prepend(entry);
}

// Above the text, so that nobody reads it without.
function warning(ratio) {
  const line = document.createElement("p");
  line.className = "warning";
  line.textContent = `Warning: ${manifest.name} repeats itself: the text may be invented ` +
    `(compression ratio ${ratio.toFixed(1)}, doubtful above ${LOOPS}). ` +
    "What may help: speak closer to the microphone, or make this page of a larger model.";
  return line;
}

let busy = Promise.resolve(); // one after the other, in the order they came
function queue(work) {
  busy = busy.then(work).catch((error) => say(error.message, true));
}

function take(file) {
  queue(async () => {
    say(`Reading ${file.name}`);
    let samples;
    try {
      samples = await decode(await file.arrayBuffer(), manifest.sampleRate);
    } catch {
      throw new Error(`${file.name} is not sound this browser can read. Try WAV, MP3, FLAC or Ogg.`);
    }
    await transcribe(file.name, samples);
  });
}

$("file").onchange = () => {
  for (const file of $("file").files) take(file);
  $("file").value = "";
};
for (const kind of ["dragover", "dragleave", "drop"])
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop" && !$("file").disabled) for (const file of event.dataTransfer.files) take(file);
  });

// The microphone --------------------------------------------------------------------------------------------------------

let recording = null;
$("record").onclick = () => (recording ? stop() : record());

async function record() {
  if (!navigator.mediaDevices) return say("The microphone needs a page from https or localhost.", true);
  $("record").disabled = true;
  try {
    const stream = await navigator.mediaDevices.getUserMedia({
      audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false } });
    const context = new AudioContext();
    await context.audioWorklet.addModule("recorder.js");
    const node = new AudioWorkletNode(context, "recorder", { numberOfOutputs: 0 });
    const blocks = [];
    node.port.onmessage = ({ data }) => {
      blocks.push(data);
      const length = (blocks.length * data.length) / context.sampleRate;
      if (blocks.length % 64 === 0) say(`Recording: ${length.toFixed(0)} s`);
    };
    context.createMediaStreamSource(stream).connect(node);
    recording = { stream, context, blocks };
    $("record").classList.add("on");
    $("recordlabel").textContent = "Stop";
    say("Recording");
  } catch (error) {
    say(error.name === "NotAllowedError" ? "The microphone was refused: allow it in the address bar."
      : `The microphone cannot be used: ${error.message}`, true);
  }
  $("record").disabled = false;
}

async function stop() {
  const { stream, context, blocks } = recording;
  recording = null;
  for (const track of stream.getTracks()) track.stop();
  $("record").classList.remove("on");
  $("recordlabel").textContent = "Record";
  const samples = new Float32Array(blocks.reduce((sum, block) => sum + block.length, 0));
  blocks.reduce((at, block) => (samples.set(block, at), at + block.length), 0);
  await context.close();
  queue(async () => transcribe("microphone", await resample(samples, context.sampleRate, manifest.sampleRate)));
}
