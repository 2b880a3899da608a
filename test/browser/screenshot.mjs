/**
 * `npm run screenshot`: the web example as it runs, for the README: docs/media/web.jpg.
 *
 * @module
 */

import { mkdirSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { buildPage, servePage } from "../../scripts/web.mjs";
import { projectFolder, withTempFolder } from "../package/pack.mjs";
import { findChromium, launch, wanted } from "./chromium.mjs";

const PICTURES = 60; // shown before: the flower is open then
const file = join(projectFolder, "docs/media/web.jpg");

async function shoot(executablePath, folder) {
  const example = join(folder, "example");
  await buildPage(example);
  const { url, close } = await servePage(example);
  const browser = await launch(executablePath, folder);
  try {
    const page = await browser.newPage();
    await page.setViewportSize({ width: 1120, height: 600 });
    await page.goto(url);
    await page.waitForFunction((count) => {
      const shown = document.querySelector("#numbers dd")?.textContent;
      const holders = document.getElementById("holders").textContent;
      return Number.parseInt(shown, 10) >= count && /edges/.test(holders) && /screen/.test(holders);
    }, PICTURES);
    mkdirSync(dirname(file), { recursive: true });
    await page.screenshot({ path: file, type: "jpeg", quality: 82, fullPage: true });
  } finally {
    await browser.close();
    await close();
  }
}

const executablePath = findChromium();
if (executablePath === undefined) throw new Error(`no Chromium found (${wanted})`);
await withTempFolder((folder) => shoot(executablePath, folder));
console.log(`${file}: ${statSync(file).size} bytes`);
