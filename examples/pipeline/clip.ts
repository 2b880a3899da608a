/**
 * Clip: a YUV4MPEG2 (Y4M) file, read one picture at a time.
 *
 *     "YUV4MPEG2 W320 H180 F10:1 C420\n"  then for every picture  "FRAME\n" Y[w*h] U[w*h/4]
 *     V[w*h/4]
 *
 * - Y1  At most one picture is read ahead of the caller; the file is never loaded whole.
 * - Y2  Whatever is wrong with a file is a ClipError whose message is one line.
 *
 * Only 8-bit 4:2:0 with even sizes. The variants of 4:2:0 differ in where chroma samples sit, by
 * less than a pixel; they are all read alike. Format: the yuv4mpeg(5) manual page of mjpegtools.
 *
 * @module
 */

import { type FileHandle, open } from "node:fs/promises";

/**
 * Pixels of the largest picture: what keeps the example's buffers and lists of frames in bounds.
 */
export const MAX_PIXELS: number = 2 ** 25;

const MAX_LINE_BYTES = 1024;
const COLOUR_SPACES: readonly string[] = ["420", "420jpeg", "420mpeg2", "420paldv"];

/** A file that cannot be read as a clip. */
export class ClipError extends Error {
  override readonly name = "ClipError";

  constructor(path: string, reason: string) {
    super(`Cannot read ${path}: ${reason}`);
  }
}

/** A clip that is open. */
export class Clip {
  readonly path: string;
  /** Pixels, even. */
  readonly width: number;
  /** Pixels, even. */
  readonly height: number;
  /** How many pictures the file's size suggests; exact when no FRAME line has parameters. */
  readonly expectedCount: number;
  readonly #file: FileHandle;
  #position: number;

  private constructor(path: string, file: FileHandle, size: Size, fileBytes: number) {
    this.path = path;
    this.width = size.width;
    this.height = size.height;
    this.#file = file;
    this.#position = size.headerBytes;
    const perPicture = "FRAME\n".length + this.pictureBytes;
    this.expectedCount = Math.floor((fileBytes - size.headerBytes) / perPicture);
  }

  /** Bytes of one picture: a luma plane and two chroma planes of a quarter each. */
  get pictureBytes(): number {
    return (this.width * this.height * 3) / 2;
  }

  /** Opens a clip and reads its header. ClipError (Y2). */
  static async open(path: string): Promise<Clip> {
    const file = await open(path).catch((error) => {
      throw new ClipError(path, reasonOf(error));
    });
    try {
      const line = await readLine(file, path, 0);
      const { size } = await file.stat();
      return new Clip(path, file, parseHeader(path, line ?? ""), size);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** The pictures in order, each in bytes of its own. ClipError (Y2). */
  async *pictures(): AsyncGenerator<Uint8Array> {
    for (let index = 0; ; index++) {
      const line = await readLine(this.#file, this.path, this.#position);
      if (line === null && index === 0) throw new ClipError(this.path, "it holds no picture");
      if (line === null) return;
      if (!/^FRAME( |$)/.test(line)) {
        throw new ClipError(this.path, `picture ${index} does not begin with a FRAME line`);
      }
      this.#position += line.length + 1;
      const picture = new Uint8Array(this.pictureBytes);
      const count = await readFully(this.#file, picture, this.#position);
      if (count < picture.length) {
        const state = `it has ${count} of ${picture.length} bytes`;
        throw new ClipError(this.path, `picture ${index} is truncated: ${state}`);
      }
      this.#position += count;
      yield picture;
    }
  }

  close(): Promise<void> {
    return this.#file.close();
  }
}

interface Size {
  readonly width: number;
  readonly height: number;
  readonly headerBytes: number;
}

function parseHeader(path: string, line: string): Size {
  const [magic, ...tags] = line.split(" ");
  if (magic !== "YUV4MPEG2") {
    throw new ClipError(path, "it is no Y4M file, which would begin with YUV4MPEG2");
  }
  const tagOf = (letter: string): string | undefined =>
    tags.find((tag) => tag.startsWith(letter))?.slice(1);
  const colour = tagOf("C") ?? "420";
  if (!COLOUR_SPACES.includes(colour)) {
    const known = COLOUR_SPACES.map((name) => `C${name}`).join(", ");
    throw new ClipError(path, `colour space C${colour} is not one of ${known}`);
  }
  const [width, height] = [tagOf("W"), tagOf("H")].map((text = "") =>
    /^[1-9]\d{0,8}$/.test(text) ? Number(text) : 0,
  ) as [number, number];
  if (width === 0 || height === 0) {
    throw new ClipError(path, "its header gives no width (W) and height (H)");
  }
  if (width % 2 !== 0 || height % 2 !== 0) {
    throw new ClipError(
      path,
      `4:2:0 needs an even width and height, and it has ${width}x${height}`,
    );
  }
  if (width * height > MAX_PIXELS) {
    throw new ClipError(path, `${width}x${height} is more than ${MAX_PIXELS} pixels`);
  }
  return { width, height, headerBytes: line.length + 1 };
}

/** The line at `position` without its end; null at the end of the file. */
async function readLine(file: FileHandle, path: string, position: number): Promise<string | null> {
  const bytes = new Uint8Array(MAX_LINE_BYTES);
  const count = await readFully(file, bytes, position).catch((error) => {
    throw new ClipError(path, reasonOf(error));
  });
  if (count === 0) return null;
  const end = bytes.indexOf(0x0a);
  if (end >= 0) return new TextDecoder("latin1").decode(bytes.subarray(0, end));
  const reason =
    position === 0
      ? "it is no Y4M file, which would begin with a line of text"
      : `the FRAME line at byte ${position} has no end`;
  throw new ClipError(path, reason);
}

/** Fills `into` from `position` on. How many bytes: fewer only at the end of the file. */
async function readFully(file: FileHandle, into: Uint8Array, position: number): Promise<number> {
  let done = 0;
  while (done < into.length) {
    const { bytesRead } = await file.read(into, done, into.length - done, position + done);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return done;
}

function reasonOf(error: NodeJS.ErrnoException): string {
  if (error.code === "ENOENT") return "there is no such file";
  if (error.code === "EISDIR") return "it is a directory";
  if (error.code === "EACCES") return "permission denied";
  return error.message.split("\n")[0] ?? "unknown error";
}
