import { describe, expect, test } from "vitest";
import { DmaBufError } from "../../src/errors.ts";
import { badValues } from "../support/bad-input.ts";
import { eachCore } from "../support/cores.ts";
import { expectError, expectRejection } from "../support/errors.ts";
import { closeScene, sceneOf } from "./pool-scene.ts";

const MiB = 1 << 20;

const isObject = (value: unknown): boolean =>
  typeof value === "function" || (typeof value === "object" && value !== null);

describe.each(eachCore)("arguments of a frame pool on the $name core", (build) => {
  test("what is no argument is a typed error, and the frame stays with who has it", async () => {
    const scene = sceneOf(build.system({ memoryBytes: 8 * MiB }), 2);
    const { system, pool, consumer } = scene;
    const twin = build.system({ memoryBytes: 8 * MiB });
    const alien = twin.fence("alien");
    const gone = system.fence("gone");
    gone.release();
    for (const [, bad] of badValues) {
      if (bad === undefined) continue;
      const never = bad as never;
      if (!isObject(bad)) {
        expectError("EINVAL", () => consumer.takeSync(never));
        expectError("EINVAL", () => pool.acquireSync(never));
        await expectRejection("EINVAL", consumer.take(never));
        await expectRejection("EINVAL", pool.acquire(never));
      }
      expectError("EINVAL", () => pool.consumer(never));
      await expectRejection("EINVAL", pool.acquire({ clock: never }));
      if (bad !== null) await expectRejection("EINVAL", consumer.take({ signal: never }));
    }
    const frame = pool.tryAcquire();
    const write = frame?.publish.bind(frame);
    for (const bad of [5, {}, alien]) {
      expectError("EINVAL", () => write?.({ fence: bad as never }));
      expect(() => write?.({ to: bad as never })).toThrow(DmaBufError);
    }
    expectError("EINVAL", () => write?.(null as never));
    expectError("ESTALE", () => write?.({ fence: gone }));
    expect(write?.({ fence: null as never })).toBe(1); // none
    const read = consumer.tryTake();
    for (const fence of [5, {}, alien] as never[])
      expectError("EINVAL", () => read?.release({ fence }));
    expectError("EINVAL", () => read?.release(null as never));
    expectError("ESTALE", () => read?.release({ fence: gone }));
    expect(pool.report().frames[0]?.holders).toMatchObject([{ name: "encoder" }]);
    read?.release();
    alien.release();
    twin.close();
    closeScene(scene);
  });
});
