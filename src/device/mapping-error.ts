/**
 * DMA_MAPPING_ERROR: the address that is none, for drivers that keep addresses in 64-bit words.
 *
 * Compare dma_mapping_error() in the kernel's include/linux/dma-mapping.h.
 *
 * @module
 */

/** The device address that stands for "not mapped": all ones. */
export const DMA_MAPPING_ERROR: bigint = 2n ** 64n - 1n;

/**
 * Whether a 64-bit word that should hold a device address says "not mapped". No mapping call of
 * this library returns it: they throw. It is for descriptors and registers that hold addresses.
 */
export function isDmaMappingError(address: bigint): boolean {
  return typeof address === "bigint" && BigInt.asUintN(64, address) === DMA_MAPPING_ERROR;
}
