import { assert, assertEquals } from "@std/assert";
import { delay } from "@std/async";
import { testApp } from "./app_testing.ts";
import { Metrics } from "./metrics.ts";
import { ScriptedService } from "./models_testing.ts";
import { Counts, figure, Histogram, prometheusText } from "./prometheus.ts";

Deno.test("prometheusText() writes counters, gauges and histograms as Prometheus reads them", () => {
  const counts = new Counts();
  counts.add({ route: '/a"b\\c\nd', status: "200" });
  counts.add({ route: '/a"b\\c\nd', status: "200" });
  counts.add({ route: "/", status: "404" });
  const times = new Histogram(["times", "Times."], [0.1, 1]);
  for (const value of [0.05, 0.1, 0.5, 7]) times.observe(value);
  const text = prometheusText([
    figure("counter", ["requests_total", "Requests."], () => counts),
    figure("gauge", ["open", "Open ones."], () => 2.5),
    times,
  ]);
  assertEquals(
    text,
    `# HELP requests_total Requests.
# TYPE requests_total counter
requests_total{route="/a\\"b\\\\c\\nd",status="200"} 2
requests_total{route="/",status="404"} 1
# HELP open Open ones.
# TYPE open gauge
open 2.5
# HELP times Times.
# TYPE times histogram
times_bucket{le="0.1"} 2
times_bucket{le="1"} 3
times_bucket{le="+Inf"} 4
times_sum 7.65
times_count 4
`,
  );
});

/** Reads the figures of a server. */
async function read(metrics: Metrics): Promise<Map<string, number>> {
  const { app } = testApp(undefined, { metrics: () => metrics.text() });
  const lines = (await (await app.request("/metrics")).text()).trimEnd().split("\n").filter((line) =>
    !line.startsWith("#")
  );
  return new Map(
    lines.map((line) => [line.slice(0, line.lastIndexOf(" ")), Number(line.slice(line.lastIndexOf(" ") + 1))]),
  );
}

Deno.test("Metrics counts requests by the route that took them", async () => {
  const metrics = new Metrics(new ScriptedService());
  const { app } = testApp(undefined, { middleware: [metrics.count()] });
  for (const path of ["/health", "/v1/models/d4", "/v1/models/x", "/nowhere/%0a", "/nowhere/2"]) {
    await app.request(path);
  }
  const figures = [...await read(metrics)].filter(([name]) => name.startsWith("nanochat_requests_total"));
  assertEquals(Object.fromEntries(figures), {
    'nanochat_requests_total{route="/health",method="GET",status="200"}': 1,
    'nanochat_requests_total{route="/v1/models/{id}",method="GET",status="200"}': 1,
    'nanochat_requests_total{route="/v1/models/{id}",method="GET",status="404"}': 1,
    'nanochat_requests_total{route="other",method="GET",status="404"}': 2,
  });
});

Deno.test("Metrics takes the times of streams, and shows the service's figures", async () => {
  const service = new ScriptedService(() => ["Hel", "lo"]);
  service.figures = { queued: 3, generatedTokens: 40, steps: 10, cachedTokens: 7 };
  const metrics = new Metrics(service);
  const request = { model: "d4", choices: 2 } as Parameters<typeof service.generate>[0];
  const events = [];
  for await (const event of metrics.watched.generate(request, new AbortController().signal)) events.push(event.type);
  assertEquals(events, ["start", "piece", "piece", "end", "end"], "the stream is what it was");
  const figures = await read(metrics);
  assertEquals(figures.get("nanochat_time_to_first_token_seconds_count"), 1, "the second choice has no text");
  assertEquals(figures.get("nanochat_time_per_token_seconds_count"), 1);
  assertEquals(figures.get("nanochat_queued_requests"), 3);
  assertEquals(figures.get("nanochat_cached_tokens_total"), 7);
  assert(figures.get("process_resident_memory_bytes")! > 1e6);
});

Deno.test("Metrics watches the event loop while requests run, and no longer", async () => {
  const service = new ScriptedService();
  const metrics = new Metrics(service);
  const count = async () => (await read(metrics)).get("nanochat_event_loop_delay_seconds_count")!;
  const until = async (wanted: (count: number) => boolean) => {
    const endMs = performance.now() + 5000;
    while (!wanted(await count()) && performance.now() < endMs) await delay(10);
    return await count();
  };
  assertEquals(await count(), 0);
  metrics.begun();
  metrics.begun();
  metrics.ended();
  const first = await until((count) => count >= 3);
  assert(first >= 3);
  for (const endMs = performance.now() + 60; performance.now() < endMs;); // nobody else gets a turn
  service.figures = { generatedTokens: 100, steps: 10 };
  await until((count) => count > first);
  const late = await read(metrics);
  const [all, quick] = ["+Inf", "0.02"].map((le) => late.get(`nanochat_event_loop_delay_seconds_bucket{le="${le}"}`)!);
  assert(all > quick, "the delay of 60 ms is among them");
  assertEquals(late.get("nanochat_batch_size_mean"), 10);
  assert(late.get("nanochat_tokens_per_second")! > 0);
  metrics.ended();
  await delay(30);
  const last = await count();
  await delay(50);
  assertEquals(await count(), last, "at rest no timer runs");
});
