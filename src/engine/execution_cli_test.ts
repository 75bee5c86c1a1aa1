/** What programs must not be able to do, each tried in a real sandbox process. */
import { assert, assertEquals, assertMatch, assertRejects, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { type Execution, type Kind, PythonPool } from "./execution.ts";
import { pythonTool } from "./python_tool.ts";
import { denialsProgram } from "./sandbox/denials.ts";
import { assetPath, sandboxArguments } from "../native/installation.ts";
import { SandboxProcess } from "./sandbox/process.ts";
import { temporaryFolder } from "../../dev/testing.ts";

interface Case {
  readonly code: string;
  readonly kind: Kind;
  /** Must be in the text of the exception. */
  readonly error?: string;
  readonly stdout?: string;
}

/** Opens the way to JavaScript that the import system closes: everything behind it must hold without that. */
const BRIDGE = `
import sys
sys.meta_path[:] = sys.meta_path[1:]
import _pyodide_core
thing = _pyodide_core.to_js([1])
`;

const CASES: Record<string, Case> = {
  "a program that ends": { code: "print('a'); x = 1", kind: "ok", stdout: "a\n" },
  "a long line behind a short one": {
    code: "print('a')\nprint('b' * 20_000, end='')",
    kind: "ok",
    stdout: `a\n${"b".repeat(20_000)}`,
  },
  "a failed assertion": { code: "assert 1 == 2, 'no'", kind: "assertion", error: "AssertionError: no" },
  "an exception": { code: "1/0", kind: "error", error: "ZeroDivisionError: division by zero" },
  "a syntax error": { code: "def", kind: "error", error: "SyntaxError: invalid syntax (<string>, line 1)" },
  "a zero byte": { code: "x = 1\0\nassert False", kind: "error", error: "null bytes" },
  "a coding comment": { code: "# coding: latin-1\nassert 'é' == chr(233)", kind: "ok" },
  "an infinite loop": { code: "while True: pass", kind: "timeout" },
  "a number without end": { code: "9**9**9", kind: "timeout" },
  "a regular expression without end": { code: "import re; re.match('(a+)+$', 'a'*64 + 'b')", kind: "timeout" },
  "a loop that catches everything": {
    code: "while True:\n  try:\n    while True: pass\n  except BaseException: pass",
    kind: "timeout",
  },
  "os.fork": { code: "import os; os.fork()", kind: "denied" },
  "posix.fork": { code: "import posix; posix.fork()", kind: "denied" },
  "os.system": { code: "import os; os.system('echo hi')", kind: "denied" },
  "posix.system": { code: "import posix; posix.system('echo hi')", kind: "denied" },
  "os.kill": { code: "import os; os.kill(os.getppid(), 9)", kind: "denied" },
  "subprocess": { code: "import subprocess; subprocess.run(['ls'])", kind: "denied" },
  "threads": { code: "import threading; threading.Thread(target=print).start()", kind: "denied" },
  "processes": { code: "import multiprocessing; multiprocessing.Process(target=print).start()", kind: "error" },
  "10 GB": { code: "bytearray(10 << 30)", kind: "memory" },
  "10 GB in a list": { code: "[0] * (10 << 30)", kind: "memory" },
  "1 GB": { code: "bytearray(1 << 30)", kind: "memory", error: "MemoryError" },
  "memory piece by piece": { code: "x = []\nwhile True: x.append(bytearray(10**6))", kind: "memory" },
  "writing files": {
    code:
      "import os\nfor name in ('x', '/tmp/x', '/home/x'):\n  with open(name, 'w') as f: f.write('x')\nos.mkdir('/etc')",
    kind: "ok",
  },
  "memory in files": { code: "f = open('x', 'wb')\nwhile True: f.write(bytes(10**7))", kind: "memory" },
  "recursion": { code: "def f(): f()\nf()", kind: "error", error: "RecursionError" },
  "recursion without its limit": {
    code: "import sys\nsys.setrecursionlimit(10**9)\ndef f(): f()\nf()",
    kind: "error",
    error: "the interpreter stopped",
  },
  "/etc/passwd": { code: "open('/etc/passwd').read()", kind: "error", error: "FileNotFoundError" },
  "the machine's folders": {
    code: "import os; print(sorted(os.listdir('/')), os.listdir('.'), sorted(os.listdir('/home')))",
    kind: "ok",
    stdout: "['dev', 'home', 'lib', 'proc', 'tmp'] [] ['program', 'web_user']\n",
  },
  "sockets": { code: "import socket; socket.create_connection(('1.2.3.4', 80))", kind: "denied" },
  "_socket": { code: "import _socket; _socket.socket().connect(('1.2.3.4', 80))", kind: "denied" },
  "a listening socket": {
    code: "import _socket; s = _socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()",
    kind: "denied",
  },
  "import js": { code: "import js; js.Deno", kind: "denied" },
  "import pyodide": { code: "from pyodide.code import run_js; run_js('1')", kind: "denied" },
  "import pyodide_js": { code: "import pyodide_js; pyodide_js.FS", kind: "denied" },
  "code from strings": {
    code: `${BRIDGE}thing.constructor.constructor("return globalThis")()`,
    kind: "denied",
    error: "EvalError",
  },
  "a worker": {
    code: `${BRIDGE}thing.constructor.constructor("return new Worker('data:text/javascript,')")()`,
    kind: "denied",
    error: "EvalError",
  },
  "bytes on the pipe through Node's files": {
    code: `${BRIDGE}
import gc
finder = next(o for o in gc.get_objects() if type(o).__name__ == "JsFinder")
nodefs = finder.jsproxies["pyodide_js"].FS.filesystems.NODEFS
stdout = _pyodide_core.to_js({})
stdout.nfd = 1
nodefs.stream_ops.write(stdout, _pyodide_core.to_js(b"0" * 32 + b"O"), 0, 33)`,
    kind: "denied",
    error: "TypeError",
  },
  "polluted prototypes": {
    code: `${BRIDGE}
for proto in (thing.constructor.prototype, thing.constructor.constructor.prototype):
    for name in ("toJSON", "push", "call", "apply", "toString"):
        try: setattr(proto, name, lambda *a: "passed")
        except Exception: pass
assert False`,
    kind: "assertion",
  },
  "a polluted Object.prototype": {
    code: `${BRIDGE}
try: _pyodide_core.to_js({}).constructor.prototype.toJSON = 1
except Exception: pass
assert not hasattr(_pyodide_core.to_js({}), "toJSON")`,
    kind: "ok",
  },
  "a getter that would be handed the frame": {
    code: `${BRIDGE}
Object = _pyodide_core.to_js({}).constructor
arrays = Object.getPrototypeOf(_pyodide_core.to_js(b"x").constructor.prototype)
held = Object.getOwnPropertyDescriptor(arrays, "buffer").get
def steal(this):
    if this.at(32) == ord("A"): this.fill(ord("O"), 32, 33)
    return held.call(this)
getter = _pyodide_core.to_js({})
getter.get = _pyodide_core.create_proxy(steal).captureThis()
for name in ("buffer", "length", "byteOffset"):
    try: Object.defineProperty(arrays, name, getter)
    except Exception: pass
assert False`,
    kind: "assertion",
  },
  "printing 1 GB": { code: "for i in range(1000): print('x' * 10**6)", kind: "ok" },
  "sys.exit": { code: "import sys; sys.exit(0)", kind: "error", error: "SystemExit: 0" },
  "os._exit": { code: "import os; os._exit(0)", kind: "error" },
  "os._exit in a test": { code: "def check(f):\n  import os\n  os._exit(0)\ncheck(1)\nassert False", kind: "error" },
  "overwritten builtins": {
    code: "import builtins\nbuiltins.AssertionError = ValueError\nbuiltins.BaseException = int\nassert False",
    kind: "assertion",
  },
  "an overwritten exec": {
    code: "import builtins, sys\nbuiltins.exec = builtins.compile = print\nsys.excepthook = print\nassert False",
    kind: "assertion",
  },
  "a verdict in the output": { code: "print('0' * 32 + 'O', flush=True); assert False", kind: "assertion" },
  "a verdict on every descriptor": {
    code:
      "import os\nfor fd in range(3, 20):\n  try: os.write(fd, b'0' * 32 + b'O')\n  except OSError: pass\nassert False",
    kind: "assertion",
  },
  "an exception whose text hangs": {
    code: "class E(Exception):\n  def __str__(self):\n    while True: pass\nraise E",
    kind: "timeout",
  },
  "an exception whose text fails": {
    code: "class E(Exception):\n  def __str__(self): raise ValueError\nraise E",
    kind: "error",
    error: "E: ",
  },
  "an exception that claims to be another": {
    code: "class E(Exception):\n  __class__ = AssertionError\n  errno = 1\nraise E",
    kind: "error",
  },
  "closed streams": {
    code: "import sys, os\nsys.stdout.close(); sys.stderr.close()\nos.close(1); os.close(2)",
    kind: "ok",
  },
  "the end of the input": { code: "input()", kind: "error", error: "EOFError" },
};

Deno.test("PythonPool contains what programs try", async () => {
  // Endless ones get little time, the others enough for a machine that is busy.
  await using short = await PythonPool.open({ timeoutMs: 1500, size: 1 });
  await using long = await PythonPool.open({ timeoutMs: 60_000, size: 1 });
  const results = await Promise.all(
    Object.entries(CASES).map(async ([name, { code, kind }]): Promise<[string, Execution]> => {
      return [name, await (kind === "timeout" ? short : long).run(code)];
    }),
  );
  const kinds = (of: (name: string, execution: Execution) => string) =>
    Object.fromEntries(results.map(([name, execution]) => [name, of(name, execution)]));
  assertEquals(kinds((_, { kind }) => kind), kinds((name) => CASES[name].kind));
  for (const [name, { kind, error, stdout, durationMs }] of results) {
    const expected = CASES[name];
    if (expected.error) assertStringIncludes(error, expected.error, name);
    if (expected.stdout !== undefined) assertEquals(stdout, expected.stdout, name);
    assert(stdout.length <= 65_536, name);
    if (kind === "timeout") assert(durationMs >= 1500 && durationMs < 6000, `${name}: ${durationMs} ms`);
  }
});

Deno.test("PythonPool gives each program a fresh interpreter and an empty environment", async () => {
  Deno.env.set("SECRET_OF_THE_PARENT", "do not tell");
  await using pool = await PythonPool.open({ size: 1 });
  Deno.env.delete("SECRET_OF_THE_PARENT"); // the other tests of this process must not see it
  const spoil =
    "import builtins, sys, os\nbuiltins.len = None\nsys.modules['math'] = None\nopen('left', 'w').write('x')\n" +
    "builtins.mark = 1\nos.environ['mark'] = '1'";
  assertEquals((await pool.run(spoil)).kind, "ok");
  const look = "import math, os\nassert len([1]) == 1 and 'mark' not in os.environ and not os.listdir('.')\n" +
    "try: mark\nexcept NameError: print(dict(os.environ))";
  const { kind, stdout } = await pool.run(look);
  assertEquals(kind, "ok");
  assertMatch(stdout, /'HOME': '\/home\/program'/);
  for (const word of ["SECRET_OF_THE_PARENT", "do not tell", Deno.cwd()]) assert(!stdout.includes(word), word);
});

Deno.test("PythonPool repeats a verdict: hashes and random numbers start alike", async () => {
  await using pool = await PythonPool.open();
  const code = "import random\nprint(hash('a'), random.random(), list({'x', 'y', 'z'}))";
  const [first, second] = await Promise.all([pool.run(code), pool.run(code)]);
  assertEquals([first.kind, first.stdout], ["ok", second.stdout]);
});

Deno.test("pythonTool() works as the interactive prompt does", async () => {
  await using pool = await PythonPool.open({ size: 1 });
  const tool = pythonTool(pool);
  const calls: Record<string, string | null> = {
    "sum(range(10))": "45",
    "x = 3\nprint(x, 'é\\n')": "3 é",
    "def f(n): return n if n < 2 else f(n - 1) + f(n - 2)\nprint([f(i) for i in range(10)])":
      "[0, 1, 1, 2, 3, 5, 8, 13, 21, 34]",
    "x = 3": null,
    "len('a')/0": "ZeroDivisionError: division by zero",
    "print('unclosed": "SyntaxError: unterminated string literal (detected at line 1) (<string>, line 1)",
    "open('/etc/passwd')": "FileNotFoundError: [Errno 44] No such file or directory: '/etc/passwd'",
  };
  for (const [text, result] of Object.entries(calls)) assertEquals(await tool(text), result, text);
});

for (const guard of ["kernel", "resident"] as const) {
  Deno.test({
    name: `PythonPool keeps memory outside the interpreter within its limit: ${guard}`,
    ignore: guard === "kernel" && Deno.build.os !== "linux",
    fn: async () => {
      await using pool = await PythonPool.open({ size: 1, guard, memoryBytes: 64 << 20, timeoutMs: 60_000 });
      const attacks = {
        "files": "f = open('x', 'wb')\nwhile True: f.write(bytes(10**7))",
        "arrays of JavaScript": `${BRIDGE}\nkept = []\nwhile True: kept.append(_pyodide_core.to_js(bytes(10**7)))`,
      };
      for (const [name, code] of Object.entries(attacks)) {
        const { kind, error } = await pool.run(code);
        // Where the kernel refuses the memory of an array, Pyodide's bridge may survive it and says so.
        if (kind !== "memory") {
          assertEquals(error, "ConversionError: Conversion from python to javascript failed", name);
        }
      }
      assertEquals((await pool.run("print(1)")).stdout, "1\n");
      assertEquals(pool.guard, guard);
    },
  });
}

/** Grants, by overwriting what the self-test calls, one thing after the other. */
const GRANTS: Record<string, string> = {
  "reading a file": "import builtins; builtins.open = print",
  "listing a folder": "import os; os.listdir = print",
  "the network": "import socket; socket.create_connection = print",
  "a process": "import subprocess; subprocess.run = print",
  "a shell": "import os; os.system = print",
  "a fork": "import os; os.fork = int",
  "a thread": "import threading; threading.Thread.start = print",
  "a native library": "import ctypes; ctypes.CDLL = print",
  "the module js": "import sys; sys.modules['js'] = 1",
  "the module pyodide_js": "import sys; sys.modules['pyodide_js'] = 1",
  "a worker": `
import sys
from types import SimpleNamespace as N
sys.modules["_pyodide_core"] = N(JsException=ValueError, to_js=lambda x: N(constructor=N(constructor=lambda code: print)))`,
  "memory beyond the limit": `
import builtins
given = builtins.bytearray
builtins.bytearray = lambda *size: None if size == (1 << 30,) else given(*size)`,
  "the environment": "import os; os.environ['SECRET'] = '1'",
};

Deno.test("the self-test of the sandbox names what is granted", async () => {
  await using pool = await PythonPool.open({ timeoutMs: 60_000 });
  const program = denialsProgram(1 << 30);
  const results = await Promise.all(
    Object.entries(GRANTS).map(async ([name, code]) => {
      const { kind, error } = await pool.run(`${code}\n${program}`);
      return [name, kind, error];
    }),
  );
  assertEquals(
    results,
    Object.keys(GRANTS).map((name) => [name, "assertion", `AssertionError: ${name} was granted`]),
  );
});

Deno.test("programs write no file of the machine", async () => {
  using folder = temporaryFolder();
  const sandbox = new SandboxProcess(folder.path, { timeoutMs: 60_000, memoryBytes: 64 << 20, outputBytes: 1000 });
  await sandbox.ready;
  const path = join(folder.path, "x");
  const code = `import os\nos.makedirs(${JSON.stringify(folder.path)})\nfor name in ("x", ${JSON.stringify(path)}):\n` +
    "  with open(name, 'w') as f: f.write('x')";
  assertEquals((await sandbox.run(code)).kind, "ok");
  assertEquals([...Deno.readDirSync(folder.path)], []);
});

/** Lists the sandbox processes that this process started. */
function sandboxes(): number[] {
  const mine = (pid: string) => {
    try {
      return Deno.readTextFileSync(`/proc/${pid}/status`).includes(`\nPPid:\t${Deno.pid}\n`) &&
        /child\.js|--python-sandbox/.test(Deno.readTextFileSync(`/proc/${pid}/cmdline`)); // the launcher becomes deno
    } catch {
      return false; // it ended meanwhile
    }
  };
  return Array.from(Deno.readDirSync("/proc"), ({ name }) => name).filter((name) => /^\d+$/.test(name) && mine(name))
    .map(Number);
}

Deno.test({
  name: "PythonPool replaces a process that was killed while it waited, and leaves none behind",
  ignore: Deno.build.os !== "linux",
  fn: async () => {
    {
      await using pool = await PythonPool.open({ size: 1 });
      const before = sandboxes();
      assertEquals(before.length, 1);
      Deno.kill(before[0], "SIGKILL");
      assertEquals((await pool.run("print(2)")).stdout, "2\n");
    }
    assertEquals(sandboxes(), []);
  },
});

Deno.test("PythonPool ends what waits when it is closed", async () => {
  const pool = await PythonPool.open({ size: 1, timeoutMs: 60_000 });
  const promises = ["while True: pass", "1"].map((code) =>
    assertRejects(() => pool.run(code), Error, "pool is closed")
  );
  await pool[Symbol.asyncDispose]();
  await Promise.all(promises);
  await assertRejects(() => pool.run("1"), Error, "pool is closed");
});

Deno.test({
  name: "SandboxProcess is limited by the kernel when it is ready",
  ignore: Deno.build.os !== "linux",
  fn: async () => {
    using folder = temporaryFolder();
    const limits = { timeoutMs: 3000, memoryBytes: 64 << 20, outputBytes: 1000 };
    const sandbox = new SandboxProcess(folder.path, limits);
    try {
      await sandbox.ready;
      const text = Deno.readTextFileSync(`/proc/${sandbox.pid}/limits`);
      const [soft, hard] = /^Max data size +(\d+) +(\d+)/m.exec(text)!.slice(1).map(Number);
      const data = 1024 * Number(/^VmData:\s+(\d+)/m.exec(Deno.readTextFileSync(`/proc/${sandbox.pid}/status`))![1]);
      assertEquals(soft, hard);
      assert(soft > data && soft < data + (300 << 20), `${soft} with ${data} in use`);
      assertMatch(text, /^Max cpu time +22 +22/m);
    } finally {
      await sandbox.kill();
    }
  },
});

/** Starts a sandbox process with more arguments than it should have and returns its exit code and what it says. */
async function startWith(folder: string, more: readonly string[]): Promise<[number, string]> {
  const [run, ...args] = sandboxArguments(assetPath("sandboxProgram"), assetPath("sandbox"));
  const { code, stdout } = await new Deno.Command(Deno.execPath(), {
    args: [run, ...more, "--v8-flags=--disallow-code-generation-from-strings", ...args, "1000"],
    cwd: folder,
    clearEnv: true,
    stdin: "null",
  }).output();
  return [code, new TextDecoder().decode(stdout)];
}

Deno.test("a sandbox process gives every permission back, and refuses to start where one stays", async () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "before.js");
  const keeping = "Deno.permissions.revoke = (what) => what.name === 'read' && revoke(what)";
  await Deno.writeTextFile(path, `const revoke = Deno.permissions.revoke.bind(Deno.permissions);\n${keeping}`);
  assertEquals(await startWith(folder.path, []), [0, "ready\n"]);
  for (const what of ["write", "env", "sys", "net", "run", "ffi"]) {
    assertEquals(await startWith(folder.path, [`--allow-${what}`]), [0, "ready\n"]);
    const kept = [`--allow-${what}`, `--preload=${path}`];
    assertEquals(await startWith(folder.path, kept), [1, `granted: ${what}\n`]);
  }
});

Deno.test("a sandbox process refuses to start where a global stays", async () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "before.js");
  await Deno.writeTextFile(path, "Object.defineProperty(globalThis, 'Worker', { value: 1, configurable: false });");
  assertEquals(await startWith(folder.path, [`--preload=${path}`]), [1, "granted: the global Worker\n"]);
});
