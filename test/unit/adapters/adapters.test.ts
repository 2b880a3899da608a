import { mkdtempSync, rmSync } from "node:fs";
import { open as openFile } from "node:fs/promises";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { readViews, writeViews } from "../../../src/adapters/files.ts";
import { SocketReader, sendViews } from "../../../src/adapters/socket.ts";
import { writeGpuBuffer, writeGpuTexture } from "../../../src/adapters/webgpu.ts";
import { eachCore } from "../../support/cores.ts";
import { expectError, expectRejection } from "../../support/errors.ts";

const MiB = 1 << 20;
const release = eachCore.filter(({ name }) => name.startsWith("release"));

function fillPattern(views: readonly Uint8Array[], seed: number): void {
  let at = 0;
  for (const view of views) for (let i = 0; i < view.length; i++) view[i] = (at++ * 7 + seed) % 251;
}

function bytesOf(views: readonly Uint8Array[]): Buffer {
  return Buffer.concat(views.map((view) => Uint8Array.from(view)));
}

describe.each(release)("adapters on the $name core", (build) => {
  /** Two mapped buffers in several pieces each, one with a pattern. */
  function buffers() {
    const system = build.system({ memoryBytes: 8 * MiB });
    const make = (seed: number): Mapped => {
      const buf = system.heap("system").alloc(300_000);
      const mapping = buf.mmap();
      fillPattern(mapping.views, seed);
      return { buf, mapping };
    };
    const [from, to] = [make(1), make(2)];
    const end = (): void => {
      for (const { buf, mapping } of [from, to]) {
        mapping.unmap();
        buf.put();
      }
      expect(system.stats().bytesCopied).toBe(0);
      expect(system.check(true)).toBeNull();
      system.close();
    };
    return { from: from.mapping.views, to: to.mapping.views, end };
  }

  test("node:fs: views go to a file by writev and come back by readv, without a copy", async () => {
    const { from, to, end } = buffers();
    const folder = mkdtempSync(join(tmpdir(), "dmabuf-"));
    const file = await openFile(join(folder, "frame"), "w+");
    expect(await writeViews(file, from)).toBe(bytesOf(from).length);
    expect(await readViews(file, to, { position: 0 })).toBe(bytesOf(to).length);
    expect(bytesOf(to).equals(bytesOf(from))).toBe(true);
    await file.close();
    rmSync(folder, { recursive: true });
    end();
  });

  test("a socket is corked once, whatever is sent, and what is no socket is a rejection", async () => {
    const bytes = new Uint8Array(4);
    for (const views of [[], [bytes], [bytes, bytes], [bytes, new Uint8Array(1), bytes]]) {
      const said: string[] = [];
      const socket = {
        cork: () => void said.push("cork"),
        uncork: () => void said.push("uncork"),
        write: (_: Uint8Array, done: () => void) => {
          done();
          return said.push("write") > 0;
        },
      };
      await sendViews(socket, views);
      const writes = views.map(() => "write");
      expect(said).toEqual(views.length === 0 ? [] : ["cork", ...writes, "uncork"]);
    }
    await expectRejection("EINVAL", sendViews(null as never, []));
    await expectRejection("EINVAL", sendViews({} as never, [bytes]));
  });

  test("net.Socket: writev sends views, onread receives into them, twice in a row", async () => {
    const { from, to, end } = buffers();
    const sent = bytesOf(from);
    const server = createServer((socket: Socket) => {
      sendViews(socket, from)
        .then(() => sendViews(socket, from))
        .then(() => socket.end());
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as { port: number };
    let rounds = 0;
    await new Promise<void>((resolve, reject) => {
      const reader = new SocketReader(to, () => {
        rounds += 1;
        expect(reader.received).toBe(sent.length);
        expect(bytesOf(to).equals(sent)).toBe(true);
        for (const view of to) view.fill(0);
        if (rounds < 2) return to;
        resolve();
        return null;
      });
      const { buffer, callback } = reader.onread;
      const socket = connect({ port, host: "127.0.0.1", onread: { buffer, callback } });
      socket.on("error", reject);
    });
    server.close();
    expectError("EINVAL", () => new SocketReader([], () => null));
    end();
  });

  test("WebGPU: what the queue is given is checked", () => {
    const { from, end } = buffers();
    const writes: number[][] = [];
    const queue = {
      writeBuffer: (_: string, offset: number, data: Uint8Array) => {
        writes.push([offset, data.length]);
      },
      writeTexture: () => {},
    };
    writeGpuBuffer(queue, "buffer", from, 16);
    expect(writes.map(([, length]) => length)).toEqual(from.map((view) => view.length));
    expect(writes[1]?.[0]).toBe(16 + (from[0]?.length ?? 0));
    const row = { width: 4, height: 4, bytesPerRow: 16 };
    expectError("EINVAL", () => writeGpuTexture(queue, "texture", new Uint8Array(63), row));
    expectError("EINVAL", () => writeGpuBuffer(queue, "buffer", [new Uint8Array(6)]));
    end();
  });
});

interface Mapped {
  readonly buf: { put(): void };
  readonly mapping: { readonly views: readonly Uint8Array[]; unmap(): void };
}
