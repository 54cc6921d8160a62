"use strict";
const root = document.documentElement;

/* Hovering: the texts of <title> move into one tooltip, and stay as names for screen readers. */
const tip = document.getElementById("tip");
const tips = new WeakMap();
for (const title of document.querySelectorAll("svg title")) {
  const element = title.parentElement;
  tips.set(element, title.textContent);
  element.setAttribute("aria-label", title.textContent.replaceAll("\n", ", "));
  element.classList.add("tipped");
  title.remove();
}
function showTip(element, x, y) {
  tip.textContent = tips.get(element);
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  const right = x + 16 + box.width > innerWidth - 8 ? x - 16 - box.width : x + 16;
  tip.style.left = `${Math.max(8, right)}px`;
  tip.style.top = `${Math.max(8, Math.min(y + 14, innerHeight - box.height - 8))}px`;
}
function hideTip() { tip.hidden = true; }
document.addEventListener("pointermove", (event) => {
  const element = event.target instanceof Element ? event.target.closest(".tipped") : null;
  if (element) showTip(element, event.clientX, event.clientY); else hideTip();
});
document.addEventListener("pointerleave", hideTip);
document.addEventListener("scroll", hideTip, true);
document.addEventListener("focusin", (event) => {
  if (!(event.target instanceof Element) || !event.target.matches(".buffer")) return;
  const box = event.target.getBoundingClientRect();
  showTip(event.target, box.left + Math.min(box.width / 2, 200), box.top + box.height / 2);
});
document.addEventListener("focusout", hideTip);

/* Arrow keys inside a memory map go from buffer to buffer, in order of time. */
for (const map of document.querySelectorAll("svg.map")) {
  const buffers = [...map.querySelectorAll(".buffer")];
  map.parentElement.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    const now = buffers.indexOf(document.activeElement);
    const next = now < 0 ? (step > 0 ? 0 : buffers.length - 1) : now + step;
    if (next < 0 || next >= buffers.length) return;
    event.preventDefault();
    buffers[next].focus();
  });
}

/* A node of the operator graph lights up the lines that end at it. */
for (const graph of document.querySelectorAll("svg.operators")) {
  const edges = [...graph.querySelectorAll(".edge")];
  for (const node of graph.querySelectorAll(".node")) {
    const index = node.dataset.index;
    const own = edges.filter((edge) => edge.dataset.from === index || edge.dataset.to === index);
    node.addEventListener("pointerenter", () => own.forEach((edge) => edge.classList.add("lit")));
    node.addEventListener("pointerleave", () => own.forEach((edge) => edge.classList.remove("lit")));
  }
}

/* A map that is wider than its panel starts where its peak is in the middle. */
const centred = new Set();
function showPeaks() {
  for (const band of document.querySelectorAll(".peak-band")) {
    const panel = band.closest(".scroll");
    if (centred.has(panel) || !panel.clientWidth) continue;
    centred.add(panel);
    panel.scrollLeft = Number(band.getAttribute("x")) - panel.clientWidth / 2;
  }
}

/* Tabs: one graph at a time; without scripts all are shown. The address may name one: page.html#training. */
const tabs = [...document.querySelectorAll("[role=tab]")];
function choose(chosen, focus) {
  for (const tab of tabs) {
    const selected = tab === chosen;
    tab.setAttribute("aria-selected", String(selected));
    tab.tabIndex = selected ? 0 : -1;
    document.getElementById(tab.getAttribute("aria-controls")).hidden = !selected;
  }
  if (focus) chosen.focus();
  showPeaks();
}
tabs.forEach((tab, position) => {
  tab.addEventListener("click", () => choose(tab, false));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) choose(tabs[(position + step + tabs.length) % tabs.length], true);
  });
});
if (tabs.length) choose(tabs.find((tab) => tab.id === `tab-${location.hash.slice(1)}`) ?? tabs[0], false);

showPeaks();

root.dataset.script = "complete";
