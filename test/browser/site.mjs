/**
 * The site that the browser opens: the page beside the unpacked package, on a static server.
 *
 *     /page.html, page.mjs, worker.mjs
 *     /node_modules/dmabuf/                    the tarball, as it is
 *     /node_modules/@assemblyscript/loader/    its one dependency, as installed
 *     /for-workers/dmabuf/                     the tarball with the dependency's address written in
 *
 * Workers see no import map, so a bare import fails there: what a bundler does for real sites is
 * done here for the copy in `for-workers`.
 *
 * @module
 */

import { cpSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { dirname, extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { pack, projectFolder, unpack } from "../package/pack.mjs";

const LOADER = "node_modules/@assemblyscript/loader";
const ISOLATING = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
};
const mimeTypes = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".json": "application/json",
  ".map": "application/json",
  ".mjs": "text/javascript; charset=utf-8",
  ".wasm": "application/wasm",
};

/** Packs the package and lays the site out in `folder`. */
export function layOutSite(packFolder, folder) {
  const tarball = pack(packFolder);
  unpack(tarball, join(folder, "node_modules/dmabuf"));
  unpack(tarball, join(folder, "for-workers/dmabuf"));
  cpSync(join(projectFolder, LOADER), join(folder, LOADER), { recursive: true, dereference: true });
  resolveLoader(join(folder, "for-workers/dmabuf/dist"));
  const here = dirname(fileURLToPath(import.meta.url));
  for (const name of ["page.html", "page.mjs", "worker.mjs"])
    cpSync(join(here, name), join(folder, name));
}

/** Writes the loader's address into every import of it below `folder`. */
function resolveLoader(folder) {
  for (const name of readdirSync(folder, { recursive: true })) {
    if (!name.endsWith(".js")) continue;
    const file = join(folder, name);
    const text = readFileSync(file, "utf8");
    writeFileSync(file, text.replaceAll('"@assemblyscript/loader"', `"/${LOADER}/index.js"`));
  }
}

/** Serves `folder` on a free port of this machine. Its address, and how to stop. */
export async function serve(folder, { isIsolated }) {
  const headers = isIsolated ? ISOLATING : {};
  const server = createServer((request, response) => answer(folder, headers, request, response));
  await new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", resolve);
  });
  const close = () => {
    server.close();
    server.closeAllConnections();
  };
  return { url: `http://127.0.0.1:${server.address().port}`, close };
}

async function answer(folder, headers, request, response) {
  const { pathname } = new URL(request.url, "http://localhost");
  const file = join(folder, normalize(decodeURIComponent(pathname))); // normalize: stays below
  try {
    const bytes = await readFile(file);
    const type = mimeTypes[extname(file)] ?? "application/octet-stream";
    response.writeHead(200, { ...headers, "Content-Type": type }).end(bytes);
  } catch {
    response.writeHead(404, { "Content-Type": "text/plain" }).end(`no ${pathname}\n`);
  }
}
