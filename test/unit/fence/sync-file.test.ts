import { describe, expect, test } from "vitest";
import { type Fence, POLLIN, POLLOUT, SyncFile } from "../../../src/index.ts";
import { eachCore } from "../../support/cores.ts";
import { expectError } from "../../support/errors.ts";

describe.each(eachCore)("sync files on the $name core", (build) => {
  const open = () => build.system({ memoryBytes: 1 << 20 });

  test("a sync file tells the name, driver, state and time of its fence", () => {
    const system = open();
    const fence = system.fence("job", { ops: { driverName: "gpu", timelineName: "queue" } });
    const file = new SyncFile(fence);
    expect(file.info()).toEqual({
      name: `gpu-queue${fence.context}-1`,
      status: 0,
      fences: [{ timelineName: "queue", driverName: "gpu", status: 0, timestampNs: 0 }],
    });
    fence.signal(null, 2.5);
    expect(file.info().fences[0]).toMatchObject({ status: 1, timestampNs: 2_500_000 });
    expect(new SyncFile(system.fence("plain")).info().fences[0]).toMatchObject({
      timelineName: "plain",
      driverName: "dmabuf",
    });
    const { fences } = new SyncFile(system.timeline("queue").fence()).info();
    expect(fences[0]?.timelineName).toBe("queue");
  });

  test("merging sync files gives the pending leaves by context, under a name cut to 31 bytes", () => {
    const system = open();
    const [a, b] = [system.swSync("a"), system.swSync("b")];
    const files = [b.createFence(1), a.createFence(2), a.createFence(1)].map(
      (fence) => new SyncFile(fence),
    ) as [SyncFile, SyncFile, SyncFile];
    const both = files[0].merge(files[1], `${"x".repeat(30)}é`);
    expect(both.name).toBe("x".repeat(30));
    expect(both.info().fences.map(({ timelineName }) => timelineName)).toEqual(["a", "b"]);
    expect(both.merge(files[2]).info().fences).toHaveLength(2);
    expect(files[1].merge(files[1]).fence).toBe(files[1].fence);
    a.inc(2);
    b.inc(1);
    expect(both.merge(files[0]).info()).toMatchObject({
      status: 1,
      fences: [{ timelineName: "stub", driverName: "stub", status: 1 }],
    });
    expectError("ENOENT", () => both.merge(a as unknown as SyncFile));
    expectError("EINVAL", () => new SyncFile(null as unknown as Fence));
    for (const timeline of [a, b]) timeline.put();
  });

  test("the state of a merged sync file is that of the first leaf that is pending or failed", () => {
    const system = open();
    const [a, b] = [system.swSync("a"), system.swSync("b")];
    const file = new SyncFile(a.createFence(1)).merge(new SyncFile(b.createFence(1)));
    expect([file.info().status, file.poll(POLLIN)]).toEqual([0, 0]); // hooks both
    a.put();
    expect([file.info().status, file.status]).toEqual([-2, 0]);
    b.inc();
    expect([file.info().status, file.status]).toEqual([-2, -2]);
    b.put();
  });

  test("a sync file polls ready for reading, and only for that, once its fence has signaled", () => {
    const system = open();
    const fence = system.fence("job");
    const file = new SyncFile(fence);
    expect([file.poll(POLLIN), fence.isSignalingEnabled]).toEqual([0, true]);
    let wakes = 0;
    file.pollQueue.add(() => {
      wakes += 1;
    });
    fence.signal("EIO");
    expect([wakes, file.poll(POLLIN), file.poll(POLLOUT), file.poll(0)]).toEqual([1, 1, 0, 0]);
  });

  test("the last reference of a sync file takes its hook off the fence", () => {
    const fence = open().fence("job");
    const file = new SyncFile(fence);
    file.poll(POLLIN);
    let wakes = 0;
    file.pollQueue.add(() => {
      wakes += 1;
    });
    file.get();
    file.put();
    expect(file.refCount).toBe(1);
    file.put();
    fence.signal();
    expect(wakes).toBe(0);
    for (const call of [() => file.get(), () => file.put(), () => file.poll(1)])
      expectError("ESTALE", call);
  });
});

describe.each(eachCore)("sw_sync timelines on the $name core", (build) => {
  const open = () => build.system({ memoryBytes: 1 << 20 }).swSync("t");

  test("a sw_sync fence is born signaled when its value was reached, and wraps at 2^32", () => {
    const timeline = open();
    timeline.inc(2 ** 32 - 2);
    const states = [0, 1, 2 ** 31 - 3, 2 ** 31 - 2, 2 ** 32 - 2, 2 ** 32 - 1].map(
      (value) => timeline.createFence(value).status,
    );
    expect(states).toEqual([0, 0, 0, 1, 1, 0]);
    timeline.inc(3);
    expect(timeline.value).toBe(1);
    expect(timeline.createFence(1).status).toBe(1);
    timeline.put();
  });

  test("sw_sync fences signal in the order of their values", () => {
    const timeline = open();
    const order: number[] = [];
    for (const value of [5, 2, 9, 3])
      timeline.createFence(value).addCallback(({ seqno }) => order.push(seqno));
    timeline.inc(0);
    timeline.inc(4);
    expect(order).toEqual([2, 3]);
    timeline.inc(2 ** 32 - 1);
    expect(order).toEqual([2, 3, 5, 9]);
    timeline.put();
  });

  test("a pending sw_sync value has one fence, a passed one gets another each time", () => {
    const timeline = open();
    expect(timeline.createFence(7)).toBe(timeline.createFence(7));
    expect(timeline.createFence(6)).not.toBe(timeline.createFence(7));
    timeline.inc(7);
    expect(timeline.createFence(7)).not.toBe(timeline.createFence(7));
    timeline.put();
  });

  test("the last reference of a sw_sync timeline ends pending fences with ENOENT", () => {
    const timeline = open();
    const [done, pending] = [timeline.createFence(0), timeline.createFence(4)];
    timeline.put();
    expect([done.status, pending.status, pending.error?.code]).toEqual([1, -2, "ENOENT"]);
    expectError("ESTALE", () => timeline.createFence(1));
    expectError("ESTALE", () => timeline.inc());
  });

  test.each([-1, 1.5, 2 ** 32])("a sw_sync value of %s is EINVAL", (value) => {
    const timeline = open();
    expectError("EINVAL", () => timeline.createFence(value));
    expectError("EINVAL", () => timeline.inc(value));
    timeline.put();
  });
});
