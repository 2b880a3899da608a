/**
 * The package as npm would publish it: packed, and unpacked again.
 *
 * @module
 */

import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

/** The project's folder. */
export const projectFolder = join(dirname(fileURLToPath(import.meta.url)), "../..");

/** Runs `work` with a new empty folder, which is gone afterwards. */
export async function withTempFolder(work) {
  const folder = mkdtempSync(join(tmpdir(), "dmabuf-"));
  try {
    return await work(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** Packs the project into `folder`, its prepack script included. The tarball's path. */
export function pack(folder) {
  execFileSync("npm", ["pack", "--silent", "--pack-destination", folder], {
    cwd: projectFolder,
    stdio: ["ignore", "ignore", "inherit"],
  });
  const tarballs = readdirSync(folder).filter((name) => name.endsWith(".tgz"));
  if (tarballs.length !== 1) throw new Error(`npm pack left ${tarballs.length} tarballs`);
  return join(folder, tarballs[0]);
}

/** Unpacks a tarball so that `folder` is the package's folder. */
export function unpack(tarball, folder) {
  mkdirSync(folder, { recursive: true });
  execFileSync("tar", ["-xzf", tarball, "-C", folder, "--strip-components=1"]);
}
