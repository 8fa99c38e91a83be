// Puts the page together: npm run build [-- --model GRAPH.onnx --out DIR --ask-above MB]
//
// Nothing is compiled: dist/ holds the files beside this one, onnxruntime-web's WebAssembly, and the graph.
// Any web server can hand them out; none of them talks to one again once they are loaded.
import { createHash } from "node:crypto";
import { chmodSync, copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, realpathSync, renameSync, rmSync,
         statSync, writeFileSync } from "node:fs";
import { basename, dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { runtime as installedRuntime } from "./install.mjs";
import { megabytes } from "./page.js";

const here = dirname(fileURLToPath(import.meta.url));
const PAGE = ["index.html", "icon.svg", "style.css", "app.js", "loading.js", "loops.js", "page.js", "worker.js", "recorder.js",
              "windows.js"];
const RUNTIME = ["ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"];
const DEFAULT = join(here, "..", "..", "whisper_model_dir", "whisper-nano_end_to_end_int8.onnx");
const KNOWS = join(here, "..", "..", "whisper_lab", "knows.json");
// MB of a graph above which the page asks before it loads. Any page loads the runtime's 14 MB, and a smaller graph does
// not double that; a larger one may cost its reader money or minutes: whisper-base takes one at 10 Mbit/s.
const ASK_ABOVE = 10;

function fail(problem, remedy, status = 1) {
  console.error(`error: ${problem}\n  try: ${remedy}`);
  process.exit(status);
}

const USAGE = "npm run build -- --model GRAPH.onnx --out DIR --ask-above MB";

function options(argv) {
  const found = { model: DEFAULT, out: join(here, "dist"), "ask-above": ASK_ABOVE };
  if (argv.includes("--help") || argv.includes("-h")) {
    console.log(`usage: ${USAGE}\n\n` +
                "  --model      a single graph that 08 wrote (default: whisper-nano's in int8)\n" +
                "  --out        the page's folder; it replaces a page that is there (default: dist)\n" +
                `  --ask-above  MB of a graph above which the page asks before it loads (default: ${ASK_ABOVE})`);
    process.exit(0);
  }
  for (let i = 0; i < argv.length; i += 2) {
    const name = argv[i].replace(/^--/, ""), value = argv[i + 1], number = name === "ask-above";
    if (!(name in found) || value === undefined || (number && !(Number(value) >= 0)))
      fail(`cannot understand ${argv.slice(i).join(" ")}`, USAGE, 2);
    found[name] = number ? Number(value) : resolve(process.env.INIT_CWD ?? ".", value);
  }
  return found;
}

// --out may be a new folder, an empty one, or a page that was built before: nothing else is ever deleted.
function refuseForeign(out, model) {
  const elsewhere = "name a folder of its own: npm run build -- --out DIR";
  const found = attempt(() => statSync(out));
  if (!found) return;
  if (!found.isDirectory()) fail(`${out} is a file, and a page is a folder`, elsewhere);
  const foreign = foreignIn(out);
  if (foreign) fail(`${out} has ${foreign} in it, which is no part of a page`, elsewhere);
  if (!relative(real(out), real(model)).startsWith(".."))
    fail(`the graph ${model} is in ${out}, which the page replaces`, elsewhere);
}

// What a link leads to; the path itself where there is nothing, as while another build replaces it.
function real(path) {
  return attempt(() => realpathSync(path)) ?? path;
}

// What a step returns; undefined where it fails.
function attempt(step) {
  try {
    return step();
  } catch {
    return undefined;
  }
}

// A name in a page's folder that is no part of the page; undefined where all are. Looked for again, because another
// build may replace the folder between two looks.
function foreignIn(out) {
  for (let look = 1; ; look += 1) {
    const names = attempt(() => readdirSync(out)) ?? [];
    const manifest = attempt(() => JSON.parse(readFileSync(join(out, "manifest.json"), "utf8")));
    const known = [...PAGE, "ort", "sw.js", "manifest.json", manifest?.graph];
    const foreign = names.find((name) => !known.includes(name));
    if (!foreign || look === 5) return foreign;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 50); // ms
  }
}

// A folder beside the page's, with the rights that the page will have.
function folderBeside(out) {
  try {
    mkdirSync(dirname(out), { recursive: true });
    const made = mkdtempSync(`${out}.build-`);
    const mode = attempt(() => statSync(out).mode) ?? 0o777 & ~process.umask();
    chmodSync(made, mode & 0o7777);
    return made;
  } catch (problem) {
    return fail(`cannot write ${out}: ${problem.message}`, "name a folder that you may write to: npm run build -- --out DIR");
  }
}

// Another build may put its page there at the same moment: the last one stays.
function replace(out, made) {
  for (let attempt = 1; ; attempt += 1) {
    const before = join(made, "..", `${basename(made)}-before-${attempt}`);
    try {
      if (existsSync(out)) renameSync(out, before);
      renameSync(made, out);
      return rmSync(before, { recursive: true, force: true });
    } catch (problem) {
      rmSync(before, { recursive: true, force: true });
      if (attempt === 5) fail(`the page cannot be put in ${out}: ${problem.message}`, "choose another folder: npm run build -- --out DIR");
    }
  }
}

// A graph's metadata_props, field 14 of ModelProto: the file is a row of (tag, length, bytes), and only those are read.
// Wire format: https://protobuf.dev/programming-guides/encoding
function metadata(bytes) {
  const found = {};
  for (const { number, content } of fields(bytes)) {
    if (number !== 14) continue;
    const [key, value] = [...fields(content)].map((field) => Buffer.from(field.content).toString("utf8"));
    found[key] = value;
  }
  return found;
}

function* fields(bytes) {
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let factor = 1; ; factor *= 128) {
      const byte = bytes[at++];
      if (byte === undefined) throw new Error("the file ends in the middle of a number");
      value += (byte & 127) * factor;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const tag = varint(), number = Math.floor(tag / 8), kind = tag % 8;
    if (kind === 0) varint();
    else if (kind === 2) {
      const length = varint();
      if (at + length > bytes.length) throw new Error("the file ends in the middle of a field");
      yield { number, content: bytes.subarray(at, at + length) };
      at += length;
    } else throw new Error(`field ${number} has kind ${kind}`);
  }
}

function describe(path) {
  let facts;
  try {
    facts = metadata(readFileSync(path));
  } catch (error) {
    fail(`${path} is not an ONNX graph: ${error.message}`, "write one: python 08-single-onnx-model.py --model nano --precision int8");
  }
  if (facts.part !== "end_to_end" || JSON.parse(facts.recipe).input === "wav")
    fail(`${path} is not a single graph from samples to text`, "write one: python 08-single-onnx-model.py --model nano --precision int8");
  return { name: facts.model, precision: facts.precision, englishOnly: facts.is_multilingual === "false",
           sampleRate: Number(facts.sample_rate),
           windowSamples: Math.round(facts.n_audio_ctx * facts.timestamp_step * facts.sample_rate) };
}

// What the page says from its first moment, before any script runs. Names come from the graph: they are text, not markup.
function fillIn(page, about, sizes) {
  const escaped = (text) => String(text).replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
  const language = about.englishOnly ? " It understands English only." : "";
  const said = { ABOUT: `${about.name}, ${about.precision}: one ONNX graph from samples to text.${language}`,
                 SIZE: `${megabytes(sizes.graph)}, and ${megabytes(sizes.runtime)} for onnxruntime-web, which runs it.` };
  return page.replace(/@(ABOUT|SIZE)@/g, (_, key) => escaped(said[key]));
}

const { model, out: asked, "ask-above": askAbove } = options(process.argv.slice(2));
const out = real(asked);
if (!existsSync(model))
  fail(`there is no graph ${model}`, "write it in the lab's folder: python 08-single-onnx-model.py --model nano --precision int8");
if (statSync(model).isDirectory())
  fail(`${model} is a folder, not a graph`, "name the graph in it: npm run build -- --model GRAPH.onnx");
if (existsSync(`${model}.data`))
  fail(`${model} has its weights in a second file: too large for a page`, "take a smaller precision or model");
const about = describe(model);
const runtime = installedRuntime();

refuseForeign(out, model);
const made = folderBeside(out); // whole before it takes the place of an earlier one
process.on("exit", () => rmSync(made, { recursive: true, force: true }));
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => process.exit(1));
mkdirSync(join(made, "ort"), { recursive: true });
for (const file of PAGE) copyFileSync(join(here, file), join(made, file));
for (const file of RUNTIME) copyFileSync(join(runtime, file), join(made, "ort", file));
copyFileSync(model, join(made, basename(model)));
const graph = basename(model), runtimeFiles = RUNTIME.map((file) => `ort/${file}`);
const bytesOf = (file) => statSync(join(made, file)).size;
const load = { graph: bytesOf(graph), runtime: runtimeFiles.reduce((sum, file) => sum + bytesOf(file), 0) };
writeFileSync(join(made, "index.html"), fillIn(readFileSync(join(here, "index.html"), "utf8"), about, load));
const everything = [...PAGE, ...runtimeFiles, graph];
const digest = createHash("sha256");
const sizes = {};
for (const file of everything) {
  const bytes = readFileSync(join(made, file));
  digest.update(bytes);
  sizes[file] = bytes.length;
}
// What a narrow model knows and what to read aloud to it; null for any other.
const knows = JSON.parse(readFileSync(KNOWS, "utf8"))[about.name] ?? null;
// What the page has to know, and the version under which the browser keeps it all.
const wasm = "ort/ort-wasm-simd-threaded.wasm";
const sha256 = (file) => createHash("sha256").update(readFileSync(join(made, file))).digest("hex");
const manifest = { ...about, version: digest.digest("hex").slice(0, 16), graph, wasm, load, knows, sizes,
                   asksFirst: load.graph > askAbove * 1e6, digests: { [graph]: sha256(graph), [wasm]: sha256(wasm) } };
writeFileSync(join(made, "manifest.json"), JSON.stringify(manifest, null, 2) + "\n");
const shell = ["./", ...everything.filter((file) => file !== manifest.graph && file !== manifest.wasm), "manifest.json"];
writeFileSync(join(made, "sw.js"), readFileSync(join(here, "sw.js"), "utf8")
  .replace('"@VERSION@"', JSON.stringify(manifest.version)).replace('"@SHELL@"', JSON.stringify(shell)));
const total = Object.values(sizes).reduce((sum, size) => sum + size, 0);
replace(out, made);
console.log(`${out}: ${about.name} ${about.precision}, ${(total / 1e6).toFixed(1)} MB in ${everything.length + 2} files`);
if (manifest.asksFirst) console.log(`the page asks before it loads the graph: ${megabytes(load.graph)} (--ask-above ${askAbove})`);
console.log(`look at it: python3 -m http.server --bind 127.0.0.1 --directory ${out} 8000   then open http://127.0.0.1:8000`);
