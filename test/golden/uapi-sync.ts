/**
 * `export_sync_file`, `import_sync_file`, `import_sync_file_badfd`, `poll`, `sync_waits`,
 * `import_repeat`: a buffer's implicit fences.
 *
 * @module
 */

import * as uapi from "dmabuf/uapi";
import type { Bed } from "./bed.ts";
import type { Fields } from "./fields.ts";
import { factsOf, notYet, type Outcome } from "./outcome.ts";
import { fileNamed } from "./uapi-words.ts";
import { attempt, inWorld } from "./uapi-world.ts";

/** What stands in a struct where a call that fails must not write. */
const UNTOUCHED = -77;

/** `export_sync_file`: the flags, of a buffer without fences. */
export function exportSyncFile(fields: Fields, bed: Bed): Outcome {
  return inWorld(bed, (world) => {
    const argument = uapi.dmaBufSyncFile.encode({ flags: fields.number("flags"), fd: UNTOUCHED });
    const r = attempt(() =>
      world.process.ioctl(world.alloc(), uapi.DMA_BUF_IOCTL_EXPORT_SYNC_FILE, argument),
    );
    const { fd } = uapi.dmaBufSyncFile.decode(argument);
    if (r !== "OK") return { facts: factsOf(fields, { r, fdUnchanged: fd === UNTOUCHED }) };
    return { facts: factsOf(fields, { r, cloexec: world.getfd(fd), info: world.state(fd) }) };
  });
}

/** `import_sync_file`: the flags. */
export function importSyncFile(fields: Fields, bed: Bed): Outcome {
  return inWorld(bed, (world) => {
    const fd = world.fence(world.timeline("t"), 1);
    const r = attempt(() => world.importSyncFile(world.alloc(), fields.number("flags"), fd));
    return { facts: factsOf(fields, { r }) };
  });
}

/** `import_sync_file_badfd`: what is no sync file, and no argument at all. */
export function importBadFd(fields: Fields, bed: Bed): Outcome {
  return inWorld(bed, (world) => {
    const text = fields.text("fd");
    const buf = world.alloc();
    if (text.includes("NULL")) {
      const command = text.includes("export")
        ? uapi.DMA_BUF_IOCTL_EXPORT_SYNC_FILE
        : uapi.DMA_BUF_IOCTL_IMPORT_SYNC_FILE;
      const r = attempt(() => world.process.ioctl(buf, command, null));
      return { facts: factsOf(fields, { r }) };
    }
    const fd = fileNamed(world, text, buf);
    if (fd === null) return notYet(`the descriptor ${text}`);
    const flags = Number(/flags (\d+)/.exec(text)?.[1] ?? 1);
    const r = attempt(() => world.importSyncFile(buf, flags, fd));
    return { facts: factsOf(fields, { r }) };
  });
}

/** `poll`: readiness and sync files, before and after fences signal. */
export function poll(fields: Fields, bed: Bed): Outcome {
  const imports = fields.list("imports").map(Number);
  return inWorld(bed, (world) => {
    const buf = world.alloc();
    const count = Math.max(2, imports.length);
    const timelines = Array.from({ length: count }, (_, i) => world.timeline(`t${i + 1}`));
    for (const [i, flags] of imports.entries())
      world.importSyncFile(buf, flags, world.fence(timelines[i] ?? -1, 1));
    const ready = (): number => world.poll(buf, fields.number("events"));
    const signal = (i: number): number[] => {
      world.inc(timelines[i] ?? -1, 1);
      return [ready(), ready()];
    };
    return {
      facts: factsOf(fields, {
        poll1: ready(),
        poll2: ready(),
        export1: world.exported(buf, 1),
        export2: world.exported(buf, 2),
        export3: world.exported(buf, 3),
        afterSignalFirst: signal(0),
        afterSignalBoth: signal(1),
        exportAfter: world.exported(buf, 3),
      }),
    };
  });
}

/** `sync_waits`: a bracket of a busy buffer, with an interrupt at hand. */
export function syncWaits(fields: Fields, bed: Bed): Outcome {
  return inWorld(bed, (world) => {
    const buf = world.alloc();
    const imported = fields.number("import");
    if (imported !== 0) world.importSyncFile(buf, imported, world.fence(world.timeline("t"), 1));
    const argument = uapi.dmaBufSync.encode({ flags: BigInt(fields.number("syncFlags")) });
    const interrupt = { signal: AbortSignal.abort() };
    const r = attempt(() => world.process.ioctl(buf, uapi.DMA_BUF_IOCTL_SYNC, argument, interrupt));
    return { facts: factsOf(fields, { r }) };
  });
}

interface ImportStep {
  readonly tl: string;
  readonly value: number;
  readonly flags: number;
}

/** `import_repeat`: fences imported one after the other, and what is exported after each. */
export function importRepeat(fields: Fields, bed: Bed): Outcome {
  return inWorld(bed, (world) => {
    const buf = world.alloc();
    const timelines = new Map<string, number>();
    const steps = (fields.list("steps") as readonly ImportStep[]).map(({ tl, value, flags }) => {
      const timeline = timelines.get(tl) ?? world.timeline(tl);
      timelines.set(tl, timeline);
      const r = attempt(() => world.importSyncFile(buf, flags, world.fence(timeline, value)));
      const [export1, export2, export3] = [1, 2, 3].map((one) => world.exported(buf, one));
      return { tl, value, flags, r, export1, export2, export3 };
    });
    return { facts: factsOf(fields, { steps }) };
  });
}
