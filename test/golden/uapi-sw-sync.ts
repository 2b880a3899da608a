/**
 * `sw_value`, `sw_inc`, `sw_close`, `sw_merge_error`, `sw_names`, `sw_poll`, `merge_args`,
 * `info_args`, `merge_script`: timelines and sync files.
 *
 * @module
 */

import { POLLIN, POLLOUT } from "dmabuf";
import * as uapi from "dmabuf/uapi";
import type { Bed } from "./bed.ts";
import { type Fields, MalformedRecord } from "./fields.ts";
import { factsOf, notYet, type Outcome } from "./outcome.ts";
import { fileNamed, numberOf } from "./uapi-words.ts";
import { attempt, inWorld, type RecordedInfo, type UapiWorld } from "./uapi-world.ts";

/** Where a list of fences may lie in the process's memory. */
const LIST_AT = 4096;

/** `sw_value`: which values a timeline has passed. */
export function swValue(fields: Fields, bed: Bed): Outcome {
  return inWorld(bed, (world) => {
    const timeline = world.timeline("tl");
    world.inc(timeline, fields.number("timelineInc"));
    const fences = (fields.list("fences") as readonly (readonly [number])[]).map(([value]) => {
      const fd = world.fence(timeline, value);
      return [value, world.state(fd), world.poll(fd)];
    });
    return { facts: factsOf(fields, { fences }) };
  });
}

/** `sw_inc`: fences as their timeline moves. */
export function swInc(fields: Fields, bed: Bed): Outcome {
  return inWorld(bed, (world) => {
    const timeline = world.timeline("tl");
    const fds = fields.list("values").map((value) => world.fence(timeline, Number(value)));
    const steps = (fields.list("steps") as readonly (readonly [number])[]).map(([count]) => [
      count,
      world.inc(timeline, count),
      fds.map((fd) => world.state(fd).status),
    ]);
    return { facts: factsOf(fields, { steps }) };
  });
}

/** `sw_close`: a timeline closed under a pending fence. */
export function swClose(fields: Fields, bed: Bed): Outcome {
  return inWorld(bed, (world) => {
    const timeline = world.timeline("gone");
    const fds = [world.fence(timeline, 0), world.fence(timeline, 1)];
    const states = (): RecordedInfo[] => fds.map((fd) => world.state(fd));
    const before = states();
    world.process.close(timeline);
    const facts = { before, afterTimelineClose: states(), poll: fds.map((fd) => world.poll(fd)) };
    return { facts: factsOf(fields, facts) };
  });
}

/** `sw_merge_error`: a merged file when one of its fences fails. */
export function swMergeError(fields: Fields, bed: Bed): Outcome {
  return inWorld(bed, (world) => {
    const [first, second] = [world.timeline("e1"), world.timeline("e2")];
    const merged = world.merge(world.fence(first, 1), world.fence(second, 1), "m");
    world.process.close(first);
    const whenOneErrored = world.info(merged);
    world.inc(second, 1);
    const thenOtherSignaled = world.info(merged);
    const mergedAfterwards = world.info(world.merge(merged, merged, "m2"));
    const poll = world.poll(merged);
    return {
      facts: factsOf(fields, { whenOneErrored, thenOtherSignaled, mergedAfterwards, poll }),
    };
  });
}

/** `sw_names`: names of fences and of merged files. */
export function swNames(fields: Fields, bed: Bed): Outcome {
  return inWorld(bed, (world) => {
    const fd = world.fence(world.timeline("tl"), 1);
    const argument = uapi.syncMergeData.encode({ fd2: fd });
    argument.fill("q".charCodeAt(0), 0, uapi.syncMergeData.offsets.fd2);
    const mergeNameNotTerminated = attempt(() =>
      world.process.ioctl(fd, uapi.SYNC_IOC_MERGE, argument),
    );
    const merged = uapi.syncMergeData.decode(argument).fence;
    return {
      facts: factsOf(fields, {
        info: world.state(fd),
        mergeNameNotTerminated,
        mergedInfo: world.info(merged),
        cloexec: world.getfd(merged),
      }),
    };
  });
}

/** `sw_poll`: a sync file is ready for reading only, once its fence has signaled. */
export function swPoll(fields: Fields, bed: Bed): Outcome {
  return inWorld(bed, (world) => {
    const timeline = world.timeline("tl");
    const fd = world.fence(timeline, 1);
    const before = world.poll(fd, POLLIN);
    const beforeOut = world.poll(fd, POLLOUT);
    world.inc(timeline, 1);
    const [after, afterOut, afterNone] = [POLLIN, POLLOUT, 0].map((events) =>
      world.poll(fd, events),
    );
    return { facts: factsOf(fields, { before, beforeOut, after, afterOut, afterNone }) };
  });
}

/** `merge_args`: SYNC_IOC_MERGE with one thing wrong. */
export function mergeArgs(fields: Fields, bed: Bed): Outcome {
  return inWorld(bed, (world) => {
    const what = fields.text("what");
    const timeline = world.timeline("tl");
    const fd = world.fence(timeline, 1);
    const values = mergeValues(world, what, fd, timeline);
    if (values === null) return notYet(`a merge with ${what}`);
    const argument = what.includes("NULL") ? null : uapi.syncMergeData.encode(values);
    const r = attempt(() => world.process.ioctl(fd, uapi.SYNC_IOC_MERGE, argument));
    if (r !== "OK" || argument === null) return { facts: factsOf(fields, { r }) };
    const { name, ...info } = world.info(uapi.syncMergeData.decode(argument).fence);
    const masked = name.replace(/\d+-\d+$/, "<context>-<seqno>");
    return { facts: factsOf(fields, { r, info: { name: masked, ...info } }) };
  });
}

function mergeValues(world: UapiWorld, what: string, fd: number, timeline: number) {
  if (what === "self" || what.includes("NULL")) return { fd2: fd };
  const [, name = "", value = ""] = /^(flags|pad|fd2) (?:is )?(.+)$/.exec(what) ?? [];
  if (name === "fd2") {
    const fd2 = value.includes("timeline") ? timeline : fileNamed(world, value);
    return fd2 === null ? null : { fd2 };
  }
  const number = numberOf(value);
  return number === null ? null : { fd2: fd, [name]: Number(number) };
}

/** `info_args`: SYNC_IOC_FILE_INFO with one thing wrong, or room for more or fewer fences. */
export function infoArgs(fields: Fields, bed: Bed): Outcome {
  return inWorld(bed, (world) => {
    const what = fields.text("what");
    const fences = Array.from({ length: fields.number("fences") }, (_, i) =>
      world.fence(world.timeline(`t${i}`), 1),
    );
    const fd = fences.reduce((merged, one) => world.merge(merged, one));
    const [, name, number] = /^(flags|pad|num) (\d+)/.exec(what) ?? [];
    if (name === undefined && !what.startsWith("NULL")) return notYet(`a question with ${what}`);
    const numFences = name === "num" ? Number(number) : 1;
    const hasList = numFences > 0 ? !/NULL|bad/.test(what) : what.includes("with pointer");
    const argument = uapi.syncFileInfo.encode({
      numFences,
      syncFenceInfo: hasList ? BigInt(LIST_AT) : 0n,
      ...(name === "flags" || name === "pad" ? { [name]: Number(number) } : {}),
    });
    const target = what.startsWith("NULL") ? null : argument;
    const r = attempt(() => world.process.ioctl(fd, uapi.SYNC_IOC_FILE_INFO, target));
    const numOut = uapi.syncFileInfo.decode(argument).numFences;
    return { facts: factsOf(fields, fields.has("numOut") ? { r, numOut } : { r }) };
  });
}

type Op = readonly [string, ...unknown[]];

/** `merge_script`: fences made, merged and signaled in a random order. */
export function mergeScript(fields: Fields, bed: Bed): Outcome {
  return inWorld(bed, (world) => {
    const count = fields.number("timelines");
    const timelines = Array.from({ length: count }, (_, i) => world.timeline(`t${i}`));
    const files: number[] = [];
    const facts = (fields.list("ops") as readonly Op[]).map((op, i) => {
      const actual = replayOp(world, timelines, files, op);
      return { name: `op ${i} (${op[0]})`, actual, recorded: op };
    });
    return { facts };
  });
}

/** Does an operation; what the record would say. */
function replayOp(
  world: UapiWorld,
  timelines: readonly number[],
  files: number[],
  [what, ...args]: Op,
): unknown[] {
  const [a = -1, b = -1, c = -1] = args.map(Number);
  const fdOf = (file: number): number => files[file] ?? -1;
  if (what === "fence") files[a] = world.fence(timelines[b] ?? -1, c);
  else if (what === "merge") files[a] = world.merge(fdOf(b), fdOf(c));
  if (what === "fence" || what === "merge") return [what, a, b, c, world.state(fdOf(a))];
  if (what === "status") {
    const states = files.map((fd) => world.state(fd));
    return [what, states.map(({ status, num }) => [status, num])];
  }
  if (what !== "inc") throw new MalformedRecord(`there is no operation ${what}`);
  world.inc(timelines[a] ?? -1, b);
  return [what, a, b];
}
