// onnxruntime-web as package-lock.json pins it, in node_modules: node install.mjs
//
// npm works in a folder of its own, whose node_modules is then moved here: what is here is complete, and two builds at
// the same time do not meet (npm itself stops with ENOTEMPTY then).
import { execFileSync } from "node:child_process";
import { copyFileSync, existsSync, mkdtempSync, readFileSync, renameSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const installed = join(here, "node_modules");
const read = (path) => JSON.parse(readFileSync(path, "utf8"));

// Whether node_modules holds the version that package.json names.
function complete() {
  const path = join(installed, "onnxruntime-web", "package.json");
  return existsSync(path) && read(path).version === read(join(here, "package.json")).dependencies["onnxruntime-web"];
}

// The folder of onnxruntime-web's files, installed first where they are missing or of another version. Ends the program
// where npm fails, whose own words stand above ours.
export function runtime() {
  if (!complete()) {
    console.error("onnxruntime-web: installing (first build of this version; pinned in package-lock.json)");
    const folder = mkdtempSync(join(here, ".install-"));
    process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => process.exit(1));
    const failed = attempt(() => install(folder)) ?? (complete() ? null : new Error("npm has put nothing there"));
    if (failed?.code === "ENOENT" && failed.path === "npm") {
      console.error("error: there is no npm here\n  try: apt-get install nodejs npm");
      process.exit(1);
    }
    if (failed) {
      console.error(`error: onnxruntime-web is not installed: ${failed.message.split("\n")[0]}\n` +
                    "  try: go online, or point npm at a registry within reach " +
                    "(npm config set registry ADDRESS), and build again: npm run build");
      process.exit(1);
    }
  }
  return join(installed, "onnxruntime-web", "dist");
}

function install(folder) {
  for (const file of ["package.json", "package-lock.json"]) copyFileSync(join(here, file), join(folder, file));
  execFileSync("npm", ["ci", "--ignore-scripts", "--no-audit", "--no-fund"],
               { cwd: folder, stdio: "inherit", shell: process.platform === "win32" });
  if (!existsSync(join(folder, "node_modules"))) throw new Error("npm has put nothing there");
  put(join(folder, "node_modules"), folder);
}

// What a step threw, or null.
function attempt(step) {
  try {
    step();
    return null;
  } catch (problem) {
    return problem;
  }
}

// Another process may do the same at this moment: whichever comes second leaves what the first has put here.
function put(made, folder) {
  for (const before of ["first", "second", "third"]) {
    try {
      return renameSync(made, installed); // never over a folder with something in it
    } catch (problem) {
      if (complete()) return;
      if (before === "third") throw problem;
      attempt(() => renameSync(installed, join(folder, before))); // another version
    }
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  runtime();
}
