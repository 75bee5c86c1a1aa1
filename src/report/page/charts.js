// Draws the curves of a report card with uPlot. The data lies in the page as JSON: [{title, x: [step], series: [{label, y: [value]}]}].
const style = getComputedStyle(document.documentElement);
const ink = style.getPropertyValue("--soft").trim();
const line = style.getPropertyValue("--line").trim();
const colours = [style.getPropertyValue("--blue").trim(), "#d9822b"];
for (const holder of document.querySelectorAll("[data-charts]")) {
  for (const { title, x, series } of JSON.parse(document.getElementById(holder.dataset.charts).textContent)) {
    const figure = document.createElement("figure");
    const caption = document.createElement("figcaption");
    caption.textContent = title;
    figure.append(caption);
    holder.append(figure);
    const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 } };
    const size = () => ({ width: Math.max(240, figure.clientWidth), height: 220 });
    const plot = new uPlot(
      {
        ...size(),
        scales: { x: { time: false } },
        axes: [axis, { ...axis, size: 64 }],
        series: [
          { label: "step" },
          ...series.map(({ label }, i) => ({ label, stroke: colours[i], width: 1.5, spanGaps: true })),
        ],
      },
      [x, ...series.map(({ y }) => y)],
      figure,
    );
    addEventListener("resize", () => plot.setSize(size()));
  }
}
