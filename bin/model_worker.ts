/** Entry of the thread that runs a model behind `nanochat serve`. */
import { serveThread, type WorkerScope } from "../src/server/worker.ts";

serveThread(self as unknown as WorkerScope);
