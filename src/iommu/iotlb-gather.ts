/**
 * IotlbGather: one invalidation for many pages, collected while they are unmapped.
 *
 *     addPage ─► joins the range, or sync first: other page size, or a gap between ─► … ─► sync
 *
 * Compare `struct iommu_iotlb_gather` in the kernel's include/linux/iommu.h.
 *
 * @module
 */

/** The range whose translations a device may still hold. A driver fills it, or ignores it. */
export class IotlbGather {
  /** First device address of the range; Infinity while it is empty. */
  iova: number = Infinity;
  /** First device address behind the range; 0 while it is empty. */
  iovaEnd = 0;
  /** The page size of what addPage() added; 0 for none. */
  pageBytes = 0;
  readonly #sync: (gather: IotlbGather) => void;

  /** @internal */
  constructor(sync: (gather: IotlbGather) => void) {
    this.#sync = sync;
  }

  get isEmpty(): boolean {
    return this.iovaEnd === 0;
  }

  /** Widens the range. */
  addRange(iova: number, sizeBytes: number): void {
    this.iova = Math.min(this.iova, iova);
    this.iovaEnd = Math.max(this.iovaEnd, iova + sizeBytes);
  }

  /** Adds a page, after a sync() if it has another size or does not touch the range. */
  addPage(iova: number, pageBytes: number): void {
    const isOther = this.pageBytes !== 0 && this.pageBytes !== pageBytes;
    if (isOther || this.#isDisjoint(iova, pageBytes)) this.sync();
    this.pageBytes = pageBytes;
    this.addRange(iova, pageBytes);
  }

  #isDisjoint(iova: number, sizeBytes: number): boolean {
    return !this.isEmpty && (iova + sizeBytes < this.iova || iova > this.iovaEnd);
  }

  /** Has the driver invalidate the range, and empties it. */
  sync(): void {
    this.#sync(this);
    this.iova = Infinity;
    this.iovaEnd = 0;
    this.pageBytes = 0;
  }
}
