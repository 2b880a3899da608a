/**
 * The browser tests: Chromium opens the packed package from a plain static server, and the web
 * example, each once without and once with the headers that make a page cross-origin isolated.
 *
 * `CHROMIUM` names the browser to use. Without any the test is skipped, and fails if
 * `DMABUF_REQUIRE_BROWSER` is 1.
 *
 * @module
 */

import { join } from "node:path";
import { buildPage, servePage } from "../../scripts/web.mjs";
import { Report } from "../package/checks.mjs";
import { withTempFolder } from "../package/pack.mjs";
import { findChromium, launch, wanted, within } from "./chromium.mjs";
import { checkExample } from "./example.mjs";
import { layOutSite, serve } from "./site.mjs";

const PAGE_LIMIT_MS = 90_000;

/** Opens a page, lets `work` check it, and reports what went wrong on it. */
async function withPage(browser, name, report, work) {
  const page = await browser.newPage();
  const errors = [];
  page.on("pageerror", (error) => errors.push(`page error: ${error.stack || error}`));
  page.on("console", (message) => {
    if (message.type() === "error") errors.push(`console: ${message.text()}`);
  });
  page.on("crash", () => errors.push("the page crashed"));
  try {
    await work(page);
  } catch (error) {
    errors.push(String(error));
  } finally {
    report.add(`${name}: no errors on the page`, errors.join("\n"));
    await within(10_000, page.close(), "closing the page").catch(() => {});
  }
}

function checkIsolation(page, name, isIsolated, report) {
  return report.check(`${name}: the page ${isIsolated ? "is" : "is not"} isolated`, async () => {
    const seen = await page.evaluate(() => crossOriginIsolated);
    if (seen !== isIsolated) throw new Error(`crossOriginIsolated is ${seen}`);
  });
}

/** The package, from one server. */
async function runPackage(browser, site, isIsolated, report) {
  const name = isIsolated ? "isolating server" : "plain server";
  const { url, close } = await serve(site, { isIsolated });
  await withPage(browser, name, report, async (page) => {
    await page.goto(`${url}/page.html`);
    await checkIsolation(page, name, isIsolated, report);
    const running = page.evaluate(() => globalThis.results);
    const results = await within(PAGE_LIMIT_MS, running, "the page");
    if (results === undefined) throw new Error("page.mjs failed to load");
    for (const check of results) {
      if (check.skipped) report.skip(`${name}: ${check.name}`, check.skipped);
      else report.add(`${name}: ${check.name}`, check.reason);
    }
  });
  close();
}

/** The web example, from one server. */
async function runExample(browser, folder, isIsolated, report) {
  const name = isIsolated ? "web example, isolated" : "web example, not isolated";
  const { url, close } = await servePage(folder, { isIsolated });
  await withPage(browser, name, report, async (page) => {
    const requests = [];
    page.on("request", (request) => requests.push(request.url()));
    await page.goto(url);
    await checkIsolation(page, name, isIsolated, report);
    const checks = checkExample(page, { name, isIsolated, report });
    await within(PAGE_LIMIT_MS, checks, "the example");
    const others = requests.filter((to) => !/^(data|blob):/.test(to) && !to.startsWith(url));
    report.add(`${name}: asks nobody else`, others.join("\n"));
  });
  await close();
}

async function runBrowser(executablePath, folder, report) {
  const [site, example] = [join(folder, "site"), join(folder, "example")];
  layOutSite(folder, site);
  await buildPage(example);
  const browser = await launch(executablePath, folder);
  console.log(`Chromium ${browser.browser()?.version() ?? ""} at ${executablePath}`.trim());
  try {
    for (const isIsolated of [false, true]) {
      await runPackage(browser, site, isIsolated, report);
      await runExample(browser, example, isIsolated, report);
    }
  } finally {
    await browser.close();
  }
}

const executablePath = findChromium();
if (executablePath === undefined) {
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
