// Values under the pointer, and with the arrow keys of a plot that has the focus. Without it the page shows all it has.
"use strict";
for (const plot of document.querySelectorAll("[data-found]")) {
  const found = JSON.parse(plot.dataset.found);
  const steps = [...new Set(found.curves.flatMap((curve) => curve.x))].sort((a, b) => a - b);
  if (steps.length === 0) continue;
  const tip = plot.appendChild(document.createElement("div"));
  tip.className = "tip";
  tip.setAttribute("role", "status");
  tip.hidden = true;
  let crosshair = null;
  let at = -1;
  plot.tabIndex = 0;

  const shown = () => [...plot.querySelectorAll("[data-frame]")].find((one) => one.offsetParent !== null);
  const make = (name, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };
  // The last of the ascending numbers that is not above the limit; -1 if there is none.
  const before = (numbers, limit) => {
    let low = -1;
    for (let high = numbers.length; high - low > 1; ) {
      const middle = (low + high) >> 1;
      if (numbers[middle] <= limit) low = middle;
      else high = middle;
    }
    return low;
  };
  const nearest = (step) => {
    const i = Math.max(before(steps, step), 0);
    return i + 1 < steps.length && steps[i + 1] - step < step - steps[i] ? i + 1 : i;
  };
  const text = (value) =>
    Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(4)));
  const hide = () => {
    if (crosshair) crosshair.remove();
    crosshair = null;
    tip.hidden = true;
    at = -1;
  };
  const show = (index) => {
    const drawing = shown();
    if (!drawing) return;
    hide();
    at = index;
    const frame = JSON.parse(drawing.dataset.frame);
    const svg = drawing.querySelector("svg");
    const [left, top, right, bottom] = frame.box;
    const scaled = (value) => (frame.log ? Math.log10(value) : value);
    const [low, high] = frame.y.map(scaled);
    const across = (step) => left + ((step - frame.x[0]) / (frame.x[1] - frame.x[0])) * (right - left);
    const down = (value) => bottom - ((scaled(value) - low) / (high - low)) * (bottom - top);
    const step = steps[index];
    const phase = found.phases.filter(([, first]) => first < step || first === 0).pop();

    crosshair = make("g", { class: "crosshair" });
    crosshair.append(make("line", { x1: across(step), x2: across(step), y1: top, y2: bottom }));
    tip.replaceChildren();
    const head = tip.appendChild(document.createElement("div"));
    head.className = "step";
    head.textContent = `step ${step.toLocaleString("en")}`;
    if (found.phases.length > 1) head.textContent += ` (${phase[0]}, ${(step - phase[1]).toLocaleString("en")})`;
    for (const curve of found.curves) {
      const i = before(curve.x, step);
      if (i < 0 || curve.y[i] === null) continue;
      const y = down(curve.y[i]);
      if (Number.isFinite(y) && y >= top - 1 && y <= bottom + 1)
        crosshair.append(make("circle", { cx: across(curve.x[i]), cy: y, r: 3, fill: curve.colour }));
      const row = tip.appendChild(document.createElement("div"));
      const swatch = row.appendChild(document.createElement("i"));
      swatch.style.background = curve.colour;
      row.append(`${curve.label} `);
      const value = row.appendChild(document.createElement("b"));
      value.textContent = text(curve.y[i]);
      if (curve.x[i] !== step && curve.form !== "dashed") row.append(` at ${curve.x[i].toLocaleString("en")}`);
    }
    svg.append(crosshair);
    tip.hidden = false;
    const around = plot.getBoundingClientRect();
    const area = svg.getBoundingClientRect();
    const x = area.left - around.left + (across(step) / svg.viewBox.baseVal.width) * area.width;
    const room = around.width - tip.offsetWidth;
    const beside = x + 12 > room ? x - 12 - tip.offsetWidth : x + 12;
    tip.style.left = `${Math.max(0, Math.min(beside, room))}px`;
    tip.style.top = `${area.top - around.top + (top / svg.viewBox.baseVal.height) * area.height}px`;
  };

  plot.addEventListener("pointermove", (event) => {
    const drawing = shown();
    if (!drawing) return;
    const frame = JSON.parse(drawing.dataset.frame);
    const svg = drawing.querySelector("svg");
    const area = svg.getBoundingClientRect();
    const x = ((event.clientX - area.left) / area.width) * svg.viewBox.baseVal.width;
    const share = (x - frame.box[0]) / (frame.box[2] - frame.box[0]);
    if (share < -0.05 || share > 1.05) return hide();
    show(nearest(frame.x[0] + share * (frame.x[1] - frame.x[0])));
  });
  plot.addEventListener("pointerleave", hide);
  plot.addEventListener("blur", hide);
  plot.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: -1, ArrowRight: 1 };
    if (event.key === "Escape") hide();
    if (!(event.key in moves)) return;
    event.preventDefault();
    const start = at < 0 ? (event.key === "ArrowLeft" ? steps.length : -1) : at;
    show(Math.max(0, Math.min(steps.length - 1, start + moves[event.key])));
  });
}
