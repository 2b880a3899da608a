// Errors of the core: every result is a value >= 0 or one of these, negative.
//
// The numbers are Linux's (include/uapi/asm-generic/errno*.h), so that a recorded result can be
// compared as it is.

export const EPERM: i32 = -1; // only the owner may do that
export const ENOENT: i32 = -2; // nothing is there: a free frame released, an address nobody mapped
export const ESRCH: i32 = -3; // no thread runs there
export const EIO: i32 = -5; // direct mapping: the device cannot address the bytes
export const EBADF: i32 = -9; // a number that never named such an object
export const EAGAIN: i32 = -11; // the lock is taken and this thread may not block
export const ENOMEM: i32 = -12; // no frame, run, record or table is left
export const EFAULT: i32 = -14; // a device touched an address that nothing maps for it
export const EBUSY: i32 = -16; // pinned, mapped or attached
export const EEXIST: i32 = -17; // the device address is mapped already
export const ENODEV: i32 = -19; // the thread that would have done it has left
export const EINVAL: i32 = -22; // an argument that no state of the system would accept
export const ENOSPC: i32 = -28; // no thread slot is left
export const EPIPE: i32 = -32; // the pool was closed
export const ERANGE: i32 = -34; // the address does not fit the width of the table
export const EOVERFLOW: i32 = -75; // a counter would wrap
export const EOPNOTSUPP: i32 = -95; // the table's format cannot do it
export const ESTALE: i32 = -116; // the handle's object is gone
export const EOWNERDEAD: i32 = -130; // the thread that would have done it is gone
