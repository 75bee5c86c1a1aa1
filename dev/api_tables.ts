/** The tables of docs/api.md, from the tables that the server is made of. */
import { ENDPOINTS } from "../src/server/endpoints.ts";
import type { Parameter, Parameters } from "../src/server/parameters.ts";
import { describeSchema } from "../src/server/schema.ts";

const SUPPORT: Readonly<Record<Parameter["support"], string>> = {
  supported: "yes",
  ignored: "no effect",
  refused: "refused",
};

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  return [line(head), line(head.map(() => "---")), ...rows.map(line)].join("\n");
}

/** Lists the endpoints. */
export function endpointTable(): string {
  const rows = ENDPOINTS.map(({ method, path, summary }) => [`\`${method.toUpperCase()} ${path}\``, summary]);
  return table(["endpoint", "does"], [...rows, ["`GET /openapi.json`", "Describes all of them for programs."]]);
}

/** Lists the parameters of an endpoint. */
export function parameterTable(parameters: Parameters): string {
  const rows = Object.entries(parameters).map(([name, { support, schema, note, isRequired, isExtension }]) => {
    const remark = isRequired ? " (required)" : isExtension ? " (ours)" : "";
    const accepts = support === "refused" && schema.type === "null" ? "-" : describeSchema(schema);
    return [`\`${name}\`${remark}`, SUPPORT[support], accepts, note];
  });
  return table(["parameter", "supported", "accepts", "meaning"], rows);
}
