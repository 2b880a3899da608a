// The futex mutex.
//
//   word  0 free ──cmpxchg──► owner + 1 ──► (owner + 1) | WAITERS ──unlock: store 0, wake one──► 0
//
// K1  A lock word is 0 or names the thread that holds it (index + 1), so that a dead holder can be
//     found.
// K2  WAITERS is set before anyone sleeps on the word, and a thread that slept takes the lock with
//     WAITERS set: it cannot know whether others sleep too.
// K3  Order: reap, domains, device or shadows, then domain or movable, then region, then slab, then
//     frames, then bounce pool. Nobody takes a lock to the left of one it holds.
//
// A thread that may not block (a browser's main thread) spins for a bounded time and is then
// refused: the caller returns EAGAIN and changes nothing; what gives something back spins on
// instead (lockHard), so that nothing is lost. On memory that is not shared there is one thread:
// only the debug build marks the words there, to see that nobody takes a lock twice.

import { EAGAIN, ENOMEM } from "./errno";
import { header } from "./layout";
import { must } from "./panic";
import { mayBlock, self, threadIndex } from "./thread";

const K1: u32 = 7501;
const SPINS: u32 = 200;
const WAITERS: u32 = 1 << 31;

@unmanaged
class Lock {
  word: u32;
}

/** Takes the lock at `at`; false when this thread may not block and somebody else holds it. */
@inline export function lock(at: usize): bool {
  if (header().isShared != 0) {
    const mine = threadIndex() + 1;
    return atomic.cmpxchg<u32>(at, 0, mine) == 0 || lockSlow(at, mine);
  }
  if (CHECKS) {
    must(changetype<Lock>(at).word == 0, K1); // nobody else runs
    changetype<Lock>(at).word = threadIndex() + 1;
  }
  return true;
}

/** lock() for an allocation whose answer has no room for a refusal: noMemory() tells of it. */
@inline export function lockNoted(at: usize): bool {
  return lock(at) || refusalNote();
}

/** Keeps in mind, for noMemory(), that a lock was refused. False. */
export function refusalNote(): bool {
  self().wasRefused = 1;
  return false;
}

/** Why an allocation gave nothing: EAGAIN if a lock was refused since the last answer; ENOMEM. */
export function noMemory(): i32 {
  const me = self();
  const wasRefused = me.wasRefused;
  me.wasRefused = 0;
  return wasRefused == 0 ? ENOMEM : EAGAIN;
}

/** Takes the lock at `at`, however long it takes: for giving back, which must not fail. */
@inline export function lockHard(at: usize): void {
  if (CHECKS || header().isShared != 0) lockRare(at);
}

/** The same for what is rare. */
@inline export function lockRare(at: usize): void {
  lockTurn(at, true);
}

/**
 * Takes a lock that is rare, or gives it back, in one place for all: as asc never inlines what
 * calls another function (lockSlow) and is not said to be inline.
 */
function lockTurn(at: usize, isTaking: bool): void {
  if (isTaking) {
    while (!lock(at)) continue;
  } else {
    unlock(at);
  }
}

@inline export function unlock(at: usize): void {
  if (header().isShared != 0) {
    const was = atomic.xchg<u32>(at, 0);
    must((was & ~WAITERS) == threadIndex() + 1, K1, was);
    if (<i32>was < 0) atomic.notify(at, 1); // WAITERS: a mask is longer, in each of 80 places
  } else if (CHECKS) {
    changetype<Lock>(at).word = 0;
  }
}

/** The same for what is rare. */
@inline export function unlockRare(at: usize): void {
  lockTurn(at, false);
}

/** Whether `thread` holds the lock at `at`. */
function isLockedBy(at: usize, thread: u32): bool {
  return (atomic.load<u32>(at) & ~WAITERS) == thread + 1;
}

/**
 * Makes the calling thread the holder of a lock that the dead thread `thread` holds. False: it
 * holds something else.
 */
export function lockTakeOver(at: usize, thread: u32): bool {
  if (!isLockedBy(at, thread)) return false;
  // Nobody but the holder changes the owner. Where memory is not shared, no lock is held.
  atomic.store<u32>(at, header().isShared != 0 ? (threadIndex() + 1) | WAITERS : 0);
  return true;
}

/**
 * Wakes all who sleep for a lock: the one that was woken last may have died before it took it.
 */
export function lockWake(at: usize): void {
  atomic.notify(at, -1);
}

function lockSlow(at: usize, mine: u32): bool {
  for (let i: u32 = 0; i < SPINS; i++) {
    if (atomic.load<u32>(at) == 0 && atomic.cmpxchg<u32>(at, 0, mine) == 0) return true;
  }
  if (!mayBlock()) return false;
  while (true) {
    const seen = atomic.load<u32>(at);
    if (seen == 0) {
      if (atomic.cmpxchg<u32>(at, 0, mine | WAITERS) == 0) return true; // K2
    } else if (seen & WAITERS || atomic.cmpxchg<u32>(at, seen, seen | WAITERS) == seen) {
      atomic.wait<u32>(at, seen | WAITERS, -1);
    }
  }
  return false;
}
