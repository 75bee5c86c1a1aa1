import { assertEquals } from "@std/assert";
import { join } from "@std/path";
import { temporaryFolder } from "../../dev/testing.ts";
import { findRankLibraries, wrongVariables } from "./rank_libraries.ts";

/** Looks with these answers of the system; gives the paths. */
async function find(env: Record<string, string>, programs: Record<string, string> = {}) {
  const { mpi, nccl } = await findRankLibraries({
    run: (program) => Promise.resolve(programs[program]),
    env: (name) => env[name],
  });
  return [mpi.path, nccl.path];
}

Deno.test("findRankLibraries() asks variables, folders, Python's packages and the loader's list", async () => {
  using folder = temporaryFolder();
  const file = (...parts: string[]) => {
    const path = join(folder.path, ...parts);
    Deno.mkdirSync(join(path, ".."), { recursive: true });
    Deno.writeTextFileSync(path, "");
    return path;
  };
  assertEquals(await find({}), [null, null]);

  const list = "2 libs found in cache\n\tlibmpi.so.40 (libc6,x86-64) => /a/libmpi.so.40\n" +
    "\tlibmpich.so.12 (libc6,x86-64) => /a/libmpich.so.12\n\tlibnccl.so.2 (libc6) => /a/libnccl.so.2\n";
  assertEquals(await find({}, { "/sbin/ldconfig": list }), ["/a/libmpich.so.12", "/a/libnccl.so.2"]);

  const wheel = file("venv", "lib", "python3.13", "site-packages", "nvidia", "nccl", "lib", "libnccl.so.2");
  const [launcher, beside] = [file("mpi", "bin", "mpiexec"), file("mpi", "lib", "libmpi.so.12")];
  const env = { VIRTUAL_ENV: join(folder.path, "venv"), PATH: `/none:${join(launcher, "..")}` };
  assertEquals(await find(env, { ldconfig: list }), [beside, wheel]);
  assertEquals(await find({ NANOCHAT_MPIEXEC: launcher }), [beside, null]);

  const [mpi, nccl, given] = [file("own", "libmpi_abi.so.1"), file("own", "libnccl.so.2"), file("given.so")];
  const own = { ...env, LD_LIBRARY_PATH: `:${join(folder.path, "own")}` };
  assertEquals(await find(own), [mpi, nccl]);
  assertEquals(await find({ ...own, NANOCHAT_NCCL: given }), [mpi, given]);
  assertEquals(await find({ ...own, NANOCHAT_NCCL: "/none", NANOCHAT_MPIEXEC: "/none" }), [mpi, nccl]);
  const saidOf = (env: Record<string, string>) => wrongVariables({ env: (name) => env[name] });
  assertEquals(saidOf({ NANOCHAT_NCCL: given, NANOCHAT_MPIEXEC: launcher }), []);
  const said = saidOf({ NANOCHAT_NCCL: "/none", NANOCHAT_MPIEXEC: folder.path });
  assertEquals(said.map((text) => text.split(", which is not there")[0]), [
    'NANOCHAT_NCCL names "/none"',
    `NANOCHAT_MPIEXEC names "${folder.path}"`,
  ]);
});
