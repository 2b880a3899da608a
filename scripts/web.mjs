/**
 * `npm run web`: bundles examples/web and serves it on this machine, with the headers that make a
 * page cross-origin isolated: without them a browser gives no shared memory.
 *
 *     npm run web -- --port 8080      default: 4173
 *
 * @module
 */

import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { build, preview } from "vite";

const project = join(dirname(fileURLToPath(import.meta.url)), "..");
const root = join(project, "examples/web");
const ISOLATING = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
};
const common = { configFile: false, root, base: "./", logLevel: "warn" };

/** Bundles the page into `outDir`. */
export async function buildPage(outDir) {
  await build({
    ...common,
    build: { outDir, emptyOutDir: true, target: "es2022", assetsInlineLimit: 0 },
    worker: { format: "es" },
  });
}

/** Serves what lies in `outDir`. Its address, and how to stop. */
export async function servePage(outDir, { isIsolated = true, port = 0 } = {}) {
  const headers = isIsolated ? ISOLATING : {};
  const server = await preview({
    ...common,
    build: { outDir },
    preview: { port, host: "127.0.0.1", headers },
  });
  const { port: bound } = server.httpServer.address();
  return { url: `http://127.0.0.1:${bound}/`, close: () => server.close() };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values } = parseArgs({ options: { port: { type: "string", default: "4173" } } });
  const outDir = join(project, "build/web");
  await buildPage(outDir);
  const { url } = await servePage(outDir, { port: Number(values.port) });
  console.log(`${url}  (Ctrl-C ends it)`);
}
