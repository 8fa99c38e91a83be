// transformers.js in node, asked as harness.py asks the other peers: one argument, a job in JSON; on stdout a line of
// JSON with the versions, then one for each clip: text, seconds and processor seconds (medians).
//
//     node hear.mjs '{"clips": "clips.json", "artefact": "whisper-base_int8_optimum", "setting": {"dtype": "q8"},
//                     "threads": 1, "repeats": 1}'
//
// Setting: dtype, as of `pipeline`; subfolder, where the graphs are not in onnx/; return_timestamps, 'word' for `chunks`
// with the times of words, which graphs have that were exported with --alignment-heads.
import fs from 'node:fs';
import path from 'node:path';
import { env, pipeline } from '@huggingface/transformers';

const RATE = 16000;
const WINDOW = 30 * RATE; // samples; the published models hear no more at once
const job = JSON.parse(process.argv[2]);

function version(name) { // of an installed package; its package.json may not be exported
  return JSON.parse(fs.readFileSync(new URL(`node_modules/${name}/package.json`, import.meta.url))).version;
}

function readWav(file) { // 16-bit mono samples in -1..1; the data may come behind other chunks
  const bytes = fs.readFileSync(file);
  let at = 12;
  while (bytes.toString('latin1', at, at + 4) !== 'data') at += 8 + bytes.readUInt32LE(at + 4);
  const count = bytes.readUInt32LE(at + 4) / 2;
  return Float32Array.from({ length: count }, (_, i) => bytes.readInt16LE(at + 8 + 2 * i) / 32768);
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

async function open() {
  env.allowRemoteModels = false; // what is missing here is an error, not a download
  env.localModelPath = path.dirname(path.resolve(job.artefact)) + path.sep;
  return pipeline('automatic-speech-recognition', path.basename(job.artefact), {
    dtype: job.setting.dtype, ...('subfolder' in job.setting ? { subfolder: job.setting.subfolder } : {}),
    session_options: { intraOpNumThreads: job.threads, interOpNumThreads: 1 } });
}

async function heard(recognize, samples, language) {
  const start = performance.now(), processor = process.cpuUsage();
  const said = await recognize(samples, { return_timestamps: job.setting.return_timestamps ?? false,
    ...(recognize.model.generation_config.is_multilingual ? { language, task: 'transcribe' } : {}) });
  const used = process.cpuUsage(processor);
  return { text: said.text.trim(), chunks: said.chunks, seconds: (performance.now() - start) / 1000,
    cpu: (used.user + used.system) / 1e6 };
}

const clips = JSON.parse(fs.readFileSync(job.clips, 'utf8'));
const recognize = await open();
console.log(JSON.stringify({ versions: Object.fromEntries(
  ['@huggingface/transformers', 'onnxruntime-node'].map((name) => [name, version(name)])) }));
await heard(recognize, readWav(clips[0].wav).subarray(0, WINDOW), clips[0].language); // what is made at first use
for (const clip of clips) {
  const samples = readWav(clip.wav), runs = [];
  for (let i = 0; i < job.repeats; i += 1) runs.push(await heard(recognize, samples, clip.language));
  console.log(JSON.stringify({ clip: clip.id, text: runs[0].text, chunks: runs[0].chunks,
    steady: new Set(runs.map((run) => run.text)).size === 1, seconds: median(runs.map((run) => run.seconds)), cpu_s: median(runs.map((run) => run.cpu)) }));
}
