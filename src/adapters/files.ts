/**
 * Files: the views of a mapping or frame, to and from a Node `FileHandle`, by readv and writev.
 *
 * Nothing is copied by the library: the host reads and writes the frames in place. Keep the mapping
 * or frame until the promise has resolved.
 *
 * @module
 */

import {
  type FileSink,
  type FileSource,
  readAll,
  type TransferOptions,
  writeAll,
} from "../mm/files.ts";

type Views = readonly Uint8Array<ArrayBufferLike>[];

/** Fills the views from a file: how many bytes, fewer when the file ends before. In place. */
export function readViews(
  file: FileSource,
  views: Views,
  options: TransferOptions = {},
): Promise<number> {
  return readAll(file, views, options);
}

/** Writes the views to a file: how many bytes. In place. EIO: the file takes none. */
export function writeViews(
  file: FileSink,
  views: Views,
  options: TransferOptions = {},
): Promise<number> {
  return writeAll(file, views, options);
}
