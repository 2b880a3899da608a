// Builds everything: the core (debug and release), the module that carries it inlined, the library,
// and the programs.
//
//   assembly/ ──asc, slow.mjs──► build/core.{debug,release}.wasm ──► src/core/module.generated.ts ──tsc──► dist/
//                            └──► build/core.{debug,release}.yields.wasm, for tests (yields.mjs)
//                                                          examples/, bench/, test/{golden,fuzz}/ ──tsc──► build/
//
// A part is built only when something it is made of is newer; asc's warnings are failures.
import { spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const at = (...parts) => join(root, ...parts);
const require = createRequire(import.meta.url);
const RELEASE = at("build/core.release.wasm");
const DEBUG = at("build/core.debug.wasm");
const SLOW = at("scripts/slow.mjs");
const GENERATED = at("src/core/module.generated.ts");

/** The newest modification below the given files and folders. */
function newest(...paths) {
  return Math.max(
    ...paths.map((path) => {
      if (!existsSync(path)) return 0;
      const stat = statSync(path);
      return stat.isDirectory()
        ? Math.max(0, ...readdirSync(path).map((name) => newest(join(path, name))))
        : stat.mtimeMs;
    }),
  );
}

/** The oldest of the outputs; 0 when one is missing. */
function oldest(...files) {
  return Math.min(...files.map((file) => (existsSync(file) ? statSync(file).mtimeMs : 0)));
}

/** The file that a package's command starts. */
function command(name, packageName = name) {
  const file = require.resolve(`${packageName}/package.json`);
  const { bin } = JSON.parse(readFileSync(file, "utf8"));
  return join(dirname(file), typeof bin === "string" ? bin : bin[name]);
}

function run(file, args) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [file, ...args], {
    cwd: root,
    encoding: "utf8",
  });
  const output = `${stdout}${stderr}`;
  if (status !== 0 || /^WARNING/m.test(output)) {
    process.stderr.write(output);
    process.stderr.write(`\nbuild: ${file} ${args.join(" ")} failed\n`);
    process.exit(1);
  }
}

function buildCore() {
  if (oldest(RELEASE, DEBUG) > newest(at("assembly"), at("asconfig.json"), SLOW)) return;
  mkdirSync(at("build"), { recursive: true });
  const options = ["--config", "asconfig.json", "--transform", SLOW];
  for (const target of ["debug", "release"])
    run(command("asc", "assemblyscript"), [...options, "--target", target]);
}

async function buildYielding() {
  for (const file of [RELEASE, DEBUG]) {
    const to = file.replace(".wasm", ".yields.wasm");
    if (oldest(to) > newest(file, at("scripts/yields.mjs"))) continue;
    const { writeYielding } = await import("./yields.mjs");
    writeYielding(file, to);
  }
}

function generateModule() {
  if (oldest(GENERATED) > newest(RELEASE)) return;
  const text = readFileSync(RELEASE).toString("base64");
  writeFileSync(
    GENERATED,
    [
      "// Made by scripts/build.mjs from the release core. Not kept in the repository.",
      "/** The release core for shared memory, base64. */",
      `export const coreModuleBase64: string = "${text}";`,
      "",
    ].join("\n"),
  );
}

async function buildLibrary() {
  const outputs = ["dist/index.js", "dist/core.wasm", "dist/core-shared.wasm"].map((file) =>
    at(file),
  );
  if (oldest(...outputs) > newest(at("src"), at("tsconfig.json"))) return;
  rmSync(at("dist"), { recursive: true, force: true });
  run(command("tsc", "typescript"), ["-p", "tsconfig.json"]);
  const { withMemoryKind } = await import(pathToFileURL(at("dist/core/memory-kind.js")).href);
  const release = readFileSync(RELEASE);
  writeFileSync(at("dist/core.wasm"), withMemoryKind(release, false));
  writeFileSync(at("dist/core-shared.wasm"), withMemoryKind(release, true));
}

function buildPrograms() {
  const sources = [
    "examples",
    "bench",
    "test/golden",
    "test/fuzz",
    "test/model",
    "test/support",
    "test/examples",
    "tsconfig.programs.json",
    "dist/index.js",
  ].map((file) => at(file));
  const stamp = at("build/programs.stamp");
  if (oldest(stamp) > newest(...sources)) return;
  run(command("tsc", "typescript"), ["-p", "tsconfig.programs.json"]);
  writeFileSync(stamp, "");
}

buildCore();
await buildYielding();
generateModule();
await buildLibrary();
buildPrograms();
