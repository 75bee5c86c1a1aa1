/**
 * What a program must be refused. The first pool of a command runs a program that tries each of these, as a program of a model could,
 * and refuses to go on where one is granted; what the process itself must be refused is tried by child.js in every process.
 */

/** Thrown where the sandbox grants what it must not: nothing may run in it. */
export class SandboxError extends Error {
  override name = "SandboxError";
}

/** Python expressions by what they would be granted; `javascript` goes behind the closed import system. */
const ATTEMPTS: Readonly<Record<string, string>> = {
  "reading a file": `open("/etc/passwd")`,
  "listing a folder": `os.listdir("/etc")`,
  "the network": `socket.create_connection(("127.0.0.1", 9))`,
  "a process": `subprocess.run(["true"])`,
  "a shell": `os.system("true")`,
  "a fork": `os.fork()`,
  "a thread": `threading.Thread(target=print).start()`,
  "a native library": `ctypes.CDLL("libc.so.6")`,
  "the module js": `__import__("js")`,
  "the module pyodide_js": `__import__("pyodide_js")`,
  "a worker": `javascript("return new Worker('data:text/javascript,')")`,
  "Deno": `javascript("return Deno.readTextFileSync('/etc/passwd')")`,
};

/** Names that Python's start and the snapshot put into the environment. */
const ENVIRONMENT = "HOME LANG LD_LIBRARY_PATH LOGNAME PATH PWD PYTHONHASHSEED PYTHONINSPECT USER _";

/** Writes the program, which ends well where all is refused; `memoryBytes` is more than it may have. */
export function denialsProgram(memoryBytes: number): string {
  const attempts = { ...ATTEMPTS, "memory beyond the limit": `bytearray(${memoryBytes})` };
  const lines = Object.entries(attempts).map(([name, code]) => `    ${JSON.stringify(name)}: lambda: ${code},`);
  return `import ctypes, os, socket, subprocess, sys, threading
def javascript(code):
    refused = sys.meta_path.pop(0)
    import _pyodide_core as bridge
    sys.meta_path.insert(0, refused)
    try:
        return bridge.to_js([]).constructor.constructor(code)()
    except bridge.JsException as error:
        raise PermissionError(str(error))
attempts = {
${lines.join("\n")}
}
for name, attempt in attempts.items():
    try:
        attempt()
    except (OSError, MemoryError, OverflowError):
        continue
    raise AssertionError(f"{name} was granted")
assert set(os.environ) <= set("${ENVIRONMENT}".split()), "the environment was granted"
`;
}
