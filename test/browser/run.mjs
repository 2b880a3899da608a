/**
 * The browser smoke test: Chromium opens the packed package from a plain static server, once
 * without and once with the headers that make a page cross-origin isolated.
 *
 * `CHROMIUM` names the browser to use. Without any the test is skipped, and fails if
 * `DMABUF_REQUIRE_BROWSER` is 1.
 *
 * @module
 */

import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";
import { chromium } from "playwright-core";
import { Report } from "../package/checks.mjs";
import { withTempFolder } from "../package/pack.mjs";
import { layOutSite, serve } from "./site.mjs";

const PAGE_LIMIT_MS = 90_000;
const commands = ["chromium", "chromium-browser", "google-chrome"];
// No sandbox: containers run as root. The rest keeps Chromium from calling home.
const flags = [
  "--no-sandbox",
  "--disable-gpu",
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

/** The browser's path; undefined when there is none. */
function findChromium() {
  if (process.env.CHROMIUM) return [process.env.CHROMIUM].find(isExecutable);
  const folders = ["/usr/bin", ...(process.env.PATH ?? "").split(delimiter)];
  return commands.flatMap((name) => folders.map((folder) => join(folder, name))).find(isExecutable);
}

/** Rejects when `promise` takes too long: a page that spins answers nobody. */
async function within(limitMs, promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} took over ${limitMs} ms`)), limitMs);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Opens the page on one server and adds its results to the report. */
async function runPage(browser, site, name, isIsolated, report) {
  const { url, close } = await serve(site, { isIsolated });
  const page = await browser.newPage();
  const errors = [];
  page.on("pageerror", (error) => errors.push(`page error: ${error.stack || error}`));
  page.on("console", (message) => {
    if (message.type() === "error") errors.push(`console: ${message.text()}`);
  });
  page.on("crash", () => errors.push("the page crashed"));
  try {
    await report.check(`${name}: the page ${isIsolated ? "is" : "is not"} isolated`, async () => {
      await page.goto(`${url}/page.html`);
      const seen = await page.evaluate(() => crossOriginIsolated);
      if (seen !== isIsolated) throw new Error(`crossOriginIsolated is ${seen}`);
    });
    const results = page.evaluate(() => globalThis.results); // undefined: page.mjs failed to load
    for (const check of (await within(PAGE_LIMIT_MS, results, "the page")) ?? [])
      report.add(`${name}: ${check.name}`, check.reason);
    if ((await results) === undefined) errors.push("page.mjs left no results");
  } catch (error) {
    errors.push(String(error));
  } finally {
    report.add(`${name}: no errors on the page`, errors.join("\n"));
    await within(10_000, page.close(), "closing the page").catch(() => {});
    close();
  }
}

async function runBrowser(executablePath, folder, report) {
  const site = join(folder, "site");
  layOutSite(folder, site);
  const profile = join(folder, "profile"); // a new empty one
  const browser = await chromium.launchPersistentContext(profile, {
    executablePath,
    headless: true,
    args: flags,
  });
  console.log(`Chromium ${browser.browser()?.version() ?? ""} at ${executablePath}`.trim());
  try {
    await runPage(browser, site, "plain server", false, report);
    await runPage(browser, site, "isolating server", true, report);
  } finally {
    await browser.close();
  }
}

const executablePath = findChromium();
if (executablePath === undefined) {
  const wanted = process.env.CHROMIUM ?? commands.join(", ");
  console.log(`skipped: no Chromium found (${wanted}); CHROMIUM=<path> names one`);
  if (process.env.DMABUF_REQUIRE_BROWSER === "1") {
    console.error("DMABUF_REQUIRE_BROWSER=1 demands a browser");
    process.exitCode = 1;
  }
} else {
  const report = new Report();
  await withTempFolder((folder) => runBrowser(executablePath, folder, report));
  report.close();
}
