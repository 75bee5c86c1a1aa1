/**
 * Runs one Python program in a process that may do nothing: `deno run --allow-read=ASSETS child.js ASSETS OUTPUT_BYTES`, started by
 * process.ts. The single file of `deno compile` has its permissions built in: there everything but reading is given back first.
 *
 * Order of events: load Python from its snapshot; give the read permission back; try every kind of access and refuse to go on if one
 * is granted; delete what the program does not need, and refuse to go on if any of it stays; write "ready"; read one JSON line
 * {nonce, code} from stdin; build the frames of all verdicts; run; write one frame and what the program printed; exit.
 *
 * A verdict is decided on the C side of Python (was there a result, which built-in exception type is it) and written as bytes that
 * were made before the program ran, through functions captured before it ran: nothing that a program can replace is asked. What it
 * printed and the text of its exception follow the frame; they are its own words and mean nothing.
 */
for (const name of ["write", "env", "sys", "net", "run", "ffi", "import"]) await Deno.permissions.revoke({ name });
const [assets, outputCapText] = Deno.args.slice(-2);
const OUTPUT_CAP = Number(outputCapText);
const ERROR_CAP = 1024;
const folder = `file://${assets.split("/").map(encodeURIComponent).join("/")}/`;

// Pyodide is shown a plain JavaScript shell, so that it never loads Node's modules: what is not there cannot be reached, and the start
// takes a tenth less.
delete globalThis.process;
globalThis.window = {};
globalThis.load = globalThis.read = () => {};
globalThis.readbuffer = (path) => Deno.readFileSync(new URL(`file://${path}`));
const { loadPyodide } = await import(`${folder}pyodide.mjs`);

// Captured before anything else is there: the program cannot reach these.
const write = Deno.stdout.writeSync.bind(Deno.stdout);
const read = Deno.stdin.readSync.bind(Deno.stdin);
const deno = Deno;
const encoder = new TextEncoder();
const encode = encoder.encode.bind(encoder);

/** Writes all bytes; a pipe takes only part of them at a time. */
function writeAll(bytes) {
  for (let done = 0; done < bytes.length;) done += write(bytes.subarray(done));
}

/** Collects what the program prints, up to a cap; the rest is counted as written and dropped. */
class Sink {
  bytes = new Uint8Array(OUTPUT_CAP);
  length = 0;
  write = (chunk) => {
    const n = chunk.length;
    for (let i = 0; i < n && this.length < OUTPUT_CAP; i++) this.bytes[this.length++] = chunk[i];
    return n;
  };
}
const out = new Sink();
const err = new Sink();

const python = await loadPyodide({
  indexURL: folder,
  _loadSnapshot: Deno.readFileSync(`${assets}/snapshot.bin`),
  lockFileContents: Deno.readTextFileSync(`${assets}/lock.json`),
  jsglobals: Object.freeze(Object.create(null)),
  env: { HOME: "/home/program" },
});
python.setStdout({ write: out.write, isatty: false });
python.setStderr({ write: err.write, isatty: false });
python.setStdin({ stdin: () => null, isatty: false });

// The C functions that judge, and the objects that they need; `_module` holds every export of the interpreter.
const c = python._module;
const {
  _PyErr_GetRaisedException,
  _PyErr_Clear,
  _PyErr_GivenExceptionMatches,
  _PyObject_Str,
  _PyObject_GetAttrString,
} = c;
const { _PyEval_EvalCode, _PyObject_Type, _PyType_GetName, _PyUnicode_AsUTF8AndSize, _PyObject_CallNoArgs } = c;
const { _Py_CompileStringExFlags, _PyLong_AsLong, _malloc, memory } = c;
const Bytes = Uint8Array;
const Words = Uint32Array;
/** Copies text into the interpreter's memory, zero-terminated. */
function cString(text) {
  const bytes = encode(text);
  const address = _malloc(bytes.length + 1);
  const heap = new Bytes(memory.buffer);
  heap.set(bytes, address);
  heap[address + bytes.length] = 0;
  return address;
}
const word = (address) => new Words(memory.buffer, address, 1)[0];
const scratch = _malloc(8);
const attribute = {
  stdout: cString("stdout"),
  stderr: cString("stderr"),
  flush: cString("flush"),
  errno: cString("errno"),
};
const sys = c._PyImport_AddModule(cString("sys"));
const flushes = [attribute.stdout, attribute.stderr].map((name) =>
  _PyObject_GetAttrString(_PyObject_GetAttrString(sys, name), attribute.flush)
);
const types = {
  assertion: word(c._PyExc_AssertionError),
  memory: word(c._PyExc_MemoryError),
  overflow: word(c._PyExc_OverflowError),
  permission: word(c._PyExc_PermissionError),
  os: word(c._PyExc_OSError),
  javascript: _PyObject_GetAttrString(c._PyImport_ImportModule(cString("_pyodide_core")), cString("JsException")),
};
/** errno of calls that this machine has not: ENOSYS, EHOSTUNREACH, EOPNOTSUPP as Emscripten numbers them. */
const MISSING_CALLS = [52, 23, 138];
const globals = c._PyDict_New();
c._PyDict_SetItemString(globals, cString("__builtins__"), c._PyEval_GetBuiltins());
const filename = cString("<string>");
const FILE_INPUT = 257; // Py_file_input
const compilerFlags = _malloc(8); // struct PyCompilerFlags: the text is UTF-8 whatever a coding comment says; version 3.14
new Words(memory.buffer, compilerFlags, 2).set([0x0100 | 0x0800, 14]);

c._PyRun_SimpleString(cString("import _sandbox; _sandbox.seal(); del _sandbox"));

// From here on no permission is held; each kind of access is tried, because a list of permissions would only be a promise.
await Deno.permissions.revoke({ name: "read" });
const attempts = {
  read: () => Deno.readFileSync(`${assets}/lock.json`),
  write: () => Deno.writeFileSync("probe", new Bytes(0)),
  env: () => Deno.env.get("PATH"),
  sys: () => Deno.hostname(),
  net: () => Deno.listen({ hostname: "127.0.0.1", port: 0 }),
  run: () => new Deno.Command("/bin/sh").outputSync(),
  ffi: () => Deno.dlopen("libc.so.6", {}),
  "code from strings": () => Function("return 1")(),
};
function refuse(name) {
  writeAll(encode(`granted: ${name}\n`));
  deno.exit(1);
}
for (const [name, attempt] of Object.entries(attempts)) {
  let granted = true;
  try {
    attempt();
  } catch (error) {
    granted = !(error instanceof Deno.errors.NotCapable || error instanceof EvalError);
  }
  if (granted) refuse(name);
}

// Only the language stays, and the clock and random bytes that Python's own start has already been given.
const now = performance.now.bind(performance);
const fill = crypto.getRandomValues.bind(crypto);
const kept = new Set(
  ("Object Function Array Number Boolean String Symbol BigInt Math JSON Date RegExp Promise Proxy Reflect Map Set WeakMap WeakSet " +
    "WeakRef FinalizationRegistry Error AggregateError EvalError RangeError ReferenceError SyntaxError TypeError URIError " +
    "ArrayBuffer DataView Int8Array Uint8Array Uint8ClampedArray Int16Array Uint16Array Int32Array Uint32Array " +
    "Float32Array Float64Array BigInt64Array BigUint64Array globalThis parseInt parseFloat isNaN isFinite NaN Infinity undefined")
    .split(" "),
);
const own = Reflect.ownKeys;
const remove = Reflect.deleteProperty;
const setPrototype = Object.setPrototypeOf;
const root = globalThis;
const bare = (members) => Object.freeze(Object.assign(Object.create(null), members));
const parse = JSON.parse;
const decoder = new TextDecoder();
const decode = decoder.decode.bind(decoder);
const freeze = Object.freeze;
// Symbols stay: they lead nowhere, and Deno's exit looks for its own.
for (const name of own(root)) {
  if (typeof name === "string" && !kept.has(name) && !remove(root, name)) refuse(`the global ${name}`);
}
const windowPrototype = Object.getPrototypeOf(root);
setPrototype(root, null);
if (typeof Worker !== "undefined" || typeof Deno !== "undefined") refuse("the global object");
root.performance = bare({ now });
root.crypto = bare({ getRandomValues: fill });
root.console = bare({ log() {}, warn() {}, error() {} });
// Nothing below asks a prototype after the program has run; frozen, they cannot be turned against Pyodide either. Errors stay open:
// Pyodide writes its messages into them.
for (const name of kept) {
  const prototype = typeof root[name] === "function" && !name.endsWith("Error") ? root[name].prototype : undefined;
  if (prototype !== undefined) freeze(prototype);
}
freeze(Object.getPrototypeOf(Bytes.prototype));
freeze(Object.getPrototypeOf(memory));

writeAll(encode("ready\n"));

/** Ends the process; Deno tells the listeners of the global object first, for which it must be a window again. */
function leave() {
  setPrototype(root, windowPrototype);
  deno.exit(0);
}

/** Reads the line of the program; the end of input means that nobody waits any more. */
function readLine() {
  let text = new Bytes(0);
  const piece = new Bytes(65536);
  for (;;) {
    const n = read(piece);
    if (n === null) leave();
    const joined = new Bytes(text.length + n);
    joined.set(text);
    joined.set(piece.subarray(0, n), text.length);
    text = joined;
    if (text[text.length - 1] === 10) return decode(text);
  }
}
const { nonce, code } = parse(readLine());
const frame = {
  ok: encode(`${nonce}O`),
  assertion: encode(`${nonce}A`),
  denied: encode(`${nonce}D`),
  memory: encode(`${nonce}M`),
  error: encode(`${nonce}E`),
};
const tail = new Bytes(12 + 2 * OUTPUT_CAP + ERROR_CAP);
const message = new Bytes(ERROR_CAP);
let messageLength = 0;

/** Appends a Python string to the message; its own errors are of no interest. */
function addText(string) {
  const address = string === 0 ? 0 : _PyUnicode_AsUTF8AndSize(string, scratch);
  if (address === 0) return _PyErr_Clear();
  const length = word(scratch);
  const heap = new Bytes(memory.buffer);
  for (let i = 0; i < length && messageLength < ERROR_CAP; i++) message[messageLength++] = heap[address + i];
}

/** Appends plain letters to the message. */
function addLetters(bytes) {
  for (let i = 0; bytes[i] !== undefined && messageLength < ERROR_CAP; i++) message[messageLength++] = bytes[i];
}
const COLON = encode(": ");
const BEYOND_32_BITS = encode("OverflowError: cannot fit 'int' into an index-sized integer");
const STOPPED = encode("the interpreter stopped: ");
const STACK = "Maximum call stack size exceeded";
const NULL_BYTE = encode("SyntaxError: source code string cannot contain null bytes");

/** Names the verdict of a Python exception, by built-in types only, before any method of it runs. */
function kindOf(exception) {
  if (_PyErr_GivenExceptionMatches(exception, types.assertion)) return "assertion";
  if (_PyErr_GivenExceptionMatches(exception, types.memory)) return "memory";
  if (_PyErr_GivenExceptionMatches(exception, types.permission)) return "denied";
  if (_PyErr_GivenExceptionMatches(exception, types.javascript)) return "denied"; // it found a way there, and was refused
  if (_PyErr_GivenExceptionMatches(exception, types.os)) {
    const errno = _PyObject_GetAttrString(exception, attribute.errno);
    const number = errno === 0 ? -1 : _PyLong_AsLong(errno);
    _PyErr_Clear();
    for (let i = 0; i < MISSING_CALLS.length; i++) if (MISSING_CALLS[i] === number) return "denied";
  }
  return "error";
}

/** Says whether the message is that of an allocation beyond 32 bits. */
function isBeyond32Bits() {
  if (BEYOND_32_BITS[messageLength] !== undefined || messageLength === 0) return false;
  for (let i = 0; i < messageLength; i++) if (message[i] !== BEYOND_32_BITS[i]) return false;
  return true;
}

/** Runs the program and returns its kind. */
function run(source) {
  const program = _Py_CompileStringExFlags(source, filename, FILE_INPUT, compilerFlags, -1);
  if (program !== 0 && _PyEval_EvalCode(program, globals, globals) !== 0) return "ok";
  const exception = _PyErr_GetRaisedException();
  const kind = kindOf(exception);
  addText(_PyType_GetName(_PyObject_Type(exception)));
  addLetters(COLON);
  addText(_PyObject_Str(exception));
  return kind === "error" && _PyErr_GivenExceptionMatches(exception, types.overflow) && isBeyond32Bits()
    ? "memory"
    : kind;
}

let kind = "error";
if (code.includes("\0")) addLetters(NULL_BYTE);
else {
  const source = cString(code);
  try {
    kind = run(source);
  } catch (error) {
    // JavaScript stopped the interpreter: a refused access, os._exit, an exhausted stack, a broken invariant of Python.
    try {
      if (error.name === "NotCapable" || error.name === "EvalError") kind = "denied";
      if (error.name === "RangeError" && error.message !== STACK) kind = "memory"; // an array that cannot be had
      messageLength = 0;
      addLetters(STOPPED);
      addLetters(encode(`${error.name}: ${error.message}`));
    } catch {
      // The text belongs to the program; without it the verdict is the same.
    }
  }
}
for (let i = 0; i < flushes.length; i++) {
  try {
    if (_PyObject_CallNoArgs(flushes[i]) === 0) _PyErr_Clear();
  } catch {
    // The interpreter has stopped, or the program closed its streams.
  }
}
let end = 0;
function addSection(bytes, length) {
  for (let shift = 0; shift < 32; shift += 8) tail[end++] = (length >>> shift) & 255;
  for (let i = 0; i < length; i++) tail[end++] = bytes[i];
}
addSection(out.bytes, out.length);
addSection(err.bytes, err.length);
addSection(message, messageLength);
let result = frame.error;
if (kind === "ok") result = frame.ok;
else if (kind === "assertion") result = frame.assertion;
else if (kind === "denied") result = frame.denied;
else if (kind === "memory") result = frame.memory;
// No length, buffer or slice of an array is asked for here: those are getters, which a program that reached JavaScript could have
// replaced to be handed the frame. A frame is taken in one piece, of the sections what Deno's buffer of lines has room for.
write(result);
for (let done = 0; done < end;) {
  const size = end - done < 4096 ? end - done : 4096;
  const piece = new Bytes(size);
  for (let i = 0; i < size; i++) piece[i] = tail[done + i];
  done += write(piece);
}
leave();
