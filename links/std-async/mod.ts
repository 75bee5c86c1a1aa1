// @ts-types="./mod.d.ts"
export { deadline, delay, pooledMap } from "npm:deno-std@1.4.0/async/mod.js";
