/**
 * `dmabuf/adapters`: buffers and frames with what hosts offer: files, sockets, video frames,
 * canvases, WebGPU. Each says whether bytes are copied, and by whom.
 *
 * @module
 */
export { drawPicture, readCanvas } from "./canvas.ts";
export { readViews, writeViews } from "./files.ts";
export { type ByteSink, type OnRead, SocketReader, sendViews } from "./socket.ts";
export { copyFromVideoFrame, videoFrameOf } from "./video-frame.ts";
export {
  type GpuQueue,
  type TextureWrite,
  writeGpuBuffer,
  writeGpuTexture,
} from "./webgpu.ts";
