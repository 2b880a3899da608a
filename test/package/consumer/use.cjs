// What a CommonJS user does: require() of an ES module, without waiting for anything.
const { openSync } = require("dmabuf");
const { openCoreSync } = require("dmabuf/core");

const system = openSync({ memoryBytes: 1024 * 1024 });
const fence = system.fence("job");
fence.signal();
if (fence.status !== 1 || system.check() !== null) throw new Error("the system is broken");
system.close();
if (openCoreSync({ memoryBytes: 1024 * 1024 }).check() !== null) throw new Error("so is the core");
