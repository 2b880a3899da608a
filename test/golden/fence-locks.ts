/**
 * The scene of two acquire contexts and three reservations: c1, the older, and c2.
 *
 * @module
 */

import { type AcquireContext, Resv, type System } from "dmabuf";
import { errnoOr } from "./fence-world.ts";

/** The steps of the scene by their recorded names; they come in this order. */
export function lockScene(system: System): Readonly<Record<string, () => boolean | number>> {
  const [c1, c2] = [system.acquireContext(), system.acquireContext()];
  const [A, B, C, list] = [new Resv(), new Resv(), new Resv(), new Resv()];
  const lock = (resv: Resv, context: AcquireContext | null) => (): number =>
    errnoOr(() => resv.lock(context)) ?? 0;
  const reserve = (count: number) => (): number => errnoOr(() => list.reserveFences(count)) ?? 0;
  return {
    "c1 lock A": lock(A, c1),
    "c1 lock A again": lock(A, c1),
    "c1 lock_interruptible A again": lock(A, c1),
    "c2 lock B": lock(B, c2),
    "c2 (younger, holds B) lock A held by c1": lock(A, c2),
    "c2 lock_interruptible A": lock(A, c2),
    "trylock A": () => A.tryLock(),
    "trylock C": () => C.tryLock(),
    "is_locked C": () => C.isLocked,
    "unlock C; is_locked C": () => isLockedAfter(C),
    "c2 backs off: unlock B; is_locked B": () => isLockedAfter(B),
    "c1 lock B": lock(B, c1),
    "locking_ctx of B is c1": () => B.lockingContext === c1,
    "c2 lock_slow A; is_locked A": () => {
      for (const resv of [A, B]) resv.unlock(); // c1 is through
      c1.fini();
      A.lock(c2);
      return A.isLocked;
    },
    "c2 lock B again": lock(B, c2),
    "lock A without context": () => {
      for (const resv of [A, B]) resv.unlock(); // and so is c2
      c2.fini();
      return lock(A, null)();
    },
    "locking_ctx without context is NULL": () => A.lockingContext === null,
    "reserve_fences 0": reserve(0),
    "reserve_fences 1": reserve(1),
    "reserve_fences 100": reserve(100),
  };
}

function isLockedAfter(resv: Resv): boolean {
  resv.unlock();
  return resv.isLocked;
}
