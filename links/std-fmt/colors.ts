// @ts-types="./colors.d.ts"
export {
  blue,
  bold,
  cyan,
  dim,
  getColorEnabled,
  gray,
  green,
  inverse,
  italic,
  magenta,
  red,
  setColorEnabled,
  stripAnsiCode,
  underline,
  yellow,
} from "npm:deno-std@1.4.0/fmt/colors.js";
