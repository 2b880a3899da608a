// Links: how a thread asks another for what only that one can do with a buffer.
//
//   asker    IDLE ──linkPost──► ASKED ─ ─ ─ waits on the state ─ ─ ─► ANSWERED ──linkPost──►
//   server                        └──linkNext──► TAKEN ──linkAnswer───────┘
//
//   payload  ├ state ┼ buffer ┼ op ┼ a ┼ b ┼ isCancelled ┼ result ┼ value ┼ more ┼ reply ┤
//
// H4  A link is its asker's, and its record is freed by nobody else (reap.ts: or for it). The asker
//     writes the question before it says ASKED, the server the answer before it says ANSWERED.
// H5  Who serves finds links by looking at all records: nothing is chained, so nothing is broken by
//     a death. What it answers to a link that is gone reaches nobody, and it undoes what it did.
// H6  A server that dies or leaves has all its links answered; who posts looks at the server again
//     afterwards, so that no question is left behind.

import { objectNext, objectPayload } from "./check";
import { bufferAt, serverOf } from "./buffer";
import { EBUSY, EINVAL, ESTALE } from "./errno";
import { SLAB_LOCK_AT } from "./layout";
import { lockRare, unlockRare } from "./lock";
import {
  KIND_BUFFER,
  KIND_LINK,
  ObjectRecord,
  PAYLOAD_BYTES,
  handleOf,
  objectAlloc,
  objectFind,
  objectFree,
  recordOf,
} from "./object";
import { recordAt, recordIsUsed } from "./slab";
import { bellRing, threadIndex } from "./thread";

const IDLE: u32 = 0;
const ASKED: u32 = 1;
const TAKEN: u32 = 2;
const ANSWERED: u32 = 3;

@unmanaged
class Link {
  state: u32; // H4; a futex
  buffer: u32; // handle
  op: u32;
  a: u32;
  b: u32;
  isCancelled: u32; // the asker wants no answer any more, but for what must be undone
  result: i32; // >= 0, or an errno
  value: u32;
  more: u32;
  reply: u32; // handle of a table of text; 0 = none

  static at(payload: usize): Link {
    return changetype<Link>(payload);
  }
}

if (offsetof<Link>() > PAYLOAD_BYTES) ERROR("a link is longer than an object");

/** The link that `handle` names, if it is the calling thread's; 0. */
function linkFind(handle: u32): usize {
  const payload = objectFind(handle, KIND_LINK);
  if (payload == 0) return 0;
  return ObjectRecord.at(recordOf(payload)).owner == threadIndex() ? payload : 0;
}

/**
 * A link to who serves `buffer`, which the calling thread holds. Its handle, or bufferServer()'s
 * errors, ENOMEM.
 */
export function linkAlloc(buffer: u32): i32 {
  const at = bufferAt(buffer);
  const server = at < 0 ? at : serverOf(at);
  if (server < 0) return server;
  const handle = objectAlloc(KIND_LINK);
  if (handle < 0) return handle;
  Link.at(objectFind(handle, KIND_LINK)).buffer = buffer;
  bellRing(server);
  return handle;
}

/** Ends a link; who serves it undoes what was done for it. 0, or ESTALE: it is none of its own. */
export function linkFree(handle: u32): i32 {
  const payload = linkFind(handle);
  if (payload == 0) return ESTALE;
  const server = linkServer(Link.at(payload));
  objectFree(recordOf(payload));
  if (server >= 0) bellRing(server);
  return 0;
}

/** Who serves a link; or an error of bufferServer(). */
function linkServer(link: Link): i32 {
  const buffer = objectFind(link.buffer, KIND_BUFFER);
  return buffer == 0 ? ESTALE : serverOf(buffer);
}

/** The address of a link's payload, whoever has it; ESTALE. */
export function linkAt(handle: u32): i32 {
  const payload = objectFind(handle, KIND_LINK);
  return payload == 0 ? ESTALE : <i32>payload;
}

/**
 * Asks who serves the link's buffer. 0; EBUSY: the last question has no answer yet; ESTALE, ENODEV,
 * EOWNERDEAD: nobody will answer.
 */
export function linkPost(handle: u32, op: u32, a: u32, b: u32): i32 {
  const payload = linkFind(handle);
  if (payload == 0) return ESTALE;
  const state = atomic.load<u32>(payload);
  if (state != IDLE && state != ANSWERED) return EBUSY;
  const link = Link.at(payload);
  link.op = op;
  link.a = a;
  link.b = b;
  link.reply = 0;
  atomic.store<u32>(payload + offsetof<Link>("isCancelled"), 0);
  atomic.store<u32>(payload, ASKED);
  const server = linkServer(link); // H6
  if (server >= 0) bellRing(server);
  else if (atomic.cmpxchg<u32>(payload, ASKED, IDLE) == ASKED) return server;
  return 0;
}

/**
 * Takes a question back. 1: nobody had looked at it; 0: it is being answered, and who serves it
 * knows that nobody waits; ESTALE.
 */
export function linkCancel(handle: u32): i32 {
  const payload = linkFind(handle);
  if (payload == 0) return ESTALE;
  if (atomic.cmpxchg<u32>(payload, ASKED, IDLE) == ASKED) return 1;
  atomic.store<u32>(payload + offsetof<Link>("isCancelled"), 1);
  const server = linkServer(Link.at(payload));
  if (server >= 0) bellRing(server);
  return 0;
}

// ---- serving

/** A question for the calling thread, which is to answer it. The link's handle, or 0. */
export function linkNext(): i32 {
  for (let index = objectNext(0, KIND_LINK); index != 0; index = objectNext(index, KIND_LINK)) {
    if (Link.at(objectPayload(index)).state != ASKED) continue;
    const handle = linkTake(index);
    if (handle != 0) return handle;
  }
  return 0;
}

/** The record may have become another one since it was found, so it is looked at again (H5). */
function linkTake(index: u32): i32 {
  let handle: i32 = 0;
  lockRare(SLAB_LOCK_AT);
  const at = recordAt(index);
  if (at != 0 && recordIsUsed(at) && ObjectRecord.at(at).kind == KIND_LINK) {
    const payload = objectPayload(index);
    const isMine = linkServer(Link.at(payload)) == <i32>threadIndex();
    if (isMine && atomic.cmpxchg<u32>(payload, ASKED, TAKEN) == ASKED) handle = handleOf(at);
  }
  unlockRare(SLAB_LOCK_AT);
  return handle;
}

/**
 * Answers what linkNext() gave: an errno, or a result from 0 on, with two numbers and a table of
 * text. 0; ESTALE: the link is gone (H5); EINVAL: it was not taken.
 */
export function linkAnswer(handle: u32, result: i32, value: u32, more: u32, reply: u32): i32 {
  lockRare(SLAB_LOCK_AT); // while it is held, the record is not freed
  const payload = objectFind(handle, KIND_LINK);
  const isTaken = payload != 0 && atomic.load<u32>(payload) == TAKEN;
  if (isTaken) answer(payload, result, value, more, reply);
  unlockRare(SLAB_LOCK_AT);
  if (isTaken) return 0;
  return payload == 0 ? ESTALE : EINVAL;
}

function answer(payload: usize, result: i32, value: u32, more: u32, reply: u32): void {
  const link = Link.at(payload);
  link.result = result;
  link.value = value;
  link.more = more;
  link.reply = reply;
  atomic.store<u32>(payload, ANSWERED);
  atomic.notify(payload, -1);
}

/** Frees a link for its asker, who has left: it waits no more. */
export function linkDrop(payload: usize): void {
  atomic.store<u32>(payload, IDLE);
  atomic.notify(payload, -1);
  objectFree(recordOf(payload));
}

/** Answers everybody who asks somebody that is gone (H6), with what serverOf() says of it. */
export function linksEnd(): void {
  lockRare(SLAB_LOCK_AT);
  for (let index = objectNext(0, KIND_LINK); index != 0; index = objectNext(index, KIND_LINK)) {
    const payload = objectPayload(index);
    const error = linkServer(Link.at(payload));
    const state = atomic.load<u32>(payload);
    if (error < 0 && (state == ASKED || state == TAKEN)) answer(payload, error, 0, 0, 0);
  }
  unlockRare(SLAB_LOCK_AT);
}
