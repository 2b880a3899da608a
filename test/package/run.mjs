/**
 * Checks the package that npm would publish: its metadata, its types, its files, and that an empty
 * project can install and use it.
 *
 * @module
 */

import { execFile, execFileSync } from "node:child_process";
import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join, posix } from "node:path";
import { promisify } from "node:util";
import { Report } from "./checks.mjs";
import { pack, projectFolder, unpack, withTempFolder } from "./pack.mjs";

const documents = ["README.md", "CHANGELOG.md", "LICENSE", "package.json"];
const folders = ["dist", "src", "assembly", "docs"];
const COMMAND_LIMIT_MS = 120_000;
const compilerOptions = {
  target: "es2022",
  lib: ["es2022", "esnext.disposable", "dom"],
  types: [],
  strict: true,
  noEmit: true,
  skipLibCheck: false, // the package's own declarations are what is checked
};

/** Runs a command; throws with everything it printed when it fails. */
async function run(command, args, cwd) {
  try {
    await promisify(execFile)(command, args, {
      cwd,
      timeout: COMMAND_LIMIT_MS,
      env: { ...process.env, NO_COLOR: "1", FORCE_COLOR: undefined },
    });
  } catch (error) {
    throw new Error(`${error.stdout ?? ""}${error.stderr ?? ""}`.trim() || error.message);
  }
}

/** Runs the command of an installed package on this Node. */
function runTool(name, command, args, cwd) {
  const folder = join(projectFolder, "node_modules", name);
  const { bin } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  const file = typeof bin === "string" ? bin : bin[command];
  return run(process.execPath, [join(folder, file), ...args], cwd);
}

/** The files of a tarball, as paths in the package. */
function filesOf(tarball) {
  const names = execFileSync("tar", ["-tzf", tarball], { encoding: "utf8" }).trim().split("\n");
  return names.map((name) => name.replace(/^package\//, "")).sort();
}

function demandNone(names, what) {
  if (names.length > 0) throw new Error(`${what}:\n${names.join("\n")}`);
}

function checkFileList(files) {
  const missing = [
    ...documents.filter((name) => !files.includes(name)),
    ...folders.filter((name) => !files.some((file) => file.startsWith(`${name}/`))),
  ];
  demandNone(missing, "missing in the tarball");
  const isExpected = (file) => documents.includes(file) || folders.includes(file.split("/")[0]);
  demandNone(
    files.filter((file) => !isExpected(file)),
    "not meant for the tarball",
  );
}

function targetsOf(entry) {
  return typeof entry === "string" ? [entry] : Object.values(entry).flatMap(targetsOf);
}

function checkExports(files, exports) {
  const targets = targetsOf(exports).map((target) => posix.normalize(target));
  demandNone(
    targets.filter((target) => !files.includes(target)),
    "exported, but not in the tarball",
  );
}

/** A debugger follows the source maps: what they name must be there. */
function checkSourceMaps(files, folder) {
  const sources = files
    .filter((file) => file.endsWith(".map"))
    .flatMap((file) => {
      const map = JSON.parse(readFileSync(join(folder, file), "utf8"));
      return map.sources.map((source) => posix.join(dirname(file), source));
    });
  demandNone(
    [...new Set(sources)].filter((source) => !files.includes(source)),
    "named by source maps, but not in the tarball",
  );
}

async function checkTarball(report, tarball, folder) {
  const files = filesOf(tarball);
  unpack(tarball, folder);
  const { exports } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  const notCode = Object.keys(exports).filter((name) => name.endsWith(".wasm"));
  await report.check("the tarball holds what it should and nothing else", () =>
    checkFileList(files),
  );
  await report.check("every export is in the tarball", () => checkExports(files, exports));
  await report.check("every source of a source map is in the tarball", () =>
    checkSourceMaps(files, folder),
  );
  await report.check("publint --strict", () =>
    runTool("publint", "publint", ["run", tarball, "--strict"], folder),
  );
  const entries = ["--exclude-entrypoints", ...notCode.map((name) => name.replace("./", ""))];
  await report.check("attw --profile esm-only", () =>
    runTool(
      "@arethetypeswrong/cli",
      "attw",
      [tarball, "--profile", "esm-only", "--no-definitely-typed", "--format", "ascii", ...entries],
      folder,
    ),
  );
}

/** Makes an empty project and installs the tarball, its dependency from npm's cache or registry. */
async function install(tarball, folder) {
  cpSync(join(projectFolder, "test/package/consumer"), folder, { recursive: true });
  writeFileSync(join(folder, "package.json"), '{ "name": "consumer", "private": true }\n');
  const quiet = ["--prefer-offline", "--no-audit", "--no-fund"];
  await run("npm", ["install", ...quiet, tarball], folder);
}

async function checkTypes(folder, module, moduleResolution) {
  const config = join(folder, `tsconfig.${moduleResolution}.json`);
  const options = { ...compilerOptions, module, moduleResolution };
  writeFileSync(config, JSON.stringify({ compilerOptions: options, include: ["use.mts"] }));
  await runTool("typescript", "tsc", ["-p", config], folder);
}

async function checkConsumer(report, tarball, folder) {
  await report.check("an empty project installs it", () => install(tarball, folder));
  for (const [name, file] of [
    ["an ES module imports it", "use.mjs"],
    ["a CommonJS module requires it", "use.cjs"],
  ])
    await report.check(name, () => run(process.execPath, [file], folder));
  await report.check("TypeScript finds its types, moduleResolution nodenext", () =>
    checkTypes(folder, "nodenext", "nodenext"),
  );
  await report.check("TypeScript finds its types, moduleResolution bundler", () =>
    checkTypes(folder, "esnext", "bundler"),
  );
}

const report = new Report();
await withTempFolder(async (folder) => {
  const tarball = await report.check("npm pack", () => pack(folder));
  if (tarball === undefined) return;
  await checkTarball(report, tarball, join(folder, "package"));
  await checkConsumer(report, tarball, join(folder, "consumer"));
});
report.close();
