import { describe, expect, test } from "vitest";
import { AcquireContext, WwMutex } from "../../../src/dma-buf/ww-mutex.ts";
import { expectError, expectRejection } from "../../support/errors.ts";

/** Contexts, oldest first. */
const contexts = (count: number) =>
  Array.from({ length: count }, (_, i) => new AcquireContext(i)) as [
    AcquireContext,
    AcquireContext,
    AcquireContext,
  ];

describe("a ww mutex", () => {
  test("is held by one caller at a time", () => {
    const mutex = new WwMutex();
    mutex.lock();
    expect([mutex.isLocked, mutex.lockingContext, mutex.tryLock()]).toEqual([true, null, false]);
    expectError("EAGAIN", () => mutex.lock());
    mutex.unlock();
    expect(mutex.tryLock()).toBe(true);
    mutex.unlock();
    expectError("EINVAL", () => mutex.unlock());
  });

  test("says EALREADY to the context that holds it", async () => {
    const [older] = contexts(1);
    const mutex = new WwMutex();
    mutex.lock(older);
    expect([mutex.lockingContext, older.heldCount]).toEqual([older, 1]);
    expectError("EALREADY", () => mutex.lock(older));
    await expectRejection("EALREADY", mutex.lockAsync(older));
  });

  test("lets a younger context that holds others back off, and nobody else", async () => {
    const [older, younger] = contexts(2);
    const [a, b] = [new WwMutex(), new WwMutex()];
    a.lock(older);
    expectError("EAGAIN", () => a.lock(younger)); // it holds nothing: it may wait
    b.lock(younger);
    expectError("EDEADLK", () => a.lock(younger));
    await expectRejection("EDEADLK", a.lockAsync(younger));
    expectError("EAGAIN", () => b.lock(older)); // the older waits
    b.unlock();
    expect(younger.heldCount).toBe(0);
    const waiting = a.lockAsync(younger);
    a.unlock();
    await waiting;
    expect(a.lockingContext).toBe(younger);
  });

  test("serves the oldest context first, and callers without one in their order last", async () => {
    const [first, second, third] = contexts(3);
    const mutex = new WwMutex();
    const order: string[] = [];
    mutex.lock();
    const take = async (name: string, context: AcquireContext | null): Promise<void> => {
      await mutex.lockAsync(context);
      order.push(name);
      mutex.unlock();
    };
    const waits = [take("x", null), take("third", third), take("y", null), take("first", first)];
    waits.push(take("second", second));
    mutex.unlock();
    await Promise.all(waits);
    expect(order).toEqual(["first", "second", "third", "x", "y"]);
    expect(mutex.isLocked).toBe(false);
  });

  test("sends a waiting younger holder away when an older context comes to wait", async () => {
    const [oldest, older, younger] = contexts(3);
    const [mutex, other] = [new WwMutex(), new WwMutex()];
    mutex.lock();
    other.lock(younger);
    const dying = expectRejection("EDEADLK", mutex.lockAsync(younger));
    const waiting = mutex.lockAsync(older);
    await dying;
    const second = mutex.lockAsync(oldest);
    mutex.unlock();
    await second;
    expect(mutex.lockingContext).toBe(oldest);
    mutex.unlock();
    await waiting;
    expect(mutex.lockingContext).toBe(older);
  });

  test("gives up waiting with EINTR when aborted, and forgets the waiter", async () => {
    const mutex = new WwMutex();
    mutex.lock();
    const controller = new AbortController();
    const waiting = expectRejection("EINTR", mutex.lockAsync(null, { signal: controller.signal }));
    controller.abort();
    await waiting;
    await expectRejection("EINTR", mutex.lockAsync(null, { signal: AbortSignal.abort() }));
    mutex.unlock();
    expect(mutex.isLocked).toBe(false);
    await mutex.lockAsync();
    expect(mutex.isLocked).toBe(true);
  });

  test("of a context that is done is EINVAL; one that holds locks cannot end", () => {
    const [context] = contexts(1);
    const [a, b] = [new WwMutex(), new WwMutex()];
    a.lock(context);
    context.done();
    expectError("EINVAL", () => b.lock(context));
    expectError("EBUSY", () => context.fini());
    a.unlock();
    context[Symbol.dispose]();
    expect(context.isDone).toBe(true);
  });

  test("many contexts that back off all get all of several locks", async () => {
    const mutexes = Array.from({ length: 4 }, () => new WwMutex());
    let finished = 0;
    const run = async (stamp: number): Promise<void> => {
      const context = new AcquireContext(stamp);
      const order = mutexes.map((_, i) => mutexes[(i * 3 + stamp) % 4] as WwMutex);
      for (let held: WwMutex[] = []; held.length < 4; ) {
        const next = order.find((mutex) => !held.includes(mutex)) as WwMutex;
        try {
          await mutexLock(next, context);
          held.push(next);
        } catch {
          for (const mutex of held) mutex.unlock();
          await next.lockAsync(context); // holds nothing: cannot end with EDEADLK
          held = [next];
        }
      }
      expect(mutexes.every((mutex) => mutex.lockingContext === context)).toBe(true);
      for (const mutex of mutexes) mutex.unlock();
      context.fini();
      finished += 1;
    };
    await Promise.all(Array.from({ length: 20 }, (_, i) => run(i)));
    expect([finished, mutexes.some((mutex) => mutex.isLocked)]).toEqual([20, false]);
  });
});

async function mutexLock(mutex: WwMutex, context: AcquireContext): Promise<void> {
  await Promise.resolve(); // lets others in between
  await mutex.lockAsync(context);
}
