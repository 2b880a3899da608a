/**
 * fcntl(): descriptors duplicated and marked, files' flags and seals.
 *
 * Compare do_fcntl() in the kernel's fs/fcntl.c.
 *
 * @module
 */

import { fail, textOf } from "../errors.ts";
import type { FdTable } from "../files/fd-table.ts";
import { O_APPEND, O_DIRECT, O_NOATIME, O_NONBLOCK, type OpenFile } from "../files/open-file.ts";
import {
  F_ADD_SEALS,
  F_DUPFD,
  F_DUPFD_CLOEXEC,
  F_GET_SEALS,
  F_GETFD,
  F_GETFL,
  F_SETFD,
  F_SETFL,
  FD_CLOEXEC,
} from "./constants.ts";
import { operationsOf } from "./paths.ts";

/** What F_SETFL changes. */
const SETFL_MASK = O_APPEND + O_NONBLOCK + O_NOATIME;

/** The answer of a command. EBADF, EMFILE; EINVAL: no such command, or the file has no seals. */
export function fcntl(
  files: FdTable<OpenFile>,
  fd: number,
  command: number,
  argument: number,
): number {
  const file = files.peek(fd);
  switch (command) {
    case F_DUPFD:
    case F_DUPFD_CLOEXEC:
      return files.dup(fd, { closeOnExec: command !== F_DUPFD, min: argument });
    case F_GETFD:
      return files.isCloseOnExec(fd) ? FD_CLOEXEC : 0;
    case F_SETFD:
      files.setCloseOnExec(fd, (argument & FD_CLOEXEC) !== 0);
      return 0;
    case F_GETFL:
      return file.fileFlags;
    case F_SETFL:
      if ((argument & O_DIRECT) !== 0)
        fail("EINVAL", `set flags of ${file.description}`, "it has no direct I/O");
      file.fileFlags = (file.fileFlags & ~SETFL_MASK) | (argument & SETFL_MASK);
      return 0;
    case F_GET_SEALS:
      return operationsOf(file).seals?.() ?? noSeals(file);
    case F_ADD_SEALS:
      return addSeals(file, argument);
    default:
      return fail("EINVAL", "fcntl", `there is no command ${textOf(command)}`);
  }
}

function addSeals(file: OpenFile, seals: number): number {
  const operations = operationsOf(file);
  if (operations.addSeals === undefined) return noSeals(file);
  operations.addSeals(seals);
  return 0;
}

function noSeals(file: OpenFile): never {
  return fail("EINVAL", `seal ${file.description}`, "only memfds have seals");
}
