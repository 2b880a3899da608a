/**
 * Checks the web example as a person would see it: the picture, the map, the table, the controls.
 *
 * @module
 */

import { naiveEdgeFilter } from "../../build/test/examples/naive-edge-filter.js";

const FRAME_NAMES = ["video 0", "video 1", "video 2", "picture 0", "picture 1", "picture 2"];
const SHOWN = 8; // pictures, before anything is judged
const LIMIT_MS = 30_000;
const STILL_MS = 800;
/** Levels that a canvas may differ by: it converts colours. */
const TOLERANCE = 2;

function demand(isMet, complaint) {
  if (!isMet) throw new Error(complaint);
}

/** How many pictures the page says that it has shown. */
async function shownCount(page) {
  const text = await page.textContent("#numbers dd").catch(() => null);
  return Number.parseInt(text ?? "0", 10);
}

async function waitUntil(what, isMet) {
  const end = Date.now() + LIMIT_MS;
  while (!(await isMet())) {
    demand(Date.now() < end, `${what}: not within ${LIMIT_MS} ms`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** The rows of the table, cell by cell. */
function readTable(page) {
  return page.$$eval("#holders tbody tr", (rows) =>
    rows.map((row) => [...row.cells].map((cell) => cell.textContent)),
  );
}

async function checkHolders(page, stageThread) {
  const seen = new Set();
  await waitUntil("the stage as a holder", async () => {
    const rows = await readTable(page);
    demand(rows.map(([frame]) => frame).join() === FRAME_NAMES.join(), `the rows are ${rows}`);
    for (const [, holders, threads, forMs] of rows) {
      const names = holders.split(", ");
      for (const [i, thread] of threads.split(", ").entries()) seen.add(`${names[i]} ${thread}`);
      const isHeld = threads !== "";
      demand(/^(\d+ ms(, |$))*$/.test(forMs) && (forMs !== "") === isHeld, `for "${forMs}"`);
    }
    return seen.has(`edges ${stageThread}`) && seen.has(`writer ${stageThread}`);
  });
  const holders = new Set([...seen].map((holder) => holder.split(" ")[0]));
  for (const name of holders)
    demand(["edges", "screen", "writer", "free", ""].includes(name), `somebody is called ${name}`);
}

async function checkMap(page) {
  const { squares, counts, colours } = await page.evaluate(() => {
    const canvas = document.getElementById("map");
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    const colours = new Set();
    for (let i = 0; i < data.length; i += 4)
      if (data[i + 3] === 255) colours.add((data[i] << 16) | (data[i + 1] << 8) | data[i + 2]);
    const counts = [...document.querySelectorAll("#legend li")].map((item) => {
      const [, name, count] = /^(.*): (\d+)$/.exec(item.textContent);
      return [name, Number(count)];
    });
    const squares = Number.parseInt(document.getElementById("map-text").textContent, 10);
    return { squares, counts, colours: colours.size };
  });
  const total = counts.reduce((sum, [, count]) => sum + count, 0);
  demand(squares > 1000 && total === squares, `${total} of ${squares} squares have an owner`);
  const count = (start) =>
    counts.filter(([name]) => name.startsWith(start)).reduce((sum, [, n]) => sum + n, 0);
  demand(count("video") === 3 * 190, `${count("video")} squares are the video's`); // 777600 bytes
  demand(count("picture") === 3 * 507, `${count("picture")} squares are the pictures'`);
  const present = counts.filter(([, n]) => n > 0).length;
  demand(colours === present, `${colours} colours for ${present} owners`);
}

/** The still picture, and what the decoder made it of. */
async function readPictures(page) {
  const { width, height, yuv, rgba } = await page.evaluate(async () => {
    const toBase64 = async (bytes) => {
      const url = await new Promise((resolve) => {
        const reader = new FileReader();
        reader.onload = () => resolve(reader.result);
        reader.readAsDataURL(new Blob([bytes]));
      });
      return url.slice(url.indexOf(",") + 1);
    };
    const frame = new VideoFrame(document.getElementById("video"));
    if (frame.format !== "I420") throw new Error(`the decoder gives ${frame.format}`);
    const yuv = new Uint8Array(frame.allocationSize());
    await frame.copyTo(yuv);
    frame.close();
    const { width, height } = document.getElementById("screen");
    const context = document.getElementById("screen").getContext("2d");
    const { data } = context.getImageData(0, 0, width, height);
    return { width, height, yuv: await toBase64(yuv), rgba: await toBase64(data) };
  });
  return { width, height, yuv: Buffer.from(yuv, "base64"), rgba: Buffer.from(rgba, "base64") };
}

/** Stops the video; the picture that stands must be what a naive filter makes of the same frame. */
async function checkPicture(page) {
  await page.click("#play");
  await waitUntil("the picture stands still", async () => {
    const before = await shownCount(page);
    await new Promise((resolve) => setTimeout(resolve, STILL_MS));
    return (await shownCount(page)) === before;
  });
  const { width, height, yuv, rgba } = await readPictures(page);
  demand(width === 960 && height === 540, `the canvas has ${width} x ${height} pixels`);
  const expected = naiveEdgeFilter(yuv, width, height);
  let wrong = 0;
  for (let at = 0; at < expected.length; at += 4)
    for (let i = 0; i < 3; i++)
      if (Math.abs(expected[at + 2 - i] - rgba[at + i]) > TOLERANCE) wrong += 1;
  demand(wrong === 0, `${wrong} of ${width * height * 3} colours differ`);
  const levels = new Set(rgba);
  demand(levels.size > 100, `the picture has ${levels.size} levels only`);
}

/** What a mouse can do, the keyboard can. The video stands when it begins. */
async function checkKeyboard(page) {
  const label = () => page.textContent("#play");
  demand((await label()) === "Play", `the button says ${await label()}`);
  const before = await shownCount(page);
  await page.focus("#play");
  await page.keyboard.press("Space");
  await waitUntil("the video plays again", async () => (await shownCount(page)) > before);
  demand((await label()) === "Pause", `the button says ${await label()}`);
  await page.keyboard.press("Tab");
  for (let i = 0; i < 9; i++) await page.keyboard.press("ArrowRight");
  const delay = await page.textContent("#delay-text");
  demand(delay === "90 ms", `the slider says ${delay}`);
}

/** A slow stage is the one that the table names, and its pictures are skipped, not queued. */
async function checkSlowStage(page, stageThread) {
  await waitUntil("edges has a frame for over 60 ms", async () => {
    const rows = await readTable(page);
    return rows.some(
      ([, holders, threads, forMs]) =>
        holders === "edges" && threads === String(stageThread) && Number.parseInt(forMs, 10) > 60,
    );
  });
  const skipped = async () => /edges (\d+)/.exec(await page.textContent("#numbers"))?.[1] ?? 0;
  const before = Number(await skipped());
  await waitUntil("pictures are skipped", async () => Number(await skipped()) > before);
}

/** Checks the page that is open. */
export async function checkExample(page, { name, isIsolated, report }) {
  const stageThread = isIsolated ? 1 : 0;
  const check = (what, work) => report.check(`${name}: ${what}`, work);
  await check("pictures are shown", () =>
    waitUntil(`${SHOWN} pictures`, async () => (await shownCount(page)) >= SHOWN),
  );
  await check("it says where the stage runs", async () => {
    const mode = await page.textContent("#mode");
    const expected = isIsolated ? /^Shared memory: .* Worker thread 1\.$/ : /^No shared memory: /;
    demand(expected.test(mode), mode);
  });
  await check("the table names who has which frame", () => checkHolders(page, stageThread));
  await check("the map shows every frame of memory", () => checkMap(page));
  await check("the library copied nothing", async () => {
    const copied = await page.textContent("dt:text('bytesCopied') + dd");
    demand(copied === "0", `bytesCopied is ${copied}`);
  });
  await check("the picture is the video's, filtered", () => checkPicture(page));
  await check("the keyboard does it all", () => checkKeyboard(page));
  await check("a slow stage is named, and skips", () => checkSlowStage(page, stageThread));
}
