/**
 * Python as a tool of the chat model: what stands between the tool's marks is first offered to the calculator, then run as a program in
 * the sandbox (execution.ts).
 */
import type { Tool } from "./request.ts";
import { calculate } from "./calculator.ts";
import type { PythonPool } from "./execution.ts";

/** Characters of a result; the context of a small model is short. */
const RESULT_CAP = 400;

/** Makes a tool that gives the calculator's answer, else what the program printed or why it failed; null where it printed nothing. */
export function pythonTool(pool: Pick<PythonPool, "run">): Tool {
  return async (text) => {
    const number = calculate(text);
    if (number !== null) return number;
    const { kind, stdout, error } = await pool.run(interactive(text));
    const result = kind === "ok" ? stdout.trimEnd() : error;
    if (result === "") return null;
    return result.length > RESULT_CAP ? `${result.slice(0, RESULT_CAP)}...` : result;
  };
}

/** Writes a program that runs `text` as the interactive prompt does: the value of an expression is printed. */
function interactive(text: string): string {
  const source = JSON.stringify(text); // a Python literal too, lone surrogates included
  return `try:
    _code, _mode = compile(${source}, "<string>", "eval"), "eval"
except SyntaxError:
    _code, _mode = compile(${source}, "<string>", "exec"), "exec"
if _mode == "exec":
    exec(_code, {})
elif (_value := eval(_code, {})) is not None:
    print(_value)
`;
}
