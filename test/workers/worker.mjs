/**
 * A Worker of the tests: joins the system that it was given, does one job, and says how it went.
 *
 *     workerData { share, job, args } ─► "ready" ─► { result } or { code, message }
 *
 * It uses the built package, as a user's Worker does. What the test posts meanwhile is the job's.
 *
 * @module
 */

import { parentPort, workerData } from "node:worker_threads";
import { joinSync } from "dmabuf";
import { jobs } from "./jobs.mjs";

const inbox = [];
const readers = [];
parentPort.on("message", (message) => {
  const reader = readers.shift();
  if (reader === undefined) inbox.push(message);
  else reader(message);
});

/** The next message that the test posts. */
function receive() {
  if (inbox.length > 0) return Promise.resolve(inbox.shift());
  return new Promise((resolve) => readers.push(resolve));
}

const { share, job, args } = workerData;
try {
  const system = joinSync(share);
  parentPort.postMessage({ ready: system.thread });
  const post = (message) => parentPort.postMessage({ message });
  const result = await jobs[job](system, args, { receive, post });
  if (args?.stays !== true) system.close();
  parentPort.postMessage({ result });
} catch (error) {
  parentPort.postMessage({ code: error.code ?? "Error", message: String(error.stack ?? error) });
}
parentPort.unref();
