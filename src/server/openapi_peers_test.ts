/** Schemathesis, which makes requests of every kind from an OpenAPI document, finds no 5xx, no undocumented answer and no hang. */
import { assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { peerTest, runPython } from "../../dev/peers.ts";
import { temporaryFolder, testRuns, testSeed } from "../../dev/testing.ts";
import { testApp } from "./app_testing.ts";
import { ENDPOINTS } from "./endpoints.ts";
import { Listener } from "./listener.ts";

const EXAMPLES = 25;
const CHECKS = [
  "not_a_server_error",
  "status_code_conformance",
  "content_type_conformance",
  "response_headers_conformance",
  "response_schema_conformance",
  "negative_data_rejection",
  "unsupported_method",
  "allow_header_conformance",
];

peerTest("quick", "schemathesis finds nothing against our own OpenAPI document", async () => {
  using folder = temporaryFolder();
  const { app } = testApp();
  const listener = await Listener.open((request) => app.fetch(request), { host: "127.0.0.1", port: 0 });
  try {
    const output = await runPython("dev/peers/schemathesis_run.py", {
      args: [
        `http://127.0.0.1:${listener.port}/openapi.json`,
        `--checks=${CHECKS.join(",")}`,
        "--phases=examples,coverage,fuzzing",
        `--max-examples=${testRuns(EXAMPLES)}`,
        `--seed=${testSeed()}`,
        "--request-timeout=10",
        "--max-response-time=10",
        "--no-shrink",
        `--report-dir=${join(folder.path, "report")}`,
      ],
      deadlineMs: 5 * 60_000,
    });
    assertStringIncludes(output, `Tested: ${ENDPOINTS.length}\n`);
  } finally {
    await listener.close();
  }
});
