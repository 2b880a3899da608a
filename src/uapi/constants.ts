/**
 * The flags of the system calls, as in the kernel's include/uapi.
 *
 * @module
 */

/** The CPU reads, or a sync file is for reading. */
export const DMA_BUF_SYNC_READ = 1;
/** The CPU writes, or a sync file is for writing. */
export const DMA_BUF_SYNC_WRITE = 2;
/** Both. */
export const DMA_BUF_SYNC_RW = 3;
/** The access begins. */
export const DMA_BUF_SYNC_START = 0;
/** The access ends. */
export const DMA_BUF_SYNC_END = 4;

/** The descriptor of a udmabuf is closed on exec; other flags are ignored. */
export const UDMABUF_FLAGS_CLOEXEC = 1;

/** The descriptor of a memfd is closed on exec. */
export const MFD_CLOEXEC = 1;
/** Seals can be added to a memfd. */
export const MFD_ALLOW_SEALING = 2;

/** The mapping is read. */
export const PROT_READ = 1;
/** The mapping is written. */
export const PROT_WRITE = 2;
/** Writes are seen by everybody. */
export const MAP_SHARED = 1;
/** Writes are seen by nobody else. */
export const MAP_PRIVATE = 2;

/** From the start. */
export const SEEK_SET = 0;
/** From the position. */
export const SEEK_CUR = 1;
/** From the end. */
export const SEEK_END = 2;

/** Duplicates a descriptor to the lowest free number from the argument on. */
export const F_DUPFD = 0;
/** The descriptor's flags. */
export const F_GETFD = 1;
/** Sets the descriptor's flags. */
export const F_SETFD = 2;
/** The file's access mode and status flags. */
export const F_GETFL = 3;
/** Sets the file's status flags. */
export const F_SETFL = 4;
/** F_DUPFD with FD_CLOEXEC. */
export const F_DUPFD_CLOEXEC = 1030;
/** Adds seals to a memfd. */
export const F_ADD_SEALS = 1033;
/** The seals of a memfd. */
export const F_GET_SEALS = 1034;
/** The descriptor's flag: closed on exec. */
export const FD_CLOEXEC = 1;
