import { assert } from "@std/assert";
import { join } from "@std/path";
import { checkMutations, temporaryFolder } from "../../dev/testing.ts";
import { noFindings, readDocuments } from "./documents.ts";

Deno.test("readDocuments() survives 2,000 seeded mutations of text, JSON lines and gzip with one error each", async () => {
  using folder = temporaryFolder();
  const rows = Array.from({ length: 20 }, (_, i) => JSON.stringify({ n: i, text: `Zeile ${i}: 語言 "quoted"\n` }));
  const lines = new TextEncoder().encode(rows.join("\n"));
  const packed = new Blob([lines]).stream().pipeThrough(new CompressionStream("gzip"));
  const files = [
    { name: "a.txt", bytes: new TextEncoder().encode("Ein Text in Absätzen.\n\n".repeat(40)) },
    { name: "a.jsonl", bytes: lines },
    { name: "a.jsonl.gz", bytes: new Uint8Array(await new Response(packed).arrayBuffer()) },
  ];
  await checkMutations({
    files: files.map(({ bytes }) => bytes),
    read: async (bytes, file) => {
      const path = join(folder.path, files[file].name);
      Deno.writeFileSync(path, bytes);
      const options = { key: "text", pieceBytes: 256, findings: noFindings() };
      const strict = new TextDecoder("utf-8", { fatal: true });
      let size = 0;
      for await (const document of readDocuments(path, options)) size += strict.decode(document).length;
      // Text is kept whatever it holds; U+FFFD has three bytes.
      assert(file !== 0 || size <= 3 * bytes.length);
    },
    errors: [Error],
    refused: 0.4,
  });
});
