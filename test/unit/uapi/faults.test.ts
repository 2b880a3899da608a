import { describe, expect, test } from "vitest";
import { DmaBufError, F_SEAL_SHRINK, MiB } from "../../../src/index.ts";
import * as uapi from "../../../src/uapi/index.ts";
import { FOR_EVER, faultyCores, sweepFaults } from "../../support/faults.ts";
import { allocBuffer, createFence, RW } from "../../support/program.ts";

/** More pages than the core takes in one list. */
const PAGES = 700;

describe.each(faultyCores)("system calls under injected faults on the $name core", (build) => {
  const programs: Record<string, (process: uapi.Process) => void> = {
    "a heap's buffer, mapped": (process) => {
      process.mmap(70_000, RW, uapi.MAP_SHARED, allocBuffer(process, 70_000));
    },
    "a memfd, written and mapped": (process) => {
      const memfd = process.memfdCreate("m");
      process.write(memfd, new Uint8Array(PAGES * 4096));
      process.mmap(PAGES * 4096, RW, uapi.MAP_SHARED, memfd);
    },
    "a udmabuf of a memfd with holes": (process) => {
      const memfd = process.memfdCreate("m", uapi.MFD_ALLOW_SEALING);
      process.ftruncate(memfd, PAGES * 4096);
      process.pwrite(memfd, Uint8Array.of(1), 4096);
      process.fcntl(memfd, uapi.F_ADD_SEALS, F_SEAL_SHRINK);
      const argument = uapi.udmabufCreate.encode({ memfd, size: BigInt(PAGES * 4096) });
      process.ioctl(process.open("/dev/udmabuf"), uapi.UDMABUF_CREATE, argument);
    },
    "sync files of a timeline, merged and imported": (process) => {
      const fence = (value: number) => createFence(process, process.open("sw_sync"), value);
      const [a, b] = [fence(1), fence(2)];
      process.ioctl(a, uapi.SYNC_IOC_MERGE, uapi.syncMergeData.encode({ fd2: b }));
    },
  };

  test.each(Object.entries(programs))("%s: ENOMEM, and nothing is left", (_, program) => {
    const system = build.system({ memoryBytes: 8 * MiB });
    const attempt = (): boolean => {
      const process = new uapi.Process(system);
      try {
        program(process);
        return true;
      } catch (error) {
        if (error instanceof DmaBufError) expect(error.code).toBe("ENOMEM");
        else throw error;
        return false;
      } finally {
        process.exit();
      }
    };
    for (const times of [1, FOR_EVER]) sweepFaults(system.core, times, attempt);
    expect(sweepFaults(system.core, FOR_EVER, attempt)).toBeGreaterThan(0);
  });
});
