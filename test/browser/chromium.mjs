/**
 * The browser of the tests and of the screenshot: a Chromium of this machine, without a window.
 *
 * @module
 */

import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";
import { chromium } from "playwright-core";

const commands = ["chromium", "chromium-browser", "google-chrome"];
// No sandbox: containers run as root. WebGPU by software, where there is no GPU. The rest keeps
// Chromium from calling home.
const flags = [
  "--no-sandbox",
  "--disable-gpu",
  "--enable-unsafe-webgpu",
  "--use-webgpu-adapter=swiftshader",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

function isExecutable(file) {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** The browser's path; undefined when there is none. `CHROMIUM` names another. */
export function findChromium() {
  if (process.env.CHROMIUM) return [process.env.CHROMIUM].find(isExecutable);
  const folders = ["/usr/bin", ...(process.env.PATH ?? "").split(delimiter)];
  return commands.flatMap((name) => folders.map((folder) => join(folder, name))).find(isExecutable);
}

/** What was looked for, for people. */
export const wanted = process.env.CHROMIUM ?? commands.join(", ");

/** Starts the browser with a new empty profile in `folder`. */
export function launch(executablePath, folder) {
  const profile = join(folder, "profile");
  return chromium.launchPersistentContext(profile, { executablePath, headless: true, args: flags });
}

/** Rejects when `promise` takes too long: a page that spins answers nobody. */
export async function within(limitMs, promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} took over ${limitMs} ms`)), limitMs);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
