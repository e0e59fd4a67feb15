"use strict";
const chart = document.getElementById("chart");
const tip = document.getElementById("tip");
const pane = chart.querySelector(".body .pane");
const buttons = [...document.querySelectorAll("[data-zoom]")];
let zoom = 1, offset = 0;

function show(newZoom, newOffset) {
  zoom = Math.min(Math.max(newZoom, 1), 400);
  offset = Math.min(Math.max(newOffset, 0), 1 - 1 / zoom);
  chart.style.setProperty("--zoom", zoom);
  chart.style.setProperty("--offset", offset);
  const hour = buttons.length > 1 ? pane.clientWidth * zoom / (24 * Number(buttons[1].dataset.zoom.split(",")[0])) : 0;
  chart.dataset.level = hour > 45 ? 3 : hour > 14 ? 2 : 1;
  for (const button of buttons) {
    const [z, o] = button.dataset.zoom.split(",").map(Number);
    const same = Math.abs(z - zoom) < 1e-3 && Math.abs(Math.min(Math.max(o, 0), 1 - 1 / z) - offset) < 1e-3;
    button.setAttribute("aria-pressed", same);
  }
}

function zoomAt(factor, share) {
  const at = offset + share / zoom;
  const next = Math.min(Math.max(zoom * factor, 1), 400);
  show(next, at - share / next);
}

for (const button of buttons) button.onclick = () => show(...button.dataset.zoom.split(",").map(Number));
for (const button of document.querySelectorAll("[data-step]"))
  button.onclick = () => zoomAt(Number(button.dataset.step), 0.5);
document.getElementById("theme").onclick = () => {
  const dark = getComputedStyle(document.documentElement).colorScheme === "dark"
    || (document.documentElement.style.colorScheme === "" && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.style.colorScheme = dark ? "light" : "dark";
};

chart.addEventListener("wheel", event => {
  const box = pane.getBoundingClientRect();
  if (event.ctrlKey || event.metaKey) {
    zoomAt(Math.exp(-event.deltaY / 300), (event.clientX - box.left) / box.width);
  } else if (Math.abs(event.deltaX) > Math.abs(event.deltaY) || event.shiftKey) {
    show(zoom, offset + (event.deltaX || event.deltaY) / box.width / zoom);
  } else {
    return;
  }
  event.preventDefault();
}, {passive: false});

chart.addEventListener("keydown", event => {
  const keys = {
    ArrowLeft: () => show(zoom, offset - 0.1 / zoom),
    ArrowRight: () => show(zoom, offset + 0.1 / zoom),
    "+": () => zoomAt(1.5, 0.5),
    "-": () => zoomAt(1 / 1.5, 0.5),
    "0": () => show(1, 0),
  };
  if (event.ctrlKey || event.metaKey || !(event.key in keys)) return;
  keys[event.key]();
  event.preventDefault();
});

let held = null;
chart.addEventListener("pointerdown", event => {
  if (event.button === 0 && event.target.closest(".pane")) held = {x: event.clientX, offset};
});
addEventListener("pointerup", () => { held = null; });

function tell(event) {
  const said = event.target.closest("[data-t]"), node = event.target.closest("[data-n]");
  tip.hidden = held !== null || !(said || node);
  if (tip.hidden) return;
  tip.textContent = "";
  if (node) {
    const [name, ...more] = node.dataset.n.split("\n");
    const title = document.createElement("b");
    title.textContent = name;
    tip.append(title, more.join("\n"), said ? "\n\n" : "");
  }
  if (said) tip.append(said.dataset.t);
  const {width, height} = tip.getBoundingClientRect();
  const right = event.clientX + 16 + width < innerWidth;
  tip.style.left = `${right ? event.clientX + 16 : Math.max(event.clientX - 16 - width, 4)}px`;
  tip.style.top = `${Math.max(Math.min(event.clientY + 16, innerHeight - height - 8), 4)}px`;
}
chart.addEventListener("pointermove", event => {
  if (held) show(zoom, held.offset - (event.clientX - held.x) / pane.clientWidth / zoom);
  tell(event);
});
chart.addEventListener("pointerleave", () => { tip.hidden = true; });

addEventListener("resize", () => show(zoom, offset));
const asked = location.hash.slice(1).split(",").map(Number);
show(...(asked.length === 2 && asked.every(Number.isFinite) ? asked : [1, 0]));
